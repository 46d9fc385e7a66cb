/**
 * The game's HTTP side, as far as the page needs it. Rejects with a text for people. Trusts the shape of the answers,
 * because the page comes from the same server.
 */
import type { Discovery, Headcount, Person } from '../../protocol.ts';

export interface Pass {
  token: string;
  /** null for a guest. */
  refreshToken: string | null;
  player: Person;
  /** The name that a guest asked for, '' for none. The name that the server gives them says that they are a guest. */
  asked?: string;
}

export interface Leader {
  player: Person;
  discoveries: number;
}

export async function guestPass(name: string): Promise<Pass> {
  const answer = await post<{ token: string; player: Person }>('/api/session', name === '' ? {} : { name });
  return { ...answer, refreshToken: null, asked: name };
}

export const accountPass = (how: 'login' | 'register', name: string, password: string): Promise<Pass> =>
  post<Pass>(`/api/${how}`, { name, password });

/** null: this login has ended, and the player has to log in again. */
export async function renewedPass({ refreshToken, player, asked = '' }: Pass): Promise<Pass | null> {
  if (refreshToken === null) return guestPass(asked);
  const response = await send('POST', '/api/refresh', { refreshToken });
  if (response.status === 401) return null;
  const answer = await read<Partial<Pass> & { token: string }>(response);
  return { refreshToken, player, ...answer };
}

export async function endPass({ refreshToken }: Pass): Promise<void> {
  if (refreshToken !== null) await send('POST', '/api/logout', { refreshToken }).catch(() => undefined);
}

/** Regions with somebody in them. */
export async function regions(): Promise<Headcount[]> {
  return (await read<{ regions: Headcount[] }>(await send('GET', '/api/regions'))).regions;
}

export async function discoveriesIn(region: string): Promise<Discovery[]> {
  const response = await send('GET', `/api/discoveries?region=${encodeURIComponent(region)}`);
  return (await read<{ discoveries: Discovery[] }>(response)).discoveries;
}

export async function leaders(): Promise<Leader[]> {
  return (await read<{ leaders: Leader[] }>(await send('GET', '/api/leaderboard'))).leaders;
}

/** A request that is sent twice with the same key is carried out once, so it is sent again when the answer got lost. */
export async function explore(
  token: string,
  region: string,
  tile: { x: number; y: number },
): Promise<Discovery> {
  const headers = { authorization: `Bearer ${token}`, 'idempotency-key': newKey() };
  const ask = async () =>
    (
      await read<{ discovery: Discovery }>(
        await send('POST', '/api/discoveries', { region, ...tile }, headers),
      )
    ).discovery;
  return ask().catch((error: Error) => {
    if (error instanceof Refusal) throw error;
    return ask();
  });
}

/** The server answered that it did not do what was asked. */
export class Refusal extends Error {
  readonly status: number;
  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

async function post<T>(path: string, body: object): Promise<T> {
  return read<T>(await send('POST', path, body));
}

function send(method: string, path: string, body?: object, headers: Record<string, string> = {}) {
  return fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json', ...headers } : headers,
    ...(body && { body: JSON.stringify(body) }),
  });
}

async function read<T>(response: Response): Promise<T> {
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) return answer as T;
  const { error } = (answer ?? {}) as { error?: { message?: string } };
  throw new Refusal(error?.message ?? `The server answered ${response.status}.`, response.status);
}

/** `randomUUID` needs a secure context, and the page must also work over plain HTTP. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `web-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
