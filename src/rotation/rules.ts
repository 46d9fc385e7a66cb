/**
 * What comes next in the rotation of a secret. One rule book each for JWT_SECRET and for the database's role: it looks at
 * where things stand (.env, the live release, the roles) and names the one step to do; a plan is the trace of these steps.
 * Nothing stores how far a rotation is, so the next call continues where a killed one stopped. Pure.
 */

// JWT_SECRET ------------------------------------------------------------------------------------------------------

/** Names of keys, never keys; "?" for one that .env does not hold. */
export interface KeyRing {
  signs: string;
  next: string | null;
  previous: string | null;
}

export interface JwtPosition {
  file: KeyRing;
  live: KeyRing;
  /** No deploy is under way, so no server of an earlier release runs. */
  isSettled: boolean;
  /** This call or an earlier one has begun a rotation: nothing new begins when it is complete. */
  isBegun: boolean;
  /** Since when no server signs with another key than the present one, ms; null: not noted yet. */
  soleSince: number | null;
  now: number;
  /** How long the longest-lived token is valid. */
  lifeMs: number;
}

export type RotationStep =
  | { kind: 'write-env'; what: 'next' | 'promote' | 'drop'; cause: string }
  | { kind: 'deploy'; cause: string }
  | { kind: 'note'; cause: string }
  | { kind: 'wait'; until: number; cause: string }
  | { kind: 'take-over'; cause: string }
  | { kind: 'hand-on'; to: string; cause: string }
  | { kind: 'mark'; cause: string }
  | { kind: 'disable'; role: string; cause: string };

/** What deploying a .env that another operator wrote, or that was edited by hand, would do to tokens; null: no harm. */
export function whyUnsafe({ file, live }: Pick<JwtPosition, 'file' | 'live'>): 'signs' | 'forgets' | null {
  const holds = ({ signs, next, previous }: KeyRing, key: string) => [signs, next, previous].includes(key);
  if (!holds(live, file.signs)) return 'signs';
  return holds(file, live.signs) ? null : 'forgets';
}

export function nextJwtStep(at: JwtPosition): RotationStep | null {
  const { file, live } = at;
  if (!isSame(file, live) || !at.isSettled) return { kind: 'deploy', cause: causeOfDeploy(file) };
  if (file.previous !== null) {
    if (at.soleSince === null) return { kind: 'note', cause: 'from now on only the new key signs' };
    const until = at.soleSince + at.lifeMs;
    if (at.now < until) return { kind: 'wait', until, cause: 'players still hold tokens of the old key' };
    return { kind: 'write-env', what: 'drop', cause: 'no token of the old key is valid any more' };
  }
  if (file.next !== null)
    return { kind: 'write-env', what: 'promote', cause: 'every replica accepts the new key: it may sign' };
  if (at.isBegun) return null;
  return { kind: 'write-env', what: 'next', cause: 'a new key, which signs nothing yet' };
}

const isSame = (a: KeyRing, b: KeyRing) =>
  a.signs === b.signs && a.next === b.next && a.previous === b.previous;

function causeOfDeploy({ next, previous }: KeyRing): string {
  if (previous !== null) return 'the new key signs, the old one is still accepted';
  return next === null ? 'the old key is forgotten' : 'every replica accepts both keys, the old one signs';
}

export function applyJwtStep(at: JwtPosition, step: RotationStep): JwtPosition {
  const { file } = at;
  const begun = { ...at, isBegun: true };
  switch (step.kind) {
    case 'deploy':
      return { ...at, live: file, isSettled: true };
    case 'note':
      return { ...begun, soleSince: at.now };
    case 'wait':
      return { ...begun, now: step.until };
    case 'write-env':
      return { ...begun, file: written(file, step.what) };
    default:
      return begun;
  }
}

/** Steps that only a rotation takes. Finishing somebody's deploy, or making an owner role, does not begin a rotation. */
export const isOfRotation = ({ kind }: RotationStep) => kind !== 'deploy' && kind !== 'take-over';

function written(file: KeyRing, what: 'next' | 'promote' | 'drop'): KeyRing {
  if (what === 'next') return { ...file, next: 'new' };
  if (what === 'drop') return { ...file, previous: null };
  return { signs: file.next ?? '?', next: null, previous: file.signs };
}

// The database's role ----------------------------------------------------------------------------------------------

/** current: .env names it and servers use it · incoming: enabled, to be named by .env · outgoing: its connections end · resting: disabled */
export type LoginState = 'current' | 'incoming' | 'outgoing' | 'resting';

export interface LoginRole {
  name: string;
  state: LoginState;
  canLogin: boolean;
}

export interface RolePosition {
  /** DB_USER of .env. */
  file: string;
  /** The live release has .env's role and password, and no deploy is under way. */
  isLive: boolean;
  /** What the first rotation makes. */
  names: { owner: string; alternate: string };
  /** Null: one role logs in and owns everything, as before the first rotation. */
  roles: { owner: string; logins: readonly LoginRole[] } | null;
  isBegun: boolean;
}

/** An older .env: deploying it would send servers back to the role that is being retired. */
export function namesRetired(
  { file, roles }: Pick<RolePosition, 'file' | 'roles'>,
  isServedWith: boolean,
): boolean {
  return (
    !isServedWith && roles?.logins.some(({ name, state }) => name === file && state === 'outgoing') === true
  );
}

export function nextRoleStep(at: RolePosition): RotationStep | null {
  const { file, isLive, roles } = at;
  if (!isLive) return { kind: 'deploy', cause: `servers log in as ${file}` };
  if (roles === null)
    return {
      kind: 'take-over',
      cause: `${file} owns everything; a new owner role that nobody logs in as takes over`,
    };
  const own = roles.logins.find(({ name }) => name === file);
  const other = roles.logins.find(({ name }) => name !== file);
  if (!own || !other) return null;
  // It is outgoing when somebody deployed an older .env, because the newer one was lost.
  if (own.state === 'incoming' || own.state === 'outgoing')
    return { kind: 'mark', cause: `${file} is in use now, ${other.name} is being retired` };
  if (other.state === 'outgoing')
    return { kind: 'disable', role: other.name, cause: 'once its last connection has ended' };
  if (at.isBegun && other.state !== 'incoming') return null;
  return {
    kind: 'hand-on',
    to: other.name,
    cause: 'a new password: proven by a login, then written to .env',
  };
}

export function applyRoleStep(at: RolePosition, step: RotationStep): RolePosition {
  const { roles, file } = at;
  const change = (name: string, part: Partial<LoginRole>) =>
    roles && { ...roles, logins: roles.logins.map((one) => (one.name === name ? { ...one, ...part } : one)) };
  switch (step.kind) {
    case 'deploy':
      return { ...at, isLive: true };
    case 'take-over': {
      const current = { name: file, state: 'current', canLogin: true } as const;
      const resting = { name: at.names.alternate, state: 'resting', canLogin: false } as const;
      return { ...at, roles: { owner: at.names.owner, logins: [current, resting] } };
    }
    case 'hand-on':
      return {
        ...at,
        isBegun: true,
        isLive: false,
        file: step.to,
        roles: change(step.to, { state: 'incoming', canLogin: true }),
      };
    case 'mark':
      return {
        ...at,
        isBegun: true,
        roles: roles && {
          ...roles,
          logins: roles.logins.map((one) => ({ ...one, state: one.name === file ? 'current' : 'outgoing' })),
        },
      };
    case 'disable':
      return { ...at, isBegun: true, roles: change(step.role, { state: 'resting', canLogin: false }) };
    default:
      return at;
  }
}

// Plans ------------------------------------------------------------------------------------------------------------

/** More steps than any rotation takes: a longer plan never ends, which is a bug. */
const stepsMax = 20;

export function traceOf<P>(
  start: P,
  next: (at: P) => RotationStep | null,
  apply: (at: P, step: RotationStep) => P,
): RotationStep[] {
  const steps: RotationStep[] = [];
  let at = start;
  for (let step = next(at); step !== null; step = next(at)) {
    steps.push(step);
    at = apply(at, step);
    if (steps.length > stepsMax) throw new Error('the plan of a rotation does not end');
  }
  return steps;
}
