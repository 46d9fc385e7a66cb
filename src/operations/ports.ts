/** The real ports of a running act, wired for one project whose foundation is laid. */

import type { ProjectRecord } from '../record/record.ts';
import type { Ports } from '../runner/ports.ts';
import type { ProxyBase } from '../runner/session.ts';
import type { Context, EnvFile } from './context.ts';
import { proxyBase } from './foundation.ts';
import { doorOf, playersOf } from './project.ts';
import { suppliesOf } from './release-inputs.ts';

export interface OpenPorts {
  ports: Omit<Ports, 'clock' | 'schema'>;
  proxy: ProxyBase;
  close(): void;
}

export async function openPorts(context: Context, env: EnvFile, record: ProjectRecord): Promise<OpenPorts> {
  const engine = await context.engine();
  const [door, players, network] = await Promise.all([
    doorOf(context, engine, record),
    playersOf(context, engine, env),
    engine.ensureNetwork(context.project),
  ]);
  return {
    ports: { engine, door, players, supplies: suppliesOf(context, env) },
    proxy: proxyBase(context, record, network.subnet),
    close: () => players.close(),
  };
}
