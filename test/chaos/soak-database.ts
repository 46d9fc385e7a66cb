/**
 * The numbers of the schema, in full: `npm run test:soak -- database [kills=200 pairs=100 backups=22 lint=1]`. Works on
 * projects of its own and leaves nothing; exits 1 when a number is missed.
 */
import { rm } from 'node:fs/promises';
import { takeBackup } from '../../src/database/backup/take.ts';
import { rules } from '../../src/database/lint/lint.ts';
import { openTestProject } from '../support/site/accessories.ts';
import { backupLab, copyOf, everything } from '../support/site/backups.ts';
import { damages, proven } from '../support/site/damages.ts';
import { openSchemaSite } from '../support/site/schema-site.ts';
import { lintSamples } from './lint-samples.ts';
import { type Kills, killRuns, prepareKills, twoAtOnce } from './schema-kills.ts';

const scale = Number(process.env.GAMEOPS_SOAK_SCALE ?? '1');
const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const count = (key: string, full: number) =>
  asked[key] === undefined ? Math.ceil(full * scale) : Number(asked[key]);
const counts = {
  kills: count('kills', 200),
  pairs: count('pairs', 100),
  backups: count('backups', damages.length),
  /** None or all of them: it takes seconds. */
  lint: count('lint', 1),
};
const lockFreeMsLimit = 2_000;

const began = Date.now();
const say = (text: string) =>
  console.log(`[${((Date.now() - began) / 1000).toFixed(0).padStart(5)} s] ${text}`);
const missed: string[] = [];
const judge = (what: string, value: string, isMet: boolean) => {
  say(`${isMet ? 'met   ' : 'MISSED'}  ${what}: ${value}`);
  if (!isMet) missed.push(what);
};

if (counts.lint > 0) await lint();
if (counts.backups > 0) await damaged();
if (counts.kills + counts.pairs > 0) await killed();
process.exit(missed.length === 0 ? 0 : 1);

async function lint(): Promise<void> {
  const { found, misses, silent, falseAlarms } = await lintSamples();
  for (const one of [...misses, ...falseAlarms]) say(one);
  judge(
    `lint: rules with a bad sample`,
    `${found + misses.length} of ${rules.length}, ${misses.length} misses`,
    found === rules.length,
  );
  judge(
    'lint: rules with a good sample',
    `${silent + falseAlarms.length} of ${rules.length}, ${falseAlarms.length} false alarms`,
    silent === rules.length,
  );
}

async function damaged(): Promise<void> {
  const lab = await backupLab('soakbk');
  const asked = { release: null, reason: 'soak' };
  try {
    await lab.query(everything);
    const backup = await takeBackup(await lab.open(), { level: 'read', ...asked });
    await lab.query('DELETE FROM finds WHERE id % 100 = 0');
    const other = await takeBackup(await lab.open(), { level: 'sha256', ...asked });
    const tried = damages.slice(0, counts.backups);
    let found = 0;
    for (const { what, level, damage } of tried) {
      const copy = await copyOf(backup);
      await damage(copy, other);
      const told = await proven(lab, copy.folder, level);
      if (['not whole', 'damaged'].includes(told)) found += 1;
      else say(`${what}: by the proof ${level}: ${told}`);
      await rm(copy.folder, { recursive: true });
    }
    judge('damaged backups', `${found} of ${tried.length} detected`, found === tried.length);
    const copy = await copyOf(backup);
    const whole = await proven(lab, copy.folder, 'restore');
    judge('the same proofs of one that is whole', whole, whole === 'whole');
    await rm(copy.folder, { recursive: true });
  } finally {
    await lab.remove();
  }
}

async function killed(): Promise<void> {
  const on = await openTestProject('soakdb');
  try {
    await on.ensure();
    const site = await openSchemaSite(on);
    try {
      await prepareKills(site);
      const seen = await killRuns(site, counts.kills, say);
      for (const [direction, kills] of Object.entries(seen)) tell(direction, kills);
      await prepareKills(site);
      const wrong = await twoAtOnce(site, counts.pairs);
      for (const one of wrong) say(one);
      judge(
        `two at once, ${counts.pairs} times`,
        `${wrong.length} wrong, each migration once`,
        wrong.length === 0,
      );
    } finally {
      await site.close();
    }
  } finally {
    await on.remove();
  }
}

function tell(direction: string, { kills, midRun, midIndex, ...seen }: Kills): void {
  for (const one of [...seen.halfApplied, ...seen.stuck]) say(one);
  say(`${direction}: ${kills} kills, ${midRun} of them mid-run, ${midIndex} inside a concurrent statement`);
  judge(`${direction}: half applied`, String(seen.halfApplied.length), seen.halfApplied.length === 0);
  judge(`${direction}: reruns that needed hands`, String(seen.stuck.length), seen.stuck.length === 0);
  const freeMs = Math.round(seen.lockFreeMsMax);
  judge(`${direction}: lock free after`, `≤ ${freeMs} ms (≤ ${lockFreeMsLimit})`, freeMs <= lockFreeMsLimit);
  say(`${direction}: slowest rerun ${seen.rerunMsMax} ms`);
}
