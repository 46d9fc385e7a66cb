/** What a row of the table of accessories has to say. */
import type { accessoryHost } from '../contract.ts';
import type { ContainerSpec, FileEntry } from '../engine/port.ts';
import type { ServerSettings } from '../env/settings.ts';

export type AccessoryName = keyof typeof accessoryHost;
export type AccessorySettings = Pick<
  ServerSettings,
  'DB_HOST' | 'DB_PORT' | 'DB_NAME' | 'DB_USER' | 'DB_PASSWORD' | 'REDIS_URL'
>;
/** Run by gameops, or by the operator somewhere else. */
export type Ownership = 'managed' | 'external';

/** A service beside the fleets. Its name is its host, its role, and its key under accessories and images in gameops.yaml. */
export interface Accessory {
  name: AccessoryName;
  /** For people. */
  title: string;
  /** How .env points to it. `host`: null when it names none. */
  pointer: { key: keyof AccessorySettings; host(settings: Partial<AccessorySettings>): string | null };
  /** The key whose value is, or holds, its password. */
  passwordKey: keyof AccessorySettings;
  /**
   * Whether a password in its files would be taken unseen at its next start. One that keeps its password in its data refuses
   * another one at the next login.
   */
  takesAnyPassword: boolean;
  /** @throws CONFIG_INVALID when .env asks for something that the one of gameops is not */
  mustFit(settings: Partial<AccessorySettings>): void;
  /** null while .env lacks one of its settings. */
  make(input: AccessoryInput): MadeAccessory | null;
}

export interface AccessoryInput {
  project: string;
  /** Reference or id of an image that is on the engine. */
  image: string;
  settings: Partial<AccessorySettings>;
  replicas: number;
  connectionsPerReplica: number;
}

/** One accessory of one project. Its first mount is its data; no secret is in its specification. */
export interface MadeAccessory {
  spec: ContainerSpec;
  /** What it may have been made with, when a login of .env changes with a rotation. */
  formerSpec?: ContainerSpec;
  secretVolume: string;
  secrets: FileEntry[];
  password: string;
}
