/** One pull and the notes about it: its progress, its obstacles, and the digest that it ended with. */

import type { Engine, ImageInfo } from '../engine/port.ts';
import type { Emit } from '../report/events.ts';

/** @throws what `pullImage` of the port throws */
export async function pullTold(
  engine: Engine,
  ref: string,
  { emit, signal }: { emit: Emit; signal?: AbortSignal | undefined },
): Promise<ImageInfo> {
  const info = await engine.pullImage(
    ref,
    ({ message, done, total, isTrouble }) => {
      if (done !== undefined)
        emit({ type: 'progress', label: `pulling ${ref}`, done, total: total ?? null, unit: 'bytes' });
      else
        emit({
          type: 'note',
          level: isTrouble ? 'warning' : 'detail',
          message: `pulling ${ref}: ${message}`,
        });
    },
    signal,
  );
  const digest = ref.includes('@') ? undefined : digestRefOf(ref, info)?.split('@')[1];
  emit({ type: 'note', level: 'info', message: `pulled ${ref}${digest ? ` (${digest})` : ''}` });
  return info;
}

/**
 * Pure: `ref` by digest, so that the same image can be had again; null for one that never was in a registry. Of several
 * repositories the one that `ref` names counts: it is the one that this operator can reach.
 */
export function digestRefOf(ref: string, { repoDigests }: Pick<ImageInfo, 'repoDigests'>): string | null {
  const wanted = repositoryOf(ref);
  return repoDigests.find((one) => repositoryOf(one) === wanted) ?? repoDigests[0] ?? null;
}

/** "docker.io/library/nginx:1.30" → "nginx", "127.0.0.1:5000/a@sha256:…" → "127.0.0.1:5000/a" */
function repositoryOf(ref: string): string {
  return ref
    .replace(/@.*$/, '')
    .replace(/:[^/]*$/, '')
    .replace(/^(index\.)?docker\.io\//, '')
    .replace(/^library\//, '');
}
