import { basename } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Integration files that take long, the longest first: begun last, one would run on alone. */
const longest = [
  'rollback-schema',
  'deploy-schema',
  'deploy-crash',
  'deploy',
  'rotate-db',
  'rotate-jwt',
  'schema',
  'deploy-refused',
  'registry',
  'proxy',
  'engine',
  'server',
];

/** vitest itself goes by the times of earlier runs, which a fresh clone has none of. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = longest.indexOf(basename(moduleId, '.test.ts'));
      return at < 0 ? longest.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

// The suites by what they need: unit and simulation nothing, integration a real engine.
// What takes up to an hour is no suite: `npm run test:soak`.
export default defineConfig({
  test: {
    globalSetup: 'test/support/built.ts',
    // The runner's own NODE_ENV=test is no setting of a game server: the CLI under test would take it for one.
    env: { NODE_ENV: 'production' },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/tidy.test.ts'],
          // Some run the program; on a machine that stands still for a moment that takes more than vitest's 5 s.
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'simulation',
          include: ['test/simulation/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
