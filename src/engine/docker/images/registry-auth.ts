/**
 * The credentials that `docker login` left on this machine, for the one registry that a pull needs.
 * Never stores, prints or sends them anywhere but into the pull. Absent or unreadable credentials mean an anonymous pull.
 * https://docs.docker.com/reference/cli/docker/login/#credential-stores
 */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

export type RegistryAuth = { serveraddress: string } & (
  | { username: string; password: string }
  /** What a log-in by browser leaves. */
  | { identitytoken: string }
);

export interface DockerConfig {
  auths?: Record<string, { auth?: string; identitytoken?: string }>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
}

/** Key under which Docker Hub's credentials are kept. */
const hubKey = 'https://index.docker.io/v1/';

/** "ghcr.io" of "ghcr.io/arena/server:1"; Docker Hub's key when the name has no registry. */
export function registryOf(ref: string): string {
  const first = ref.split('/')[0] ?? '';
  const isHost = ref.includes('/') && (first.includes('.') || first.includes(':') || first === 'localhost');
  return isHost && first !== 'docker.io' ? first : hubKey;
}

export async function registryAuth(ref: string): Promise<RegistryAuth | null> {
  const registry = registryOf(ref);
  const folder = process.env.DOCKER_CONFIG ?? join(homedir(), '.docker');
  try {
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as DockerConfig;
    const program = config.credHelpers?.[registry] ?? config.credsStore;
    if (program !== undefined) {
      const { execa } = await import('execa');
      const { stdout } = await execa(`docker-credential-${program}`, ['get'], {
        input: registry,
        timeout: 10_000,
      });
      const { Username, Secret } = JSON.parse(stdout) as { Username: string; Secret: string };
      return Username === '<token>'
        ? { identitytoken: Secret, serveraddress: registry }
        : { username: Username, password: Secret, serveraddress: registry };
    }
    return authIn(config, registry);
  } catch {
    return null;
  }
}

/** Pure: what the file itself holds for a registry. Older logins stand under a URL. */
export function authIn({ auths = {} }: DockerConfig, registry: string): RegistryAuth | null {
  const host = hostOf(registry);
  const entry = auths[registry] ?? Object.entries(auths).find(([key]) => hostOf(key) === host)?.[1];
  if (entry?.identitytoken) return { identitytoken: entry.identitytoken, serveraddress: registry };
  if (!entry?.auth) return null;
  const [username = '', ...password] = Buffer.from(entry.auth, 'base64').toString('utf8').split(':');
  return { username, password: password.join(':'), serveraddress: registry };
}

const hostOf = (key: string) => key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
