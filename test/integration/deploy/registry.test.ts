/**
 * Images that come from a registry, a real one: what is fetched, when, and what is left as it was when that fails.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { label } from '../../../src/contract.ts';
import { shortId } from '../../../src/units.ts';
import { account, openRegistry, type Pushed, type Registry } from '../../support/site/registry.ts';
import { type OnEvent, openSite, type Ran, type Site, stepsOf } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];
const prepare = ['images', 'prepare', '--config', 'images.yaml'];

let registry: Registry;
let site: Site;
let url = '';

beforeAll(async () => {
  registry = await openRegistry();
  site = await openSite({ replicas: 1, name: 'registry', config: { server: { probe: '/v2/' } } });
  // Nothing but the game and Nginx: these images ask for no database.
  const gone = Object.keys(await site.env()).filter((key) => /^(DB_|REDIS_)/.test(key));
  await site.setEnv(Object.fromEntries(gone.map((key) => [key, null])));
});
afterAll(async () => {
  await site?.close();
  await registry?.close();
});

function expectDone(ran: Ran): void {
  expect(ran.exitCode, `${ran.stdout}\n${ran.stderr}`).toBe(0);
}

function expectRefused(ran: Ran, code: string, says: RegExp): void {
  const error = ran.json?.error;
  expect({ exitCode: ran.exitCode, code: error?.code }, error?.message).toEqual({ exitCode: 4, code });
  expect(error?.message).toMatch(says);
  expect(error?.message).toContain('players are where they were');
}

const notes = ({ events }: Ran) => events.flatMap((event) => (event.type === 'note' ? [event.message] : []));

/** Every container that players could meet, and the image it runs. */
async function serving(): Promise<string[]> {
  const containers = await site.containers();
  return containers
    .filter(({ Labels }) => ['game', 'proxy'].includes(Labels[label.role] ?? ''))
    .map(({ Id, Names, State, ImageID }) => `${Names[0]} ${Id} ${State} ${ImageID}`)
    .sort();
}

/** Image id of the one replica that runs. */
async function running(): Promise<string | undefined> {
  const games = (await site.containers()).filter(({ Labels }) => Labels[label.role] === 'game');
  return games.find(({ State }) => State === 'running')?.ImageID;
}

async function expectServed(image: Pushed): Promise<void> {
  expect(await running()).toBe(image.id);
  url ||= await site.url();
  expect((await fetch(url)).status).toBe(200);
}

const releases = async () => (await site.run(['releases'])).json?.result.releases;

/** For `images prepare` alone: the roles come from the registry, too. */
async function askFor({ roles, game }: { roles: string; game: string }): Promise<void> {
  const images = { nginx: roles, postgres: roles, redis: roles, node: roles };
  await writeFile(
    join(site.folder, 'images.yaml'),
    stringify({ project: site.project, images, server: { image: game } }),
  );
}

/** Starts it and waits until a layer that it pulls is half sent. */
async function untilHalf(args: readonly string[], onEvent: OnEvent = () => undefined) {
  const half = registry.holdLayer();
  const act = site.start(args, { onEvent });
  const early = act.ended.then(({ stdout, stderr }) => {
    throw new Error(`it ended before it had pulled anything: ${stdout}\n${stderr}`);
  });
  return { act, held: await Promise.race([half, early]) };
}

/** Lets the other half come once the first was told of: of what is quick the engine may tell nothing. */
async function slowly(args: readonly string[], ref: string): Promise<Ran> {
  let tell = () => {};
  const isTold = new Promise<void>((resolve) => (tell = resolve));
  const { act, held } = await untilHalf(args, ({ type }) => type === 'progress' && tell());
  await isTold;
  held.goOn();
  const ran = await act.ended;
  expectDone(ran);
  const progress = ran.events.filter(
    (event) => event.type === 'progress' && event.label === `pulling ${ref}`,
  );
  expect(progress.length).toBeGreaterThan(1);
  const { done, total } = progress.at(-1) as { done: number; total: number };
  expect(done).toBe(total);
  return ran;
}

describe('images prepare', () => {
  it('pulls an image that is not on the engine, shows the progress, and names the digest', async () => {
    const roles = await registry.push('roles/any:1');
    const game = await registry.push('prepared/server:1');
    await registry.removeHere(game);
    await askFor({ roles: roles.ref, game: game.ref });
    const ran = await slowly(prepare, game.ref);
    expect(notes(ran)).toEqual([`pulled ${game.ref} (${game.digestRef.split('@')[1]})`]);
    const row = (role: string, { ref, id, digestRef }: Pushed, source: string) => ({
      role,
      ref,
      id,
      source,
      digestRef,
    });
    expect(ran.json?.result.images).toEqual([
      ...['nginx', 'postgres', 'redis', 'node'].map((role) => row(role, roles, 'engine')),
      row('game', game, 'registry'),
    ]);
    await registry.removeHere(roles);
    const again = await site.run(prepare);
    expectDone(again);
    expect(again.json?.result.images).toEqual([
      ...['nginx', 'postgres', 'redis', 'node'].map((role) => row(role, roles, 'registry')),
      row('game', game, 'engine'),
    ]);
  });

  it('needs no registry when every image is on the engine, unless --source registry asks for one', async () => {
    registry.goAway();
    const ran = await site.run(prepare);
    expectDone(ran);
    expect(ran.events).toEqual([]);
    const insisted = await site.run([...prepare, '--source', 'registry']);
    expectRefused(insisted, 'REGISTRY_UNREACHABLE', /prepared\/server:1 does not answer: .*refused/);
    await registry.comeBack();
  });
});

describe('a deploy', () => {
  let one: Pushed;
  let moved: Pushed;
  let next: Pushed;

  it('pulls an image that is not on the engine and says which one', async () => {
    one = await registry.push('arena/server:1');
    await registry.removeHere(one);
    await site.configure({ server: { image: one.ref } });
    const plan = (await site.run(['deploy', '--plan'])).json?.result.plan;
    expect(plan.steps[0]).toMatchObject({ kind: 'prepare-images', images: [one.ref] });
    const ran = await slowly(['deploy', ...quick], one.ref);
    expect(stepsOf(ran)[0]).toMatchObject({ kind: 'prepare-images', images: [one.ref] });
    expect(ran.json?.result).toMatchObject({ image: one.ref, digestRef: one.digestRef });
    expect(await releases()).toMatchObject([{ image: one.id, imageRef: one.ref, digestRef: one.digestRef }]);
    await expectServed(one);
  });

  it('uses a tag as it is on the engine, and a moved tag only after `images prepare --source registry`', async () => {
    moved = await registry.push('arena/server:2');
    await registry.moveTag('arena/server:1', moved);
    await registry.removeHere(moved);
    const same = await site.run(['deploy', ...quick]);
    expectDone(same);
    expect(same.json?.result).toMatchObject({ release: 1, steps: [] });
    expect(notes(same).join()).toMatch(new RegExp(`${shortId(one.id)} on the engine.*--source registry`));

    await askFor({ roles: one.ref, game: one.ref });
    expectDone(await site.run([...prepare, '--source', 'registry']));
    const ran = await site.run(['deploy', ...quick]);
    expectDone(ran);
    expect(ran.json?.result).toMatchObject({ release: 2, image: one.ref, digestRef: moved.digestRef });
    await expectServed(moved);
    expect(await releases()).toMatchObject([
      { id: 2, image: moved.id, imageRef: one.ref, digestRef: moved.digestRef },
      { id: 1, image: one.id, imageRef: one.ref, digestRef: one.digestRef },
    ]);
  });

  it('changes nothing before a pull is over, and can be stopped in the middle of it', async () => {
    next = await registry.push('arena/server:3');
    await registry.removeHere(next);
    const before = await serving();
    const { act, held } = await untilHalf(['deploy', '--image', next.ref, ...quick]);
    expect(await serving()).toEqual(before);
    expect((await site.run(['status'])).json?.result).toMatchObject({ unfinished: null, lockedBy: null });
    act.process.kill('SIGINT');
    const ran = await act.ended;
    held.cut();
    const ended = { exitCode: ran.exitCode, code: ran.json?.error?.code };
    expect(ended).toEqual({ exitCode: 130, code: 'INTERRUPTED' });
    expect(await serving()).toEqual(before);
    expect(await releases()).toHaveLength(2);
  });

  it('continues after a connection broke in the middle of a layer, and says that it waits', async () => {
    await askFor({ roles: one.ref, game: next.ref });
    const { act, held } = await untilHalf(prepare);
    held.cut();
    const ran = await act.ended;
    expectDone(ran);
    expect(ran.json?.result.images.at(-1)).toMatchObject({ id: next.id, source: 'registry' });
    const trouble = `pulling ${next.ref}: the registry broke off; the engine tries again in 5 seconds`;
    expect(ran.events).toContainEqual(expect.objectContaining({ level: 'warning', message: trouble }));
  });

  it('is refused when the registry has only a part of the image', async () => {
    await registry.removeHere(next);
    await registry.removeLayer(next);
    const before = await serving();
    const ran = await site.run(['deploy', '--image', next.ref, ...quick]);
    expectRefused(ran, 'IMAGE_NOT_FOUND', /only a part of .*arena\/server:3: unknown blob/);
    expect(await serving()).toEqual(before);
    expect((await site.run(['deploy', '--plan'])).json?.result.plan.steps).toEqual([]);
  });

  it('is refused when the reference is not valid', async () => {
    const before = await serving();
    for (const image of ['arena server:1', 'Arena/Server:1']) {
      const ran = await site.run(['deploy', '--image', image, ...quick]);
      expectRefused(ran, 'IMAGE_NOT_FOUND', /invalid reference format/);
    }
    expect(await serving()).toEqual(before);
  });

  it('starts again after down from the recorded digest, when the image is gone from the engine and its tag has moved', async () => {
    expectDone(await site.run(['down']));
    // Its port may go to somebody else meanwhile.
    url = '';
    await registry.moveTag('arena/server:1', one);
    await registry.removeHere(moved);
    const ran = await site.run(['resume']);
    expectDone(ran);
    expect(notes(ran)).toContain(`pulled ${moved.digestRef}`);
    await expectServed(moved);
    await registry.moveTag('arena/server:1', moved);
  });

  it('refuses a rollback when the image is nowhere, and names release and registry', async () => {
    await registry.removeHere(one);
    registry.goAway();
    const before = await serving();
    const ran = await site.run(['rollback']);
    const says = new RegExp(`release 1 .*${registry.host}/arena/server@sha256:.*refused`);
    expectRefused(ran, 'REGISTRY_UNREACHABLE', says);
    expect(ran.json?.error?.facts).toMatchObject({ release: 1, registry: registry.host });
    expect(await serving()).toEqual(before);
    await expectServed(moved);
    expect((await site.run(['status'])).json?.result).toMatchObject({ unfinished: null, lockedBy: null });
    await registry.comeBack();
  });

  it('rolls back to exactly the image that ran, by digest, when it is gone from the engine and its tag has moved', async () => {
    const plan = (await site.run(['rollback', '--plan'])).json?.result.plan;
    const fetches = { kind: 'prepare-images', images: [one.digestRef] };
    expect(plan.steps[0]).toMatchObject(fetches);
    const ran = await site.run(['rollback']);
    expectDone(ran);
    expect(stepsOf(ran)[0]).toMatchObject(fetches);
    expect(notes(ran)).toContain(`pulled ${one.digestRef}`);
    expect(ran.json?.result).toMatchObject({ release: 1, digestRef: one.digestRef });
    await expectServed(one);
  });

  it('rolls back to a kept fleet without its image and without a registry', async () => {
    await registry.removeHere(moved);
    registry.goAway();
    const ran = await site.run(['rollback', '--to', '2']);
    expectDone(ran);
    expect(stepsOf(ran).map(({ kind }) => kind)).not.toContain('prepare-images');
    await expectServed(moved);
    await registry.comeBack();
  });
});

describe('a registry that requires a login', () => {
  let locked: Registry;
  let image: Pushed;
  beforeAll(async () => {
    locked = await openRegistry({ isLocked: true });
    image = await locked.push('arena/server:1');
    await locked.removeHere(image);
    await askFor({ roles: (await registry.push('roles/any:2')).ref, game: image.ref });
  });
  afterAll(() => locked?.close());

  /** As `docker login` leaves it. */
  async function logIn(password: string): Promise<string> {
    const auth = Buffer.from(`${account.name}:${password}`).toString('base64');
    const folder = join(site.folder, 'home-first', '.docker');
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'config.json'), JSON.stringify({ auths: { [locked.host]: { auth } } }));
    return auth;
  }

  it('is refused without credentials, with the command that gets them', async () => {
    const ran = await site.run(prepare);
    expectRefused(ran, 'REGISTRY_DENIED', /arena\/server:1, asked without credentials: .*no basic auth/);
    expect(ran.json?.error?.next[0]).toContain(`docker login ${locked.host}`);
  });

  it('is refused with wrong credentials, in other words than without any', async () => {
    const auth = await logIn('a-wrong-password');
    const ran = await site.run(prepare);
    expectRefused(ran, 'REGISTRY_DENIED', /with the credentials that docker login left: .*unauthorized/);
    for (const secret of [auth, 'a-wrong-password']) expect(ran.stdout + ran.stderr).not.toContain(secret);
  });

  it('is pulled from with the credentials that docker login left, and no output shows them', async () => {
    const auth = await logIn(account.password);
    const ran = await site.run([...prepare, '--verbose']);
    expectDone(ran);
    expect(ran.json?.result.images.at(-1)).toMatchObject({ id: image.id, digestRef: image.digestRef });
    const told = ran.stdout + ran.stderr + (await site.journal());
    for (const secret of [auth, account.password]) expect(told).not.toContain(secret);
  });
});
