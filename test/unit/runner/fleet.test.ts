import { describe, expect, it } from 'vitest';
import { label } from '../../../src/contract.ts';
import type { ObservedContainer } from '../../../src/engine/port.ts';
import { fileMounts, fleetLabel, isSameFleet, replicaSpec } from '../../../src/engine/spec.ts';
import { fleetSpec, hasUnixSockets, reachOf } from '../../../src/runner/fleet.ts';
import { release } from '../../support/memory/worlds.ts';

const container = (role: ObservedContainer['role'], labels: Record<string, string>): ObservedContainer => ({
  id: role,
  name: `arena-${role}`,
  role,
  image: 'sha256:1',
  address: '10.9.0.3',
  state: 'running',
  labels,
  exitCode: null,
  isOutOfMemory: false,
  restartCount: 0,
  health: 'none',
  published: {},
  createdAt: '',
});
const replica = (labels: Record<string, string> = {}) =>
  container('game', { [label.release]: '7', [label.replica]: '2', ...labels });

describe('the way from Nginx to a server', () => {
  it('is a socket if the image says that it listens on one and Nginx has the folder of sockets', () => {
    expect(hasUnixSockets([container('proxy', { [label.onUnixSocket]: '1' }), replica()])).toBe(true);
    const { container: spec } = fleetSpec(
      'arena',
      release(7, 'candidate'),
      [1, 2],
      {},
      { unixSockets: true },
    );
    expect(spec.env).toMatchObject({
      GAMEOPS_UNIX_SOCKET: '/run/gameops-unix-sockets/replicas/7-{replica}.sock',
    });
    expect(spec.mounts?.map(({ volume }) => volume)).toContain('arena-unix-sockets');
    expect(reachOf(replica(spec.labels), 3000, true)).toMatchObject({
      unixSocket: '/run/gameops-unix-sockets/replicas/7-2.sock',
    });
  });

  it('is an address if Nginx was made without the folder of sockets, whatever the servers have', () => {
    const unixSockets = hasUnixSockets([container('proxy', {}), replica({ [label.onUnixSocket]: '1' })]);
    expect(unixSockets).toBe(false);
    expect(reachOf(replica({ [label.onUnixSocket]: '1' }), 3000, unixSockets)).toEqual({
      address: '10.9.0.3',
      port: 3000,
      unixSocket: null,
    });
    const { container: spec } = fleetSpec('arena', release(7, 'candidate'), [1], {}, { unixSockets });
    expect(spec.env).not.toHaveProperty('GAMEOPS_UNIX_SOCKET');
    expect(spec.mounts).toEqual([]);
  });

  it('is an address if the image does not say that it listens on a socket', () => {
    const foreign = release(7, 'candidate', 2, { unixSocket: false });
    const { container: spec } = fleetSpec('arena', foreign, [1], {}, { unixSockets: true });
    expect(spec.env).not.toHaveProperty('GAMEOPS_UNIX_SOCKET');
    expect(reachOf(replica(spec.labels), 3000, true).unixSocket).toBeNull();
  });
});

describe('a fleet', () => {
  const made = fleetSpec('arena', release(7, 'live'), [1, 2], { A: 'b' }, { unixSockets: true });

  it('is recognised as the one that an older gameops made, so its replicas are not made anew', () => {
    // As a gameops before FleetSpec.files wrote it for this very release: with the grace of 10 s, and the settings volume among the mounts.
    const before =
      'capabilities=4f53cda18c cpus=6b86b273ff env=532c5ebf47 image=353dd6ef2c labels=7ac656678e ' +
      'memoryBytes=4588d7109c mounts=7a1466f7a0 network=32d8c68e0e readOnlyRoot=b5bea41b6c ' +
      'restart=f53871137e stopGraceMs=39e5b4830d stopSignal=371c9c79c9 tmpfs=800ea695ae user=bcbf224df2';
    const now = fleetLabel(made, fileMounts(made));
    expect(isSameFleet(before, now)).toBe(true);
    expect(isSameFleet(before, fleetLabel({ ...made, image: { id: 'sha256:8', digestRef: null } }))).toBe(
      false,
    );
  });

  it('has its whole drain deadline when something else stops it: an operator, a shutdown of the engine, a reboot', () => {
    const { stopGraceMs, stopSignal } = replicaSpec(made, 1, '10.9.0.2');
    expect(stopSignal).toBe('SIGTERM');
    expect(stopGraceMs).toBeGreaterThan(release(7, 'live').drainMs);
  });

  it('gets its settings as a file that only its user can read, never in its specification', () => {
    expect(made.files).toMatchObject({
      folder: '/run/gameops',
      entries: [{ path: 'settings.json', content: '{"A":"b"}', mode: 0o400, uid: 10_001 }],
    });
    expect(JSON.stringify(replicaSpec(made, 1, '10.9.0.2', fileMounts(made)))).not.toContain('"A"');
  });
});
