/**
 * Whether a stream gets colour, decided once. chalk knows FORCE_COLOR but not NO_COLOR, and looks only at stdout,
 * so its own detection is not used.
 */
import { Chalk, type ChalkInstance } from 'chalk';

export type Style = ChalkInstance;

export interface ColourRequest {
  isTty: boolean;
  /** --no-color */
  refused: boolean;
  env: Readonly<Record<string, string | undefined>>;
}

/** A refusal beats a demand: --no-color, NO_COLOR, FORCE_COLOR, then what the stream is. */
export function wantsColour({ isTty, refused, env }: ColourRequest): boolean {
  if (refused || env.NO_COLOR) return false;
  if (env.FORCE_COLOR !== undefined) return env.FORCE_COLOR !== '0' && env.FORCE_COLOR !== 'false';
  return isTty && env.TERM !== 'dumb';
}

export function styleFor(request: ColourRequest): Style {
  return new Chalk({ level: wantsColour(request) ? 1 : 0 });
}
