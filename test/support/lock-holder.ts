/** A process of its own that takes a project's lock and holds it until it is killed. Prints "held". */
import { dockerEngine } from '../../src/engine/docker/engine.ts';

const [project = '', image = ''] = process.argv.slice(2);
const engine = await dockerEngine();
await engine.lock(project, image, {
  holder: 'child',
  host: 'here',
  verb: 'deploy',
  since: new Date().toISOString(),
});
process.stdout.write('held\n');
