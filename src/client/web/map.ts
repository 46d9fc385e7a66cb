/**
 * The region on a canvas: its land, its discoveries, its players, and the chosen tile. Draws only when something has
 * changed. Works with a pointer and with keys.
 */
import { type Discovery, hashOf, type Person, world } from '../../protocol.ts';

export interface Tile {
  x: number;
  y: number;
}

export interface Scene {
  region: string;
  people: readonly Person[];
  discoveries: readonly Discovery[];
  me: string | null;
}

export interface RegionMap {
  show(scene: Scene): void;
  chosen(): Tile;
}

/** The colours come from the page's style.css, because the legend shows them, too. */
interface Palette {
  land: readonly string[];
  found: string;
  person: string;
  me: string;
  edge: string;
}

function paletteOf(element: HTMLElement): Palette {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(`--map-${name}`).trim();
  return {
    land: colour('land').split(/\s+/),
    found: colour('found'),
    person: colour('person'),
    me: colour('me'),
    edge: colour('edge'),
  };
}

/**
 * @param frame the element that has the focus
 * @param on `explore` is called for Enter, and for a second tap on the chosen tile
 */
export function openMap(
  frame: HTMLElement,
  canvas: HTMLCanvasElement,
  on: { explore(tile: Tile): void; choose(tile: Tile): void },
): RegionMap {
  const darkness = matchMedia('(prefers-color-scheme: dark)');
  let scene: Scene = { region: 'r0-0', people: [], discoveries: [], me: null };
  let chosen: Tile = { x: world.tiles / 2, y: world.tiles / 2 };
  let isDue = false;

  const redraw = () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw(canvas, scene, chosen, paletteOf(canvas));
    });
  };
  const choose = (tile: Tile) => {
    chosen = tile;
    on.choose(tile);
    redraw();
  };
  canvas.addEventListener('click', (event) => {
    const tile = tileAt(canvas, event);
    const isChosen = tile.x === chosen.x && tile.y === chosen.y;
    choose(tile);
    if (isChosen) on.explore(tile);
  });
  frame.tabIndex = 0;
  frame.addEventListener('keydown', (event) => {
    const way = ways[event.key];
    if (way) choose(within({ x: chosen.x + way.x, y: chosen.y + way.y }));
    else if (event.key === 'Enter' || event.key === ' ') on.explore(chosen);
    else return;
    event.preventDefault();
  });
  darkness.addEventListener('change', redraw);
  new ResizeObserver(redraw).observe(canvas);
  return {
    show(next) {
      scene = next;
      redraw();
    },
    chosen: () => chosen,
  };
}

const ways: Readonly<Record<string, Tile>> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 },
};

function within({ x, y }: Tile): Tile {
  const inside = (value: number) => Math.min(world.tiles - 1, Math.max(0, value));
  return { x: inside(x), y: inside(y) };
}

function tileAt(canvas: HTMLCanvasElement, event: MouseEvent): Tile {
  const box = canvas.getBoundingClientRect();
  return within({
    x: Math.floor(((event.clientX - box.left) / box.width) * world.tiles),
    y: Math.floor(((event.clientY - box.top) / box.height) * world.tiles),
  });
}

function draw(canvas: HTMLCanvasElement, scene: Scene, chosen: Tile, palette: Palette): void {
  const pen = canvas.getContext('2d');
  const size = Math.round(canvas.clientWidth * devicePixelRatio);
  if (!pen || size === 0) return;
  if (canvas.width !== size) {
    canvas.width = size;
    canvas.height = size;
  }
  const step = size / world.tiles;
  drawLand(pen, scene.region, step, palette);
  for (const { tile, player } of scene.discoveries) {
    if (tile === null) continue;
    pen.fillStyle = palette.found;
    diamond(pen, (tile.x + 0.5) * step, (tile.y + 0.5) * step, step * (player.id === scene.me ? 0.42 : 0.3));
  }
  // The server does not tell where in a region a player is. Each is shown at a fixed place that follows from their id.
  for (const { id } of scene.people) {
    const spot = scattered(id);
    const isMe = id === scene.me;
    const x = ((spot % world.tiles) + 0.5) * step;
    const y = ((Math.floor(spot / world.tiles) % world.tiles) + 0.5) * step;
    disc(pen, x, y, step * (isMe ? 0.45 : 0.32), isMe ? palette.me : palette.person, palette.edge);
  }
  pen.lineWidth = Math.max(2, step / 8);
  pen.strokeStyle = palette.edge;
  pen.strokeRect(chosen.x * step, chosen.y * step, step, step);
}

function drawLand(pen: CanvasRenderingContext2D, region: string, step: number, { land }: Palette): void {
  const [column = 0, row = 0] = region.slice(1).split('-').map(Number);
  for (let y = 0; y < world.tiles; y += 1)
    for (let x = 0; x < world.tiles; x += 1) {
      const height = heightAt(column * world.tiles + x, row * world.tiles + y);
      pen.fillStyle = land[Math.min(4, Math.floor(height * 5))] ?? '';
      // One pixel more than a tile, because lines would show between tiles otherwise.
      pen.fillRect(Math.floor(x * step), Math.floor(y * step), Math.ceil(step) + 1, Math.ceil(step) + 1);
    }
}

/** From 0 to 1, smooth, and continuous over all regions. */
function heightAt(x: number, y: number): number {
  return 0.65 * smooth(x / 12, y / 12) + 0.35 * smooth(x / 5 + 100, y / 5 + 100);
}

function smooth(x: number, y: number): number {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const ease = (part: number) => part * part * (3 - 2 * part);
  const [across, down] = [ease(x - left), ease(y - top)];
  const at = (dx: number, dy: number) => (scattered(`${left + dx}:${top + dy}`) % 1_000) / 1_000;
  const upper = at(0, 0) * (1 - across) + at(1, 0) * across;
  const lower = at(0, 1) * (1 - across) + at(1, 1) * across;
  return upper * (1 - down) + lower * down;
}

/** `hashOf` alone gives similar texts similar numbers. */
function scattered(text: string): number {
  let value = hashOf(text);
  value = Math.imul(value ^ (value >>> 15), 2_246_822_507);
  return (value ^ (value >>> 13)) >>> 0;
}

function disc(pen: CanvasRenderingContext2D, x: number, y: number, r: number, fill: string, edge: string) {
  pen.beginPath();
  pen.arc(x, y, r, 0, 2 * Math.PI);
  pen.fillStyle = fill;
  pen.fill();
  pen.lineWidth = 1;
  pen.strokeStyle = edge;
  pen.stroke();
}

function diamond(pen: CanvasRenderingContext2D, x: number, y: number, r: number): void {
  pen.beginPath();
  pen.moveTo(x, y - r);
  pen.lineTo(x + r, y);
  pen.lineTo(x, y + r);
  pen.lineTo(x - r, y);
  pen.closePath();
  pen.fill();
}
