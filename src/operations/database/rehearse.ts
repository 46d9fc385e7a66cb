/**
 * gameops deploy --rehearse: applies the migrations of the next deploy to a copy of the database, starts the live image on
 * the new schema, and reverts the migrations. Promises that nothing that serves is touched, and that nothing is left behind
 * except a backup that was needed.
 */
import { listBackups } from '../../database/backup/files.ts';
import { type Backup, isAtLeast, type Manifest } from '../../database/backup/model.ts';
import { findBackup } from '../../database/backup/restore.ts';
import { mustHaveRoomForCopy, takeBackup } from '../../database/backup/take.ts';
import { listMigrations, type Migration } from '../../database/migrate/files.ts';
import { pendingMigrations } from '../../database/migrate/forward.ts';
import { readLedger } from '../../database/migrate/ledger.ts';
import {
  type Copy,
  differenceSince,
  fillCopy,
  type HeldUp,
  type RehearsedMigration,
  rehearseDowns,
  rehearseUps,
  rolesOf,
  schemaOf,
} from '../../database/migrate/rehearsal.ts';
import { catalogueOf, fingerprintOf } from '../../database/server/catalogue.ts';
import { withClient } from '../../database/server/connection.ts';
import { throwAwayBytes } from '../../database/server/throw-away.ts';
import { besideFleetsBytes, checkRoom } from '../../engine/capacity.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import { resolveImages } from '../../images/roles.ts';
import { openDoor } from '../../proxy/door.ts';
import { readRecord } from '../../record/record.ts';
import type { Release } from '../../release/model.ts';
import { originOfImage } from '../../release/origin.ts';
import { trialRedisBytes, tryRelease } from '../../runner/trial.ts';
import { formatMs } from '../../units.ts';
import type { Context, EnvFile, Outcome, Style } from '../context.ts';
import { releaseInputs } from '../release-inputs.ts';
import { ageOf } from './backups.ts';
import { backupAccess, migrationsDir } from './database.ts';
import { onThrowAway } from './throw-away.ts';

interface RehearsalStep {
  step: 'backup' | 'restore' | 'up' | 'boot' | 'down' | 'compare';
  /** A backup's id, a migration's name, a release's number. */
  name: string;
  ms: number;
  /** Rows that were dumped or restored; for a down migration: rows that were saved first. */
  rows?: number;
  /** What the migration would block, for at most `ms`; null: it runs outside of a transaction. */
  holdsUp?: HeldUp[] | null;
}

export interface Rehearsal {
  pending: string[];
  /** Pending contract migrations: a deploy applies them once no release uses what they remove. */
  notRehearsed: string[];
  backup: { id: string; takenAt: string } | null;
  /** The release whose image was tried on the new schema; null: nothing is live. */
  release: number | null;
  /** The player that joined; null for an image of another protocol. */
  joined: boolean | null;
  /** Migrations that can't be reverted: neither they nor those before them were reverted. */
  oneWay: string[];
  steps: RehearsalStep[];
  ms: number;
}

export async function rehearse(context: Context, env: EnvFile, image: string): Promise<Outcome> {
  const began = performance.now();
  const seen: Rehearsal = {
    pending: [],
    notRehearsed: [],
    backup: null,
    release: null,
    joined: null,
    oneWay: [],
    steps: [],
    ms: 0,
  };
  const dir = migrationsDir(context, originOfImage(image));
  const files = dir === null ? [] : await listMigrations(dir);
  if (dir !== null && files.length > 0) {
    const access = await backupAccess(context, env);
    const { contract, ...live } = await withClient(access.endpoint, async (client) => {
      const { expand, contract } = await pendingMigrations(client, dir, files);
      const newestMigration = (await readLedger(client)).applied.at(-1)?.name ?? null;
      const fingerprint = fingerprintOf(await catalogueOf(client));
      return { pending: expand, contract, newestMigration, fingerprint };
    });
    seen.pending = live.pending;
    seen.notRehearsed = contract;
    if (live.pending.length > 0) await onCopy(context, env, { dir, files, access, live, seen });
  }
  seen.ms = Math.round(performance.now() - began);
  return { ok: true, result: seen, text: (style) => rehearsalText(style, seen) };
}

type SchemaNow = Pick<Manifest, 'fingerprint' | 'newestMigration'>;

interface RehearsalParts {
  dir: string;
  files: readonly Migration[];
  access: Awaited<ReturnType<typeof backupAccess>>;
  live: { pending: string[] } & SchemaNow;
  seen: Rehearsal;
}

async function onCopy(context: Context, env: EnvFile, parts: RehearsalParts): Promise<void> {
  const { dir, files, access, live, seen } = parts;
  const engine = await context.engine();
  const record = await readRecord(engine, context.project);
  const release = record?.releases.find(({ verdict }) => verdict === 'live') ?? null;
  if (release) await mustHaveRoomForTrial(context, release, access.image);
  const tell = tellerOf(context, seen);
  const backup = await backupOfNow(parts, release, tell);
  const { path, manifest } = backup;
  seen.backup = { id: backup.id, takenAt: manifest.takenAt };
  const roles = await rolesOf(access.endpoint);
  await onThrowAway(context, async (endpoint) => {
    const { signal } = context;
    const copy: Copy = { endpoint, dir, files, options: { emit: context.emit, signal, files } };
    await mustHaveRoomForCopy({ ...access, endpoint }, manifest.databaseBytes);
    await timed(tell, { step: 'restore', name: backup.id, rows: rowsOf(manifest) }, () =>
      fillCopy({ ...access, endpoint }, { path, manifest }, roles, signal),
    );
    const before = await schemaOf(copy);
    const done = (one: RehearsedMigration) => tell(stepOf(one));
    await failing('up', seen, () => rehearseUps(copy, live.pending, done));
    if (release) await bootOld(context, env, { release, endpoint, seen, tell });
    seen.oneWay = await failing('down', seen, () => rehearseDowns(copy, live.pending, done));
    if (seen.oneWay.length > 0) return;
    await timed(tell, { step: 'compare', name: 'schema' }, () => mustBeAsBefore(copy, before, seen));
  });
}

/** One replica more than now, a Postgres and a Redis: they must not take memory that players need. */
async function mustHaveRoomForTrial(context: Context, release: Release, image: string): Promise<void> {
  await checkRoom(await context.engine(), {
    project: context.project,
    image,
    fleets: 1,
    replicas: release.replicas + 1,
    memoryBytes: release.shape.memoryBytes,
    besideBytes: besideFleetsBytes + throwAwayBytes + trialRedisBytes,
  });
}

// Its parts ---------------------------------------------------------------------------------------------------------------

type Tell = (step: RehearsalStep) => void;

function tellerOf({ emit }: Context, seen: Rehearsal): Tell {
  return (step) => {
    seen.steps.push(step);
    emit({ type: 'note', level: 'info', message: `${step.step} ${step.name}: ${formatMs(step.ms)}` });
  };
}

async function timed<T>(tell: Tell, step: Omit<RehearsalStep, 'ms'>, act: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await act();
  tell({ ...step, ms: Math.round(performance.now() - began) });
  return result;
}

const rowsOf = ({ rows }: Manifest): number => Object.values(rows).reduce((sum, n) => sum + n, 0);

const stepOf = ({ direction, name, ms, holdsUp, rescuedRows }: RehearsedMigration): RehearsalStep => ({
  step: direction,
  name,
  ms,
  holdsUp,
  ...(direction === 'down' ? { rows: rescuedRows } : {}),
});

/**
 * Whether a backup was read to its end and has the present schema. The newest migration is compared, too: one that only
 * changes rows does not change the fingerprint.
 */
export const isOfNow = ({ manifest, damage }: Backup, database: string, now: SchemaNow): boolean =>
  manifest !== null &&
  damage === null &&
  isAtLeast(manifest.verified.level, 'read') &&
  manifest.database === database &&
  manifest.fingerprint === now.fingerprint &&
  manifest.newestMigration === now.newestMigration;

/** The newest backup that fits; one from before a migration is of no use to rehearse the next migration. */
async function backupOfNow(
  { access, live }: RehearsalParts,
  release: Release | null,
  tell: Tell,
): Promise<Backup & { manifest: Manifest }> {
  const fits = (backup: Backup) => isOfNow(backup, access.endpoint.database, live);
  const last = (await listBackups(access.folder)).find(fits);
  if (last) return findBackup(access.folder, last.id);
  const began = performance.now();
  const request = { level: 'read', release: release?.id ?? null, reason: 'for a rehearsal' } as const;
  const taken = await takeBackup(access, request);
  const ms = Math.round(performance.now() - began);
  tell({ step: 'backup', name: taken.id, ms, rows: rowsOf(taken.manifest) });
  return taken;
}

async function bootOld(
  context: Context,
  env: EnvFile,
  {
    release,
    endpoint,
    seen,
    tell,
  }: { release: Release; endpoint: Copy['endpoint']; seen: Rehearsal; tell: Tell },
): Promise<void> {
  const engine = await context.engine();
  const { redis } = await resolveImages(engine, context.config);
  const inputs = releaseInputs(context, env);
  const { project, signal, config } = context;
  const { database: name, user, password, accessory } = endpoint;
  const tried = await timed(tell, { step: 'boot', name: String(release.id) }, () =>
    tryRelease(engine, {
      project,
      release,
      signal,
      settings: inputs.settings(release),
      token: inputs.probeToken,
      database: { host: accessory ?? '', name, user, password },
      redisImage: redis.info?.id ?? redis.ref,
      readyMs: config.deploy.readyMs,
      openDoor: (url) => openDoor({ privateUrl: url, publicUrl: url, token: '' }),
    }),
  );
  seen.release = release.id;
  seen.joined = tried.isReady ? tried.joined : false;
  if (tried.isReady) return;
  throw failed(
    seen,
    'boot',
    `the image of release ${release.id} does not work on the new schema: ${tried.reason}`,
    {
      next: [
        'write the migration so that the previous release works with it: add first, remove later with phase=contract',
        'gameops db lint',
      ],
      facts: { release: release.id, log: tried.log },
    },
  );
}

async function mustBeAsBefore(copy: Copy, before: readonly string[], seen: Rehearsal): Promise<void> {
  const { missing, extra } = await differenceSince(copy, before);
  const lines = [...missing.map((line) => `missing: ${line}`), ...extra.map((line) => `extra: ${line}`)];
  if (lines.length === 0) return;
  throw failed(seen, 'compare', `the down migrations lead to another schema.\n${lines.join('\n')}`, {
    next: [
      'correct the "Down Migration" that leaves this difference',
      'gameops db verify: names the migration',
    ],
    facts: { differences: lines.length },
  });
}

/** A migration that fails on the copy would fail on the live database: that is reported, whatever its own error code. */
async function failing<T>(step: 'up' | 'down', seen: Rehearsal, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (!isOpsError(error) || ['INTERRUPTED', 'TERMINATED'].includes(error.code)) throw error;
    const { message, next, facts } = error;
    throw failed(seen, step, message, { next, facts: { ...facts, reason: error.code } });
  }
}

function failed(
  seen: Rehearsal,
  step: RehearsalStep['step'],
  why: string,
  { next, facts }: Pick<OpsError, 'next' | 'facts'>,
): OpsError {
  return new OpsError('REHEARSAL_FAILED', {
    message: `The rehearsal failed at "${step}": ${why}\nIt ran on a copy: the live database and its players were not touched.`,
    next,
    facts: { ...facts, step },
    result: seen,
  });
}

// For people ----------------------------------------------------------------------------------------------------------------

export function rehearsalText(style: Style, seen: Rehearsal): string {
  const left =
    seen.notRehearsed.length === 0
      ? []
      : [
          style.yellow(
            `not rehearsed: ${seen.notRehearsed.join(', ')} (contract: applied by a deploy once no release uses what it removes)`,
          ),
        ];
  if (seen.pending.length === 0)
    return ['nothing to rehearse: no expand migration is pending', ...left].join('\n');
  const age = seen.backup ? `, from a backup that is ${ageOf(seen.backup.takenAt)} old` : '';
  const lines = seen.steps.map((step) => {
    const { name, ms, rows } = step;
    const of = step.step === 'boot' ? `release ${name}` : name;
    const more = [
      ...(rows === undefined || step.step === 'down' ? [] : [`${rows} rows`]),
      ...meaningOf(step, seen),
    ];
    return `  ${style.dim(step.step.padEnd(8))}${of}  ${formatMs(ms)}${more.length > 0 ? `  ${more.join('; ')}` : ''}`;
  });
  const ending =
    seen.oneWay.length > 0
      ? style.yellow(`${seen.oneWay.join(', ')} can't be reverted: a rollback of the schema will be refused`)
      : 'the down migrations lead back to the present schema';
  return [
    `${style.bold('rehearsed')} on a copy${age}; nothing that serves was touched`,
    ...lines,
    ...(seen.release === null
      ? [style.yellow('nothing is live, so no image was tried on the new schema')]
      : []),
    ending,
    ...left,
  ].join('\n');
}

function meaningOf({ step, holdsUp, ms, rows }: RehearsalStep, seen: Rehearsal): string[] {
  if (step === 'boot')
    return [
      seen.joined
        ? 'ready on the new schema, a player joined'
        : 'ready on the new schema (no player joined: the image has a protocol of its own)',
    ];
  if (step !== 'up' && step !== 'down') return [];
  const rescued = step === 'down' && rows ? [`${rows} rows saved`] : [];
  if (holdsUp === null) return [...rescued, 'statement by statement, outside of a transaction'];
  if (!holdsUp || holdsUp.length === 0) return [...rescued, 'blocks nothing'];
  return [
    ...rescued,
    ...holdsUp.map(
      (one) => `blocks ${one.who} of ${one.table} (about ${one.rows} rows) for at most ${formatMs(ms)}`,
    ),
  ];
}
