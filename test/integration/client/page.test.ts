/**
 * The page of the bundled game in a real Chromium, served by Nginx: what players see while they play, and that a deploy
 * in the middle of their game is one line on the page and nothing else.
 */
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { mintToken } from '../../../src/tokens.ts';
import {
  desktop,
  openBrowser,
  openPlayer,
  type Player,
  phone,
  watchState,
} from '../../support/players/browser.ts';
import { until } from '../../support/players/game-server.ts';
import { openSite, type Ran, type Site } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];

let browser: Browser;
let site: Site;
let url = '';
const here: Player[] = [];

beforeAll(async () => {
  browser = await openBrowser();
  site = await openSite({ replicas: 2, name: 'page' });
  const ran = await site.run(['deploy', ...quick]);
  expectDone(ran);
  url = ran.json?.result.url;
});
afterEach(async () => {
  for (const player of here.splice(0)) await player.leave();
});
afterAll(async () => {
  await browser?.close();
  await site?.close();
});

function expectDone(ran: Ran): void {
  expect(ran.exitCode, `${ran.stdout}\n${ran.stderr}`).toBe(0);
}

async function newPlayer(looks = desktop): Promise<Player> {
  const player = await openPlayer(browser, url, looks);
  here.push(player);
  return player;
}

/** Two guests in the first region who see each other. */
async function twoPlayers(first: string, second: string): Promise<[Player, Player]> {
  const [one, other] = [await newPlayer(), await newPlayer(phone)];
  await one.comeInAsGuest(first);
  await other.comeInAsGuest(second);
  await one.shows('#people', second);
  await other.shows('#people', first);
  return [one, other];
}

/** The name of a guest, as other players see it. */
const guest = (name: string) => `${name} (guest)`;

/** What the feed shows that `who` said, in order. */
async function saidBy(who: string, { lines }: Player): Promise<string[]> {
  const feed = await lines('#feed .said');
  return feed.flatMap((line) => line.split(`${who} `)[1] ?? []);
}

async function register({ page, shows }: Player, name: string, password: string): Promise<void> {
  await page.fill('#account-name', name);
  await page.fill('#account-password', password);
  await page.getByRole('button', { name: 'Register' }).click();
  await shows('#state', /^online$/);
}

const isWide = ({ page }: Player) =>
  page.evaluate<boolean>('document.documentElement.scrollWidth > document.documentElement.clientWidth');

describe('two guests', () => {
  it('see and hear each other, and their pages ask no other host for anything', async () => {
    const [ada, bo] = await twoPlayers('Ada', 'Bo');
    await ada.say('Who is <b>there</b>?');
    await bo.shows('#feed .said', 'Ada (guest) Who is <b>there</b>?');
    await bo.say('Me.');
    await ada.shows('#feed .said', 'Bo (guest) Me.');
    // Other players may hear a message before its speaker is told that it was taken.
    await until(async () => (await bo.text('#waiting')) === '');
    for (const player of [ada, bo]) {
      expect(await player.text('#release')).toBe('1');
      await player.shows('#rtt', /^\d+ ms$/);
      await player.shows('#moves + .none', 'None yet');
      expect(player.wrong).toEqual([]);
    }
  });

  it('see what the other discovers with keys alone, and the new place on the leaderboard', async () => {
    const [cy, di] = await twoPlayers('Cy', 'Di');
    // After a player has joined, the map has the focus.
    for (const key of ['ArrowRight', 'ArrowDown', 'Enter']) await cy.page.keyboard.press(key);
    await cy.shows('#cursor', /^Tile 17, 17: .+, found by Cy \(guest\)$/);
    await di.shows('#feed .discovered', /Cy \(guest\) found .+ at 17, 17/);
    await di.shows('#leaders li', /^Cy \(guest\)\s*1$/);
    expect([...cy.wrong, ...di.wrong]).toEqual([]);
  });

  it('no longer see or hear each other when one walks to the next region', async () => {
    const [ed, flo] = await twoPlayers('Ed', 'Flo');
    await ed.page.getByRole('button', { name: 'East' }).click();
    await ed.shows('#region-title', 'Region 1, 0');
    await until(async () => !(await flo.text('#people')).includes('Ed'));
    await flo.say('Gone?');
    await flo.shows('#feed .said', 'Flo (guest) Gone?');
    expect(await saidBy(guest('Flo'), ed)).toEqual([]);
    expect([...ed.wrong, ...flo.wrong]).toEqual([]);
  });
});

describe('the page', () => {
  it('shows how many players are in a region before you go there', async () => {
    const [lou, max] = [await newPlayer(), await newPlayer(phone)];
    for (const player of [lou, max]) {
      await player.comeInAsGuest(player === lou ? 'Lou' : 'Max');
      await player.page.selectOption('#region', 'r13-7');
      await player.shows('#region-title', 'Region 13, 7');
    }
    const nan = await newPlayer();
    await nan.comeInAsGuest('Nan');
    const options = async () => {
      // Opening the list loads it anew.
      await nan.page.locator('#region').blur();
      await nan.page.locator('#region').focus();
      return nan.page.locator('#region option').allTextContents();
    };
    await until(async () => (await options()).includes('13-7 · 2 here'));
    expect(await options()).toContain('2-2');
    expect(nan.wrong).toEqual([]);
  });

  it('fits the window of a desktop and of a phone, before and after joining', async () => {
    for (const looks of [desktop, phone, { ...phone, width: 320 }]) {
      const player = await newPlayer(looks);
      expect(await isWide(player), `entrance at ${looks.width}`).toBe(false);
      await player.comeInAsGuest('A name as long as can be');
      await player.say('Donaudampfschifffahrtsgesellschaftskapitän'.repeat(4));
      await player.shows('#feed', 'Donau');
      expect(await isWide(player), `game at ${looks.width}`).toBe(false);
    }
  });

  it('runs no script but its own', async () => {
    const { page, wrong } = await newPlayer();
    const isRefused = page.evaluate(`new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
      const script = document.createElement('script');
      script.textContent = 'window.isTaken = true';
      document.body.append(script);
    })`);
    expect(await isRefused).toBe('script-src-elem');
    expect(await page.evaluate('window.isTaken')).toBeUndefined();
    expect(wrong.filter((one) => !one.includes('Content Security Policy'))).toEqual([]);
  });
});

describe('a deploy', () => {
  it('shows as one line on the page: nothing reloads, and no message is missed or heard twice', async () => {
    const [gil, hal] = await twoPlayers('Gil', 'Hal');
    const told = [await watchState(gil), await watchState(hal)];
    const sockets = [gil.sockets(), hal.sockets()];
    await site.setEnv({ LOG_LEVEL: 'debug' });

    const said: string[] = [];
    let isDone = false;
    const deploy = site.run(['deploy', ...quick]).finally(() => (isDone = true));
    while (!isDone) {
      // No more messages than the page keeps, however long the deploy takes.
      if (said.length < 80) {
        said.push(`word ${said.length + 1}`);
        await Promise.all([gil.say(said.at(-1) ?? ''), hal.say(said.at(-1) ?? '')]);
      }
      await gil.page.waitForTimeout(150);
    }
    expectDone(await deploy);

    for (const player of [gil, hal]) await player.shows('#moves li', 'Release 1 → 2: moved without a gap');
    for (const player of [gil, hal]) {
      await player.shows('#release', /^2$/);
      await player.say('The last word.');
    }
    said.push('The last word.');
    expect(said.length).toBeGreaterThan(2);
    for (const listener of [gil, hal])
      for (const speaker of ['Gil', 'Hal']) {
        await listener.shows('#feed .said', `${guest(speaker)} The last word.`);
        expect(await saidBy(guest(speaker), listener)).toEqual(said);
      }
    for (const [n, player] of [gil, hal].entries()) {
      expect(await told[n]?.()).toEqual(['online']);
      expect(await player.lines('#moves li')).toHaveLength(1);
      expect(player.sockets()).toBe((sockets[n] ?? 0) + 1);
      expect(player.loads()).toBe(1);
      // Players of the tests before are listed until their grace is over.
      await expect.poll(() => player.lines('#people li')).toHaveLength(2);
      expect(player.wrong).toEqual([]);
    }
  });

  it('does not log players out: a page that is reloaded later is on the new release and on the same login', async () => {
    const player = await newPlayer();
    await register(player, 'Ida', 'long enough');
    await site.run(['deploy', '--again', ...quick]).then(expectDone);
    await player.shows('#moves li', 'moved without a gap');
    const release = await player.text('#release');
    await player.page.reload();
    await player.shows('#state', /^online$/);
    expect(await player.text('#player')).toBe('Ida');
    expect(await player.text('#release')).toBe(release);
    expect(player.wrong).toEqual([]);
  });
});

describe('an account', () => {
  const password = 'a pass phrase';
  /** Each test has an account of its own. */
  async function withAccount(name: string): Promise<void> {
    const player = await newPlayer();
    await register(player, name, password);
    await player.leave();
    here.splice(here.indexOf(player), 1);
  }

  it('can be registered, left and logged in to again; a reload keeps the login, and another window does not have it', async () => {
    const name = 'Jo';
    const player = await newPlayer();
    const { page } = player;
    await register(player, name, password);
    expect(await player.text('#player')).toBe(name);
    await player.say('First.');
    await player.shows('#feed', 'First.');
    await page.getByRole('button', { name: 'Leave' }).click();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    await page.reload();
    await page.getByRole('button', { name: 'Log in' }).waitFor();

    await page.fill('#account-name', name);
    await page.fill('#account-password', password);
    await page.press('#account-password', 'Enter');
    await player.shows('#feed', 'First.');
    expect(await saidBy(name, player)).toContain('First.');
    await page.reload();
    await player.shows('#state', /^online$/);
    expect(await player.text('#player')).toBe(name);
    const other = await newPlayer();
    await other.page.getByRole('button', { name: 'Log in' }).waitFor();
    expect(player.wrong).toEqual([]);
  });

  it('is not needed to leave and join again in the same window, where old messages are then shown once', async () => {
    const player = await newPlayer();
    await player.comeInAsGuest('Kim');
    await player.say('Only once.');
    await player.shows('#feed', 'Only once.');
    await player.page.getByRole('button', { name: 'Leave' }).click();
    await player.comeInAsGuest('Kim');
    await player.shows('#feed', 'Only once.');
    expect((await saidBy(guest('Kim'), player)).filter((text) => text === 'Only once.')).toHaveLength(1);
  });

  it('says when a password is wrong or a name is taken, and keeps the player at the entrance', async () => {
    const name = 'Lee';
    await withAccount(name);
    const player = await newPlayer();
    const attempt = async (button: string, secret: string) => {
      await player.page.fill('#account-name', name);
      await player.page.fill('#account-password', secret);
      await player.page.getByRole('button', { name: button }).click();
    };
    await attempt('Log in', 'another phrase');
    await player.shows('#entrance-error', 'The name or the password is wrong.');
    await attempt('Register', 'another phrase');
    await player.shows('#entrance-error', 'Another player has that name.');
    expect(await player.page.locator('#game').isVisible()).toBe(false);
  });

  it('can go on exploring after its token has expired', async () => {
    const name = 'Mo';
    await withAccount(name);
    const secret = (await site.env()).JWT_SECRET ?? '';
    const player = await newPlayer();
    await player.page.route('**/api/login', async (route) => {
      const response = await route.fetch();
      const pass = await response.json();
      await route.fulfill({ response, json: { ...pass, token: mintToken(secret, pass.player, 2_000) } });
    });
    await player.page.fill('#account-name', name);
    await player.page.fill('#account-password', password);
    await player.page.press('#account-password', 'Enter');
    await player.shows('#state', /^online$/);
    await player.page.waitForTimeout(3_000);
    await player.page.getByRole('button', { name: 'Explore here' }).click();
    await player.shows('#cursor', `found by ${name}`);
    expect(await player.text('#state')).toBe('online');
  });
});
