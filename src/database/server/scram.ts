/**
 * The hash of a password that Postgres stores. It is made here, so that the password itself is in no statement and in no
 * log of the server. RFC 5802; https://www.postgresql.org/docs/current/catalog-pg-authid.html
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';

const iterations = 4_096;

/** The form of pg_authid.rolpassword. */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, iterations, 32, 'sha256');
  const keyFor = (role: string) => createHmac('sha256', salted).update(role).digest();
  const storedKey = createHash('sha256').update(keyFor('Client Key')).digest('base64');
  const serverKey = keyFor('Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}
