/** One route of the REST side, and what all routes share. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Person } from '../../protocol.ts';
import type { TokenCheck } from '../../tokens.ts';
import type { Bus } from '../redis/bus.ts';
import type { Presence } from '../redis/presence.ts';
import type { Identity } from '../settings.ts';
import type { Store } from '../world/store.ts';
import type { Described } from './openapi.ts';

export interface ApiRequest {
  identity: Identity;
  store: Store;
  bus: Bus;
  presence: Presence;
  secret: string;
  verify: (token: string) => TokenCheck;
  log: Logger;
}

export interface ApiRoute extends Described {
  answer(incoming: FastifyRequest, reply: FastifyReply): Promise<unknown>;
}

/** What all routes share. */
export interface Api extends ApiRequest {
  playerOf(incoming: FastifyRequest): Person;
  /** @throws 503, when the database does not answer */
  available<T>(asked: Promise<T>): Promise<T>;
}
