/** One player stops reading while the others in the room go on: runs with and without this player, in turn. */
import { readFileSync } from 'node:fs';
import type { Socket as TcpSocket } from 'node:net';
import { WebSocket } from 'ws';
import { createClient, type Socket } from '../../src/client/client.ts';
import { percentile } from '../../src/client/histogram.ts';
import { type LoadPlayer, newTimes, startPlayer } from '../../src/client/player.ts';
import { port } from '../../src/contract.ts';
import { protocolVersion } from '../../src/protocol.ts';
import { mintToken } from '../../src/tokens.ts';
import type { TlsSite } from '../support/site/tls-site.ts';
import { gameProcesses, rssMB } from '../support/site/vital-signs.ts';
import { judge, median, say, sleep, worst } from './table.ts';

const mates = 50;
const talkMs = 40_000;
/** 150 messages a second in one room, three a second from each mate. */
const everyMs = 20;
const perTick = 3;
const region = 'r0-0';
/** About 80 KB/s, so that the buffers of the kernels and of Nginx for the victim are full in good time. */
const text = 'x'.repeat(490);

interface Seen {
  deliveryP99Ms: number;
  lost: number;
  rssMB: number;
  victim: { closedAfterMs: number | null; missed: number; heard: number } | null;
}

export async function stalledReader(tls: TlsSite, pairs: number): Promise<void> {
  const [withVictim, without]: [Seen[], Seen[]] = [[], []];
  for (let n = 0; n < pairs; n += 1) {
    without.push(await round(tls, false));
    withVictim.push(await round(tls, true));
  }
  const delivery = (seen: Seen[]) => seen.map(({ deliveryP99Ms }) => deliveryP99Ms);
  const noiseMs = Math.max(...delivery(without)) - Math.min(...delivery(without));
  const shift = median(delivery(withVictim)) - median(delivery(without));
  say(
    `stalled: delivery p99 without ${delivery(without).join(', ')} ms, with ${delivery(withVictim).join(', ')} ms`,
  );
  judge('stalled: others’ delivery p99 beyond the noise, ms', [shift - noiseMs], 0, worst);
  judge(
    'stalled: others lost',
    [...withVictim, ...without].map(({ lost }) => lost),
    0,
    worst,
  );
  const grown = median(withVictim.map((one) => one.rssMB)) - median(without.map((one) => one.rssMB));
  judge('stalled: server RSS more than without, MB', [grown], 5, worst);
  judge(
    'stalled: victim not closed 4008',
    withVictim.map(({ victim }) => (victim?.closedAfterMs ? 0 : 1)),
    0,
    worst,
  );
  judge(
    'stalled: victim missed',
    withVictim.map(({ victim }) => victim?.missed ?? 1),
    0,
    worst,
  );
}

async function round(tls: TlsSite, isStalled: boolean): Promise<Seen> {
  const ca = readFileSync(tls.certificateFile);
  const secret = (await tls.site.env()).JWT_SECRET ?? '';
  const run = `stall-${Math.random().toString(36).slice(2, 6)}`;
  const tokenOf = (name: string) => mintToken(secret, { id: name, name }, 600_000);
  const times = newTimes();
  const open = (url: string) =>
    new WebSocket(url, protocolVersion, { perMessageDeflate: false, ca }) as unknown as Socket;
  const players: LoadPlayer[] = Array.from({ length: mates }, (_, n) => {
    const name = `${run}-${n}`;
    return startPlayer({
      url: tls.socketUrl,
      token: tokenOf(name),
      name,
      region,
      times,
      openSocket: open,
    });
  });
  const victim = isStalled ? startVictim(tls, tokenOf(`${run}-victim`), open) : null;
  while (players.some((player) => !player.isOn())) await sleep(50);
  victim?.stall();
  let turn = 0;
  const speak = () => {
    const player = players[turn % mates];
    // Numbers that mates check, and between them text that fills the buffers.
    if (Math.floor(turn / mates) % 4 === 0) player?.count();
    else player?.say(text);
    turn += 1;
  };
  const talking = setInterval(() => {
    for (let n = 0; n < perTick; n += 1) speak();
  }, everyMs);
  const began = performance.now();
  const closedAfterMs = victim ? await untilSlow(tls, began + talkMs) : null;
  victim?.goOn();
  await sleep(Math.max(0, began + talkMs - performance.now()) + 5_000);
  clearInterval(talking);
  await sleep(2_000);
  const rss = Math.max(...(await gameProcesses(tls.site)).map(({ pid }) => rssMB(pid)));
  const lost = players.reduce((sum, { counts }) => sum + counts.lost, 0);
  const newest = Math.max(...players.map((player) => player.place()?.offset ?? 0));
  const seen = {
    deliveryP99Ms: percentile(times.delivery, 0.99),
    lost,
    rssMB: rss,
    victim: victim ? { closedAfterMs, ...victim.seen(newest) } : null,
  };
  say(`stalled ${isStalled ? 'with' : 'without'}: ${JSON.stringify(seen)}`);
  for (const player of players) player.stop();
  victim?.stop();
  await sleep(1_000);
  return seen;
}

/**
 * Waits until the server's metrics say that it closed a slow reader. The victim can't know, because it does not read.
 * @returns ms from now; null when that did not happen
 */
async function untilSlow({ site }: TlsSite, deadline: number): Promise<number | null> {
  const began = performance.now();
  const before = await slowCloses(site);
  while (performance.now() < deadline) {
    if ((await slowCloses(site)) > before) return Math.round(performance.now() - began);
    await sleep(250);
  }
  return null;
}

async function slowCloses(site: TlsSite['site']): Promise<number> {
  const texts = await Promise.all(
    (await gameProcesses(site)).map(async ({ address }) =>
      (await fetch(`http://${address}:${port.admin}/metrics`)).text(),
    ),
  );
  return texts.reduce(
    (sum, one) => sum + Number(/^gameops_ws_closed_total\S*reason="slow"\S* (\d+)/m.exec(one)?.[1] ?? 0),
    0,
  );
}

/** A player whose connection can be left unread. */
function startVictim({ socketUrl }: TlsSite, token: string, open: (url: string) => Socket) {
  let socket: (Socket & { _socket?: TcpSocket }) | null = null;
  let offset = 0;
  let missed = 0;
  let heard = 0;
  const client = createClient({
    url: socketUrl,
    token,
    region,
    openSocket: (url) => {
      socket = open(url);
      return socket;
    },
    onEvent(event) {
      if (event.type === 'snapshot') {
        if (offset > 0) missed += event.missed;
        offset = event.snapshot.offset;
      } else if (event.type === 'message') {
        heard += 1;
        if (offset > 0) missed += event.message.offset - offset - 1;
        offset = event.message.offset;
      }
    },
  });
  client.start();
  return {
    stall: () => socket?._socket?.pause(),
    goOn: () => socket?._socket?.resume(),
    seen: (newest: number) => ({ missed: missed + Math.max(0, newest - offset), heard }),
    stop: client.stop,
  };
}
