/**
 * What the rules look at: the text, where every value comes from, and what is asked of the settings. The callers read it;
 * the rules never read a file.
 */

import { type EnvText, type Setting, settingsIn, valuesIn } from '../file/tokens.ts';
import { isRevealing, type SettingKey, settingAbout } from '../settings.ts';
import type { Origin, SourceProblem } from '../sources.ts';
import type { UserKeys } from '../user-keys.ts';
import type { Place } from './found.ts';

export interface Subject {
  text: EnvText;
  /** False when everything comes from elsewhere. */
  hasFile: boolean;
  /** Every key that has a value, with the value that counts. */
  values: ReadonlyMap<string, Origin>;
  problems: readonly SourceProblem[];
  /** The bundled server says which settings it needs; of another image only that image knows. */
  isBundled: boolean;
  userKeys: UserKeys;
  example: EnvText | null;
}

/** Where the value of a key is in the file; nowhere when it comes from elsewhere. */
export function placeOf(subject: Subject, key: string): Place {
  const origin = subject.values.get(key);
  const setting = origin === undefined ? valuesIn(subject.text).get(key) : origin.setting;
  return setting ? placeIn(key, setting) : { key, line: null, column: null };
}

export function placeIn(key: string, { line, valueColumn }: Setting): Place {
  return { key, line, column: valueColumn };
}

/** Where a line could be added. */
export function endPlace({ text, hasFile }: Subject, key: string): Place {
  if (!hasFile) return { key, line: null, column: null };
  const last = text.pieces.at(-1);
  const breaks = last?.raw.match(/\r\n|\n|\r/g)?.length ?? 0;
  return { key, line: last === undefined ? 1 : last.line + Math.max(0, breaks - 1), column: 1 };
}

export function textOf({ values }: Subject, key: string): string | undefined {
  return values.get(key)?.value;
}

export function isSecret({ userKeys }: Pick<Subject, 'userKeys'>, key: string): boolean {
  const asked = Object.hasOwn(userKeys, key) ? userKeys[key] : undefined;
  if (asked?.secret !== undefined) return asked.secret;
  if (Object.hasOwn(settingAbout, key)) return settingAbout[key as SettingKey].isSecret;
  return isRevealing(key);
}

/** Keys that the server, gameops.yaml or the example name. */
export function keysWithMeaning({ userKeys, example }: Pick<Subject, 'userKeys' | 'example'>): Set<string> {
  const inExample = example === null ? [] : settingsIn(example).map(({ key }) => key);
  return new Set([...Object.keys(settingAbout), ...Object.keys(userKeys), ...inExample]);
}
