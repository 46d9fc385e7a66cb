/**
 * What the verbs' options mean, and the checks that need nothing but the text. Runs while the command line is parsed,
 * so it imports neither schema nor configuration.
 */
import { InvalidArgumentError, Option } from 'commander';
import type { Format } from '../report/findings/model.ts';
import { formatMs, parseDurationMs } from '../units.ts';

/** `--watch 30s` becomes `watchMs: 30000`. */
class DurationOption extends Option {
  override attributeName(): string {
    return `${super.attributeName()}Ms`;
  }
}

export function durationOption(flags: string, description: string, maxMs?: number): Option {
  return new DurationOption(flags, description).argParser((text: string) => {
    const ms = parseDurationMs(text);
    if (ms === null) throw new InvalidArgumentError('Expected a duration such as 500ms, 30s, 5m or 2h.');
    if (maxMs !== undefined && (ms < 1_000 || ms > maxMs))
      throw new InvalidArgumentError(`Expected 1s to ${formatMs(maxMs)}.`);
    return ms;
  });
}

export function socketUrlOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string) => {
    const url = URL.canParse(text) ? new URL(text) : null;
    if (url?.protocol === 'ws:' || url?.protocol === 'wss:') return url.href;
    throw new InvalidArgumentError('Expected an address such as wss://play.example.com/ws.');
  });
}

export function countOption(flags: string, description: string, max: number, min = 1): Option {
  return new Option(flags, description).argParser((text: string) => {
    const count = /^\d+$/.test(text) ? Number(text) : -1;
    if (count < min || count > max)
      throw new InvalidArgumentError(`Expected a whole number, ${min} to ${max}.`);
    return count;
  });
}

export function strategyOption(): Option {
  return new Option('--strategy <name>', 'blue-green or rolling (default: from gameops.yaml)').argParser(
    (text: string) => {
      if (text === 'blue-green' || text === 'rolling') return text;
      const later = text === 'canary' ? 'canary is not built yet. ' : '';
      throw new InvalidArgumentError(`${later}There are blue-green and rolling.`);
    },
  );
}

export function imageSourceOption(): Option {
  return new Option('--source <name>', 'where images come from; registry: pull also what is here')
    .choices(['auto', 'registry', 'debian'])
    .default('auto');
}

export function proofOption(flags: string, description: string): Option {
  const meanings = 'sha256: its bytes; read: all of it unpacks; restore: the database comes out of it';
  return new Option(flags, `${description} (${meanings})`).choices(['sha256', 'read', 'restore']);
}

export function findingsOptions(): Option[] {
  const formats: readonly Format[] = ['pretty', 'json', 'github', 'sarif'];
  return [
    new Option('--format <name>', 'how findings are written (default: pretty)').choices(formats),
    new Option('--strict', 'warnings fail, too'),
  ];
}
