/**
 * One line at the bottom of a terminal that is drawn over and over while something runs. Off a terminal it is never
 * there. (log-update would do, but its maintained line needs Node 22.)
 */
import { clearLine, cursorTo } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';

export interface LiveLine {
  /** Called again for every frame; null takes the line away. */
  show(draw: ((frame: string) => string) | null): void;
  /** Writes a lasting line above. */
  print(line: string): void;
  end(): void;
}

const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const frameMs = 100;

/** @param clean is asked for everything that is written */
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

/** A line that wraps can't be erased, so one that is too long loses its colours and its end. */
function fitting(line: string, width: number): string {
  const plain = [...stripVTControlCharacters(line)];
  return plain.length < width ? line : `${plain.slice(0, width - 2).join('')}…`;
}
