import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const root = fileURLToPath(new URL('.', import.meta.url));

/** Test files that take long, the longest first: one that starts last would run on alone. */
const longest = [
  'integration/deploy/rollback-schema',
  'integration/deploy/deploy-crash',
  'integration/deploy/deploy-refused',
  'integration/deploy/deploy',
  'integration/deploy/deploy-schema',
  'integration/database/schema',
  'integration/rotation/rotate-db',
  'integration/deploy/handover',
  'integration/deploy/rehearse',
  'integration/rotation/rotate-jwt',
  'integration/deploy/first-deploy-refused',
  'integration/deploy/registry',
  'integration/client/page',
  'integration/deploy/rollback-irreversible',
  'integration/database/backup',
  'integration/server/server-sessions',
  'integration/database/restore',
  'integration/engine/engine',
  'integration/proxy/proxy',
  'integration/server/server',
  'integration/deploy/foreign-image',
  'unit/env/abuse',
  'simulation/crash-walk',
].map((name) => `test/${name}.test.ts`);

for (const file of longest)
  if (!existsSync(join(root, file))) console.warn(`vitest.config.ts names ${file}, which does not exist.`);

/** vitest itself goes by the times of earlier runs, which a fresh clone does not have. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = longest.indexOf(relative(root, moduleId));
      return at < 0 ? longest.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

/** Only against a test that hangs: no test may fail because the machine is slow. */
const hangMs = 900_000;

// The suites by what they need: unit and simulation nothing, integration a real engine.
// What takes up to an hour is no suite: `npm run test:soak`.
export default defineConfig({
  test: {
    globalSetup: 'test/support/built.ts',
    // The runner's own NODE_ENV=test is not a setting of a game server: the CLI under test would take it for one.
    env: { NODE_ENV: 'production' },
    sequence: { sequencer: LongestFirst },
    testTimeout: hangMs,
    hookTimeout: hangMs,
    teardownTimeout: hangMs,
    expect: { poll: { timeout: hangMs } },
    projects: [
      {
        extends: true,
        // A worker keeps what it has loaded for its next file: a tenth of the suite was the loading.
        test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/tidy.test.ts'], isolate: false },
      },
      {
        extends: true,
        test: { name: 'simulation', include: ['test/simulation/**/*.test.ts'] },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          isolate: false,
          globalSetup: 'test/support/leftovers.ts',
        },
      },
    ],
  },
});
