/** What comes next in a rotation, as text; that every place where one can be killed leads to the same end; and edits of .env. */
import { describe, expect, it, test } from 'vitest';
import { scramVerifier } from '../../../src/database/server/scram.ts';
import { editEnv, withLogin } from '../../../src/env/file/edit.ts';
import {
  applyJwtStep,
  applyRoleStep,
  type JwtPosition,
  namesRetired,
  nextJwtStep,
  nextRoleStep,
  type RolePosition,
  type RotationStep,
  traceOf,
  whyUnsafe,
} from '../../../src/rotation/rules.ts';

const words = (steps: readonly RotationStep[]) =>
  steps.map((step) => {
    if (step.kind === 'write-env') return `write ${step.what}`;
    if (step.kind === 'hand-on') return `hand on to ${step.to}`;
    return step.kind === 'disable' ? `disable ${step.role}` : step.kind;
  });

const ring = (signs: string, next: string | null = null, previous: string | null = null) => ({
  signs,
  next,
  previous,
});

describe('JWT_SECRET', () => {
  const before: JwtPosition = {
    file: ring('a'),
    live: ring('a'),
    isSettled: true,
    isBegun: false,
    soleSince: null,
    now: 0,
    lifeMs: 1_000,
  };
  const plan = (at: JwtPosition) => words(traceOf(at, nextJwtStep, applyJwtStep));
  const whole = ['write next', 'deploy', 'write promote', 'deploy', 'note', 'wait', 'write drop', 'deploy'];

  it('a new key is accepted everywhere before it signs, and the old key until its last token expires', () => {
    expect(plan(before)).toEqual(whole);
  });

  it('when a rotation is killed before any step, the next plan is the rest of the plan', () => {
    let at = before;
    for (const [index, step] of traceOf(before, nextJwtStep, applyJwtStep).entries()) {
      expect(plan(at)).toEqual(whole.slice(index));
      at = applyJwtStep(at, step);
      // What a new process sees: it has done nothing, but finds that something was begun.
      const isBegun = [at.file, at.live].some(({ next, previous }) => next !== null || previous !== null);
      at = { ...at, isBegun };
    }
    expect(plan({ ...at, isBegun: true })).toEqual([]);
  });

  it('at no moment of any plan does a replica sign tokens that another replica refuses', () => {
    let at = before;
    for (const step of traceOf(before, nextJwtStep, applyJwtStep)) {
      const after = applyJwtStep(at, step);
      // While a deploy runs, both fleets serve; before it, the CLI signs with what .env says.
      const [old, young] = [at.live, after.live];
      for (const [signer, verifier] of [
        [old, young],
        [young, old],
        [after.file, young],
      ] as const)
        expect([verifier.signs, verifier.next, verifier.previous]).toContain(signer.signs);
      at = after;
    }
  });

  it('an unfinished act is finished first, whoever began it', () => {
    expect(plan({ ...before, isSettled: false, isBegun: true })).toEqual(['deploy']);
    expect(plan({ ...before, isSettled: false })).toEqual(['deploy', ...whole]);
  });

  it("a .env whose key the live release refuses, or that lacks the live release's key, is not deployed", () => {
    expect(whyUnsafe({ file: ring('b'), live: ring('a') })).toBe('signs');
    expect(whyUnsafe({ file: ring('b'), live: ring('a', 'b') })).toBe('forgets');
    expect(whyUnsafe({ file: ring('b', null, 'a'), live: ring('a', 'b') })).toBeNull();
    expect(whyUnsafe({ file: ring('a'), live: ring('b', null, 'a') })).toBe('forgets');
  });

  it('when the beginning of the wait for old tokens was not noted, the wait begins now', () => {
    expect(plan({ ...before, file: ring('b', null, 'a'), live: ring('b', null, 'a'), now: 10_000 })).toEqual(
      whole.slice(4),
    );
    const noted = { ...before, file: ring('b', null, 'a'), live: ring('b', null, 'a'), soleSince: 500 };
    expect(nextJwtStep({ ...noted, now: 1_499 })).toMatchObject({ kind: 'wait', until: 1_500 });
    expect(nextJwtStep({ ...noted, now: 1_500 })).toMatchObject({ kind: 'write-env', what: 'drop' });
  });
});

describe("the database's role", () => {
  const names = { owner: 'arena_owner', alternate: 'arena_alternate' };
  const before: RolePosition = { file: 'arena', isLive: true, names, roles: null, isBegun: false };
  const plan = (at: RolePosition) => words(traceOf(at, nextRoleStep, applyRoleStep));
  const whole = ['take-over', 'hand on to arena_alternate', 'deploy', 'mark', 'disable arena'];

  it('the first rotation makes the owner role; later the two login roles take turns', () => {
    expect(plan(before)).toEqual(whole);
    const end = traceOf(before, nextRoleStep, applyRoleStep).reduce(applyRoleStep, before);
    expect(plan(end)).toEqual([]);
    expect(plan({ ...end, isBegun: false })).toEqual([
      'hand on to arena',
      'deploy',
      'mark',
      'disable arena_alternate',
    ]);
  });

  it('when a rotation of the role is killed before any step, the next plan is the rest of the plan', () => {
    let at = before;
    for (const [index, step] of traceOf(before, nextRoleStep, applyRoleStep).entries()) {
      expect(plan(at)).toEqual(whole.slice(index));
      at = applyRoleStep(at, step);
      const isBegun =
        at.roles?.logins.some(({ state }) => state === 'incoming' || state === 'outgoing') === true;
      at = { ...at, isBegun };
    }
  });

  it('when a rotation is killed between the new password and .env, the role gets another password', () => {
    const roles = {
      owner: 'arena_owner',
      logins: [
        { name: 'arena', state: 'current', canLogin: true },
        { name: 'arena_alternate', state: 'incoming', canLogin: true },
      ],
    } as const;
    expect(plan({ ...before, roles, isBegun: true })).toEqual(whole.slice(1));
  });

  it('when a rotation is killed while the old role is being disabled, it is disabled again', () => {
    const roles = {
      owner: 'arena_owner',
      logins: [
        { name: 'arena', state: 'outgoing', canLogin: false },
        { name: 'arena_alternate', state: 'current', canLogin: true },
      ],
    } as const;
    expect(plan({ ...before, file: 'arena_alternate', roles, isBegun: true })).toEqual(['disable arena']);
  });
});

describe('a .env from before the last rotation', () => {
  const roles = {
    owner: 'arena_owner',
    logins: [
      { name: 'arena', state: 'outgoing', canLogin: true },
      { name: 'arena_alternate', state: 'current', canLogin: true },
    ],
  } as const;
  const names = { owner: 'arena_owner', alternate: 'arena_alternate' };

  it('names the role that is being retired, while servers log in as the other one', () => {
    expect(namesRetired({ file: 'arena', roles }, false)).toBe(true);
    expect(namesRetired({ file: 'arena', roles }, true)).toBe(false);
    expect(namesRetired({ file: 'arena_alternate', roles }, false)).toBe(false);
    expect(namesRetired({ file: 'arena', roles: null }, false)).toBe(false);
  });

  it('once deployed because the newer .env is lost, makes its role current and disables the other one', () => {
    const deployed: RolePosition = { file: 'arena', isLive: true, names, roles, isBegun: true };
    const plan = words(traceOf(deployed, nextRoleStep, applyRoleStep));
    expect(plan).toEqual(['mark', 'disable arena_alternate']);
  });
});

test('the SCRAM verifier equals that of the example in RFC 7677', () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  // Keys of the example of RFC 7677, 3: user "user", password "pencil", 4096 iterations.
  expect(scramVerifier('pencil', salt)).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  );
});

describe('edits of .env', () => {
  const text = '# Kept.\nA=1\n\nexport B = "two"   # why\r\n# C=3\nD=4';

  it('change one value and keep everything else as it is', () => {
    expect(editEnv(text, [{ key: 'B', value: 'zwei' }])).toBe(
      '# Kept.\nA=1\n\nexport B = zwei   # why\r\n# C=3\nD=4',
    );
    expect(editEnv(text, [{ key: 'D', value: '5' }])).toBe(text.replace('D=4', 'D=5'));
  });

  it('add a key below another one with the same line ending, or at the end', () => {
    expect(editEnv(text, [{ key: 'B2', value: 'x', below: 'B' }])).toContain('# why\r\nB2=x\r\n# C=3');
    expect(editEnv(text, [{ key: 'E', value: 'x', below: 'D' }])).toBe(`${text}\nE=x\n`);
    expect(editEnv(text, [{ key: 'E', value: 'x' }])).toBe(`${text}\nE=x\n`);
    expect(editEnv('', [{ key: 'E', value: 'x' }])).toBe('E=x\n');
  });

  it('remove every line of a key', () => {
    expect(editEnv('A=1\nB=2\nA=3\n', [{ key: 'A', value: null }])).toBe('B=2\n');
    expect(editEnv('B=2\n', [{ key: 'A', value: null }])).toBe('B=2\n');
  });

  it('handle values of several lines, a byte order mark and keys that occur twice', () => {
    expect(editEnv('\uFEFFK="a\nb"\nZ=1\n', [{ key: 'K', value: 'c' }])).toBe('\uFEFFK=c\nZ=1\n');
    expect(editEnv('A=1\nA=2\n', [{ key: 'A', value: '3' }])).toBe('A=1\nA=3\n');
  });

  it('keep quotes that a shell needs, and add none', () => {
    const value = 'postgres://b:2@db/x?sslmode=require&a=1';
    for (const quote of ['', '"', "'"]) {
      const line = `URL=${quote}postgres://a:1@db/x?sslmode=require&a=1${quote}\n`;
      expect(editEnv(line, [{ key: 'URL', value }])).toBe(`URL=${quote}${value}${quote}\n`);
    }
  });

  it('replace the login in a URL if it is the old one, and change nothing else in it', () => {
    const to = { user: 'b', password: '2' };
    const rest = '@DB:5432/x?sslmode=require&options=-c%20a%3D1';
    for (const login of ['a', 'a:1', 'a:', '%61:p@ss'])
      expect(withLogin(`postgres://${login}${rest}`, 'a', to)).toBe(`postgres://b:2${rest}`);
    expect(withLogin(`postgresql://a,b:1${rest}`, 'a,b', to)).toBe(`postgresql://b:2${rest}`);
    for (const other of [`postgres://reader:1${rest}`, 'postgres://db/x?user=a@b', 'postgres://%zz@db/x', ''])
      expect(withLogin(other, 'a', to)).toBeNull();
  });

  it('never write a value that would need quotes', () => {
    for (const value of ['a b', 'a#b', '$x', '"', 'a\nb', ''])
      expect(() => editEnv(text, [{ key: 'A', value }])).toThrow();
  });
});
