/** What host set-up may do about a machine whose engine does not answer. */
import { describe, expect, it } from 'vitest';
import { distributionOf, type HostFacts, planHost } from '../../../src/host/plan.ts';

const bareDebian: HostFacts = {
  platform: 'linux',
  isRoot: true,
  elsewhere: null,
  socketDenied: false,
  distribution: ['debian'],
  hasDockerd: false,
  hasIptables: false,
  systemd: false,
  daemonRunning: false,
};

describe('host set-up', () => {
  it('installs Docker Engine and iptables on a bare Debian as root', () => {
    expect(planHost(bareDebian)).toEqual({ kind: 'install', packages: ['docker.io', 'iptables'] });
  });

  it('installs on Ubuntu and on systems that call themselves like Debian', () => {
    expect(planHost({ ...bareDebian, distribution: ['ubuntu', 'debian'] }).kind).toBe('install');
    expect(planHost({ ...bareDebian, distribution: ['linuxmint', 'ubuntu'] }).kind).toBe('install');
  });

  it('installs only the missing packages', () => {
    expect(planHost({ ...bareDebian, hasDockerd: true })).toEqual({
      kind: 'install',
      packages: ['iptables'],
    });
  });

  it('starts an installed engine on any Linux', () => {
    const facts = { ...bareDebian, distribution: ['fedora'], hasDockerd: true, hasIptables: true };
    expect(planHost(facts)).toEqual({ kind: 'start' });
  });

  it('never installs an engine when DOCKER_HOST names another one', () => {
    const act = planHost({ ...bareDebian, elsewhere: 'tcp://10.1.2.3:2376' });
    expect(act).toMatchObject({ kind: 'refuse', code: 'ENGINE_UNREACHABLE' });
  });

  it('tells users without rights on the socket how to get them, and installs no second engine', () => {
    const act = planHost({
      ...bareDebian,
      isRoot: false,
      socketDenied: true,
      hasDockerd: true,
      hasIptables: true,
    });
    expect(act).toMatchObject({ kind: 'refuse', next: expect.stringContaining('usermod -aG docker') });
  });

  it.each([
    ['another Linux', { distribution: ['fedora'] }],
    ['macOS', { platform: 'darwin', distribution: [] }],
    ['a user who is not root', { isRoot: false }],
  ])('refuses to install for %s, and says how', (_, change) => {
    const act = planHost({ ...bareDebian, ...change });
    expect(act).toMatchObject({ kind: 'refuse', code: 'ENGINE_NOT_INSTALLABLE' });
  });

  it('reads ID and ID_LIKE with and without quotes', () => {
    expect(distributionOf('NAME="x"\nID=ubuntu\nID_LIKE="debian foo"\nVERSION_ID="24"')).toEqual([
      'ubuntu',
      'debian',
      'foo',
    ]);
  });
});
