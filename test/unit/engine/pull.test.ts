/** Pulls, without a registry: whose credentials, which digest, and what the engine's words mean. */
import { describe, expect, it } from 'vitest';
import { pullFailed } from '../../../src/engine/docker/images/pull.ts';
import { authIn, registryOf } from '../../../src/engine/docker/images/registry-auth.ts';
import { digestRefOf } from '../../../src/images/pull.ts';

const ref = '127.0.0.1:15024/arena/server:1';

describe('the error of the engine about a pull that failed', () => {
  it.each([
    [
      'REGISTRY_UNREACHABLE',
      'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
    ],
    [
      'REGISTRY_UNREACHABLE',
      'Get "http://127.0.0.1:15024/v2/": dial tcp 127.0.0.1:15024: connect: connection refused',
    ],
    ['REGISTRY_UNREACHABLE', 'received unexpected HTTP status: 503 Service Unavailable'],
    ['REGISTRY_UNREACHABLE', 'unexpected EOF'],
    ['REGISTRY_UNREACHABLE', 'lookup registry.example on 10.0.0.1:53: server misbehaving'],
    [
      'REGISTRY_DENIED',
      `Head "http://127.0.0.1:15024/v2/arena/server/manifests/1": no basic auth credentials`,
    ],
    ['REGISTRY_DENIED', 'unauthorized: authentication required'],
    ['REGISTRY_DENIED', 'toomanyrequests: You have reached your pull rate limit.'],
    [
      'IMAGE_NOT_FOUND',
      "pull access denied for arena/server, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    ],
    ['IMAGE_NOT_FOUND', `manifest for ${ref} not found: manifest unknown: manifest unknown`],
    ['IMAGE_NOT_FOUND', 'no matching manifest for linux/arm64/v8 in the manifest list entries'],
    ['IMAGE_NOT_FOUND', 'unknown blob'],
    ['IMAGE_NOT_FOUND', 'invalid reference format: repository name must be lowercase'],
    [
      'DISK_TOO_FULL',
      'failed to register layer: Error processing tar file: write /a: no space left on device',
    ],
    ['ENGINE_FAILED', 'filesystem layer verification failed for digest sha256:38152fab625b'],
  ])('is %s: %s', (code, words) => {
    expect(pullFailed(ref, words, false)).toMatchObject({ code });
  });

  it('is not confused with the name of the image', () => {
    const name = 'timeout.example:5000/denied/eof';
    const words = `manifest for ${name}:502 not found: manifest unknown: manifest unknown`;
    expect(pullFailed(`${name}:502`, words, false)).toMatchObject({ code: 'IMAGE_NOT_FOUND' });
    const digest = `${name}@sha256:${'502'.repeat(21)}e`;
    expect(pullFailed(digest, `${digest}: unknown blob`, true)).toMatchObject({ code: 'IMAGE_NOT_FOUND' });
  });

  it('leads to the login that helps, and says whether there was one', () => {
    const without = pullFailed(ref, 'unauthorized: authentication required', false);
    expect(without.message).toContain('without credentials');
    expect(without.next[0]).toMatch(/^docker login 127\.0\.0\.1:15024,/);
    const hub = pullFailed('arena/server:1', 'toomanyrequests: wait', true);
    expect(hub.message).toContain('with the credentials');
    expect(hub.next[0]).toMatch(/^docker login,/);
  });
});

describe('credentials', () => {
  const auth = Buffer.from('ada:pass:word').toString('base64');
  const ada = { username: 'ada', password: 'pass:word' };

  it('are looked up under the registry that the name begins with', () => {
    expect(registryOf('ghcr.io/arena/server:1')).toBe('ghcr.io');
    expect(registryOf('localhost:5000/server')).toBe('localhost:5000');
    expect(registryOf('nginx:1.30')).toBe(registryOf('docker.io/library/nginx'));
  });

  it.each(['ghcr.io', 'https://ghcr.io', 'https://ghcr.io/v2/', 'http://ghcr.io/v1'])(
    'are found under %s',
    (key) => {
      const config = { auths: { 'ghcr.io.example': { auth: 'eDp5' }, [key]: { auth } } };
      expect(authIn(config, 'ghcr.io')).toEqual({ ...ada, serveraddress: 'ghcr.io' });
    },
  );

  it('are those of Docker Hub for a name without a registry', () => {
    const hub = registryOf('nginx:1.30');
    expect(authIn({ auths: { [hub]: { auth } } }, hub)).toEqual({ ...ada, serveraddress: hub });
  });

  it('may be a token instead of a password', () => {
    const config = { auths: { 'ghcr.io': { auth, identitytoken: 'token' } } };
    expect(authIn(config, 'ghcr.io')).toEqual({ identitytoken: 'token', serveraddress: 'ghcr.io' });
  });

  it('are none where the file has none, or only the name of a store', () => {
    expect(authIn({}, 'ghcr.io')).toBeNull();
    expect(authIn({ auths: { 'ghcr.io': {} } }, 'ghcr.io')).toBeNull();
    expect(authIn({ auths: { 'quay.io': { auth } } }, 'ghcr.io')).toBeNull();
  });
});

describe('the digest of an image', () => {
  const repoDigests = ['old.example/server@sha256:aa', 'ghcr.io/arena/server@sha256:bb', 'nginx@sha256:cc'];

  it.each([
    ['ghcr.io/arena/server:1', 'ghcr.io/arena/server@sha256:bb'],
    ['ghcr.io/arena/server', 'ghcr.io/arena/server@sha256:bb'],
    ['ghcr.io/arena/server:1@sha256:bb', 'ghcr.io/arena/server@sha256:bb'],
    ['docker.io/library/nginx:1.30', 'nginx@sha256:cc'],
    ['nginx', 'nginx@sha256:cc'],
  ])('is the one of the repository that %s names', (name, digestRef) => {
    expect(digestRefOf(name, { repoDigests })).toBe(digestRef);
  });

  it('is that of another repository when its own has none, and there is none for an image that was built here', () => {
    expect(digestRefOf('arena:1', { repoDigests })).toBe('old.example/server@sha256:aa');
    expect(digestRefOf('arena:1', { repoDigests: [] })).toBeNull();
  });
});
