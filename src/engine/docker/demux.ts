/**
 * Takes apart the multiplexed stream of attach, exec and logs: frames of [stream, 0, 0, 0, length (uint32 BE)] + payload.
 * Promises linear time and constant stack for any cut of the bytes; dockerode's own demuxer copies what remains per
 * frame and recurses. Never interprets the text.
 * https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
 */
import { megabyte } from '../../units.ts';

const headerBytes = 8;

export type Frame = { stream: 'stdout' | 'stderr'; payload: Buffer };

/** Feed it chunks; it calls back once per piece of payload, in order. A frame cut in two comes as two pieces. */
export function demuxer(onFrame: (frame: Frame) => void): (chunk: Buffer) => void {
  const header = Buffer.alloc(headerBytes);
  let headerHave = 0;
  let payloadLeft = 0;
  let stream: Frame['stream'] = 'stdout';
  return (chunk) => {
    let at = 0;
    while (at < chunk.length) {
      if (payloadLeft > 0) {
        const payload = chunk.subarray(at, at + payloadLeft);
        payloadLeft -= payload.length;
        at += payload.length;
        onFrame({ stream, payload });
        continue;
      }
      const copied = chunk.copy(header, headerHave, at, at + headerBytes - headerHave);
      headerHave += copied;
      at += copied;
      if (headerHave === headerBytes) {
        stream = header[0] === 2 ? 'stderr' : 'stdout';
        payloadLeft = header.readUInt32BE(4);
        headerHave = 0;
      }
    }
  };
}

/** Keeps the last `bytesMax` of each stream: a program that talks for hours must not fill our memory. */
export function collectOutput(bytesMax = 8 * megabyte) {
  const kept = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const bytes = { stdout: 0, stderr: 0 };
  const feed = demuxer(({ stream, payload }) => {
    kept[stream].push(payload);
    bytes[stream] += payload.length;
    while (bytes[stream] - (kept[stream][0]?.length ?? 0) >= bytesMax)
      bytes[stream] -= kept[stream].shift()?.length ?? 0;
  });
  return {
    feed,
    stdout: () => Buffer.concat(kept.stdout).toString('utf8'),
    stderr: () => Buffer.concat(kept.stderr).toString('utf8'),
  };
}

/** Lines of both streams in the order they were written. */
export function linesOf(multiplexed: Buffer): string[] {
  const lines: string[] = [];
  const open = { stdout: '', stderr: '' };
  demuxer(({ stream, payload }) => {
    const parts = (open[stream] + payload.toString('utf8')).split('\n');
    open[stream] = parts.pop() ?? '';
    lines.push(...parts);
  })(multiplexed);
  for (const rest of [open.stdout, open.stderr]) if (rest !== '') lines.push(rest);
  return lines;
}
