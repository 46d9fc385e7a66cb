/**
 * What a deploy asks for and can't have, met before anything is made. Looks only; each of these would come up later by
 * itself, with half a foundation laid.
 */
import { portTaken } from '../engine/failures.ts';
import type { Engine } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { whyNotFree } from '../host/ports.ts';
import { firstGeneration } from '../proxy/first.ts';
import { newRecord } from '../record/record.ts';
import type { Context } from './context.ts';
import { proxyBase, type Request, type Supply } from './foundation.ts';
import { findPage } from './release-inputs.ts';

/** @throws CONFIG_INVALID, FOREIGN_CONTAINER, PORT_TAKEN, TEMPLATE_INVALID */
export async function preflight(context: Context, request: Request, supply: Supply): Promise<void> {
  const engine = await context.engine();
  findPage(context, request.image === 'bundled');
  // An Nginx that is there has its ports, and serves what it was last given.
  const isFirst = supply.state.proxy === 'absent';
  if (isFirst) {
    const anyNetwork = { name: '', subnet: '10.0.0.0/22', notReplicas: [] };
    firstGeneration({ ...proxyBase(context, newRecord(context.project), anyNetwork), passAll: false });
  }
  await Promise.all([engine.mustOwnNames(context.project), isFirst ? mustHavePorts(context, engine) : null]);
}

async function mustHavePorts({ config }: Context, engine: Engine): Promise<void> {
  const { address, port, tlsPort } = config.http;
  const asked = [port, tlsPort].filter((one) => one !== 0);
  if (asked.length === 0 || !(await engine.info()).isLocal) return;
  for (const one of asked) {
    const why = await whyNotFree(one, address);
    if (why === 'taken') throw portTaken(one);
    if (why !== 'not here') continue;
    throw new OpsError('CONFIG_INVALID', {
      message: `http.address is ${address}, which is no address of this machine. Nothing was changed.`,
      next: ['set http.address in gameops.yaml to an address of this machine, or to 0.0.0.0 for all of them'],
      facts: { address },
    });
  }
}
