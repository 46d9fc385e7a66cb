/**
 * Puts a web page into the web volume, one folder a release. Files under assets/ are named by their content and shared
 * by all releases, so a page that was loaded before a switch still finds what it asks for. Never removes anything.
 */
import { namesOf } from '../contract.ts';
import type { Engine } from '../engine/port.ts';

export interface PageFile {
  path: string;
  content: Uint8Array;
}

/** @param options.foreign names of the operator's own files say nothing about their content: none is shared */
export async function publishPage(
  engine: Engine,
  project: string,
  release: number,
  files: readonly PageFile[],
  options: { foreign?: boolean } = {},
): Promise<void> {
  const isShared = (file: PageFile) => !options.foreign && file.path.startsWith('assets/');
  const entries = files.map((file) => ({
    path: isShared(file) ? file.path : `r-${release}/${file.path}`,
    content: file.content,
    mode: 0o644,
  }));
  await engine.putFiles(project, namesOf(project).volume.web, entries);
}
