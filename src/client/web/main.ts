/**
 * The page: join, walk the world, talk, and see which release serves you. Plays with the same client as every load
 * player, so that a deploy is one more line under "Handovers".
 */
import { closeCode, type Discovery, type Person, protocolVersion, world } from '../../protocol.ts';
import { type Client, createClient, type Socket } from '../client.ts';
import type { ClientEvent } from '../core-state.ts';
import * as api from './api.ts';
import { openMap, type Tile } from './map.ts';
import * as view from './view.ts';

const { at } = view;
const pingEveryMs = 2_000;
const leadersEveryMs = 30_000;
/** The server's own answer is a few seconds old. */
const leadersAfterFindMs = 6_000;
const passKey = 'frontier.pass';
const loginEnded = 'Your login has expired. Join again.';

interface Game {
  pass: api.Pass;
  client: Client;
  /** The player's id, as the server says. */
  me: string;
  region: string | null;
  epoch: string | null;
  people: Map<string, Person>;
  /** By tile, "x,y". */
  found: Map<string, Discovery>;
  /** Newest message shown of each room, because a snapshot brings the last messages again. */
  shown: Map<string, number>;
}

let game: Game | null = null;
let isComingIn = false;
let areLeadersDue = false;

const map = openMap(at('map-frame'), at<HTMLCanvasElement>('map'), {
  explore: (tile) => void explore(tile),
  choose: (tile) => {
    at('cursor').textContent = describe(tile);
  },
});

function begin(pass: api.Pass): void {
  keep(pass);
  const client = createClient({
    url: `${location.origin.replace(/^http/, 'ws')}/ws`,
    token: pass.token,
    openSocket: (url) => new WebSocket(url, protocolVersion) as Socket,
    refresh,
    pingEveryMs,
    onEvent: (event) => game && take(game, event),
  });
  const nothing = { people: new Map(), found: new Map(), shown: new Map() };
  game = { pass, client, me: pass.player.id, region: null, epoch: null, ...nothing };
  view.clear();
  at('entrance').hidden = true;
  at('game').hidden = false;
  at('leave').hidden = false;
  at('player').textContent = pass.player.name;
  // The element that had the focus is hidden now. On the map, arrow keys and Enter play the game.
  at('map-frame').focus({ preventScroll: true });
  client.start();
  void loadLeaders();
  void loadRegions();
}

async function refresh(): Promise<string | null> {
  if (game === null) return null;
  const pass = await api.renewedPass(game.pass);
  if (pass === null) {
    forget();
    return null;
  }
  game.pass = pass;
  keep(pass);
  return pass.token;
}

/** @param why for a player who did not ask to leave */
async function leave(why = ''): Promise<void> {
  const pass = game?.pass;
  game?.client.stop();
  game = null;
  forget();
  at('game').hidden = true;
  at('leave').hidden = true;
  at('entrance').hidden = false;
  at('entrance-error').textContent = why;
  at('guest-name').focus({ preventScroll: true });
  view.showState('offline');
  view.showTrouble(null);
  if (pass) await api.endPass(pass);
}

function take(now: Game, event: ClientEvent): void {
  if (event.type === 'state') showState(event.state, event.code);
  else if (event.type === 'welcome') {
    // In another epoch offsets begin anew.
    if (now.epoch !== event.welcome.epoch) now.shown.clear();
    now.epoch = event.welcome.epoch;
    now.me = event.welcome.player.id;
    view.showServer(event.welcome.release, event.welcome.replica);
    at('player').textContent = event.welcome.player.name;
    const [room] = event.welcome.rooms;
    if (room) goTo(now, room.room);
  } else if (event.type === 'handover') view.showHandover(event);
  else if (event.type === 'rtt') view.showRoundTrip(event.ms);
  else if (event.type === 'entered') goTo(now, event.room);
  else if (event.type === 'message') hear(now, event.message);
  else if (event.type === 'snapshot') {
    now.people = new Map(event.snapshot.people.map((person) => [person.id, person]));
    for (const message of event.snapshot.latest) hear(now, message);
    showPeople(now);
  } else if (event.type === 'refused' && !event.isKept)
    view.addLine('refused', 'Server', `refused this: ${event.why}`, new Date().toISOString());
  showWaiting(now);
}

function showState(state: Parameters<typeof view.showState>[0], code: number | null): void {
  view.showState(state);
  if (state !== 'gave-up') view.showTrouble(null);
  // Trying again with a token that the server does not accept would lead back here.
  else if (kept() === null || code === closeCode.badToken) void leave(loginEnded);
  else view.showTrouble(`The connection is lost${code === null ? '' : ` (${code})`}.`);
}

function showWaiting({ client }: Game): void {
  const waiting = client.waiting();
  at('waiting').textContent = waiting === 0 ? '' : `${waiting} not delivered yet`;
}

function hear(now: Game, message: Parameters<typeof view.showMessage>[0]): void {
  const isShown = message.offset <= (now.shown.get(message.room) ?? 0);
  if (message.t === 'joined') now.people.set(message.player.id, message.player);
  else if (message.t === 'left') now.people.delete(message.player.id);
  else if (message.t === 'discovered') {
    find(now, message.discovery);
    showMap(now);
    if (!areLeadersDue) setTimeout(loadLeaders, leadersAfterFindMs);
    areLeadersDue = true;
  }
  if (message.t === 'joined' || message.t === 'left') showPeople(now);
  if (isShown) return;
  now.shown.set(message.room, message.offset);
  view.showMessage(message);
}

function find({ found }: Game, discovery: Discovery): void {
  if (discovery.tile !== null) found.set(`${discovery.tile.x},${discovery.tile.y}`, discovery);
}

function goTo(now: Game, region: string): void {
  if (now.region === region) return;
  if (now.region !== null) view.addPlace(nameOf(region));
  now.region = region;
  now.people.clear();
  now.found.clear();
  at('region-title').textContent = nameOf(region);
  at<HTMLSelectElement>('region').value = region;
  showPeople(now);
  void loadDiscoveries(now, region);
}

const nameOf = (region: string) => `Region ${region.slice(1).replace('-', ', ')}`;

function showPeople(now: Game): void {
  view.showPeople([...now.people.values()], now.me);
  showMap(now);
}

function showMap({ region, people, found, me }: Game): void {
  map.show({
    region: region ?? 'r0-0',
    people: [...people.values()],
    discoveries: [...found.values()],
    me,
  });
  at('cursor').textContent = describe(map.chosen());
}

function describe({ x, y }: Tile): string {
  const here = game?.found.get(`${x},${y}`);
  return here
    ? `Tile ${x}, ${y}: ${here.what}, found by ${here.player.name}`
    : `Tile ${x}, ${y}: nothing found yet`;
}

async function explore(tile: Tile): Promise<void> {
  const now = game;
  if (now === null || now.region === null) return;
  try {
    const { region } = now;
    const discovery = await withToken(now, (token) => api.explore(token, region, tile));
    if (now.region === discovery.region) find(now, discovery);
    showMap(now);
  } catch (error) {
    view.addLine('refused', 'Server', error instanceof Error ? error.message : '', new Date().toISOString());
  }
}

/** A socket outlives the token that it was opened with. HTTP requests need a fresh token then. */
async function withToken<T>(now: Game, ask: (token: string) => Promise<T>): Promise<T> {
  try {
    return await ask(now.pass.token);
  } catch (error) {
    if (!(error instanceof api.Refusal) || error.status !== 401) throw error;
    const token = await refresh();
    if (token !== null) return ask(token);
    if (game === now) void leave(loginEnded);
    throw error;
  }
}

/** If the discoveries can't be loaded the page stays as it was: the game itself comes over the socket. */
async function loadDiscoveries(now: Game, region: string): Promise<void> {
  const discoveries = await api.discoveriesIn(region).catch(() => []);
  if (now.region !== region) return;
  for (const discovery of discoveries) find(now, discovery);
  showMap(now);
}

async function loadLeaders(): Promise<void> {
  areLeadersDue = false;
  const leaders = await api.leaders().catch(() => null);
  if (leaders !== null) view.showLeaders(leaders);
}

async function loadRegions(): Promise<void> {
  const counts = new Map(
    (await api.regions().catch(() => [])).map(({ region, players }) => [region, players]),
  );
  const select = at<HTMLSelectElement>('region');
  const options = Array.from({ length: world.columns * world.rows }, (_, n) => {
    const id = `r${n % world.columns}-${Math.floor(n / world.columns)}`;
    const players = counts.get(id) ?? 0;
    return new Option(players > 0 ? `${id.slice(1)} · ${players} here` : id.slice(1), id);
  });
  select.replaceChildren(...options);
  if (game?.region) select.value = game.region;
}

const directions: Readonly<Record<string, Tile>> = {
  west: { x: -1, y: 0 },
  east: { x: 1, y: 0 },
  north: { x: 0, y: -1 },
  south: { x: 0, y: 1 },
};

/** The world is round: a player who walks over its edge arrives at the other side. */
function walk(direction: string | undefined): void {
  const way = directions[direction ?? ''];
  if (!game?.region || !way) return;
  const [column = 0, row = 0] = game.region.slice(1).split('-').map(Number);
  const round = (value: number, size: number) => (value + size) % size;
  game.client.enter(`r${round(column + way.x, world.columns)}-${round(row + way.y, world.rows)}`);
}

function keep(pass: api.Pass): void {
  sessionStorage.setItem(passKey, JSON.stringify(pass));
}

function forget(): void {
  sessionStorage.removeItem(passKey);
}

function kept(): api.Pass | null {
  try {
    return JSON.parse(sessionStorage.getItem(passKey) ?? 'null') as api.Pass | null;
  } catch {
    return null;
  }
}

async function comeIn(ask: () => Promise<api.Pass>): Promise<void> {
  if (isComingIn) return;
  isComingIn = true;
  at('entrance-error').textContent = '';
  try {
    begin(await ask());
  } catch (error) {
    const text = error instanceof api.Refusal ? error.message : 'The server does not answer. Try again.';
    at('entrance-error').textContent = text;
  } finally {
    isComingIn = false;
  }
}

const textIn = (id: string) => at<HTMLInputElement>(id).value.trim();

at('guest').addEventListener('submit', (event) => {
  event.preventDefault();
  void comeIn(() => api.guestPass(textIn('guest-name')));
});
at('account').addEventListener('submit', (event: SubmitEvent) => {
  event.preventDefault();
  const how = (event.submitter as HTMLButtonElement | null)?.value === 'register' ? 'register' : 'login';
  const password = at<HTMLInputElement>('account-password').value;
  void comeIn(async () => {
    const pass = await api.accountPass(how, textIn('account-name'), password);
    at<HTMLInputElement>('account-password').value = '';
    return pass;
  });
});
at('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = textIn('text');
  if (text !== '' && game?.client.say(text)) at<HTMLInputElement>('text').value = '';
});
at('explore').addEventListener('click', () => void explore(map.chosen()));
at('leave').addEventListener('click', () => void leave());
at('again').addEventListener('click', () => game?.client.start());
at('region').addEventListener('change', () => game?.client.enter(at<HTMLSelectElement>('region').value));
at('region').addEventListener('focus', () => void loadRegions());
for (const button of document.querySelectorAll<HTMLElement>('[data-go]'))
  button.addEventListener('click', () => walk(button.dataset.go));
// After a laptop was asleep or a phone had no coverage, the page reconnects by itself.
addEventListener('online', () => game?.client.status() === 'gave-up' && game.client.start());
setInterval(() => game && void loadLeaders(), leadersEveryMs);

const before = kept();
if (before) begin(before);
