/** What Nginx is rendered from on the way back: what the release before was deployed with, whatever gameops.yaml says now. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { namesOf } from '../../src/contract.ts';
import { loadTemplates, templatesName } from '../../src/proxy/templates.ts';
import type { Release } from '../../src/release/model.ts';
import { planAct, planResume } from '../../src/release/plan.ts';
import type { MemoryEngine } from '../support/memory/memory-engine.ts';
import { project, runVerb, servedTargets, simulation, type Verb } from '../support/memory/simulation.ts';
import { intent, release } from '../support/memory/worlds.ts';

const folder = mkdtempSync(join(tmpdir(), 'gameops-templates-'));
writeFileSync(join(folder, 'public.eta'), '        return 301 https://elsewhere.example$request_uri;\n');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const today = { templateDir: folder, domain: 'new.example' };
const then = { templateDir: null, domain: 'old.example' };

function deploy(image: string, proxy: typeof today | typeof then, change: Partial<Release> = {}): Verb {
  return {
    proxy,
    plan(act, world) {
      const id = Math.max(0, ...act.record.releases.map((one) => one.id)) + 1;
      const templates = templatesName(loadTemplates(proxy.templateDir));
      const candidate: Release = {
        ...release(id, 'candidate'),
        image,
        page: null,
        proxy: { domain: proxy.domain, templates },
        ...change,
      };
      const asked = intent(id, { watchMs: 3_000, drainMs: 30_000, readyMs: 5_000 });
      return planAct(world, asked, { candidate, cause: 'asked', again: true });
    },
  };
}

const rollback: Verb = {
  proxy: today,
  plan(act, world) {
    const target = act.record.releases.find((one) => one.id === 1) as Release;
    const candidate: Release = { ...target, verdict: 'candidate' };
    const back = intent(1, { verb: 'rollback', watchMs: 0, drainMs: 30_000 });
    return planAct(world, back, { candidate, cause: 'asked', again: true });
  },
};

const behaviours = { 'game:good': 'good', 'game:next': 'good', 'game:crashes': 'crashes-later' } as const;

async function served(memory: MemoryEngine) {
  const files = await memory.engine.readFiles(project, namesOf(project).volume.nginx, '');
  const config = Buffer.from(files.get('nginx.conf') ?? []).toString();
  return {
    release: servedTargets(memory.state)[0]?.release,
    redirects: config.includes('return 301'),
    domain: /server_name (\S+\.example);/.exec(config)?.[1],
  };
}

it('a deploy that fails in its watch goes back to the templates and the domain of the previous release', async () => {
  const memory = await simulation(behaviours);
  await runVerb(memory, memory.engine, behaviours, deploy('game:good', then));
  const failed = runVerb(memory, memory.engine, behaviours, deploy('game:crashes', today));
  await expect(failed).rejects.toMatchObject({ exitCode: 5 });
  expect(await served(memory)).toEqual({ release: 1, redirects: false, domain: 'old.example' });
});

it('a rollback goes back to the templates and the domain of its release', async () => {
  const memory = await simulation(behaviours);
  await runVerb(memory, memory.engine, behaviours, deploy('game:good', then));
  await runVerb(memory, memory.engine, behaviours, deploy('game:next', today));
  expect(await served(memory)).toEqual({ release: 2, redirects: true, domain: 'new.example' });
  await runVerb(memory, memory.engine, behaviours, rollback);
  expect(await served(memory)).toEqual({ release: 1, redirects: false, domain: 'old.example' });
});

it('a switch that only repairs the routes keeps the templates and the domain', async () => {
  const memory = await simulation(behaviours);
  await runVerb(memory, memory.engine, behaviours, deploy('game:good', then));
  await memory.engine.removeContainer(project, namesOf(project).game(1, 1));
  await runVerb(memory, memory.engine, behaviours, {
    proxy: today,
    plan: (_act, world) => planResume(world),
  });
  expect(await served(memory)).toEqual({ release: 1, redirects: false, domain: 'old.example' });
});

it('a release of an older gameops, which kept neither templates nor domain, is rendered from the present ones', async () => {
  const memory = await simulation(behaviours);
  await runVerb(memory, memory.engine, behaviours, deploy('game:good', then, { proxy: null }));
  await runVerb(memory, memory.engine, behaviours, deploy('game:next', then));
  await runVerb(memory, memory.engine, behaviours, rollback);
  expect(await served(memory)).toEqual({ release: 1, redirects: true, domain: 'new.example' });
});

it('a rotation after the domain in gameops.yaml changed is watched at the domain that its release was deployed with', async () => {
  const memory = await simulation(behaviours);
  await runVerb(memory, memory.engine, behaviours, deploy('game:good', then));
  const rotation: Verb = {
    proxy: today,
    plan(act, world) {
      const live = act.record.releases.find((one) => one.id === 1) as Release;
      const candidate: Release = { ...live, id: 2, fingerprint: 'rekeyed', verdict: 'candidate' };
      const asked = intent(2, { watchMs: 3_000, drainMs: 30_000, readyMs: 5_000 });
      return planAct(world, asked, { candidate, cause: 'a secret changed', again: false });
    },
  };
  await runVerb(memory, memory.engine, behaviours, rotation);
  expect(await served(memory)).toEqual({ release: 2, redirects: false, domain: 'old.example' });
});
