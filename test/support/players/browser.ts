/**
 * A real Chromium, and players who use it. Every player has a window of their own that shares nothing with the others,
 * and keeps a record of everything that must not happen while somebody plays.
 */
import { spawnSync } from 'node:child_process';
import { type Browser, chromium, type Page } from 'playwright-core';
import { packageRoot } from '../../../src/package-root.ts';

export interface Looks {
  width: number;
  height: number;
  colorScheme: 'light' | 'dark';
}

export const desktop: Looks = { width: 1280, height: 800, colorScheme: 'light' };
export const phone: Looks = { width: 390, height: 844, colorScheme: 'dark' };

export interface Player {
  page: Page;
  /** Whatever went wrong so far, in words: console, scripts, requests, answers, requests to another host. */
  wrong: string[];
  /** How often a page was loaded. */
  loads(): number;
  sockets(): number;
  text(selector: string): Promise<string>;
  lines(selector: string): Promise<string[]>;
  shows(selector: string, text: string | RegExp): Promise<void>;
  comeInAsGuest(name: string): Promise<void>;
  say(text: string): Promise<void>;
  leave(): Promise<void>;
}

/** Against a page that hangs. On a slow machine anything may take long. */
const hangMs = 600_000;

/** With an empty profile of its own, which is removed with it. @throws when Chromium is neither there nor available */
export async function openBrowser(): Promise<Browser> {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/chromium.js'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return chromium.launch({
    executablePath: stdout.trim(),
    timeout: hangMs,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

export async function openPlayer(browser: Browser, url: string, looks: Looks): Promise<Player> {
  const { width, height, colorScheme } = looks;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme });
  context.setDefaultTimeout(hangMs);
  const page = await context.newPage();
  const wrong: string[] = [];
  const seen = { loads: 0, sockets: 0 };
  page.on('console', (line) => {
    if (['error', 'warning'].includes(line.type())) wrong.push(`console: ${line.text()}`);
  });
  page.on('pageerror', (error) => wrong.push(`script: ${error.message}`));
  page.on('requestfailed', (asked) => {
    const why = asked.failure()?.errorText;
    // The browser itself aborts requests when the player reloads. No server can cause this.
    if (why !== 'net::ERR_ABORTED') wrong.push(`failed: ${asked.url()} ${why}`);
  });
  page.on('request', (asked) => {
    if (new URL(asked.url()).host !== new URL(url).host) wrong.push(`elsewhere: ${asked.url()}`);
  });
  page.on('response', (answer) => {
    if (answer.status() >= 400) wrong.push(`answer: ${answer.url()} ${answer.status()}`);
  });
  page.on('load', () => (seen.loads += 1));
  page.on('websocket', (socket) => {
    seen.sockets += 1;
    socket.on('socketerror', (error) => wrong.push(`socket: ${error}`));
  });
  await page.goto(url);

  const shows: Player['shows'] = (selector, text) =>
    page.locator(selector).filter({ hasText: text }).first().waitFor();
  return {
    page,
    wrong,
    loads: () => seen.loads,
    sockets: () => seen.sockets,
    text: (selector) => page.locator(selector).innerText(),
    lines: (selector) => page.locator(selector).allInnerTexts(),
    shows,
    async comeInAsGuest(name) {
      await page.fill('#guest-name', name);
      await page.press('#guest-name', 'Enter');
      await shows('#state', /^online$/);
    },
    async say(text) {
      await page.fill('#text', text);
      await page.press('#text', 'Enter');
    },
    leave: () => context.close(),
  };
}

/** From now on every state of the connection and every trouble that the page shows is kept. @returns what was shown */
export async function watchState({ page }: Player): Promise<() => Promise<string[]>> {
  // In a string, because what runs in the page knows a DOM that these tests do not.
  await page.evaluate(`(() => {
    const [state, trouble] = ['state', 'trouble'].map((id) => document.getElementById(id));
    const told = new Set();
    const look = () => told.add(trouble.hidden ? state.innerText : trouble.innerText);
    look();
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    window.told = told;
  })()`);
  return () => page.evaluate('[...window.told]');
}
