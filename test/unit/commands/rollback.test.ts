/** Which release a rollback goes to, and what it advises when there is none. */
import { expect, it } from 'vitest';
import { chooseTarget } from '../../../src/commands/rollback.ts';
import type { Context } from '../../../src/operations/context.ts';
import type { ProjectRecord } from '../../../src/record/record.ts';
import type { World } from '../../../src/release/model.ts';
import { intent, liveWorld, release, world } from '../../support/memory/worlds.ts';

const choose = (seen: World, to?: number) =>
  chooseTarget({ project: 'arena' } as Context, { releases: seen.releases } as ProjectRecord, seen, to);

it('a rollback without a target goes to the newest release that served before the live one', () => {
  const releases = [release(38, 'superseded'), release(39, 'failed'), release(40, 'live')];
  expect(choose(liveWorld({ releases })).id).toBe(38);
});

it('a rollback that has no target names the release that is live, and the way to a corrected one', () => {
  expect(() => choose(liveWorld())).toThrowError(
    expect.objectContaining({
      message: expect.stringContaining('No release of arena served before release 40.'),
      next: ['gameops releases', 'gameops deploy --image <ref>'],
    }),
  );
  expect(() => choose(world())).toThrowError(/No release of arena served so far\./);
});

it('a rollback that has no target advises abort first while a deploy is unfinished', () => {
  const releases = [release(39, 'rolled-back'), release(40, 'live'), release(41, 'candidate')];
  expect(() => choose(liveWorld({ releases, intent: intent(41) }))).toThrowError(
    expect.objectContaining({ next: ['gameops abort', 'gameops resume', 'gameops rollback --to 39'] }),
  );
});
