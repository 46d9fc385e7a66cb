/** Keeps tests that share a site apart: what one that failed has left unfinished is ended before the next one begins. */
import { afterEach } from 'vitest';
import type { Operator } from './site/site.ts';

/**
 * Call it in a `describe`. Costs nothing while tests pass.
 * @param more what else the next test relies on
 */
export function mendAfterFailure(site: () => Operator, more?: () => Promise<unknown>): void {
  afterEach(async ({ task }) => {
    if (task.result?.state !== 'fail') return;
    for (;;) {
      const { exitCode } = await site().run(['resume']);
      if (exitCode === 0) break;
      // 8: the lock of a killed command is still there. Everything else is taken back.
      if (exitCode !== 8 && (await site().run(['abort'])).exitCode !== 8) break;
    }
    await more?.();
  });
}
