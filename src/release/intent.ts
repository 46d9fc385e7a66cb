/** How an act begins: every intent starts open, with nothing behind it. PURE. */
import type { Intent } from './model.ts';

type Given =
  | 'verb'
  | 'strategy'
  | 'release'
  | 'readyMs'
  | 'watchMs'
  | 'drainMs'
  | 'keep'
  | 'startedAt'
  | 'by';

/** @param given what the act is, and whatever of it differs from the beginning */
export function newIntent(given: Pick<Intent, Given> & Partial<Intent>): Intent {
  return {
    previous: null,
    stage: 'open',
    formerly: null,
    skipMigrations: false,
    schema: null,
    verdict: 'failed',
    reason: null,
    ...given,
  };
}
