/** doctor judges what it sees, and never finds good what a deploy would refuse. */
import { afterAll, describe, expect, it } from 'vitest';
import { judgeClock, judgeCpus, judgeEngine, judgeOpenFiles, lookUpDomain } from '../../../src/host/judge.ts';
import { emptyFolder, gameops } from '../../support/program.ts';

const engine = { version: '20.10.24', apiVersion: '1.41', platform: 'linux/amd64', isLocal: true };

describe('doctor judges', () => {
  it('an engine older than 20.10, or without Linux containers, as an error and names the correction', () => {
    expect(judgeEngine(engine).level).toBe('ok');
    expect(judgeEngine({ ...engine, version: '19.03.1' })).toMatchObject({
      level: 'error',
      fix: 'upgrade Docker Engine',
    });
    expect(judgeEngine({ ...engine, platform: 'windows/amd64' })).toMatchObject({ level: 'error' });
  });

  it('clocks that differ by more than five seconds as a warning, whichever is ahead', () => {
    const now = Date.parse('2026-01-01T00:00:10Z');
    expect(judgeClock('2026-01-01T00:00:08Z', now).level).toBe('ok');
    expect(judgeClock('2026-01-01T00:00:01Z', now).level).toBe('warning');
    expect(judgeClock('2026-01-01T00:00:19Z', now).level).toBe('warning');
    expect(judgeClock('', now)).toMatchObject({
      level: 'ok',
      message: expect.stringContaining('does not tell'),
    });
  });

  it('a replica that needs more CPUs than the engine has as an error, and such a fleet as a warning', () => {
    expect(judgeCpus({ replicas: 2, cpus: 1 }, 2).level).toBe('ok');
    expect(judgeCpus({ replicas: 4, cpus: 1 }, 2).level).toBe('warning');
    expect(judgeCpus({ replicas: 1, cpus: 4 }, 2).level).toBe('error');
  });

  it('a low limit of open files as a warning', () => {
    expect(
      judgeOpenFiles('Max open files            1024                 1048576              files').level,
    ).toBe('ok');
    expect(
      judgeOpenFiles('Max open files            1024                 1024                 files').level,
    ).toBe('warning');
    expect(
      judgeOpenFiles('Max open files            unlimited            unlimited            files').level,
    ).toBe('ok');
  });

  it('a domain without an address as a warning that names the missing DNS record', async () => {
    expect(await lookUpDomain('nowhere.invalid')).toMatchObject({
      level: 'warning',
      fix: expect.stringContaining('A or AAAA record'),
    });
  });
});

describe('gameops doctor', () => {
  const folder = emptyFolder();
  afterAll(() => folder.remove());

  it('reports everything at once: a broken gameops.yaml, a missing .env and an engine that does not answer', async () => {
    folder.write('gameops.yaml', 'serber: {}\n');
    const { code, out, err } = await gameops(['doctor', '--json', '--project', 'arena'], {
      cwd: folder.path,
    });
    expect(code).toBe(3);
    expect(err).toBe('');
    const { error, result } = JSON.parse(out);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', facts: { errors: ['config', 'env', 'engine'] } });
    for (const { level, fix } of result.findings) expect(fix !== '').toBe(level !== 'ok');
  });

  it('reports the mode of .env once', async () => {
    folder.write('gameops.yaml', 'project: arena\n');
    await gameops(['init'], { cwd: folder.path });
    folder.write('.env', 'DB_HOST=postgres\n', 0o644);
    const loose = emptyFolder();
    loose.write('.env', 'DB_HOST=postgres\n', 0o644);
    const { out, err } = await gameops(['doctor', '--project', 'arena'], { cwd: loose.path });
    expect(`${out}${err}`.match(/has mode 0644/g)).toHaveLength(1);
    loose.remove();
  });
});
