/** Choosing, naming and sizing images: the decisions, without an engine. */
import { describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config.ts';
import { diskReserveBytes, judgeRoom } from '../../../src/engine/capacity.ts';
import { dockerfileOn, gameImageTag } from '../../../src/images/bundled.ts';
import { debianTag, mirrorOf, packagesOf, suites, versionsText } from '../../../src/images/debian.ts';
import { announcement, isDefaultImage } from '../../../src/images/roles.ts';
import { megabyte } from '../../../src/units.ts';

const forky = suites[0];

describe('Debian images', () => {
  it('come from the mirror of this machine, never from an archive of updates, security or a third party', () => {
    const targets = [
      'http://third.example/apt cloud-sdk-bookworm main Packages',
      'http://mirror.example/debian-security/ bookworm-security main Packages',
      'http://mirror.example/debian/ bookworm-updates main Packages',
      'http://mirror.example/debian/ bookworm main Packages',
    ].join('\n');
    expect(mirrorOf(targets)).toBe('http://mirror.example/debian/');
  });

  it('have no mirror on Ubuntu', () => {
    expect(mirrorOf('http://mirror.example/ubuntu/ noble main Packages')).toBeNull();
  });

  it('are tagged by their recipe: a changed script makes another image, the same recipe is not built again', () => {
    const files = new Map([['customize.sh', 'a']]);
    expect(debianTag(forky, files)).toBe(debianTag(forky, new Map(files)));
    expect(debianTag(forky, files)).not.toBe(debianTag(forky, new Map([['customize.sh', 'b']])));
    expect(debianTag(forky, files)).toMatch(/^gameops-debian:forky-[0-9a-f]{12}$/);
  });

  it('contain the PostgreSQL of their suite', () => {
    expect(suites.map((suite) => packagesOf(suite)[2])).toEqual([
      'postgresql-18',
      'postgresql-17',
      'postgresql-15',
    ]);
  });

  it('say in one line which versions replace the official images', () => {
    const versions = versionsText(
      'nginx\t1.30.6-2\nnodejs\t24.21.0+dfsg+~cs24-1\npostgresql-18\t18.6-3\nredis-server\t5:8.0.6-3\n',
    );
    expect(announcement({ versions, suite: forky }, 'no registry')).toBe(
      'no registry answers: using nginx 1.30.6, PostgreSQL 18.6, Redis 8.0.6, Node 24.21.0 from Debian packages (forky) instead of the official images',
    );
  });

  it('never replace an image that the user configured', () => {
    const config = configSchema.parse({ images: { redis: 'valkey/valkey:9' } });
    expect(isDefaultImage(config, 'redis')).toBe(false);
    expect(isDefaultImage(config, 'nginx')).toBe(true);
  });
});

describe('the game image', () => {
  const files = new Map([
    ['Dockerfile', Buffer.from('ARG BASE\nFROM $BASE\n')],
    ['server.mjs', Buffer.from('1')],
  ]);

  it('has the same tag for the same content, and another tag for other code or another base', () => {
    const tag = gameImageTag(files, 'sha256:a');
    expect(gameImageTag(new Map([...files].reverse()), 'sha256:a')).toBe(tag);
    expect(gameImageTag(files, 'sha256:b')).not.toBe(tag);
    expect(gameImageTag(new Map([...files, ['server.mjs', Buffer.from('2')]]), 'sha256:a')).not.toBe(tag);
  });

  it('is built on the id of the base, not on its name', () => {
    expect(dockerfileOn('ARG BASE=node:24-slim\nFROM $BASE\nUSER 10001\n', 'sha256:abc')).toBe(
      'FROM sha256:abc\nUSER 10001\n',
    );
  });
});

describe('room for two fleets', () => {
  const need = {
    fleets: 2,
    replicas: 2,
    memoryBytes: 512 * megabyte,
    besideBytes: 512 * megabyte,
    diskBytes: 0,
  };
  const plenty = { freeDiskBytes: 50 * 1024 * megabyte, memoryBytes: 8 * 1024 * megabyte };

  it('is enough on an ordinary machine', () => {
    expect(judgeRoom(need, plenty)).toBeNull();
  });

  it('is not enough when the disk reserve would be used', () => {
    const error = judgeRoom(need, { ...plenty, freeDiskBytes: diskReserveBytes });
    expect(error).toMatchObject({ code: 'DISK_TOO_FULL', exitCode: 5 });
    expect(error?.message).toContain('2 GB');
  });

  it('is not enough when the limits of both fleets exceed the memory; the error names a number of replicas that fits', () => {
    const error = judgeRoom({ ...need, replicas: 20 }, plenty);
    expect(error).toMatchObject({ code: 'MEMORY_TOO_SMALL', facts: { replicasThatFit: 7 } });
    expect(error?.next[0]).toContain('server.replicas to 7');
    expect(judgeRoom({ ...need, replicas: 7 }, plenty)).toBeNull();
  });
});
