import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { featuresOf } from '../../../src/proxy/features.ts';
import { type Generation, routesOf } from '../../../src/proxy/generation.ts';
import { type ConfigInput, renderConfig } from '../../../src/proxy/render.ts';
import { loadTemplates } from '../../../src/proxy/templates.ts';

const targets = [
  { release: 41, replica: 1, address: '10.9.0.2', port: 3000 },
  { release: 41, replica: 2, address: '10.9.0.3', port: 3000 },
];
const generation: Generation = {
  generation: 7,
  routes: routesOf(targets),
  targets,
  backups: [],
  pageRelease: 41,
  door: 'any',
};

function input(change: Partial<ConfigInput> = {}): ConfigInput {
  return {
    generation,
    features: featuresOf('nginx version: nginx/1.30.6').features,
    domain: null,
    doorToken: 'a-token-of-some-length',
    subnet: '10.9.0.0/22',
    notReplicas: ['10.9.0.1/32', '10.9.3.0/24'],
    tls: null,
    foreignPage: false,
    workers: 4,
    ...change,
  };
}
const render = (change: Partial<ConfigInput> = {}) => renderConfig(loadTemplates(), input(change));

describe('the configuration of Nginx', () => {
  it('names its generation in the first and the last line, so that a torn one is recognised', () => {
    const config = render();
    expect(config.startsWith('# gameops generation 7\n')).toBe(true);
    expect(config.endsWith('\n# end of generation 7\n')).toBe(true);
  });

  it('sets no time limit for old workers, because their players stay as long as their replica lets them', () => {
    expect(render()).not.toMatch(/^\s*worker_shutdown_timeout/m);
  });

  it('keeps the kept-alive connections of busy clients through a reload, if Nginx can', () => {
    expect(render()).toContain('keepalive_min_timeout 5s;');
    expect(render({ features: featuresOf('nginx/1.26.3').features })).not.toContain('keepalive_min_timeout');
  });

  it('sends requests to a fleet that loses its traffic only as a backup', () => {
    const backups = [{ release: 40, replica: 1, address: '10.9.0.9', port: 3000 }];
    expect(render({ generation: { ...generation, backups } })).toMatch(/server 10\.9\.0\.9:3000 backup /);
  });

  it('reaches a server by its socket if it has one, and by its address if not', () => {
    const [first] = generation.targets;
    const unixSocket = '/run/gameops-unix-sockets/replicas/41-1.sock';
    const targets = first === undefined ? [] : [{ ...first, unixSocket }, ...generation.targets.slice(1)];
    const config = render({ generation: { ...generation, targets } });
    expect(config).toContain(`server unix:${unixSocket} max_fails`);
    expect(config).not.toContain(`server ${first?.address}:`);
    expect(render()).not.toContain('server unix:');
    const unsafe = targets.map((target) => ({ ...target, unixSocket: '/run/x; include /etc/passwd' }));
    expect(() => render({ generation: { ...generation, targets: unsafe } })).toThrowError(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });

  it('answers 503 with a time to come back when there is no release', () => {
    const empty = { ...generation, targets: [], routes: [], pageRelease: null };
    const config = render({ generation: empty });
    expect(config).toContain('return 503');
    expect(config).toContain('Retry-After');
    expect(config).not.toContain('proxy_pass http://gameops_game');
  });

  it('refuses unknown hosts only when it has a name of its own', () => {
    expect(render({ domain: 'play.example.com' })).toContain('return 421;');
    expect(render()).not.toContain('return 421;');
  });

  it.each([
    ['a domain that ends a directive', { domain: 'a;}' }],
    ['a token that ends a string', { doorToken: "x'; return 200 'open-open-open" }],
    ['a text that is no subnet', { subnet: '10.0.0.0/8; 0.0.0.0/0 1' }],
    ['a text that is no range', { notReplicas: ['10.9.3.0/24 0; 0.0.0.0/0'] }],
    [
      'a text that is no address',
      { generation: { ...generation, targets: [{ ...targets[0], address: 'evil;' }] } },
    ],
  ])('refuses %s', (_what, change) => {
    expect(() => render(change as Partial<ConfigInput>)).toThrowError(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });

  it('never lets the host, or a container that is no replica, be reached as if it were a replica', () => {
    expect(render()).toContain('10.9.0.1/32 0;');
    expect(render()).toContain('10.9.3.0/24 0;');
  });
});

describe('templates of the operator', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gameops-templates-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('replace ours one by one, and one that cannot be rendered is named before anything is changed', () => {
    writeFileSync(join(folder, 'maintenance.eta'), "        return 503 'gone fishing';\n");
    const empty = { ...generation, targets: [], routes: [] };
    expect(renderConfig(loadTemplates(folder), input({ generation: empty }))).toContain('gone fishing');
    writeFileSync(join(folder, 'maintenance.eta'), '<% if (it.nothing.here) { %>');
    expect(() => renderConfig(loadTemplates(folder), input({ generation: empty }))).toThrowError(
      expect.objectContaining({ code: 'TEMPLATE_INVALID' }),
    );
  });

  it('are refused when their folder is not there', () => {
    expect(() => loadTemplates(join(folder, 'none'))).toThrowError(
      expect.objectContaining({ code: 'TEMPLATE_INVALID' }),
    );
  });
});
