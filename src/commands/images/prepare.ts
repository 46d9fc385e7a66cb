/** `gameops images prepare`: pulls or builds every image, so that a deploy needs no registry. */

import type { Engine } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import { gameImage } from '../../images/bundled.ts';
import { digestRefOf, pullTold } from '../../images/pull.ts';
import { imageRoles, prepareImages } from '../../images/roles.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { originOfImage } from '../../release/origin.ts';
import { shortId } from '../../units.ts';

const sources = ['auto', 'registry', 'debian'] as const;
type Source = (typeof sources)[number];

interface Row {
  role: string;
  ref: string;
  id: string;
  source: string;
  digestRef: string | null;
}

export async function run(context: Context, options: { source?: string } = {}): Promise<Outcome> {
  const source = sourceOf(options.source ?? 'auto');
  const engine = await context.engine();
  const { emit, signal, config } = context;
  const own =
    originOfImage(config.server.image) === 'bundled' ? null : await ownImage(engine, context, source);
  const prepared = await prepareImages(engine, config, { source, emit, signal });
  const images: Row[] = imageRoles.map((role) => ({ role, ...prepared[role] }));
  if (own) images.push(own);
  else {
    const game = await gameImage(engine, { nodeImage: prepared.node.id, emit });
    images.push({ role: 'game', ref: game.tag, id: game.id, source: 'built', digestRef: null });
  }
  return { ok: true, result: { images }, text: () => table(images) };
}

/** The image of an own game server can only come from its registry. */
async function ownImage(engine: Engine, context: Context, source: Source): Promise<Row> {
  const ref = context.config.server.image;
  const present = source === 'registry' ? null : await engine.image(ref);
  const info = present ?? (await pullTold(engine, ref, context));
  const from = present ? 'engine' : 'registry';
  return { role: 'game', ref, id: info.id, source: from, digestRef: digestRefOf(ref, info) };
}

function table(images: readonly Row[]): string {
  const width = Math.max(...images.map(({ ref }) => ref.length));
  const lines = images.map(
    ({ role, ref, id, source, digestRef }) =>
      `${role.padEnd(9)} ${ref.padEnd(width)}  ${shortId(id)}  ${source}${digestRef ? `  ${digestRef.split('@')[1]}` : ''}`,
  );
  return [...lines, 'Next: gameops deploy'].join('\n');
}

function sourceOf(text: string): Source {
  const source = sources.find((name) => name === text);
  if (source) return source;
  throw new OpsError('USAGE', {
    message: `--source expects one of ${sources.join(', ')}, not "${text}".`,
    next: ['gameops images prepare --source auto'],
    facts: { source: text },
  });
}
