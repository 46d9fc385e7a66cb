/** Images made for a test: a game server in one file, on the image that this engine has. Removed by `removeAll`. */
import Docker from 'dockerode';
import { label } from '../../../src/contract.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import { mark } from '../leftovers.ts';
import { engineImage } from './engine-image.ts';
import { tinyGame } from './tiny-game.ts';

export interface MadeImage {
  tag: string;
  id: string;
}

interface ImageOptions {
  /** Labelled with the wire protocol, so gameops expects players to be able to join. */
  isOurs?: boolean;
  /** The migrations that the image states: the newest one that it needs, and the newest one that it knows. */
  needs?: string;
  knows?: string;
}

export interface ImageMaker {
  make(name: string, script: string, options?: ImageOptions): Promise<MadeImage>;
  removeAll(): Promise<void>;
}

export async function imageMaker(): Promise<ImageMaker> {
  const engine = await dockerEngine();
  const base = await engineImage('node');
  const run = mark();
  const made: string[] = [];
  return {
    async make(name, script, { isOurs = false, needs, knows } = {}) {
      const tag = `t-${name}-${run}:test`;
      const dockerfile = [
        `FROM ${base}`,
        'COPY server.cjs /app/server.cjs',
        'USER 10001',
        'ENTRYPOINT ["node", "/app/server.cjs"]',
        'CMD []',
        '',
      ].join('\n');
      const { id } = await engine.buildImage({
        tag,
        context: [
          { path: 'Dockerfile', content: dockerfile },
          { path: 'server.cjs', content: script, mode: 0o644 },
        ],
        // The base image's labels are inherited: without these it could be taken for one that gameops made.
        labels: {
          [label.role]: 'test',
          [label.content]: `${name}-${run}`,
          ...(needs ? { [label.needs]: needs } : {}),
          ...(knows ? { [label.knows]: knows } : {}),
          ...(isOurs ? { [label.protocol]: 'gameops.v1' } : {}),
        },
      });
      made.push(tag);
      return { tag, id };
    },
    async removeAll() {
      const docker = new Docker();
      for (const tag of made)
        await docker
          .getImage(tag)
          .remove({ force: true })
          .catch(() => undefined);
      await engine.close();
    },
  };
}

/** Bad in one way each, good in every other. */
export const badServers = {
  exitsAtBoot: `console.error('the map of the world is missing'); process.exit(3);`,
  neverReady: tinyGame.replace(
    `return response.end('ready')`,
    `return response.writeHead(503).end('still reading the map')`,
  ),
  // Only requests through Nginx carry this header: the gate passes, and the first player ends the server.
  crashesWhenWatched: tinyGame.replace(
    `request.resume()`,
    `if (request.headers['x-request-id']) setTimeout(() => { console.error('lost the map'); process.exit(4); }, 300);
  request.resume()`,
  ),
  refusesJoins: tinyGame.replace(
    `const key = `,
    `return socket.end('HTTP/1.1 403 Forbidden\\r\\nConnection: close\\r\\n\\r\\n');
  const key = `,
  ),
} as const;
