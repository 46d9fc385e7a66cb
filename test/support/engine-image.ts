/** An image for tests that need a real engine: GAMEOPS_TEST_IMAGE, else any that `gameops images prepare` made. */
import Docker from 'dockerode';
import { label } from '../../src/contract.ts';

export async function engineImage(): Promise<string> {
  const named = process.env.GAMEOPS_TEST_IMAGE;
  if (named) return named;
  const filters = { label: [label.content, `${label.role}=image`] };
  const [first] = await new Docker().listImages({ filters: JSON.stringify(filters) });
  if (first === undefined)
    throw new Error('no image for tests on the engine: run `gameops images prepare` first');
  return first.RepoTags?.[0] ?? first.Id;
}
