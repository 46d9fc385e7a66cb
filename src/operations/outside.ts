/** What a running act may touch, made for one project whose foundation is laid. */

import type { ProjectRecord } from '../record/record.ts';
import type { ProxyBase } from '../runner/act.ts';
import type { Outside } from '../runner/outside.ts';
import type { Context, EnvFile } from './context.ts';
import { proxyBase } from './foundation.ts';
import { doorOf, playersOf } from './project.ts';
import { releaseInputs } from './release-inputs.ts';

export interface OpenOutside {
  outside: Omit<Outside, 'clock' | 'database'>;
  proxy: ProxyBase;
  close(): void;
}

export async function openOutside(
  context: Context,
  env: EnvFile,
  record: ProjectRecord,
): Promise<OpenOutside> {
  const engine = await context.engine();
  const [door, players, network] = await Promise.all([
    doorOf(context, engine, record),
    playersOf(context, engine, env),
    engine.ensureNetwork(context.project),
  ]);
  return {
    outside: { engine, door, players, inputs: releaseInputs(context, env) },
    proxy: proxyBase(context, record, network),
    close: () => players.close(),
  };
}
