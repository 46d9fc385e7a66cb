/**
 * A first .env: complete, valid, every secret fresh from the kernel. Secrets are base64url, because its letters mean
 * the same in every dialect of .env, in URLs and in shells.
 */
import { randomBytes } from 'node:crypto';

/** 32 bytes, 43 letters of base64url. */
export function generateSecret(): string {
  return randomBytes(32).toString('base64url');
}

export function generateEnv(project: string): string {
  // PostgreSQL takes dashes in names only when quoted, everywhere and for ever.
  const role = project.replaceAll('-', '_');
  return `# Settings of the game server of "${project}". Secrets live here: keep it at mode 0600 and out of git.
# A value may also come from the environment, or from a file that KEY_FILE names; the environment wins.
NODE_ENV=production
PORT=3000
LOG_LEVEL=info

# "postgres" and "redis" are the ones that gameops runs. Name another host and gameops uses that and starts none.
DB_HOST=postgres
DB_PORT=5432
DB_NAME=${role}
DB_USER=${role}
DB_PASSWORD=${generateSecret()}
REDIS_URL=redis://:${generateSecret()}@redis:6379/0

# Signs players' tokens: whoever has it can play as anybody.
JWT_SECRET=${generateSecret()}
`;
}
