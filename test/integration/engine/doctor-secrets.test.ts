/** `doctor` on the real engine: secrets of .env in an image's layers, its environment, labels and build arguments. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label } from '../../../src/contract.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { testProject } from '../../support/leftovers.ts';
import { emptyFolder, type Folder, gameops } from '../../support/program.ts';

const project = testProject('layers');
const secret = () => randomBytes(32).toString('base64url');
const secrets = {
  DB_PASSWORD: secret(),
  SERVICE_TOKEN: secret(),
  OTHER_TOKEN: secret(),
  JWT_SECRET: `a"b\\c${secret()}`,
};

let engine: Engine;
let own: Folder;
const built: string[] = [];

beforeAll(async () => {
  engine = await dockerEngine();
  own = emptyFolder();
  const { JWT_SECRET, ...plain } = secrets;
  const lines = Object.entries(plain).map(([key, value]) => `${key}=${value}`);
  own.write(
    '.env',
    [...lines, `JWT_SECRET='${JWT_SECRET}'`, 'PORT=3000', 'MOTD=welcome-to-the-arena', ''].join('\n'),
  );
});
afterAll(async () => {
  for (const tag of built) await engine.removeImage(tag);
  await engine.close();
  own.remove();
});

async function build(name: string, lines: string[], files: Record<string, string>): Promise<string> {
  const tag = `gameops-layers-test:${name}-${project.slice(-8)}`;
  const dockerfile = { path: 'Dockerfile', content: ['FROM scratch', ...lines, ''].join('\n') };
  const context = Object.entries(files).map(([path, content]) => ({ path, content }));
  await engine.buildImage({ tag, context: [dockerfile, ...context], labels: { [label.project]: project } });
  built.push(tag);
  return tag;
}

async function findingsOf(image: string) {
  own.write('gameops.yaml', `project: ${project}\nserver: { image: "${image}" }\n`);
  const env = { DOCKER_HOST: process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock' };
  const ran = await gameops(['doctor', '--json', '--verbose'], { cwd: own.path, env });
  for (const value of Object.values(secrets)) {
    expect(ran.out + ran.err).not.toContain(value);
    expect(ran.out + ran.err).not.toContain(JSON.stringify(value).slice(1, -1));
  }
  const findings = JSON.parse(ran.out).result.findings as {
    id: string;
    level: string;
    message: string;
    fix: string;
  }[];
  return { code: ran.code, found: findings.filter(({ id }) => id === 'image-secrets') };
}

describe('doctor, about secrets in images,', () => {
  it('finds nothing in an image without secrets', async () => {
    const image = await build('clean', ['COPY server.js /app/'], {
      'server.js': 'welcome-to-the-arena 3000',
    });
    const { found } = await findingsOf(image);
    expect(found).toMatchObject([{ level: 'ok' }]);
  });

  it('finds a secret in a file of a layer, although a later layer replaces the file', async () => {
    const image = await build('layer', ['COPY first /app/.env', 'COPY second /app/.env'], {
      first: `A=1\nDB_PASSWORD=${secrets.DB_PASSWORD}\n`,
      second: 'A=1\n',
    });
    const { code, found } = await findingsOf(image);
    expect(code).toBe(3);
    expect(found).toMatchObject([
      { level: 'error', message: expect.stringMatching(/DB_PASSWORD in app\/\.env/) },
    ]);
    expect(found[0]?.fix).toContain('gameops env rotate db');
  });

  it('finds secrets in the environment and the build history of an image', async () => {
    const image = await build(
      'config',
      [`ARG TOKEN=${secrets.OTHER_TOKEN}`, `ENV SERVICE_TOKEN=${secrets.SERVICE_TOKEN}`, 'COPY empty /'],
      { empty: '' },
    );
    const { found } = await findingsOf(image);
    expect(found.map(({ message }) => /value of (\w+) in its environment/.exec(message)?.[1]).sort()).toEqual(
      ['OTHER_TOKEN', 'SERVICE_TOKEN'],
    );
  });

  it('finds a secret with JSON escapes, and a secret across the edges of two blocks that are read', async () => {
    const filler = 'x'.repeat(65_536 - 20);
    const image = await build('forms', ['COPY settings.json big /app/'], {
      'settings.json': JSON.stringify({ secret: secrets.JWT_SECRET }),
      big: `${filler}${secrets.OTHER_TOKEN}${filler}`,
    });
    const { found } = await findingsOf(image);
    expect(found.map(({ message }) => /value of (\w+) in (\S+):/.exec(message)?.slice(1)).sort()).toEqual([
      ['JWT_SECRET', 'app/settings.json'],
      ['OTHER_TOKEN', 'app/big'],
    ]);
  });

  it('warns of a .env with other values, but not of an example file', async () => {
    const files = { env: 'DB_PASSWORD=of-yesterday\n' };
    const image = await build('other', ['COPY env /app/.env', 'COPY env /app/.env.example'], files);
    const { found } = await findingsOf(image);
    expect(found).toMatchObject([
      { level: 'warning', message: expect.stringContaining('contains app/.env,') },
    ]);
  });
});
