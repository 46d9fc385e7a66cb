/** `env rotate jwt`: how the rotation looks where it stands, and how it does its steps. rules.ts decides which step comes next. */

import { tokenKeyNames } from '../contract.ts';
import type { Edit } from '../env/file/edit.ts';
import { generateSecret } from '../env/generate.ts';
import type { EnvFile } from '../env/read.ts';
import { OpsError } from '../errors.ts';
import { requestOf } from '../operations/act.ts';
import type { Context } from '../operations/context.ts';
import { nothingThere } from '../operations/project.ts';
import { fingerprintOfSetting } from '../record/fingerprints.ts';
import { type ProjectRecord, readRecord, writeRecord } from '../record/record.ts';
import type { Release } from '../release/model.ts';
import { keepSecret } from '../report/redact.ts';
import { keyIdOf, tokenLifeMs } from '../tokens.ts';
import { formatMs } from '../units.ts';
import { deploySecrets, mustAcceptKeys, mustBeLive } from './deploy.ts';
import type { RotateOptions, Rotation } from './model.ts';
import { applyJwtStep, type JwtPosition, type KeyRing, nextJwtStep, whyUnsafe } from './rules.ts';
import { locked, mustComeFromFile, readNow, writeEnv } from './write.ts';

/** Clocks of operators and servers differ. */
const leewayMs = 60_000;

interface Seen extends JwtPosition {
  text: string;
  env: EnvFile;
  release: number;
}

export function jwtRotation(context: Context, options: RotateOptions): Rotation<Seen> {
  const lifeMs = options.now ? 0 : (options.tokenLifeMs ?? tokenLifeMs.guest + leewayMs);
  if (lifeMs < tokenLifeMs.guest) {
    const message = `the old key is dropped after ${formatMs(lifeMs)}, but tokens of the bundled server are valid for ${formatMs(tokenLifeMs.guest)}: players with a token of the old key have to log in again`;
    context.emit({ type: 'note', level: 'warning', message });
  }
  return {
    look: (isBegun) => look(context, isBegun, lifeMs),
    next: nextJwtStep,
    apply: (at, step) => ({ ...at, ...applyJwtStep(at, step) }),
    tell: ({ file, release }) =>
      [
        `release ${release} is live`,
        `key ${file.signs} signs`,
        ...(file.next ? [`${file.next} signs next`] : []),
        ...(file.previous ? [`${file.previous} is still accepted`] : []),
      ].join(' · '),
    facts: ({ file, release }) => ({ keys: file, release }),
    async perform(step, { text, env }) {
      if (step.kind === 'deploy') return deploySecrets(context, options, step.cause);
      if (step.kind === 'note') return note(context);
      if (step.kind !== 'write-env') return;
      const edits = editsFor(step.what, env);
      await locked(context, async () => writeEnv(context, text, edits));
    },
  };
}

async function look(context: Context, isBegun: boolean, lifeMs: number): Promise<Seen> {
  const engine = await context.engine();
  const record = await readRecord(engine, context.project);
  if (record === null) throw nothingThere(context);
  const live = mustBeLive(context, record);
  const text = readNow(context);
  const env = context.readEnv(requestOf(record).image);
  mustComeFromFile(context, env, ['JWT_SECRET', ...tokenKeyNames.filter((name) => env.values[name])]);
  await mustAcceptKeys(engine, live);
  const file = ringOf(env);
  const at: Seen = {
    file,
    live: ringOfRelease(record, live, env),
    isSettled: record.intent === null,
    isBegun: false,
    soleSince: soleSince(record, live, env),
    now: Date.now(),
    lifeMs,
    text,
    env,
    release: live.id,
  };
  mustBeSafe(context, at);
  // When the last deploy was killed, the release that it replaces still has the old key.
  const replaced = record.releases.find(({ id }) => id === record.intent?.previous);
  const rings = [at.file, at.live, ...(replaced ? [ringOfRelease(record, replaced, env)] : [])];
  return {
    ...at,
    isBegun: isBegun || rings.some(({ next, previous }) => next !== null || previous !== null),
  };
}

function ringOf({ values }: EnvFile): KeyRing {
  const [signs, next, previous] = tokenKeyNames.map((name) => values[name]);
  const named = (secret: string | undefined) => (secret ? keyIdOf(secret) : null);
  return { signs: named(signs) ?? '?', next: named(next), previous: named(previous) };
}

/** Only fingerprints of the release's keys are on record. Tells which key of .env each of them is, if any. */
function ringOfRelease(record: ProjectRecord, live: Release, env: EnvFile): KeyRing {
  const secrets = tokenKeyNames.flatMap((name) => env.values[name] ?? []);
  const [signs, next, previous] = tokenKeyNames.map((name) => {
    const print = live.fingerprints[name];
    if (print === undefined) return null;
    const known = secrets.find(
      (secret) => fingerprintOfSetting(record.fingerprintKey, name, secret) === print,
    );
    return known === undefined ? '?' : keyIdOf(known);
  });
  return { signs: signs ?? '?', next: next ?? null, previous: previous ?? null };
}

/** null when any release has signed with another key since. */
function soleSince(record: ProjectRecord, live: Release, env: EnvFile): number | null {
  const { soleKey, fingerprintKey, releases } = record;
  const print = fingerprintOfSetting(fingerprintKey, 'JWT_SECRET', env.values.JWT_SECRET ?? '');
  if (soleKey?.fingerprint !== print || live.fingerprints.JWT_SECRET !== print) return null;
  const served = releases.filter(
    ({ id, verdict }) => id > soleKey.release && !['failed', 'abandoned', 'candidate'].includes(verdict),
  );
  const isSole = served.every(({ fingerprints }) => fingerprints.JWT_SECRET === print);
  return isSole ? Date.parse(soleKey.since) : null;
}

function note(context: Context): Promise<void> {
  return locked(context, async () => {
    const engine = await context.engine();
    const record = await readRecord(engine, context.project);
    const live = mustBeLive(context, record);
    const fingerprint = live.fingerprints.JWT_SECRET;
    if (record === null || fingerprint === undefined) return;
    const soleKey = { fingerprint, since: new Date().toISOString(), release: live.id };
    await writeRecord(engine, record, { soleKey });
  });
}

function editsFor(what: 'next' | 'promote' | 'drop', { values }: EnvFile): Edit[] {
  if (what === 'drop') return [{ key: 'JWT_SECRET_PREVIOUS', value: null }];
  if (what === 'next') {
    const secret = generateSecret();
    keepSecret(secret);
    return [{ key: 'JWT_SECRET_NEXT', value: secret, below: 'JWT_SECRET' }];
  }
  const { JWT_SECRET: present = '', JWT_SECRET_NEXT: next = '' } = values;
  return [
    { key: 'JWT_SECRET', value: next },
    { key: 'JWT_SECRET_PREVIOUS', value: present, below: 'JWT_SECRET' },
    { key: 'JWT_SECRET_NEXT', value: null },
  ];
}

/** @throws ROTATION_REFUSED */
function mustBeSafe({ envPath }: Context, at: Seen): void {
  const why = whyUnsafe(at);
  if (why === null) return;
  const what =
    why === 'signs'
      ? `${envPath} signs with key ${at.file.signs}, which release ${at.release} does not accept`
      : `${envPath} does not hold the key that release ${at.release} signs with`;
  throw new OpsError('ROTATION_REFUSED', {
    message: `${what}: deploying this .env would log players out. Nothing was changed; players are where they were.`,
    next: [
      'use the .env that the live release was deployed with (another operator may have a newer one)',
      'gameops deploy, if it is acceptable that players have to log in again',
    ],
    facts: { release: at.release, key: at.file.signs },
  });
}
