/**
 * Whether a secret of .env went into an image of this project: into a layer, its environment, its build history. Images that
 * gameops builds are left out: nothing of the operator's goes into them.
 */

import { label } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import { passwordIn } from '../env/rules/secrets.ts';
import { isSecret } from '../env/rules/subject.ts';
import { isOpsError } from '../errors.ts';
import { error, type Finding, ok, warning } from '../host/judge.ts';
import type { Context } from '../operations/context.ts';
import { readRecord } from '../record/record.ts';
import { originOfImage } from '../release/origin.ts';
import { shortId } from '../units.ts';

/** Shorter ones are met everywhere by chance. */
const lengthMin = 8;
const patienceMs = 60_000;

/** Images of releases on record, and the one that gameops.yaml names. */
export async function lookForSecrets(context: Context, engine: Engine): Promise<Finding[]> {
  const needles = needlesOf(context);
  const images = await imagesOf(context, engine);
  if (needles.size === 0 || images.size === 0) return [];
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(patienceMs)]);
  const findings: Finding[] = [];
  for (const [id, ref] of images) {
    const found = await engine.searchImage(id, needles, signal);
    if (found === null) continue;
    const { hits, envFiles, isWhole } = found;
    for (const key of new Set(hits.map((hit) => hit.key)))
      findings.push(
        leaked(
          ref,
          key,
          hits.filter((hit) => hit.key === key).map(({ path }) => path),
        ),
      );
    if (hits.length === 0 && envFiles.length > 0) findings.push(carriesEnv(ref, envFiles));
    if (!isWhole)
      findings.push(
        warning(
          'image-secrets',
          `${ref} was searched for secrets only in part: it is large, damaged, or packed in a way that gameops can't read`,
          'gameops doctor again, when the engine is less busy',
        ),
      );
  }
  return findings.length > 0
    ? findings
    : [ok('image-secrets', 'no image of this project contains a secret of .env')];
}

function leaked(ref: string, key: string, paths: readonly (string | null)[]): Finding {
  const places = paths.map((path) => path ?? 'its environment, labels or build history');
  const rotation =
    key === 'JWT_SECRET'
      ? 'gameops env rotate jwt --now'
      : key === 'DB_PASSWORD'
        ? 'gameops env rotate db'
        : `make a new ${key}`;
  return error(
    'image-secrets',
    'ENV_INVALID',
    `${ref} contains the value of ${key} in ${places.slice(0, 3).join(', ')}: everybody who gets the image has it`,
    `build the image without it (.dockerignore, no ENV or ARG with secrets), deploy that image, then ${rotation}`,
  );
}

function carriesEnv(ref: string, files: readonly string[]): Finding {
  return warning(
    'image-secrets',
    `${ref} contains ${files.slice(0, 3).join(', ')}, but none of the present secret values`,
    'name the file in .dockerignore, and make sure that the secrets in it are not used any more',
  );
}

/** Key → its value as it is, as JSON and as part of a URL. */
function needlesOf(context: Context): Map<string, string[]> {
  const needles = new Map<string, string[]>();
  try {
    const { gathered } = context.readEnv();
    for (const [key, origins] of gathered.origins)
      for (const { value } of origins) {
        const password = passwordIn(value);
        if (!isSecret({ userKeys: context.config.env.keys }, key) && password === null) continue;
        const secrets = [password ?? value].filter((one) => one.length >= lengthMin);
        const forms = secrets.flatMap((one) => [
          one,
          JSON.stringify(one).slice(1, -1),
          encodeURIComponent(one),
        ]);
        if (forms.length > 0) needles.set(key, [...new Set([...(needles.get(key) ?? []), ...forms])]);
      }
  } catch (problem) {
    // A .env that can't be read is a finding of its own.
    if (!isOpsError(problem)) throw problem;
  }
  return needles;
}

/** Id → reference. */
async function imagesOf({ config, project }: Context, engine: Engine): Promise<Map<string, string>> {
  const images = new Map<string, string>();
  const record = await readRecord(engine, project).catch(() => null);
  for (const { image, imageRef } of record?.releases ?? []) images.set(image, imageRef);
  const own =
    originOfImage(config.server.image) === 'bundled' ? null : await engine.image(config.server.image);
  if (own) images.set(own.id, config.server.image);
  for (const id of [...images.keys()]) {
    const there = await engine.image(id);
    if (there === null || there.labels[label.content] !== undefined) images.delete(id);
  }
  return new Map([...images].map(([id, ref]) => [id, ref || shortId(id)]));
}
