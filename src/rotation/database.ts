/** `env rotate db`: how the rotation looks where it stands, and how it does its steps. rules.ts decides which step comes next. */
import { readFileSync } from 'node:fs';
import { roleNames } from '../contract.ts';
import type { DatabaseEndpoint } from '../database/server/connection.ts';
import { withClient } from '../database/server/connection.ts';
import { type RoleAdmin, withRoleAdmin } from '../database/server/role-admin.ts';
import {
  disableWhenQuiet,
  enable,
  markCurrent,
  readRoles,
  type Straggler,
} from '../database/server/roles.ts';
import { takeOver } from '../database/server/take-over.ts';
import { type Edit, withLogin } from '../env/file/edit.ts';
import { generateSecret } from '../env/generate.ts';
import type { EnvFile } from '../env/read.ts';
import { OpsError } from '../errors.ts';
import { requestOf } from '../operations/act.ts';
import type { Context } from '../operations/context.ts';
import { openEndpoint } from '../operations/database/database.ts';
import { nothingThere } from '../operations/project.ts';
import { fingerprintOfSetting } from '../record/fingerprints.ts';
import { type ProjectRecord, readRecord } from '../record/record.ts';
import { keepSecret } from '../report/redact.ts';
import { deploySecrets, mustBeLive } from './deploy.ts';
import type { RotateOptions, Rotation } from './model.ts';
import { applyRoleStep, namesRetired, nextRoleStep, type RolePosition } from './rules.ts';
import { locked, mustBeEditable, mustComeFromFile, readNow, writeEnv } from './write.ts';

interface Seen extends RolePosition {
  text: string;
  env: EnvFile;
  release: number;
  endpoint: DatabaseEndpoint;
}

const defaultWaitMs = 300_000;

export function roleRotation(context: Context, options: RotateOptions): Rotation<Seen> {
  return {
    look: (isBegun) => look(context, isBegun),
    next: nextRoleStep,
    apply: (at, step) => ({ ...at, ...applyRoleStep(at, step) }),
    tell: ({ file, roles, release }) =>
      [
        `release ${release} is live`,
        `servers log in as ${file}`,
        ...(roles ? [`${roles.owner} owns everything`] : []),
      ].join(' · '),
    facts: ({ file, roles, release }) => ({ user: file, owner: roles?.owner ?? null, release }),
    async perform(step, at) {
      if (step.kind === 'deploy') return deploySecrets(context, options, step.cause);
      const endpoint = adminOf(context);
      const as = (work: (admin: RoleAdmin) => Promise<void>) => withRoleAdmin(at.endpoint, endpoint, work);
      switch (step.kind) {
        case 'take-over':
          return locked(context, () => as((admin) => takeOverFrom(admin, at)));
        case 'hand-on':
          return locked(context, () => as((admin) => handOn(context, admin, at, step.to)));
        case 'mark':
          return locked(context, () => as((admin) => markCurrent(admin, at.file, otherOf(at))));
        case 'disable':
          return as((admin) => disable(context, options, admin, at));
        default:
          return;
      }
    },
  };
}

async function look(context: Context, isBegun: boolean): Promise<Seen> {
  const engine = await context.engine();
  const record = await readRecord(engine, context.project);
  if (record === null) throw nothingThere(context);
  const live = mustBeLive(context, record);
  const endpoint = await openEndpoint(context);
  const text = readNow(context);
  const env = context.readEnv(requestOf(record).image);
  mustComeFromFile(context, env, ['DB_USER', 'DB_PASSWORD']);
  const roles = await withClient(endpoint, (client) => readRoles(client, endpoint.user));
  if (roles && !roles.logins.some(({ name }) => name === endpoint.user)) throw strange(endpoint);
  const isServed = isServedWith(record, live.fingerprints, env);
  if (namesRetired({ file: endpoint.user, roles }, isServed)) throw retired(context, endpoint, live.id);
  const states = roles?.logins.map(({ state }) => state) ?? [];
  return {
    names: roleNames(endpoint.user),
    file: endpoint.user,
    roles,
    text,
    env,
    endpoint,
    release: live.id,
    isLive: record.intent === null && isServed,
    isBegun: isBegun || states.some((state) => state === 'incoming' || state === 'outgoing'),
  };
}

function isServedWith(
  { fingerprintKey }: ProjectRecord,
  fingerprints: Readonly<Record<string, string>>,
  env: EnvFile,
): boolean {
  return ['DB_USER', 'DB_PASSWORD'].every(
    (name) => fingerprints[name] === fingerprintOfSetting(fingerprintKey, name, env.values[name] ?? ''),
  );
}

/** For an external server, when the role in .env may not change roles. Never read from .env, because game servers get that. */
function adminOf({ environment }: Context): DatabaseEndpoint | null {
  const { DB_ADMIN_URL: given, DB_ADMIN_URL_FILE: file } = environment;
  const text = given || (file ? readAdminFile(file) : '');
  if (text === '') return null;
  keepSecret(text);
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !/^postgres(ql)?:$/.test(url.protocol) || url.username === '') {
    throw new OpsError('ENV_INVALID', {
      message: 'DB_ADMIN_URL: expected postgres://user:password@host:port/database. Nothing was changed.',
      next: ['correct DB_ADMIN_URL (percent-encode special characters)'],
      facts: { key: 'DB_ADMIN_URL' },
    });
  }
  const decoded = decodeURIComponent;
  return {
    host: url.hostname,
    port: Number(url.port || 5432),
    database: decoded(url.pathname.slice(1)) || 'postgres',
    user: decoded(url.username),
    password: decoded(url.password),
    accessory: null,
  };
}

function readAdminFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    throw new OpsError('ENV_UNREADABLE', {
      message: 'DB_ADMIN_URL_FILE: expected the path of a file that can be read. Nothing was changed.',
      next: ['correct DB_ADMIN_URL_FILE'],
      facts: { key: 'DB_ADMIN_URL_FILE' },
    });
  }
}

function otherOf({ roles, file, names }: Seen): string {
  return roles?.logins.find(({ name }) => name !== file)?.name ?? names.alternate;
}

/** Another call may have done it in the meantime. */
async function takeOverFrom(admin: RoleAdmin, { endpoint, names }: Seen): Promise<void> {
  if ((await readRoles(admin.client, endpoint.user)) !== null) return;
  await takeOver(admin, endpoint, names);
}

/** Role and .env change under one lock: of two calls at the same time, one's password would be in .env and the other's in force. */
async function handOn(
  context: Context,
  admin: RoleAdmin,
  { endpoint, text, env }: Seen,
  to: string,
): Promise<void> {
  if (readNow(context) !== text) return;
  const password = generateSecret();
  keepSecret(password);
  const edits: Edit[] = [
    { key: 'DB_USER', value: to },
    { key: 'DB_PASSWORD', value: password },
    ...databaseUrl(env, endpoint.user, { user: to, password }),
  ];
  mustBeEditable(context, text, edits);
  await enable(admin, endpoint, { name: to, password });
  writeEnv(context, text, edits);
}

/** A DATABASE_URL beside DB_* has to name the same login; one with another login is left alone. */
function databaseUrl(
  { values, sources }: EnvFile,
  from: string,
  to: { user: string; password: string },
): Edit[] {
  if (sources.DATABASE_URL !== 'file') return [];
  const value = withLogin(values.DATABASE_URL ?? '', from, to);
  return value === null ? [] : [{ key: 'DATABASE_URL', value }];
}

/** @throws ROTATION_UNFINISHED, which names the connections that are still open */
async function disable(
  context: Context,
  { waitMs = defaultWaitMs }: RotateOptions,
  admin: RoleAdmin,
  at: Seen,
): Promise<void> {
  const role = otherOf(at);
  const deadline = Date.now() + waitMs;
  const owner = at.roles?.owner ?? at.names.owner;
  const left = await disableWhenQuiet(admin, role, { owner, deadline, signal: context.signal });
  if (left.length > 0) throw unfinished(role, at.file, left);
}

function unfinished(role: string, present: string, left: readonly Straggler[]): OpsError {
  const who = left.map(({ pid, application, address }) => `${application} from ${address} (pid ${pid})`);
  return new OpsError('ROTATION_UNFINISHED', {
    message: `Servers log in as ${present}. ${role} stays enabled, because it is still in use: ${who.slice(0, 5).join(', ')}. Players are not affected.`,
    next: [`give these clients DB_USER=${present} and its password`, 'gameops env rotate db'],
    facts: { role, sessions: who },
  });
}

function strange({ user }: DatabaseEndpoint): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `${user} is a member of an owner role that gameops made, but it is not one of the two login roles. Nothing was changed.`,
    next: ['use the .env that the live release was deployed with'],
    facts: { user },
  });
}

function retired({ envPath }: Context, { user }: DatabaseEndpoint, release: number): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `${envPath} names ${user}, a role that is being retired, and release ${release} logs in as another role: this .env is an older one. Nothing was changed; players are where they were.`,
    next: [
      'use the .env that the live release was deployed with (another operator may have a newer one)',
      'gameops deploy, if the newer .env is lost; then the same command again',
    ],
    facts: { user, release },
  });
}
