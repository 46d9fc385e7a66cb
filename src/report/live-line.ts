/**
 * One line at the bottom of a terminal that is drawn over and over while something runs. It appears only on a terminal.
 * (log-update would do, but its maintained line needs Node 22.)
 */
import { clearLine, cursorTo } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';
import stringWidth from 'fast-string-width';

export interface LiveLine {
  /** `draw` is called again for every frame; null removes the line. */
  show(draw: ((frame: string) => string) | null): void;
  /** Writes a line above that stays. */
  print(line: string): void;
  end(): void;
}

const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const frameMs = 100;

/** @param clean changes everything before it is written */
export function liveLine(stream: NodeJS.WriteStream, clean: (text: string) => string): LiveLine {
  let draw: ((frame: string) => string) | null = null;
  let at = 0;
  const erase = () => {
    if (!stream.isTTY) return;
    cursorTo(stream, 0);
    clearLine(stream, 0);
  };
  const paint = () => {
    if (!stream.isTTY || draw === null) return;
    erase();
    stream.write(fitting(clean(draw(frames[at++ % frames.length] ?? '')), stream.columns || 80));
  };
  const timer = stream.isTTY ? setInterval(paint, frameMs) : null;
  timer?.unref();
  return {
    show: (next) => {
      if (draw !== null) erase();
      draw = next;
      paint();
    },
    print: (line) => {
      if (draw !== null) erase();
      stream.write(`${clean(line)}\n`);
      paint();
    },
    end: () => {
      if (timer) clearInterval(timer);
      if (draw !== null) erase();
      draw = null;
    },
  };
}

/** A line that wraps can't be erased, so a line that is too long loses its colours and its end. */
export function fitting(line: string, columns: number): string {
  if (stringWidth(line) < columns) return line;
  let kept = '';
  for (const { segment } of new Intl.Segmenter().segment(stripVTControlCharacters(line))) {
    if (stringWidth(kept + segment) > columns - 2) break;
    kept += segment;
  }
  return `${kept}…`;
}
