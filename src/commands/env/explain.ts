/**
 * `env explain <key>`: what a setting is for, what it accepts, and which of its sources is used. Promises to show only the
 * length and a fingerprint of the value.
 */

import { dirname } from 'node:path';
import { closest } from 'fastest-levenshtein';
import { localFingerprint } from '../../env/file/fingerprint.ts';
import { readTokens } from '../../env/file/tokens.ts';
import { gatherFor } from '../../env/read.ts';
import { shownKey } from '../../env/rules/findings.ts';
import { isSecret } from '../../env/rules/subject.ts';
import { type SettingKey, settingAbout } from '../../env/settings.ts';
import type { Origin, Source } from '../../env/sources.ts';
import { acceptsOf } from '../../env/user-keys.ts';
import { type EnvContext, textOfEnv } from '../../operations/env-context.ts';
import type { Outcome } from '../../report/outcome.ts';

interface About {
  purpose: string;
  accepts: string;
  required: boolean;
  fallback: string | null;
}

/** @throws ENV_UNREADABLE */
export async function run(context: EnvContext, { key }: { key: string }): Promise<Outcome> {
  const { asked, cwd, envFilePath, environment, envName } = context;
  const tokens = readTokens(textOfEnv(context) ?? '');
  const folder = envFilePath === null ? cwd : dirname(envFilePath);
  const { origins, problems } = gatherFor(tokens, { ...asked, folder, environment });
  const own = Object.hasOwn(asked.serverEnv, key)
    ? [{ source: 'gameops.yaml' as const, value: asked.serverEnv[key] ?? '', setting: null }]
    : [];
  const fingerprint = localFingerprint(environment);
  const all = [...(origins.get(key) ?? []), ...own].map((origin) => ({
    source: origin.source,
    where: whereIs(origin, key, envName),
    line: origin.setting?.line ?? null,
    length: origin.value.length,
    fingerprint: fingerprint(origin.value),
  }));
  const broken = problems.filter((one) => one.key === key || one.key === `${key}_FILE` || one.key === null);
  const about = aboutOf(key, context);
  const known = [...Object.keys(settingAbout), ...Object.keys(asked.userKeys)];
  const name = shownKey(key);
  const [winner = null, ...overridden] = all;
  const failing = broken.map((one) => `${one.key ?? 'env.provider'}: expected ${one.expected}`);
  return {
    ok: true,
    result: { key: name, ...about, secret: isSecret(asked, key), winner, overridden, failing },
    text: (style) =>
      [
        `${style.bold(name)}: ${about?.purpose ?? `gameops does not know this setting; did you mean ${closest(key, known)}?`}`,
        ...(about ? [`  accepts     ${about.accepts}`] : []),
        `  is set by   ${winner?.where ?? `nothing${about?.fallback ? `; the default ${about.fallback} is used` : ''}`}`,
        ...(winner
          ? [
              `  length      ${winner.length} characters; the value is never shown`,
              `  fingerprint ${winner.fingerprint}; equal for equal values, on this machine only`,
            ]
          : []),
        ...overridden.map(
          ({ where, fingerprint }) =>
            `  overridden  ${where}${fingerprint === winner?.fingerprint ? ': the same value' : ''}`,
        ),
        ...failing.map((line) => `  ${style.red('fails')}       ${line}`),
      ].join('\n'),
  };
}

function aboutOf(key: string, { asked }: EnvContext): About | null {
  if (Object.hasOwn(asked.userKeys, key)) {
    const about = asked.userKeys[key];
    if (about)
      return {
        purpose: about.purpose ?? 'a setting of your own',
        accepts: acceptsOf(about),
        required: about.required,
        fallback: null,
      };
  }
  if (!Object.hasOwn(settingAbout, key)) return null;
  const { purpose, accepts, fallback, isOptional } = settingAbout[key as SettingKey];
  return { purpose, accepts, required: asked.isBundled && fallback === null && !isOptional, fallback };
}

function whereIs(
  { source, setting }: Pick<Origin, 'setting'> & { source: Source | 'gameops.yaml' },
  key: string,
  file: string,
): string {
  const at = setting === null ? '' : `:${setting.line}`;
  return {
    process: 'the environment',
    'process-file': `the file that ${key}_FILE of the environment names`,
    'file-file': `the file that ${file}${at} names`,
    command: 'a command of gameops.yaml',
    file: `${file}${at}`,
    'gameops.yaml': 'server.env of gameops.yaml',
  }[source];
}
