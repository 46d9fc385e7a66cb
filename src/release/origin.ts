/**
 * Whose server it is. Of the bundled one gameops knows the protocol, the settings, the migrations and the page; of an
 * operator's own image it knows what labels and gameops.yaml say. PURE.
 */
import type { Release } from './model.ts';

export type Origin = 'bundled' | 'own';

/** @param image as gameops.yaml or --image names it */
export const originOfImage = (image: string): Origin => (image === 'bundled' ? 'bundled' : 'own');

/** An own image may be built on the bundled server: what speaks the protocol is treated like it. */
export const originOfRelease = ({ protocol }: Pick<Release, 'protocol'>): Origin =>
  protocol === null ? 'own' : 'bundled';
