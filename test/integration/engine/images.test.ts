/** Images on the real engine: what may be had, what is never replaced, and how the Debian-built one behaves. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config.ts';
import { checkRoom } from '../../../src/engine/capacity.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { ContainerSpec, Engine } from '../../../src/engine/port.ts';
import { type DebianImage, ensureDebianImage } from '../../../src/images/debian.ts';
import { prepareImages, resolveImages } from '../../../src/images/roles.ts';
import { testProject } from '../../support/leftovers.ts';

const project = testProject('images');
const volume = `${project}-data`;
const silent = () => undefined;

let engine: Engine;
let debian: DebianImage;

beforeAll(async () => {
  engine = await dockerEngine();
  debian = await ensureDebianImage(engine, { emit: silent });
});

afterAll(async () => {
  await engine.removeContainer(project, `${project}-postgres`);
  await engine.removeVolume(project, volume);
  await engine.close();
});

function container(name: string, command: string[], more: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    project,
    name: `${project}-${name}`,
    role: 'one-off',
    image: debian.info.id,
    command,
    network: 'none',
    memoryBytes: 512 * 1024 ** 2,
    readOnlyRoot: true,
    restart: 'no',
    ...more,
  };
}

describe('images on the engine', () => {
  it('are all prepared, and preparing again fetches nothing', async () => {
    const config = configSchema.parse({});
    const first = await prepareImages(engine, config, { source: 'auto', emit: silent });
    const events: unknown[] = [];
    const second = await prepareImages(engine, config, {
      source: 'auto',
      emit: (event) => events.push(event),
    });
    for (const role of ['nginx', 'postgres', 'redis', 'node'] as const) {
      expect(second[role].id).toBe(first[role].id);
    }
    expect(events).toEqual([]);
  });

  it('never stand in for an image that the user configured', async () => {
    const config = configSchema.parse({ images: { redis: 'gameops-no-such-image.invalid/redis:9' } });
    const resolved = await resolveImages(engine, config);
    expect(resolved.redis).toEqual({ ref: config.images.redis, info: null, source: null });
    await expect(prepareImages(engine, config, { source: 'auto', emit: silent })).rejects.toMatchObject({
      exitCode: 4,
    });
  });

  it('leave room for two fleets on this machine, and the figures say so', async () => {
    const room = await checkRoom(engine, {
      project,
      image: debian.info.id,
      replicas: 1,
      memoryBytes: 64 * 1024 ** 2,
    });
    expect(room.freeDiskBytes).toBeGreaterThan(0);
    await expect(
      checkRoom(engine, { project, image: debian.info.id, replicas: 50, memoryBytes: 2 ** 40 }),
    ).rejects.toMatchObject({ code: 'MEMORY_TOO_SMALL' });
  });
});

describe('the Debian-built image', () => {
  it('runs every program of every role without root', async () => {
    const nginx = await engine.runOnce(
      container('nginx', ['nginx', '-v'], { user: '101', tmpfs: ['/tmp'] }),
      30_000,
    );
    expect(nginx).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('nginx/') });
    const redis = await engine.runOnce(
      container('redis', ['redis-server', '--version'], { user: 'redis' }),
      30_000,
    );
    expect(redis.stdout).toContain('Redis server');
    const node = await engine.runOnce(container('node', ['node', '-p', '6*7'], { user: '10001' }), 30_000);
    expect(node.stdout.trim()).toBe('42');
  });

  it('refuses a database name that could carry SQL, before it makes anything', async () => {
    const made = await engine.runOnce(
      container('inject', ['postgres'], {
        user: 'postgres',
        env: { POSTGRES_PASSWORD: 'x', POSTGRES_DB: 'a"; drop database postgres; --', PGDATA: '/tmp/x/data' },
        tmpfs: ['/tmp'],
      }),
      30_000,
    );
    expect(made.exitCode).toBe(1);
    expect(made.stderr).toContain('POSTGRES_DB');
  });

  it('makes no database without a password', async () => {
    const spec = { user: 'postgres', env: { PGDATA: '/tmp/x/data' }, tmpfs: ['/tmp'] };
    const made = await engine.runOnce(container('bare', ['postgres'], spec), 30_000);
    expect(made.stderr).toContain('POSTGRES_PASSWORD_FILE');
  });

  it('comes up with a whole database after it was killed in the middle of making one', async () => {
    await engine.ensureVolume(project, volume, 'data');
    const spec = container('postgres', ['postgres'], {
      role: 'postgres',
      user: 'postgres',
      env: {
        POSTGRES_PASSWORD: 'killed',
        POSTGRES_USER: 'arena',
        POSTGRES_DB: 'arena',
        PGDATA: '/var/lib/postgresql/data',
      },
      mounts: [{ volume, path: '/var/lib/postgresql', readOnly: false }],
      tmpfs: ['/tmp', '/var/run/postgresql'],
    });
    for (const afterMs of [150, 500, 1_000]) {
      await engine.ensureContainer(spec);
      await new Promise((resolve) => setTimeout(resolve, afterMs));
      await engine.removeContainer(project, spec.name);
    }
    await engine.ensureContainer(spec);
    const answer = await untilAnswers(spec.name, [
      'psql',
      '-U',
      'arena',
      '-Atc',
      'select current_database()',
      'arena',
    ]);
    expect(answer.trim()).toBe('arena');
  });
});

async function untilAnswers(name: string, command: string[]): Promise<string> {
  for (let attempt = 0; attempt < 120; attempt++) {
    const { exitCode, stdout } = await engine.exec(project, name, command);
    if (exitCode === 0) return stdout;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error(`no answer; its log: ${(await engine.logTail(project, name, 10)).join('\n')}`);
}
