/**
 * What can be wrong before a deploy: one look at each thing, as data. Every finding that is not "ok" says how to put it
 * right. Looks only: changes nothing, and one look that fails never keeps the others from being taken.
 */
import { lookup } from 'node:dns/promises';
import type { ErrorCode } from '../errors.ts';

export type Level = 'ok' | 'warning' | 'error';

export interface Finding {
  /** Stable: scripts may match it. */
  id: string;
  level: Level;
  message: string;
  /** A command or an action; "" when all is well. */
  fix: string;
  /** What doctor ends with when this error is the first one. */
  code?: ErrorCode;
}

export const ok = (id: string, message: string): Finding => ({ id, level: 'ok', message, fix: '' });
export const warning = (id: string, message: string, fix: string): Finding => ({
  id,
  level: 'warning',
  message,
  fix,
});
export const error = (id: string, code: ErrorCode, message: string, fix: string): Finding => ({
  id,
  level: 'error',
  message,
  fix,
  code,
});

/** The engine's lines below this one know no API 1.41. */
const engineMajorMin = 20;

export function judgeEngine(engine: {
  version: string;
  apiVersion: string;
  platform: string;
  isLocal: boolean;
}): Finding {
  const what = `Docker Engine ${engine.version}, API ${engine.apiVersion}, ${engine.platform}, ${engine.isLocal ? 'on this machine' : 'remote'}`;
  const major = Number.parseInt(engine.version, 10);
  if (major < engineMajorMin) {
    return error(
      'engine',
      'ENGINE_UNREACHABLE',
      `${what}: gameops needs 20.10 (API 1.41) or newer`,
      'upgrade Docker Engine',
    );
  }
  if (!/^linux\//.test(engine.platform)) {
    return error(
      'engine',
      'ENGINE_UNREACHABLE',
      `${what}: gameops runs Linux containers`,
      'point DOCKER_HOST at a Linux engine',
    );
  }
  return ok('engine', what);
}

/** For one fleet: a deploy runs two fleets for a while, but the second one is idle until the first one drains. */
export function judgeCpus(need: { replicas: number; cpus: number }, hostCpus: number): Finding {
  const what = `one fleet may use ${need.replicas * need.cpus} CPUs; the engine has ${hostCpus}`;
  if (need.cpus > hostCpus) {
    return error(
      'cpus',
      'CONFIG_INVALID',
      `server.cpus is ${need.cpus}; the engine has ${hostCpus}`,
      'lower server.cpus in gameops.yaml',
    );
  }
  if (need.replicas * need.cpus <= hostCpus) return ok('cpus', what);
  return warning(
    'cpus',
    what,
    'this is fine at low load; otherwise lower server.replicas or use a larger machine',
  );
}

/** Nginx takes two descriptors per player, the userland proxy of a published port two more. */
const openFilesMin = 4_096;

export function judgeOpenFiles(limitsText: string): Finding {
  const match = /^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)/m.exec(limitsText);
  const hard = match?.[2] === 'unlimited' ? Number.POSITIVE_INFINITY : Number(match?.[2] ?? Number.NaN);
  if (Number.isNaN(hard))
    return ok('open-files', 'this system does not say how many files a process may open');
  const what = `a process may open ${hard} files here`;
  if (hard >= openFilesMin) return ok('open-files', what);
  return warning(
    'open-files',
    `${what}: that is enough for few players only`,
    'raise LimitNOFILE of the Docker service',
  );
}

const skewMsMax = 5_000;

/** Certificates, tokens and the lock's age all compare clocks. @param time what the engine's clock says, ISO 8601 */
export function judgeClock(time: string, nowMs: number): Finding {
  const skewMs = Date.parse(time) - nowMs;
  if (Number.isNaN(skewMs)) return ok('clock', 'the engine does not tell the time of its clock');
  const what = `the engine's clock and this one differ by ${Math.round(Math.abs(skewMs) / 100) / 10} s`;
  if (Math.abs(skewMs) <= skewMsMax) return ok('clock', what);
  return warning('clock', what, 'let both machines set their clocks by NTP');
}

export async function lookUpDomain(domain: string): Promise<Finding> {
  try {
    const addresses = await lookup(domain, { all: true });
    return ok('dns', `${domain} is ${addresses.map(({ address }) => address).join(', ')}`);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
    const fix = 'make an A or AAAA record for it that names this host, or correct `domain` in gameops.yaml';
    return warning('dns', `${domain} has no address (${code})`, fix);
  }
}
