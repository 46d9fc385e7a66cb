import { describe, expect, it } from 'vitest';
import { label } from '../../../src/contract.ts';
import type { ObservedContainer } from '../../../src/engine/port.ts';
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
  restartCount: 0,
  health: 'none',
  published: {},
  createdAt: '',
});
const replica = (labels: Record<string, string> = {}) =>
  container('game', { [label.release]: '7', [label.replica]: '2', ...labels });

describe('the way from Nginx to a server', () => {
  it('is a socket where the image says that it listens on one and Nginx has their folder', () => {
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

  it('is an address for an Nginx that was made without it, whatever the servers have', () => {
    const unixSockets = hasUnixSockets([container('proxy', {}), replica({ [label.onUnixSocket]: '1' })]);
    expect(unixSockets).toBe(false);
    expect(reachOf(replica({ [label.onUnixSocket]: '1' }), 3000, unixSockets)).toEqual({
      address: '10.9.0.3',
      port: 3000,
      unixSocket: null,
    });
    const { container: spec } = fleetSpec('arena', release(7, 'candidate'), [1], {}, { unixSockets });
    expect(spec.env).not.toHaveProperty('GAMEOPS_UNIX_SOCKET');
    expect(spec.mounts?.map(({ volume }) => volume)).toEqual(['arena-settings-7']);
  });

  it('is an address for an image that says nothing of sockets', () => {
    const foreign = release(7, 'candidate', 2, { unixSocket: false });
    const { container: spec } = fleetSpec('arena', foreign, [1], {}, { unixSockets: true });
    expect(spec.env).not.toHaveProperty('GAMEOPS_UNIX_SOCKET');
    expect(reachOf(replica(spec.labels), 3000, true).unixSocket).toBeNull();
  });
});
