/**
 * What the verbs' options mean, and the checks that need nothing but the text. Runs while the command line is parsed,
 * so it imports neither schema nor configuration.
 */
import { InvalidArgumentError, Option } from 'commander';
import type { Format } from '../report/findings/model.ts';
import { formatMs, parseDurationMs } from '../units.ts';

export interface DeployOptions {
  strategy?: 'blue-green' | 'rolling';
  image?: string;
  replicas?: number;
  plan?: boolean;
  rehearse?: boolean;
  again?: boolean;
  watchMs?: number;
  drainMs?: number;
  skipMigrations?: boolean;
  /** Players. */
  whenQuiet?: number;
}

export interface RollbackOptions {
  /** Release number. */
  to?: number;
  schema?: boolean;
  /** Id of a backup. */
  restoreBackup?: string;
  acceptLoss?: boolean;
  plan?: boolean;
}

export interface RotateOptions {
  what: 'jwt' | 'db';
  plan?: boolean;
  /** How long this call may wait. */
  waitMs?: number;
  /** How long the longest-lived token lives. */
  tokenLifeMs?: number;
  /** The old key goes without waiting. */
  now?: boolean;
  watchMs?: number;
  drainMs?: number;
}

export interface DownOptions {
  volumes?: boolean;
}

export interface PruneOptions {
  keep?: number;
}

export interface BackupOptions {
  verify: 'sha256' | 'read' | 'restore';
}

export type BackupsOptions = Partial<BackupOptions>;

export interface RestoreOptions {
  /** Of a backup, or the name of a database that a restore has put aside. */
  id: string;
}

export interface LoadOptions {
  players: number;
  forMs?: number;
  url?: string;
  rate?: number;
  threads?: number;
}

/** Of a verb that checks something. */
export interface FindingsOptions {
  format?: Format;
  /** Warnings fail, too. */
  strict?: boolean;
}

export interface DbCreateOptions {
  name: string;
}

export interface DbBaselineOptions {
  /** Name of a migration. */
  to?: string;
  plan?: boolean;
}

export interface DbMigrateOptions {
  /** Name of a migration. */
  to?: string;
  contract?: boolean;
  plan?: boolean;
}

export interface DbRollbackOptions {
  count?: number;
  /** Name of the migration that stays the newest. */
  to?: string;
  plan?: boolean;
  acceptLoss?: boolean;
}

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
