/** The foundation planner: plans what is missing before a release can be planned. PURE. */
import type { FoundationStep } from './model.ts';

export interface FoundationState {
  /** References that are not on the engine yet. */
  missingImages: string[];
  /** Tag of the bundled server's image when it must be built. */
  imageToBuild: string | null;
  hasNetwork: boolean;
  /** Accessories that gameops has to run and that are not running. */
  missingAccessories: string[];
  proxy: 'absent' | 'stopped' | 'running';
}

/** Images are fetched before anything that runs is touched. */
export function planImages(state: Pick<FoundationState, 'missingImages' | 'imageToBuild'>): FoundationStep[] {
  const steps: FoundationStep[] = [];
  if (state.missingImages.length > 0) {
    const cause = 'not on this engine';
    steps.push({
      kind: 'prepare-images',
      phase: 'prepare',
      images: state.missingImages,
      cause,
      deadlineMs: 1_200_000,
    });
  }
  if (state.imageToBuild !== null) {
    const cause = 'this version of the bundled server is not built yet';
    steps.push({
      kind: 'build-image',
      phase: 'prepare',
      image: state.imageToBuild,
      cause,
      deadlineMs: 300_000,
    });
  }
  return steps;
}

export function planFoundation(state: FoundationState): FoundationStep[] {
  const steps: FoundationStep[] = [];
  if (!state.hasNetwork) {
    steps.push({ kind: 'make-network', phase: 'prepare', cause: 'a subnet of its own', deadlineMs: 30_000 });
  }
  const accessories = state.missingAccessories;
  if (accessories.length > 0) {
    const cause = '.env names the ones that gameops runs';
    steps.push({ kind: 'start-accessories', phase: 'prepare', accessories, cause, deadlineMs: 150_000 });
  }
  if (state.proxy !== 'running') {
    const cause = state.proxy === 'absent' ? 'players connect to Nginx, never to a replica' : 'it is stopped';
    steps.push({ kind: 'start-proxy', phase: 'prepare', cause, deadlineMs: 60_000 });
  }
  return steps;
}
