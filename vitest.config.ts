import { defineConfig } from 'vitest/config';

// The suites by what they need: unit and simulation nothing, integration a real engine.
// What takes up to an hour is no suite: `npm run test:soak`.
export default defineConfig({
  test: {
    globalSetup: 'test/support/built.ts',
    // The runner's own NODE_ENV=test is no setting of a game server: the CLI under test would take it for one.
    env: { NODE_ENV: 'production' },
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/tidy.test.ts'] },
      },
      {
        extends: true,
        test: { name: 'simulation', include: ['test/simulation/**/*.test.ts'], testTimeout: 120_000 },
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
