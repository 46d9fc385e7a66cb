/**
 * What the verbs' options mean, and the checks that need nothing but the text. Runs while the command line is parsed,
 * so it imports neither zod schemas nor configuration.
 */
import { InvalidArgumentError, Option } from 'commander';
import type { Format } from '../report/findings/model.ts';
import { expectedDuration, formatMs, parseDurationMs } from '../units.ts';

/** `--watch 30s` becomes `watchMs: 30000`. */
class DurationOption extends Option {
  override attributeName(): string {
    return `${super.attributeName()}Ms`;
  }
}

export function durationOption(flags: string, description: string, maxMs?: number): Option {
  return new DurationOption(flags, description).argParser((text: string) => {
    const ms = parseDurationMs(text);
    if (ms === null) throw new InvalidArgumentError(`Expected ${expectedDuration}.`);
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
      throw new InvalidArgumentError(`${later}Expected blue-green or rolling.`);
    },
  );
}

export function imageSourceOption(): Option {
  return new Option(
    '--source <name>',
    'where images come from; registry also pulls images that are already on the engine',
  )
    .choices(['auto', 'registry', 'debian'])
    .default('auto');
}

export function proofOption(flags: string, description: string): Option {
  const meanings =
    'sha256: its checksum; read: it unpacks to the end; restore: it is restored into a database and compared';
  return new Option(flags, `${description} (${meanings})`).choices(['sha256', 'read', 'restore']);
}

export function findingsOptions(): Option[] {
  const formats: readonly Format[] = ['pretty', 'json', 'github', 'sarif'];
  return [
    new Option('--format <name>', 'output format of the findings (default: pretty)').choices(formats),
    new Option('--strict', 'fail on warnings, too'),
  ];
}
