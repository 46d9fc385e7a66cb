/** The page's parts and what is written into them. Promises that text of other players is only ever set as text. */
import type { Discovery, Person, RoomMessage } from '../../protocol.ts';
import type { ClientEvent, ClientStatus } from '../core-state.ts';
import type { Leader } from './api.ts';

type Handover = Extract<ClientEvent, { type: 'handover' }>;

const feedLength = 200;
const movesLength = 50;
const peopleShown = 60;

export function at<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as T;
}

const words: Record<ClientStatus | 'offline', string> = {
  offline: 'offline',
  connecting: 'connecting',
  online: 'online',
  // A player need not know about a move: they hear and are heard all the time.
  moving: 'online',
  reconnecting: 'reconnecting',
  'gave-up': 'no connection',
  stopped: 'offline',
};

export function showState(state: ClientStatus | 'offline'): void {
  // A screen reader would read out the same text again.
  if (at('state').textContent !== words[state]) at('state').textContent = words[state];
  at('state').dataset.state = state;
}

/** @param text null when there is no trouble */
export function showTrouble(text: string | null): void {
  at('trouble').hidden = text === null;
  at('trouble-text').textContent = text ?? '';
}

export function showServer(release: number, replica: number): void {
  const before = Number(at('release').textContent);
  at('release').textContent = String(release);
  at('replica').textContent = String(replica);
  if (before > 0 && before !== release) at('release').animate(glow, { duration: 4_000, easing: 'ease-out' });
}

/** Changes the colour only, so that nothing on the page moves. */
const glow = [{ color: 'var(--good)' }, { color: 'var(--good)', offset: 0.5 }, {}];

/** Shows the page as it is before anything happened. */
export function clear(): void {
  for (const id of ['feed', 'moves', 'people', 'leaders']) at(id).replaceChildren();
  for (const id of ['release', 'replica', 'rtt']) at(id).textContent = '–';
}

export function showRoundTrip(ms: number): void {
  at('rtt').textContent = `${Math.max(1, Math.round(ms))} ms`;
}

export function showHandover({ from, to, gapMs, how }: Handover): void {
  const gap = gapMs === 0 ? 'without a gap' : `after ${Math.round(gapMs)} ms`;
  const what = { moved: 'moved', resumed: 'reconnected', anew: 'began a new session' }[how];
  const item = line(how, new Date(), `${wayBetween(from, to)}: ${what} ${gap}`);
  const moves = at('moves');
  moves.prepend(item);
  while (moves.childElementCount > movesLength) moves.lastElementChild?.remove();
}

/** @param from "1/2": release and replica */
function wayBetween(from: string, to: string): string {
  const [[release, replica], [nextRelease, nextReplica]] = [from.split('/'), to.split('/')];
  if (release !== nextRelease) return `Release ${release} → ${nextRelease}`;
  return replica === nextReplica ? `Replica ${replica}` : `Replica ${replica} → ${nextReplica}`;
}

export function showPeople(people: readonly Person[], me: string | null): void {
  at('people-count').textContent = `(${people.length})`;
  const shown = [...people]
    .sort((a, b) => Number(b.id === me) - Number(a.id === me) || a.name.localeCompare(b.name))
    .slice(0, peopleShown);
  const items = shown.map(({ id, name }) => {
    const item = document.createElement('li');
    item.textContent = id === me ? `${name} (you)` : name;
    if (id === me) item.className = 'me';
    return item;
  });
  const more = people.length - shown.length;
  if (more > 0) {
    const item = document.createElement('li');
    item.textContent = `and ${more} more`;
    items.push(item);
  }
  at('people').replaceChildren(...items);
}

export function showLeaders(leaders: readonly Leader[]): void {
  const items = leaders.map(({ player, discoveries }) => {
    const item = document.createElement('li');
    const who = document.createElement('span');
    who.textContent = player.name;
    const count = document.createElement('span');
    count.textContent = String(discoveries);
    item.append(who, count);
    return item;
  });
  at('leaders').replaceChildren(...items);
}

/** Joins and leaves are seen in the list of players only: in a full region they would drown what is said. */
export function showMessage(message: RoomMessage): void {
  if (message.t === 'said') addLine('said', message.from.name, message.text, message.at);
  else if (message.t === 'discovered') showDiscovery(message.discovery);
}

function showDiscovery({ player, what, tile, at: when }: Discovery): void {
  const place = tile === null ? '' : ` at ${tile.x}, ${tile.y}`;
  addLine('discovered', player.name, `found ${what}${place}`, when);
}

export function addLine(kind: string, who: string, text: string, when: string): void {
  const item = line(kind, new Date(when), '');
  const name = document.createElement('b');
  name.textContent = who;
  item.append(name, ` ${text}`);
  intoFeed(item);
}

/** Marks that the messages after this line were said in another region. */
export function addPlace(name: string): void {
  const item = document.createElement('li');
  item.className = 'place';
  item.textContent = name;
  intoFeed(item);
}

function intoFeed(item: HTMLElement): void {
  const feed = at('feed');
  const isAtEnd = feed.scrollHeight - feed.scrollTop - feed.clientHeight < 40;
  feed.append(item);
  while (feed.childElementCount > feedLength) feed.firstElementChild?.remove();
  // A player who reads further up stays there.
  if (isAtEnd) feed.scrollTop = feed.scrollHeight;
}

function line(kind: string, when: Date, text: string): HTMLElement {
  const item = document.createElement('li');
  item.className = kind;
  const time = document.createElement('time');
  time.textContent = when.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  time.title = when.toLocaleString();
  time.dateTime = when.toISOString();
  item.append(time, text);
  return item;
}
