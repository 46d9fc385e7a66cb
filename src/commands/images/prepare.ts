/** `gameops images prepare`: has every image on the engine, so that a deploy needs no registry. */

import { imageRoles, prepareImages } from '../../engine/images.ts';
import { gameImage } from '../../engine/images-game.ts';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../context.ts';

const sources = ['auto', 'registry', 'debian'] as const;
type Source = (typeof sources)[number];

interface Row {
  role: string;
  ref: string;
  id: string;
  source: string;
}

export async function run(context: Context, options: { source?: string } = {}): Promise<Outcome> {
  const source = sourceOf(options.source ?? 'auto');
  const engine = await context.engine();
  const { emit, signal, config } = context;
  const prepared = await prepareImages(engine, config, { source, emit, signal });
  const images: Row[] = imageRoles.map((role) => ({ role, ...prepared[role] }));
  if (config.server.image === 'bundled') {
    const game = await gameImage(engine, { nodeImage: prepared.node.id, emit });
    images.push({ role: 'game', ref: game.tag, id: game.id, source: 'built' });
  }
  return { ok: true, result: { images }, text: () => table(images) };
}

function table(images: readonly Row[]): string {
  const width = Math.max(...images.map(({ ref }) => ref.length));
  const lines = images.map(
    ({ role, ref, id, source }) =>
      `${role.padEnd(9)} ${ref.padEnd(width)}  ${id.replace('sha256:', '').slice(0, 12)}  ${source}`,
  );
  return [...lines, 'Next: gameops deploy'].join('\n');
}

function sourceOf(text: string): Source {
  const source = sources.find((name) => name === text);
  if (source) return source;
  throw new OpsError('USAGE', {
    message: `--source is one of ${sources.join(', ')}; "${text}" is none of them.`,
    next: ['gameops images prepare --source auto'],
    facts: { source: text },
  });
}
