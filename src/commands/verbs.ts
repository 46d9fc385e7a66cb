/**
 * Every verb there is: how it is asked for, and where its module lies. A verb that is not built is not here.
 * Modules are loaded when their verb runs, never before.
 */
import type { Option } from 'commander';
import type { Context, Outcome } from './context.ts';
import { imageSourceOption } from './options.ts';

export interface VerbModule {
  run(context: Context, options: never): Promise<Outcome>;
}

export interface Verb {
  /** "deploy", or "images prepare" for a verb in a group. */
  name: string;
  summary: string;
  options?: readonly Option[];
  examples: readonly string[];
  /** Runs with the defaults when gameops.yaml can't be used. */
  toleratesConfig?: boolean;
  load(): Promise<VerbModule>;
}

/** Groups have no action of their own. */
export const groups: Readonly<Record<string, string>> = {
  host: 'this machine',
  images: 'container images',
};

export function declareVerbs(): Verb[] {
  return [
    {
      name: 'init',
      summary: 'write .env with generated secrets, and gameops.yaml; existing files are kept',
      examples: ['gameops init', 'gameops init --project arena'],
      load: () => import('./init.ts'),
    },
    {
      name: 'doctor',
      summary: 'look at engine, ports, disk, memory, settings and images; every finding has a fix',
      examples: ['gameops doctor', 'gameops doctor --json'],
      toleratesConfig: true,
      load: () => import('./doctor.ts'),
    },
    {
      name: 'host setup',
      summary: 'have a Docker Engine running; installs and starts it on Debian and Ubuntu as root',
      examples: ['gameops host setup'],
      toleratesConfig: true,
      load: () => import('./host/setup.ts'),
    },
    {
      name: 'images prepare',
      summary: 'have every image on the engine before anything is touched',
      options: [imageSourceOption()],
      examples: ['gameops images prepare', 'gameops images prepare --source debian'],
      load: () => import('./images/prepare.ts'),
    },
  ];
}
