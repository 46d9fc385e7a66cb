/** Images for tests that need a real engine: the ones that `gameops images prepare` got, or GAMEOPS_TEST_IMAGE. */
import { defaultConfig } from '../../../src/config.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import { type ImageRole, resolveImages } from '../../../src/images/roles.ts';

export async function engineImage(role: ImageRole = 'nginx'): Promise<string> {
  const named = process.env.GAMEOPS_TEST_IMAGE;
  if (named) return named;
  const engine = await dockerEngine();
  try {
    const { ref, info } = (await resolveImages(engine, defaultConfig()))[role];
    if (info === null) throw new Error(`${ref} is not on the engine: run \`gameops images prepare\` first`);
    return ref;
  } finally {
    await engine.close();
  }
}
