/** The terminal's view of events. */
import type { Emit } from './events.ts';
import type { Style } from './style.ts';

export function terminalSink(
  _stream: NodeJS.WriteStream,
  _options: { style: Style; isQuiet: boolean; isVerbose: boolean },
): Emit & { end(): void } {
  return Object.assign(() => undefined, { end: () => undefined });
}
