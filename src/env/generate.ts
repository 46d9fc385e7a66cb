/**
 * A first .env: complete and valid, with new random secrets. Secrets are base64url, because its letters mean the same to
 * every reader of .env, in URLs and in shells.
 */
import { randomBytes } from 'node:crypto';

/** 32 bytes, 43 letters of base64url. */
export function generateSecret(): string {
  return randomBytes(32).toString('base64url');
}

export function generateEnv(project: string): string {
  // PostgreSQL accepts a name with dashes only in quotes, in every statement.
  const role = project.replaceAll('-', '_');
  return `# Settings of the game server of "${project}". Secrets live here: keep it at mode 0600 and out of git.
# A value may also come from the environment, or from a file that KEY_FILE names; the environment wins.
NODE_ENV=production
PORT=3000
LOG_LEVEL=info

# "postgres" and "redis" mean the servers that gameops runs. With another host, gameops uses that server and starts none.
DB_HOST=postgres
DB_PORT=5432
DB_NAME=${role}
DB_USER=${role}
DB_PASSWORD=${generateSecret()}
REDIS_URL=redis://:${generateSecret()}@redis:6379/0

# Signs players' tokens: whoever has it can log in as any player.
JWT_SECRET=${generateSecret()}
`;
}
