/**
 * The table of verbs: how each one is asked for, and which module runs it. A verb that is not built is not in the table.
 * A module is loaded when its verb runs, never before.
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
  /** `isLight` of the verb says which of the two contexts it is given. */
  run(context: Context & EnvContext, options: never): Promise<Outcome>;
}

export interface Verb {
  /** "deploy", or "images prepare" for a verb in a group. */
  name: string;
  summary: string;
  /** The one required word after the verb; the verb finds it among its options. */
  argument?: { name: string; description: string; choices?: readonly string[] };
  options?: readonly Option[];
  examples: readonly string[];
  /** Gets an EnvContext, without project and engine, so that it starts faster. */
  isLight?: true;
  /** Runs with the defaults when gameops.yaml is invalid. */
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
    summary: 'write .env with generated secrets, and gameops.yaml; existing files are never overwritten',
    examples: ['gameops init', 'gameops init --project arena'],
    load: () => import('../commands/init.ts'),
  },
  {
    name: 'doctor',
    summary:
      'check engine, ports, disk, memory, settings and images (also for secrets in them); every finding has a fix',
    examples: ['gameops doctor', 'gameops doctor --json'],
    toleratesConfig: true,
    load: () => import('../commands/doctor.ts'),
  },
  {
    name: 'host setup',
    summary:
      'make sure that a Docker Engine runs; on Debian and Ubuntu, as root, it is installed and started',
    examples: ['gameops host setup'],
    toleratesConfig: true,
    load: () => import('../commands/host/setup.ts'),
  },
  {
    name: 'images prepare',
    summary: 'pull or build every image that a deploy needs; nothing that runs is touched',
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
      'check .env strictly: structure, values, secrets, file mode, and lines that other programs read differently',
    options: [
      ...findingsOptions(),
      new Option(
        '--example <path>',
        'file that lists the expected keys (default: .env.example, if it exists)',
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
    summary: 'repair mechanical mistakes in .env; values, comments, order and file mode stay as they are',
    options: [new Option('--dry-run', 'show what would be repaired, change nothing')],
    examples: ['gameops env fix --dry-run', 'gameops env fix'],
    isLight: true,
    load: () => import('../commands/env/fix.ts'),
  },
  {
    name: 'env explain',
    summary: 'show what a setting is for, what it accepts, and where its value comes from',
    argument: { name: 'key', description: 'such as DB_HOST' },
    examples: ['gameops env explain DB_PASSWORD'],
    isLight: true,
    load: () => import('../commands/env/explain.ts'),
  },
  {
    name: 'env rotate',
    summary:
      'replace JWT_SECRET (jwt), or the database role and password (db); no player notices; an interrupted rotation is continued',
    argument: { name: 'what', description: 'jwt or db', choices: ['jwt', 'db'] },
    options: [
      new Option('--plan', 'show how far the rotation is and what comes next, change nothing'),
      durationOption(
        '--wait <duration>',
        'how long this call may wait for old tokens to expire or old connections to end (default: 5m)',
      ),
      durationOption(
        '--token-life <duration>',
        'jwt: how long the longest-lived token is valid (default: 12h)',
      ),
      new Option(
        '--now',
        'jwt: drop the old key without waiting; players whose token it signed have to log in again',
      ),
      durationOption('--watch <duration>', 'as for deploy'),
      durationOption('--drain <duration>', 'as for deploy'),
    ],
    examples: ['gameops env rotate jwt --plan', 'gameops env rotate jwt', 'gameops env rotate db'],
    load: () => import('../commands/env/rotate.ts'),
  },
  {
    name: 'deploy',
    summary: 'put a release into service; no player notices',
    options: [
      strategyOption(),
      new Option('--image <ref>', 'any image that answers /readyz (default: from gameops.yaml)'),
      countOption('--replicas <n>', 'replicas, 1 to 50 (default: from gameops.yaml)', 50),
      new Option('--plan', 'show what would be done, change nothing'),
      new Option(
        '--rehearse',
        'try the pending migrations, the live image and the way back on a copy of the database; deploys nothing',
      ).conflicts('plan'),
      new Option('--again', 'deploy even if nothing has changed'),
      durationOption('--watch <duration>', 'how long the new fleet is watched before the old one drains'),
      durationOption('--drain <duration>', 'how long the old fleet may take to drain'),
      countOption('--when-quiet <players>', 'wait until at most this many players are online', 1_000_000, 0),
      new Option('--skip-migrations', 'do not apply pending migrations'),
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
    summary: 'go back to the previous release, or to the one that --to names',
    options: [
      countOption('--to <release>', 'number of the release (gameops releases lists them)', 1_000_000),
      new Option('--schema', 'afterwards revert the migrations of later releases').conflicts('restoreBackup'),
      new Option(
        '--restore-backup <id>',
        'afterwards restore a backup; asks first, and keeps the present database',
      ),
      new Option(
        '--accept-loss',
        'accept that data of players is lost; counted rows are saved first, other data is not; --yes does not include this',
      ),
      new Option('--plan', 'show what would be done, change nothing'),
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
    summary: 'finish an interrupted act, from any machine',
    examples: ['gameops resume'],
    load: () => import('../commands/resume.ts'),
  },
  {
    name: 'abort',
    summary: 'back out of an interrupted act, while that is possible',
    examples: ['gameops abort'],
    load: () => import('../commands/abort.ts'),
  },
  {
    name: 'status',
    summary: 'show where traffic goes, what runs, how many players are online, and what is unfinished',
    examples: ['gameops status', 'gameops status --json'],
    load: () => import('../commands/status.ts'),
  },
  {
    name: 'releases',
    summary: 'list every release on record, newest first',
    examples: ['gameops releases'],
    load: () => import('../commands/releases.ts'),
  },
  {
    name: 'history',
    summary: 'list who did what, when, and how it ended',
    examples: ['gameops history'],
    load: () => import('../commands/history.ts'),
  },
  {
    name: 'db create',
    summary: 'write an empty migration that comes after all others',
    argument: { name: 'name', description: 'what the migration does, such as add-guilds' },
    examples: ['gameops db create add-guilds'],
    load: () => import('../commands/db/create.ts'),
  },
  {
    name: 'db status',
    summary:
      'show applied and pending migrations, and problems: changed, missing or out of order, schema drift',
    examples: ['gameops db status', 'gameops db status --json'],
    load: () => import('../commands/db/status.ts'),
  },
  {
    name: 'db migrate',
    summary:
      'apply pending migrations without a deploy; if one fails, those that this call applied are reverted',
    options: [
      new Option('--to <name>', 'the last migration to apply (default: all that are pending)'),
      new Option('--contract', 'also apply contract migrations, which remove what older releases need'),
      new Option('--plan', 'show what would be done, change nothing'),
    ],
    examples: ['gameops db migrate --plan', 'gameops db migrate', 'gameops db migrate --contract'],
    load: () => import('../commands/db/migrate.ts'),
  },
  {
    name: 'db rollback',
    summary:
      'revert migrations, newest first; data that would be lost is shown, and saved where it can be counted',
    options: [
      countOption('--count <n>', 'how many migrations to revert (default: 1)', 10_000).conflicts('to'),
      new Option('--to <name>', 'revert every migration after this one'),
      new Option('--plan', 'show what would be done and lost, change nothing'),
      new Option(
        '--accept-loss',
        'accept that the data shown is lost; counted rows are saved first, other data is not; --yes does not include this',
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
    summary:
      'find statements in migrations that would stall players, break the running release, or lose data',
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
    summary: 'prove that every migration can be reverted: up, down and up again on a throw-away server',
    examples: ['gameops db verify'],
    load: () => import('../commands/db/verify.ts'),
  },
  {
    name: 'db baseline',
    summary:
      'record the migrations as applied in an existing database, after proving that they lead to its schema',
    options: [
      new Option('--to <name>', 'the last migration that the database already has (default: all)'),
      new Option('--plan', 'prove it, change nothing'),
    ],
    examples: ['gameops db baseline --plan', 'gameops db baseline --to 20260101000000000_first'],
    load: () => import('../commands/db/baseline.ts'),
  },
  {
    name: 'db backup',
    summary: 'back up the database while players play, verify the backup, remove old backups',
    options: [proofOption('--verify <level>', 'how thoroughly the backup is verified').default('read')],
    examples: ['gameops db backup', 'gameops db backup --verify restore'],
    load: () => import('../commands/db/backup.ts'),
  },
  {
    name: 'db backups',
    summary: 'list every backup, how old it is and how thoroughly it was verified',
    options: [proofOption('--verify <level>', 'verify each of them now')],
    examples: ['gameops db backups', 'gameops db backups --verify read'],
    load: () => import('../commands/db/backups.ts'),
  },
  {
    name: 'db restore',
    summary: 'restore the database from a backup; asks first, and keeps the present database to go back to',
    argument: {
      name: 'id',
      description:
        'id of a backup, or name of a database that a restore put aside (gameops db backups lists both)',
    },
    examples: ['gameops db restore 20260131-040000-1a2b', 'gameops db restore 20260131-040000-1a2b --yes'],
    load: () => import('../commands/db/restore.ts'),
  },
  {
    name: 'load',
    summary: 'let load players join and play; count messages that are lost or come twice, and measure delays',
    options: [
      countOption('--players <n>', 'number of players, 1 to 20000', 20_000).makeOptionMandatory(),
      durationOption('--for <duration>', 'how long they play, up to 1h (default: 30s)', 3_600_000),
      socketUrlOption('--url <ws-url>', 'where the players go (default: this project)'),
      countOption('--rate <n>', 'messages a second in each room of 50 (default: 1)', 50),
      countOption(
        '--threads <n>',
        'threads that run the players (default: one for each 2500 players, at most one for each core)',
        64,
      ),
    ],
    examples: ['gameops load --players 200', 'gameops load --players 10000 --for 5m --json'],
    load: () => import('../commands/load.ts'),
  },
  {
    name: 'down',
    summary: 'remove everything that carries the label of this project; data stays unless --volumes is given',
    options: [new Option('--volumes', 'also remove the volumes: database, record, settings')],
    examples: ['gameops down', 'gameops down --volumes --yes'],
    load: () => import('../commands/down.ts'),
  },
  {
    name: 'prune',
    summary: 'remove containers, settings and images of releases that are older than the kept ones',
    options: [
      countOption('--keep <n>', 'number of releases to keep (default: deploy.keep of gameops.yaml)', 100),
    ],
    examples: ['gameops prune', 'gameops prune --keep 1'],
    load: () => import('../commands/prune.ts'),
  },
];
