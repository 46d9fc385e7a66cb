/** `gameops host setup`: makes sure that a Docker Engine answers. host/setup.ts decides how. */
import { hostSetup } from '../../host/setup.ts';
import type { Context, Outcome } from '../../operations/context.ts';

export async function run(context: Context): Promise<Outcome> {
  const { engine, installed, started } = await hostSetup({ emit: context.emit });
  const how = installed ? 'installed and started' : started ? 'started' : 'was already there';
  return {
    ok: true,
    result: { engine, installed, started },
    text: () =>
      `Docker Engine ${engine.version} (API ${engine.apiVersion}, ${engine.platform}) answers: ${how}.\nNext: gameops images prepare`,
  };
}
