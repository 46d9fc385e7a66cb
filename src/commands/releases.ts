/** gameops releases: every release on record, newest first, and whether a rollback to it is instant. */

import type { Context, Outcome, Style } from '../operations/context.ts';
import { readProject } from '../operations/project.ts';
import type { Release } from '../release/model.ts';
import { columns } from '../report/table.ts';
import { shortId } from '../units.ts';

interface ReleaseLine
  extends Pick<
    Release,
    | 'id'
    | 'verdict'
    | 'image'
    | 'imageRef'
    | 'digestRef'
    | 'replicas'
    | 'createdAt'
    | 'createdBy'
    | 'reason'
    | 'migrations'
    | 'backup'
  > {
  /** Its containers are kept: a rollback starts them instead of making new ones. */
  kept: boolean;
}

export async function run(context: Context): Promise<Outcome> {
  const { record, observed } = await readProject(context);
  const fleets = observed?.world.fleets ?? [];
  const releases: ReleaseLine[] = (record?.releases ?? [])
    .map((release) => {
      const { id, verdict, image, imageRef, digestRef, replicas, createdAt, createdBy, reason } = release;
      const kept = fleets.some((fleet) => fleet.release === id && fleet.replicas.length >= replicas);
      const { migrations, backup } = release;
      const what = { id, verdict, image, imageRef, digestRef, replicas, migrations, backup };
      return { ...what, createdAt, createdBy, reason, kept };
    })
    .sort((a, b) => b.id - a.id);
  return { ok: true, result: { releases }, text: (style) => releasesText(style, releases) };
}

function releasesText(style: Style, releases: readonly ReleaseLine[]): string {
  if (releases.length === 0) return 'no releases yet\n  next: gameops deploy';
  const rows = releases.map((one) => [
    String(one.id),
    one.verdict === 'live'
      ? style.green(one.verdict)
      : one.verdict === 'failed'
        ? style.red(one.verdict)
        : one.verdict,
    `×${one.replicas}`,
    one.createdAt.replace('T', ' ').slice(0, 19),
    one.createdBy,
    one.imageRef,
    // A tag moves: two releases of one reference may be two images.
    shortId(one.image),
    one.reason ?? (one.kept && one.verdict !== 'live' ? 'kept for rollback' : ''),
  ]);
  return columns(rows).join('\n');
}
