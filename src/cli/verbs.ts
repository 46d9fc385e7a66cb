/**
 * Every verb there is: how it is asked for, and where its module lies. A verb that is not built is not here.
 * Modules are loaded when their verb runs, never before.
 */
import { Option } from 'commander';
import type { Context, Outcome } from '../operations/context.ts';
import type { EnvContext } from '../operations/env-context.ts';
import {
  countOption,
  durationOption,
  findingsOptions,
  imageSourceOption,
  proofOption,
  socketUrlOption,
  strategyOption,
} from './options.ts';

export interface VerbModule {
  /** Which context it is given, `isLight` says. */
  run(context: Context & EnvContext, options: never): Promise<Outcome>;
}

export interface Verb {
  /** "deploy", or "images prepare" for a verb in a group. */
  name: string;
  summary: string;
  /** The one word after the verb, required; the verb finds it among its options. */
  argument?: { name: string; description: string; choices?: readonly string[] };
  options?: readonly Option[];
  examples: readonly string[];
  /** Is given no project and no engine, but an EnvContext, so that it starts faster. */
  isLight?: true;
  /** Runs with the defaults when gameops.yaml can't be used. */
  toleratesConfig?: boolean;
  load(): Promise<VerbModule>;
}

/** Groups have no action of their own. */
export const groups: Readonly<Record<string, string>> = {
  host: 'this machine',
  images: 'container images',
  db: 'the schema and its data',
  env: 'the settings in .env',
};

export const verbs: readonly Verb[] = [
  {
    name: 'init',
    summary: 'write .env with generated secrets, and gameops.yaml; existing files are kept',
    examples: ['gameops init', 'gameops init --project arena'],
    load: () => import('../commands/init.ts'),
  },
  {
    name: 'doctor',
    summary:
      'look at engine, ports, disk, memory, settings, images and secrets in them; every finding has a fix',
    examples: ['gameops doctor', 'gameops doctor --json'],
    toleratesConfig: true,
    load: () => import('../commands/doctor.ts'),
  },
  {
    name: 'host setup',
    summary: 'have a Docker Engine running; installs and starts it on Debian and Ubuntu as root',
    examples: ['gameops host setup'],
    toleratesConfig: true,
    load: () => import('../commands/host/setup.ts'),
  },
  {
    name: 'images prepare',
    summary: 'have every image on the engine before anything is touched',
    options: [imageSourceOption()],
    examples: [
      'gameops images prepare',
      'gameops images prepare --source registry',
      'gameops images prepare --source debian',
    ],
    load: () => import('../commands/images/prepare.ts'),
  },
  {
    name: 'env check',
    summary:
      'read .env more strictly than anybody: structure, values, secrets, file, and who reads it otherwise',
    options: [
      ...findingsOptions(),
      new Option(
        '--example <path>',
        'file with the keys that are expected (default: .env.example, if it is there)',
      ),
    ],
    examples: [
      'gameops env check',
      'gameops env check --strict --format github',
      'gameops env check --env-file - < .env',
    ],
    isLight: true,
    load: () => import('../commands/env/check.ts'),
  },
  {
    name: 'env fix',
    summary: 'repair what is mechanical in .env; values, comments, order and mode are kept',
    options: [new Option('--dry-run', 'say what would be repaired, change nothing')],
    examples: ['gameops env fix --dry-run', 'gameops env fix'],
    isLight: true,
    load: () => import('../commands/env/fix.ts'),
  },
  {
    name: 'env explain',
    summary: 'what a setting is for, what it accepts, and where its value comes from',
    argument: { name: 'key', description: 'such as DB_HOST' },
    examples: ['gameops env explain DB_PASSWORD'],
    isLight: true,
    load: () => import('../commands/env/explain.ts'),
  },
  {
    name: 'env rotate',
    summary:
      'a new JWT_SECRET (jwt) or database role and password (db), without a player noticing; goes on where it was',
    argument: { name: 'what', description: 'jwt or db', choices: ['jwt', 'db'] },
    options: [
      new Option('--plan', 'say where it stands and what comes next, change nothing'),
      durationOption('--wait <duration>', 'how long this call may wait for tokens or sessions (default: 5m)'),
      durationOption('--token-life <duration>', 'jwt: life of the longest-lived token (default: 12h)'),
      new Option(
        '--now',
        'jwt: drop the old key without waiting; who holds a token of it has to log in again',
      ),
      durationOption('--watch <duration>', 'as for deploy'),
      durationOption('--drain <duration>', 'as for deploy'),
    ],
    examples: ['gameops env rotate jwt --plan', 'gameops env rotate jwt', 'gameops env rotate db'],
    load: () => import('../commands/env/rotate.ts'),
  },
  {
    name: 'deploy',
    summary: 'bring a release to the players without one of them noticing',
    options: [
      strategyOption(),
      new Option('--image <ref>', 'any image that answers /readyz (default: from gameops.yaml)'),
      countOption('--replicas <n>', 'replicas, 1 to 50 (default: from gameops.yaml)', 50),
      new Option('--plan', 'print what would be done, change nothing'),
      new Option(
        '--rehearse',
        'run the pending migrations, the live image and the way back on a copy of the database; deploys nothing',
      ).conflicts('plan'),
      new Option('--again', 'deploy even what is live already'),
      durationOption('--watch <duration>', 'how long the new fleet is watched before commitment'),
      durationOption('--drain <duration>', 'how long the old fleet may take to let its players go'),
      countOption('--when-quiet <players>', 'wait until no more than so many are online', 1_000_000, 0),
      new Option('--skip-migrations', 'leave pending migrations alone'),
    ],
    examples: [
      'gameops deploy --plan',
      'gameops deploy --rehearse',
      'gameops deploy',
      'gameops deploy --strategy rolling --image ghcr.io/arena/server:1.4',
    ],
    load: () => import('../commands/deploy.ts'),
  },
  {
    name: 'rollback',
    summary: 'go back to the release before, or to a named one',
    options: [
      countOption('--to <release>', 'number of the release, see gameops releases', 1_000_000),
      new Option('--schema', 'then take back what later releases did to the schema').conflicts(
        'restoreBackup',
      ),
      new Option('--restore-backup <id>', 'then restore a backup; asks, and keeps the present database'),
      new Option(
        '--accept-loss',
        'what players made may go: what is counted is saved first, the rest is not; --yes does not say so',
      ),
      new Option('--plan', 'print what would be done, change nothing'),
    ],
    examples: [
      'gameops rollback --plan',
      'gameops rollback --to 40',
      'gameops rollback --schema --accept-loss',
    ],
    load: () => import('../commands/rollback.ts'),
  },
  {
    name: 'resume',
    summary: 'finish what was interrupted, from any machine',
    examples: ['gameops resume'],
    load: () => import('../commands/resume.ts'),
  },
  {
    name: 'abort',
    summary: 'back out of what was interrupted, while that is possible',
    examples: ['gameops abort'],
    load: () => import('../commands/abort.ts'),
  },
  {
    name: 'status',
    summary: 'where traffic goes, what runs, who plays, what is unfinished',
    examples: ['gameops status', 'gameops status --json'],
    load: () => import('../commands/status.ts'),
  },
  {
    name: 'releases',
    summary: 'every release on record, newest first',
    examples: ['gameops releases'],
    load: () => import('../commands/releases.ts'),
  },
  {
    name: 'history',
    summary: 'who did what, when, and how it ended',
    examples: ['gameops history'],
    load: () => import('../commands/history.ts'),
  },
  {
    name: 'db create',
    summary: 'write an empty migration that comes after all others',
    argument: { name: 'name', description: 'what it does, such as add-guilds' },
    examples: ['gameops db create add-guilds'],
    load: () => import('../commands/db/create.ts'),
  },
  {
    name: 'db status',
    summary: 'migrations applied and pending, and what does not fit: changed, missing, out of order, drift',
    examples: ['gameops db status', 'gameops db status --json'],
    load: () => import('../commands/db/status.ts'),
  },
  {
    name: 'db migrate',
    summary: 'take the schema forward without a deploy; a failed batch goes back to where it began',
    options: [
      new Option('--to <name>', 'the last migration to apply (default: all that are pending)'),
      new Option('--contract', 'also those that remove what older releases need'),
      new Option('--plan', 'print what would be done, change nothing'),
    ],
    examples: ['gameops db migrate --plan', 'gameops db migrate', 'gameops db migrate --contract'],
    load: () => import('../commands/db/migrate.ts'),
  },
  {
    name: 'db rollback',
    summary:
      'take the schema back, newest first; what would be lost is shown, and saved as far as it can be counted',
    options: [
      countOption('--count <n>', 'how many to take back (default: 1)', 10_000).conflicts('to'),
      new Option('--to <name>', 'the migration that stays the newest'),
      new Option('--plan', 'print what would be done and lost, change nothing'),
      new Option(
        '--accept-loss',
        'what is shown may go: what is counted is saved first, the rest is not; --yes does not say so',
      ),
    ],
    examples: [
      'gameops db rollback --plan',
      'gameops db rollback',
      'gameops db rollback --count 3 --accept-loss',
    ],
    load: () => import('../commands/db/rollback.ts'),
  },
  {
    name: 'db lint',
    summary: 'what in the migrations would stall players, break the release that runs, or lose data',
    options: findingsOptions(),
    examples: [
      'gameops db lint',
      'gameops db lint --strict --format github',
      'gameops db lint --format sarif > lint.sarif',
    ],
    load: () => import('../commands/db/lint.ts'),
  },
  {
    name: 'db verify',
    summary: 'prove every way back: up, down and up again on a throw-away server of the same image',
    examples: ['gameops db verify'],
    load: () => import('../commands/db/verify.ts'),
  },
  {
    name: 'db baseline',
    summary:
      'take an existing database into the ledger, once it is proven that the migrations lead to its schema',
    options: [
      new Option('--to <name>', 'the last migration that is in it already (default: all)'),
      new Option('--plan', 'prove it, change nothing'),
    ],
    examples: ['gameops db baseline --plan', 'gameops db baseline --to 20260101000000000_first'],
    load: () => import('../commands/db/baseline.ts'),
  },
  {
    name: 'db backup',
    summary: 'dump the database while players play, verify the dump, keep the last ones',
    options: [proofOption('--verify <level>', 'how far it is proven').default('read')],
    examples: ['gameops db backup', 'gameops db backup --verify restore'],
    load: () => import('../commands/db/backup.ts'),
  },
  {
    name: 'db backups',
    summary: 'every backup there is, how old it is and how far it is proven',
    options: [proofOption('--verify <level>', 'prove each of them now')],
    examples: ['gameops db backups', 'gameops db backups --verify read'],
    load: () => import('../commands/db/backups.ts'),
  },
  {
    name: 'db restore',
    summary: 'take the database back to a backup; asks, and keeps the present one to go back to',
    argument: { name: 'id', description: 'of a backup, or of a database put aside: see gameops db backups' },
    examples: ['gameops db restore 20260131-040000-1a2b', 'gameops db restore 20260131-040000-1a2b --yes'],
    load: () => import('../commands/db/restore.ts'),
  },
  {
    name: 'load',
    summary: 'load players join, play and count: what is lost, what comes twice, how long they wait',
    options: [
      countOption('--players <n>', 'players, 1 to 20000', 20_000).makeOptionMandatory(),
      durationOption('--for <duration>', 'how long they play, up to 1h (default: 30s)', 3_600_000),
      socketUrlOption('--url <ws-url>', 'where they go (default: this project)'),
      countOption('--rate <n>', 'messages a second in each room of 50 (default: 1)', 50),
      countOption(
        '--threads <n>',
        'that play (default: one for each 2500 players, while there are cores)',
        64,
      ),
    ],
    examples: ['gameops load --players 200', 'gameops load --players 10000 --for 5m --json'],
    load: () => import('../commands/load.ts'),
  },
  {
    name: 'down',
    summary: 'remove all that carries the label of this project; data only when asked',
    options: [new Option('--volumes', 'also the volumes: database, record, settings')],
    examples: ['gameops down', 'gameops down --volumes --yes'],
    load: () => import('../commands/down.ts'),
  },
  {
    name: 'prune',
    summary: 'free what releases older than the kept ones take',
    options: [countOption('--keep <n>', 'releases to keep (default: deploy.keep of gameops.yaml)', 100)],
    examples: ['gameops prune', 'gameops prune --keep 1'],
    load: () => import('../commands/prune.ts'),
  },
];
