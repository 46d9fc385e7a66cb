/**
 * The numbers of the schema, in full: `npm run test:soak -- database [kills=200 pairs=100]`. Works on a project of its
 * own and leaves nothing; exits 1 when a number is missed.
 */
import { ground } from '../support/accessories.ts';
import { openSchemaSite } from '../support/schema-site.ts';
import { type Kills, killRuns, prepareKills, twoAtOnce } from './schema-kills.ts';

const scale = Number(process.env.GAMEOPS_SOAK_SCALE ?? '1');
const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const count = (key: string, full: number) =>
  asked[key] === undefined ? Math.ceil(full * scale) : Number(asked[key]);
const counts = { kills: count('kills', 200), pairs: count('pairs', 100) };
const lockFreeMsLimit = 2_000;

const began = Date.now();
const say = (text: string) =>
  console.log(`[${((Date.now() - began) / 1000).toFixed(0).padStart(5)} s] ${text}`);
const missed: string[] = [];
const judge = (what: string, value: string, isMet: boolean) => {
  say(`${isMet ? 'met   ' : 'MISSED'}  ${what}: ${value}`);
  if (!isMet) missed.push(what);
};

const on = await ground('soakdb');
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
process.exit(missed.length === 0 ? 0 : 1);

function tell(direction: string, { kills, midRun, midIndex, ...seen }: Kills): void {
  for (const one of [...seen.halfApplied, ...seen.stuck]) say(one);
  say(`${direction}: ${kills} kills, ${midRun} of them mid-run, ${midIndex} inside a concurrent statement`);
  judge(`${direction}: half applied`, String(seen.halfApplied.length), seen.halfApplied.length === 0);
  judge(`${direction}: reruns that needed hands`, String(seen.stuck.length), seen.stuck.length === 0);
  const freeMs = Math.round(seen.lockFreeMsMax);
  judge(`${direction}: lock free after`, `≤ ${freeMs} ms (≤ ${lockFreeMsLimit})`, freeMs <= lockFreeMsLimit);
  say(`${direction}: slowest rerun ${seen.rerunMsMax} ms`);
}
