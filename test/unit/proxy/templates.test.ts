import { expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import {
  forgottenTemplates,
  keepTemplates,
  keptTemplates,
  loadTemplates,
  templatesFile,
  templatesName,
} from '../../../src/proxy/templates.ts';
import { memoryEngine } from '../../support/memory/memory-engine.ts';

const { nginx } = namesOf('arena').volume;
const set = (text: string) => new Map([['nginx.conf', text]]);
const filesWith = (...texts: string[]) =>
  new Map(
    texts.map((text) => [templatesFile(set(text)).path, Buffer.from(templatesFile(set(text)).content)]),
  );

it('a set of templates has one name, in whatever order its files are listed', () => {
  const one = new Map([['a', '1'] as const, ['b', '2'] as const]);
  const other = new Map([['b', '2'] as const, ['a', '1'] as const]);
  expect(templatesName(one)).toBe(templatesName(other));
  expect(templatesName(set('a'))).not.toBe(templatesName(set('b')));
});

it('a kept set of templates is read back whole; a torn or a changed one counts as lost', () => {
  const name = templatesName(set('a'));
  const files = filesWith('a');
  expect(keptTemplates(files, name)).toEqual(set('a'));
  expect(keptTemplates(new Map(), name)).toBeNull();
  const [path = ''] = files.keys();
  const content = Buffer.from(templatesFile(set('a')).content);
  expect(keptTemplates(new Map([[path, content.subarray(0, 9)]]), name)).toBeNull();
  expect(keptTemplates(new Map([[path, Buffer.from(templatesFile(set('b')).content)]]), name)).toBeNull();
});

it('templates are kept for a release only while the folder still holds what it was opened with', async () => {
  const { engine } = memoryEngine();
  await engine.ensureVolume('arena', nginx, 'data');
  const shipped = templatesName(loadTemplates());
  await keepTemplates(engine, 'arena', { domain: null, templates: 'others' }, null);
  expect((await engine.readFiles('arena', nginx, '')).size).toBe(0);
  await keepTemplates(engine, 'arena', { domain: null, templates: shipped }, null);
  expect(keptTemplates(await engine.readFiles('arena', nginx, ''), shipped)).toEqual(loadTemplates());
});

it('sets of templates that no release names are removed, and nothing else', () => {
  const files = new Map([...filesWith('a', 'b'), ['nginx.conf', Buffer.from('')]]);
  const known = new Set([templatesName(set('a'))]);
  expect(forgottenTemplates(files, known)).toEqual([templatesFile(set('b')).path]);
});
