/**
 * The page: who serves you, how fast, and what happens. Comes back by itself after every close, so that a deploy is
 * one more entry in "served by". Text of others is only ever set as text.
 */
import {
  backoffMs,
  closeCode,
  type Discovery,
  type Downward,
  parseDownward,
  protocolVersion,
  retryAfter,
} from '../../protocol.ts';

const stableMs = 10_000;
const pingEveryMs = 2_000;
const feedLength = 200;

const places = ['North Ridge', 'Salt Marsh', 'Glass Desert', 'Old Harbour', 'Amber Forest'];
const finds = [
  'a sunken bell',
  'a warm spring',
  'a nest of drones',
  'a map with one road too many',
  'iron ore',
];

let socket: WebSocket | null = null;
let token: string | null = null;
let tries = 0;
let servedBy = '';
let room = 'lobby';

const at = (id: string): HTMLElement => {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
};

async function session(): Promise<string> {
  const name = `Ranger ${100 + Math.floor(Math.random() * 900)}`;
  const response = await fetch('/api/session', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name }),
  });
  if (!response.ok) throw new Error(`session: ${response.status}`);
  const answer = (await response.json()) as { token: string };
  return answer.token;
}

async function connect(): Promise<void> {
  show('connecting');
  try {
    token ??= await session();
  } catch {
    comeBack();
    return;
  }
  const own = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws`, protocolVersion);
  socket = own;
  let stable: number | undefined;
  own.addEventListener('open', () => own.send(JSON.stringify({ t: 'hello', v: 1, token })));
  own.addEventListener('message', (event) => {
    const message = parseDownward(String(event.data));
    // A server that welcomes and then fails must not reset the wait: only a stable session does.
    if (message.t === 'welcome') stable = window.setTimeout(() => (tries = 0), stableMs);
    receive(message);
  });
  own.addEventListener('close', ({ code }) => {
    clearTimeout(stable);
    if (code === closeCode.tokenExpired || code === closeCode.badToken) token = null;
    if (retryAfter(code) === 'never' && code !== closeCode.badToken) show('offline');
    else comeBack();
  });
}

function comeBack(): void {
  show('reconnecting');
  setTimeout(() => void connect(), backoffMs(tries));
  tries += 1;
}

function receive(message: Downward | { t: 'unknown' }): void {
  if (message.t === 'welcome') {
    show('online');
    room = message.rooms[0] ?? room;
    at('release').textContent = String(message.release);
    at('replica').textContent = String(message.replica);
    at('player').textContent = message.player.name;
    showMove(`${message.release}/${message.replica}`);
    ping();
  } else if (message.t === 'pong') {
    at('rtt').textContent = `${Math.max(1, Math.round(performance.now() - message.at))} ms`;
  } else if (message.t === 'said') {
    addLine('said', message.from.name, message.text, message.at);
  } else if (message.t === 'discovered') {
    addDiscovery(message.discovery);
  } else if (message.t === 'refused') {
    addLine('refused', 'Server', `did not take that: ${message.why}`, new Date().toISOString());
  }
}

function tell(message: object): boolean {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

const ping = () => void tell({ t: 'ping', at: performance.now() });

function show(state: 'connecting' | 'online' | 'reconnecting' | 'offline'): void {
  at('state').textContent = state;
  at('state').dataset.state = state;
}

function showMove(now: string): void {
  if (now === servedBy) return;
  servedBy = now;
  const item = document.createElement('li');
  item.textContent = now;
  at('moves').append(item);
}

function addDiscovery({ player, what, region, at: when }: Discovery): void {
  addLine('discovered', player.name, `found ${what} in ${region}`, when);
}

function addLine(kind: string, who: string, text: string, when: string): void {
  const item = document.createElement('li');
  item.className = kind;
  const time = document.createElement('time');
  time.textContent = new Date(when).toLocaleTimeString();
  const name = document.createElement('b');
  name.textContent = who;
  item.append(time, name, ` ${text}`);
  const feed = at('feed');
  feed.append(item);
  while (feed.childElementCount > feedLength) feed.firstElementChild?.remove();
  feed.scrollTop = feed.scrollHeight;
}

async function explore(): Promise<void> {
  const pick = (list: string[]) => list[Math.floor(Math.random() * list.length)] ?? '';
  await fetch('/api/discoveries', {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${token ?? ''}`,
      // randomUUID needs a secure context, and the page must also work over plain HTTP.
      'idempotency-key': `web-${Date.now()}-${Math.random().toString(36).slice(2)}`,
    },
    body: JSON.stringify({ region: pick(places), what: pick(finds) }),
  }).catch(() => undefined);
}

async function loadDiscoveries(): Promise<void> {
  const response = await fetch('/api/discoveries').catch(() => null);
  if (!response?.ok) return;
  const { discoveries } = (await response.json()) as { discoveries: Discovery[] };
  for (const discovery of discoveries.toReversed()) addDiscovery(discovery);
}

at('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = at('text') as HTMLInputElement;
  if (text.value.trim() !== '' && tell({ t: 'say', room, text: text.value.trim() })) text.value = '';
});
at('explore').addEventListener('click', () => void explore());
setInterval(ping, pingEveryMs);
void loadDiscoveries();
void connect();
