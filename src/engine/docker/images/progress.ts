/** The engine's progress streams: JSON lines that carry failures, too, in-band and with status 200. */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

export interface ProgressEvent {
  /** Of a pull: the layer. */
  id?: string;
  status?: string;
  stream?: string;
  error?: string;
  errorDetail?: { message?: string };
  progressDetail?: { current?: number; total?: number };
}

/** Reads the stream to its end. The error it reported in-band, or null. @throws when the connection breaks */
export async function follow(
  stream: Readable,
  onEvent: (event: ProgressEvent) => void,
): Promise<string | null> {
  let failed: string | null = null;
  for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === '') continue;
    const event = JSON.parse(line) as ProgressEvent;
    if (event.error !== undefined) failed ??= event.errorDetail?.message ?? event.error;
    onEvent(event);
  }
  return failed;
}
