/**
 * FileEntry ↔ tar, in memory. Folders are made as needed, 0755 and root's; files are root's and 0644 unless told.
 * Files are as old as their writing: Nginx makes an ETag of time and size alone, so two pages of one length that were
 * equally old would pass for each other.
 */
import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import tar from 'tar-stream';
import type { FileEntry } from '../port.ts';

export function tarOf(files: readonly FileEntry[]): tar.Pack {
  const pack = tar.pack();
  const mtime = new Date();
  for (const folder of foldersOf(files))
    pack.entry({ name: `${folder}/`, type: 'directory', mode: 0o755, mtime });
  for (const { path, content, mode = 0o644, uid = 0, gid = 0, linkTo, isFolder } of files) {
    const name = inside(path);
    if (isFolder) pack.entry({ name: `${name}/`, type: 'directory', mode, uid, gid, mtime });
    else if (linkTo !== undefined)
      pack.entry({ name, type: 'symlink', linkname: linkTo, mode: 0o777, uid, gid, mtime });
    else pack.entry({ name, mode, uid, gid, mtime }, bytesOf(content));
  }
  pack.finalize();
  return pack;
}

export function bytesOf(content: Uint8Array | string): Buffer {
  return typeof content === 'string' ? Buffer.from(content, 'utf8') : Buffer.from(content);
}

/** The path, normal and relative. @throws when it would leave its folder: a bug of the caller */
export function inside(path: string): string {
  const normal = posix.normalize(path).replace(/^\.\//, '').replace(/\/$/, '');
  if (
    normal === '..' ||
    normal.startsWith('../') ||
    normal.startsWith('/') ||
    normal === '.' ||
    normal === ''
  ) {
    throw new Error(`file path ${JSON.stringify(path)} is not inside its folder`);
  }
  return normal;
}

/** Parents first. */
function foldersOf(files: readonly FileEntry[]): string[] {
  const folders = new Set<string>();
  for (const { path } of files) {
    for (let at = posix.dirname(inside(path)); at !== '.'; at = posix.dirname(at)) folders.add(at);
  }
  return [...folders].sort((a, b) => (a < b ? -1 : 1));
}

/** Regular files of a tar by their path without its first `strip` parts. */
export async function filesOf(stream: Readable, strip: number): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const extract = tar.extract();
  stream.on('error', (error) => extract.destroy(error));
  stream.pipe(extract);
  for await (const entry of extract) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    const parts = entry.header.name.split('/').filter((part) => part !== '' && part !== '.');
    if (entry.header.type === 'file') files.set(parts.slice(strip).join('/'), Buffer.concat(chunks));
  }
  return files;
}
