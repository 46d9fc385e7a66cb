/** Accessories of a project of a test's own, removed afterwards with everything that carries its label. */
import { randomBytes } from 'node:crypto';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { type AccessoriesInput, ensureAccessories } from '../../../src/foundation/ensure.ts';
import type { AccessorySettings } from '../../../src/foundation/model.ts';
import type { Event } from '../../../src/report/events.ts';
import { testProject } from '../leftovers.ts';
import { engineImage } from './engine-image.ts';

export interface TestProject {
  engine: Engine;
  project: string;
  settings: AccessorySettings;
  events: Event[];
  ensure(over?: Partial<AccessoriesInput>): Promise<void>;
  remove(): Promise<void>;
}

export async function openTestProject(area: string): Promise<TestProject> {
  const images = { postgres: await engineImage('postgres'), redis: await engineImage('redis') };
  const engine = await dockerEngine();
  const project = testProject(area);
  const settings = testSettings();
  const events: Event[] = [];
  await engine.ensureNetwork(project);
  const ensure = (over: Partial<AccessoriesInput> = {}) =>
    ensureAccessories(
      engine,
      {
        project,
        settings,
        owned: { postgres: 'managed', redis: 'managed' },
        images,
        replicas: 2,
        deadlineMs: 600_000,
        ...over,
      },
      (event) => events.push(event),
    );
  return { engine, project, settings, events, ensure, remove: () => removeProject(engine, project) };
}

function testSettings(): AccessorySettings {
  const secret = () => `S3cret"'$ #%\\${randomBytes(12).toString('base64')}`;
  return {
    DB_HOST: 'postgres',
    DB_PORT: 5432,
    DB_NAME: 'arena_db',
    DB_USER: 'arena_user',
    DB_PASSWORD: secret(),
    REDIS_URL: `redis://:${encodeURIComponent(secret())}@redis:6379/0`,
  };
}

async function removeProject(engine: Engine, project: string): Promise<void> {
  for (const { name } of await engine.observe(project)) await engine.removeContainer(project, name);
  for (const name of await engine.volumes(project)) await engine.removeVolume(project, name);
  await engine.removeNetwork(project);
  await engine.close();
}
