/**
 * Puts a web page into the web volume, one folder a release. Files under assets/ are named by their content and shared
 * by all releases, so a page that was loaded before a switch still finds what it asks for. Never removes anything.
 * The last file written says which page it was: without it, what lies there is torn, or of another record's release.
 */
import { namesOf } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import type { Release } from '../release/model.ts';

export interface PageFile {
  path: string;
  content: Uint8Array;
}

/** Beside the folders that Nginx serves. */
const publishedFolder = 'published';

type Paged = Pick<Release, 'id' | 'page'>;

/** True when this very page is there, and whole. */
export async function isPublished(engine: Engine, project: string, { id, page }: Paged): Promise<boolean> {
  const marks = await engine.readFiles(project, namesOf(project).volume.web, publishedFolder);
  return page !== null && Buffer.from(marks.get(String(id)) ?? []).toString('utf8') === page;
}

/** @param options.foreign names of the operator's own files say nothing about their content: none is shared */
export async function publishPage(
  engine: Engine,
  project: string,
  { id, page }: Paged,
  files: readonly PageFile[],
  options: { foreign?: boolean } = {},
): Promise<void> {
  const isShared = (file: PageFile) => !options.foreign && file.path.startsWith('assets/');
  const entries = files.map((file) => ({
    path: isShared(file) ? file.path : `r-${id}/${file.path}`,
    content: file.content,
    mode: 0o644,
  }));
  const mark = { path: `${publishedFolder}/${id}`, content: page ?? '', mode: 0o644 };
  await engine.putFiles(project, namesOf(project).volume.web, [...entries, mark]);
}
