/** docs/gameops-yaml.md is what the schema of gameops.yaml says. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { configPage, pagePath } from '../../../scripts/config-page.ts';
import { yamlTemplate } from '../../../src/commands/init-template.ts';
import { defaultConfig, parseConfig } from '../../../src/config.ts';

const rows = [...configPage().matchAll(/^\| `(.+?)` \| (.*?) \| (.*?) \|$/gm)].map(
  ([, key = '', fallback = '', meaning = '']) => ({ key, fallback, meaning }),
);

describe('docs/gameops-yaml.md', () => {
  it('is what `npm run docs` makes from the schema today', () => {
    const page = readFileSync(new URL(`../../../${pagePath}`, import.meta.url), 'utf8');
    expect(page).toBe(configPage());
  });

  it('has a default and a meaning for every key', () => {
    expect(rows.length).toBeGreaterThan(40);
    expect(rows.filter(({ fallback, meaning }) => fallback === '' || meaning === '')).toEqual([]);
  });

  it('shows defaults, ranges and allowed values as people write them', () => {
    expect(rows).toContainEqual({
      key: 'deploy.drain',
      fallback: '`5m`',
      meaning: 'How long the old fleet may take to hand over its players',
    });
    expect(rows).toContainEqual({
      key: 'server.replicas',
      fallback: '`2`',
      meaning: 'Servers that run side by side. 1 to 50',
    });
    expect(rows.map(({ key }) => key)).toContain('env.keys.<NAME>.type');
  });

  it('ends with the file that `gameops init` writes, which says what the defaults say', () => {
    const template = yamlTemplate({ project: 'arena', port: 8080, tlsPort: 8443 });
    expect(configPage()).toContain(template);
    expect(parseConfig(template, 'gameops.yaml')).toEqual({ ...defaultConfig(), project: 'arena' });
  });
});
