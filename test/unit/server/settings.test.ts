import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readIdentity, readSettings } from '../../../src/server/settings.ts';

const complete = {
  DB_HOST: 'postgres',
  DB_NAME: 'arena',
  DB_USER: 'arena',
  DB_PASSWORD: 'from-the-file',
  JWT_SECRET: 'x'.repeat(32),
  REDIS_URL: 'redis://redis:6379',
};
let folder: string;
let file: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gameops-settings-'));
  file = join(folder, 'settings.json');
  writeFileSync(file, JSON.stringify(complete));
  writeFileSync(join(folder, 'password'), 'from-its-own-file\n');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const passwordWith = (more: Record<string, string>) => {
  const read = readSettings({ GAMEOPS_SETTINGS_FILE: file, ...more });
  return read.ok ? read.settings.DB_PASSWORD : read.problems;
};

test('the environment wins over KEY_FILE, and KEY_FILE over the settings file', () => {
  const pointed = { DB_PASSWORD_FILE: join(folder, 'password') };
  expect(passwordWith({})).toBe('from-the-file');
  expect(passwordWith(pointed)).toBe('from-its-own-file');
  expect(passwordWith({ ...pointed, DB_PASSWORD: 'from-the-environment' })).toBe('from-the-environment');
});

test('a KEY_FILE that cannot be read is named, and KEY_FILE of an unknown setting is not read', () => {
  expect(passwordWith({ SSL_CERT_FILE: '/nowhere' })).toBe('from-the-file');
  expect(passwordWith({ DB_PASSWORD_FILE: '/nowhere' })).toEqual([
    'DB_PASSWORD_FILE: expected the path of a file that can be read',
  ]);
});

test('a process without an identity in its environment is release 0, replica 1', () => {
  expect(readIdentity({})).toMatchObject({ release: 0, replica: 1 });
  expect(readIdentity({ GAMEOPS_RELEASE: '41', GAMEOPS_REPLICA: '2' })).toMatchObject({
    release: 41,
    replica: 2,
  });
});
