/** The shape of the house: who may know whom, how large things may grow, and that the pages tell what the code does. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { basename, dirname, extname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript-api';
import { describe, expect, it } from 'vitest';
import { buildProgram } from '../src/cli/program.ts';
import { verbs } from '../src/cli/verbs.ts';
import { catalogue, exitCode } from '../src/errors.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const linesMax = { file: 400, function: 70 };
const filesMax = 16;

interface Import {
  from: string;
  /** As written. */
  target: string;
  /** A room ("engine"), a file at the top of src ("errors.ts"), or the name of a package. */
  to: string;
  isType: boolean;
  isPackage: boolean;
}

const sources = filesIn('src', '.ts').map(parse);
const imports = sources.flatMap(importsOf);

const ground = ['clock.ts', 'contract.ts', 'errors.ts', 'hosts.ts', 'package-root.ts', 'units.ts'];

/** Room → what it may load. Types may come from further away: they are gone when the program runs. */
const arrows: Record<string, { loads: readonly string[]; types: readonly string[] }> = {
  'boot-rule.ts': { loads: [], types: ['release'] },
  'clock.ts': { loads: ['errors.ts'], types: [] },
  'config.ts': { loads: ['env', 'errors.ts', 'units.ts'], types: [] },
  'contract.ts': { loads: [], types: [] },
  'errors.ts': { loads: [], types: [] },
  'hosts.ts': { loads: [], types: [] },
  'package-root.ts': { loads: [], types: [] },
  'protocol.ts': { loads: [], types: [] },
  'tokens.ts': { loads: ['contract.ts'], types: ['protocol.ts'] },
  'units.ts': { loads: [], types: [] },
  release: { loads: [], types: [] },
  report: { loads: ['errors.ts', 'units.ts'], types: ['release'] },
  env: { loads: ['contract.ts', 'errors.ts', 'hosts.ts', 'units.ts'], types: ['report'] },
  engine: { loads: [...ground], types: ['report'] },
  host: { loads: [...ground, 'engine'], types: ['report'] },
  images: { loads: [...ground, 'config.ts', 'engine', 'host'], types: ['report'] },
  proxy: { loads: [...ground, 'protocol.ts'], types: ['engine', 'release'] },
  record: { loads: [...ground, 'report'], types: ['engine', 'release'] },
  database: { loads: [...ground, 'boot-rule.ts'], types: ['engine', 'env', 'report'] },
  foundation: {
    loads: [...ground, 'host', 'proxy', 'record'],
    types: ['config.ts', 'engine', 'env', 'report'],
  },
  observe: { loads: [...ground], types: ['engine', 'env', 'release'] },
  client: { loads: ['protocol.ts'], types: [] },
  load: { loads: [...ground, 'client', 'protocol.ts', 'tokens.ts'], types: [] },
  runner: { loads: [...ground, 'proxy', 'record', 'release'], types: ['engine', 'observe', 'report'] },
  operations: {
    loads: [
      ...[...ground, 'boot-rule.ts', 'config.ts', 'tokens.ts'],
      ...['database', 'engine', 'env', 'foundation', 'host', 'images', 'observe', 'proxy'],
      ...['record', 'release', 'report', 'runner'],
    ],
    types: [],
  },
  rotation: {
    loads: [
      ...[...ground, 'config.ts', 'tokens.ts'],
      ...['database', 'engine', 'env', 'operations', 'record', 'release', 'report'],
    ],
    types: [],
  },
  commands: {
    loads: [
      ...[...ground, 'config.ts'],
      ...['database', 'engine', 'env', 'foundation', 'host', 'images', 'load', 'operations'],
      ...['record', 'release', 'report', 'rotation', 'runner'],
    ],
    types: [],
  },
  cli: { loads: [...ground, 'commands', 'operations', 'report'], types: [] },
  server: { loads: ['boot-rule.ts', 'contract.ts', 'env', 'protocol.ts', 'tokens.ts'], types: [] },
};

describe('imports between rooms', () => {
  it('every room of src is on the map', () => {
    const rooms = new Set(sources.map(({ path }) => roomOf(path)));
    expect([...rooms].filter((room) => !(room in arrows))).toEqual([]);
    expect(Object.keys(arrows).filter((room) => !rooms.has(room))).toEqual([]);
  });

  for (const [room, { loads, types }] of Object.entries(arrows)) {
    it(`${room} knows only what the map allows`, () => {
      const allowed = (one: Import) => loads.includes(one.to) || (one.isType && types.includes(one.to));
      const wrong = imports.filter((one) => roomOf(one.from) === room && one.to !== room && !one.isPackage);
      expect(wrong.filter((one) => !allowed(one)).map(shown)).toEqual([]);
    });
  }

  it('release imports nothing but its own files: no package, no clock, no file', () => {
    const wrong = imports.filter(
      ({ from, target }) => roomOf(from) === 'release' && !target.startsWith('./'),
    );
    expect(wrong.map(shown)).toEqual([]);
  });

  it('dockerode appears only in engine/docker', () => {
    const wrong = imports.filter(({ from, to }) => to === 'dockerode' && !from.startsWith('engine/docker/'));
    expect(wrong.map(shown)).toEqual([]);
  });

  it('nothing of the CLI loads the game server', () => {
    const wrong = imports.filter(({ from, to }) => to === 'server' && roomOf(from) !== 'server');
    expect(wrong.map(shown)).toEqual([]);
  });

  it('modules that the server shares with the CLI import no package of the CLI', () => {
    const shared = imports.filter(({ from, isPackage, isType }) => {
      const isShared = ['contract.ts', 'protocol.ts', 'tokens.ts', 'env/settings.ts'].includes(from);
      return isShared && isPackage && !isType;
    });
    expect(shared.filter(({ to }) => !['zod', 'fast-jwt'].includes(to) && !isBuiltin(to)).map(shown)).toEqual(
      [],
    );
  });
});

describe('circles', () => {
  const fileOf = ({ from, target }: Import) => [from, join(dirname(from), target)] as const;
  const between = imports.filter(({ isPackage }) => !isPackage);

  it('no room knows a room that knows it, not even by a type', () => {
    const ways = between.map(({ from, to }) => [roomOf(from), to] as const).filter(([a, b]) => a !== b);
    expect(circlesIn(ways)).toEqual([]);
  });

  it('no file knows a file that knows it, also inside a room, not even by a type', () => {
    expect(circlesIn(between.map(fileOf))).toEqual([]);
  });
});

describe('size and names', () => {
  it(`no folder of src or test has more than ${filesMax} files`, () => {
    const all = [...filesIn('src', ''), ...filesIn('test', '')].filter((path) => extname(path) !== '');
    const counts = new Map<string, number>();
    for (const path of all) counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1);
    expect([...counts].filter(([, count]) => count > filesMax)).toEqual([]);
  });

  it(`no file of src is longer than ${linesMax.file} lines`, () => {
    const long = sources.filter(({ lines }) => lines > linesMax.file);
    expect(long.map(({ path, lines }) => `${path}: ${lines}`)).toEqual([]);
  });

  it(`no function of src is longer than ${linesMax.function} lines`, () => {
    // Functions inside of one count by themselves, not for it: they are what shares its state.
    const long = sources.flatMap(functionsOf).filter(({ lines }) => lines > linesMax.function);
    expect(long.map(({ path, name, lines }) => `${path}: ${name}: ${lines}`)).toEqual([]);
  });

  it('no file has a name that says nothing, such as util or helper', () => {
    const all = ['src', 'scripts', 'test'].flatMap((folder) => [
      ...filesIn(folder, '.ts'),
      ...filesIn(folder, '.js'),
    ]);
    expect(all.filter((path) => /util|helper|manager|handler|common|misc/i.test(basename(path)))).toEqual([]);
  });

  it('every file of src begins by saying what it is for', () => {
    expect(sources.filter(({ text }) => !text.startsWith('/**')).map(({ path }) => path)).toEqual([]);
  });
});

describe('tests', () => {
  it('none is skipped, run alone, or still to be written', () => {
    const left = /\b(?:it|test|describe)\.(?:skip|skipIf|runIf|only|todo|fails)\b/;
    const wrong = filesIn('test', '.ts').filter((path) => left.test(readFileSync(join(root, path), 'utf8')));
    expect(wrong).toEqual([]);
  });
});

describe('pages', () => {
  it('docs/errors.md explains every code with its exit code, and no other code', () => {
    const page = readFileSync(join(root, 'docs/errors.md'), 'utf8');
    const documented = [...page.matchAll(/^## ([A-Z_]+)\n\nExit (\d+)\./gm)].map(([, code, exit]) => [
      code,
      Number(exit),
    ]);
    const codes = { ...catalogue, BUG: exitCode.bug };
    expect(Object.fromEntries(documented)).toEqual(codes);
    expect([...page.matchAll(/^## (.+)$/gm)].map(([, title]) => title).sort()).toEqual(
      Object.keys(codes).sort(),
    );
  });

  it('every error code is used in src', () => {
    const text = sources.map((source) => (source.path === 'src/errors.ts' ? '' : source.text)).join('\n');
    expect(Object.keys(catalogue).filter((code) => !new RegExp(`'${code}'`).test(text))).toEqual([]);
  });

  it('docs/json.md describes the result of every verb, and nothing else', () => {
    const titles = headingsOf('docs/json.md')
      .filter(({ depth }) => depth === 3)
      .map(({ text }) => text.replaceAll('`', ''));
    expect(titles.sort()).toEqual(verbs.map(({ name }) => name).sort());
  });

  it('every example of docs/json.md is JSON and has no field that the page does not explain', () => {
    const page = readFileSync(join(root, 'docs/json.md'), 'utf8');
    const examples = [...page.matchAll(/^```json\n([\s\S]*?)^```$/gm)].map(([, text = '']) => text);
    const fields = examples.flatMap((text) => Object.keys(JSON.parse(text) as object));
    expect([...new Set(fields)].filter((field) => !page.includes(`\`${field}\``))).toEqual([]);
    expect(examples.length).toBeGreaterThan(verbs.length);
  });

  it('the README names every verb and every exit code', () => {
    const page = readFileSync(join(root, 'README.md'), 'utf8');
    expect(verbs.map(({ name }) => name).filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
    const codes = [...page.matchAll(/^\| (\d+(?: \/ \d+)*) \|/gm)].flatMap(([, cell = '']) =>
      cell.split(' / '),
    );
    expect(codes.map(Number)).toEqual(Object.values(exitCode));
  });

  it('docs/glossary.md is in alphabetical order and has no word twice', () => {
    const page = readFileSync(join(root, 'docs/glossary.md'), 'utf8');
    const words = [...page.matchAll(/^\*\*([^*]+)\.\*\*/gm)].flatMap(([, entry = '']) => entry.split(', '));
    const firsts = [...page.matchAll(/^\*\*([^*,]+)[^*]*\.\*\*/gm)].map(([, first = '']) =>
      first.toLowerCase(),
    );
    expect(firsts).toEqual([...firsts].sort());
    expect(words.filter((word, at) => words.indexOf(word) !== at)).toEqual([]);
    expect(words.length).toBeGreaterThan(30);
  });

  const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...filesIn('docs', '.md')];

  it.each(pages)('every link of %s leads to a file and a heading that exist', (page) => {
    const broken = linksOf(page).filter((link) => {
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !headingsOf(target).some(({ slug }) => slug === anchor);
    });
    expect(broken).toEqual([]);
  });

  it('every gameops command in a page is a verb with options that it takes', () => {
    const program = buildProgram({ written: { out: '', err: '' }, version: '' }, () => undefined);
    const shared = ['--help', '--version', ...program.options.map(({ long }) => long)];
    const commands = pages.flatMap(commandsIn);
    const wrong = commands.filter((words) => {
      const first = program.commands.find((one) => one.name() === words[0]);
      const second = first?.commands.find((one) => one.name() === words[1]);
      const isGroup = first !== undefined && first.commands.length > 0;
      const verb = isGroup ? second : first;
      if (verb === undefined)
        return !(isGroup && words[1] === undefined) && !words[0]?.match(/^(?:…|--help|--version)$/);
      const takes = [...shared, ...verb.options.map(({ long }) => long)];
      return words.some((word) => word.startsWith('--') && !takes.includes(word));
    });
    expect(wrong.map((words) => words.join(' '))).toEqual([]);
    expect(commands.length).toBeGreaterThan(100);
  });

  it('every npm script in a page exists, and the README names the two that a stranger needs', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
    const texts = pages.map((page) => readFileSync(join(root, page), 'utf8'));
    const named = texts.flatMap((text) => [...text.matchAll(/npm run (?:--silent )?([a-z][\w:-]*)/g)]);
    expect(named.map(([, name = '']) => name).filter((name) => !(name in scripts))).toEqual([]);
    for (const command of ['`npm run quickstart`', '`npm test`']) expect(texts[0]).toContain(command);
  });

  it('every decision has a number of its own, and its title says it', () => {
    const names = filesIn('docs/adr', '.md')
      .map((path) => basename(path))
      .sort();
    expect(names.map((name) => Number(name.slice(0, 4)))).toEqual(names.map((_, at) => at + 1));
    const titles = names.map((name) => headingsOf(join('docs/adr', name))[0]?.text);
    expect(titles.map((title) => Number.parseInt(title ?? '', 10))).toEqual(names.map((_, at) => at + 1));
  });

  it('docs/architecture.md has a line for every room, and for nothing else', () => {
    const page = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
    const rows = [...page.matchAll(/^\| `([a-z]+)\/` \|/gm)].map(([, room]) => room);
    const ground = /^\| ground floor \|.*$/m.exec(page)?.[0].match(/\w[\w-]*\.ts/g) ?? [];
    expect([...rows, ...ground].sort()).toEqual(Object.keys(arrows).sort());
  });

  it('every file of code that a page names exists', () => {
    const files = ['bin', 'src', 'test', 'scripts'].flatMap((folder) => filesIn(folder, ''));
    const named = pages.flatMap((page) =>
      [...proseOf(page).matchAll(/`([\w/.-]*\w\.[jt]s)`/g)].map(([, path = '']) => ({ page, path })),
    );
    const exists = (path: string) =>
      existsSync(join(root, path)) || files.some((one) => one.endsWith(`/${path}`));
    expect(named.filter(({ path }) => !exists(path))).toEqual([]);
    expect(named.length).toBeGreaterThan(30);
  });
});

describe('packages', () => {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };
  const workshop = [...filesIn('test', '.ts'), ...filesIn('scripts', '.js'), 'vitest.config.ts'].map(parse);

  it('what src imports is a dependency, and every dependency is imported by src', () => {
    const used = new Set(imports.filter(isForeign).map(({ to }) => to));
    expect([...used].sort()).toEqual(Object.keys(manifest.dependencies).sort());
  });

  it('what tests and scripts import is declared, and no development dependency is idle', () => {
    const used = new Set(
      workshop
        .flatMap(importsOf)
        .filter(isForeign)
        .map(({ to }) => to),
    );
    const declared = { ...manifest.dependencies, ...manifest.devDependencies };
    expect([...used].filter((name) => !(name in declared))).toEqual([]);
    const programs = `${Object.values(manifest.scripts).join(' ')} ${workshop.map(({ text }) => text).join(' ')}`;
    const isTyping = (name: string) => {
      const typed = name.replace('@types/', '');
      return name !== typed && (typed === 'node' || typed in declared);
    };
    const idle = Object.keys(manifest.devDependencies).filter(
      (name) => !used.has(name) && !isTyping(name) && !programs.includes(`node_modules/${name}/`),
    );
    expect(idle).toEqual([]);
  });
});

/** A page without its examples: what stands between fences is neither heading nor link. */
function proseOf(page: string): string {
  return readFileSync(join(root, page), 'utf8').replace(/^```[\s\S]*?^```$/gm, '');
}

/** The words after "gameops", of code in the text and of examples; placeholders and what a shell adds are left out. */
function commandsIn(page: string): string[][] {
  const text = readFileSync(join(root, page), 'utf8');
  const fences = text.match(/^```[\s\S]*?^```$/gm) ?? [];
  const examples = fences.flatMap((fence) => [...fence.matchAll(/^(?:\$ )?gameops (.+)$/gm)]);
  const spans = proseOf(page).matchAll(/`gameops ([^`]+)`/g);
  const named = [...examples, ...spans].map(([, words = '']) => words.replaceAll(/<[^>]*>/g, '…'));
  return named.map((words) => (words.split(/[|>&;]/)[0] ?? '').trim().split(/[\s=]+/));
}

/** Relative links, such as "operations.md#taking-data-out". */
function linksOf(page: string): string[] {
  const targets = [...proseOf(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
  return targets.filter((target) => !/^[a-z]+:/.test(target));
}

/** Headings with the anchors that GitHub makes of them. */
function headingsOf(page: string): { depth: number; text: string; slug: string }[] {
  const seen = new Map<string, number>();
  return [...proseOf(page).matchAll(/^(#{1,6}) (.+)$/gm)].map(([, marks = '', text = '']) => {
    const plain = text
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const before = seen.get(plain) ?? 0;
    seen.set(plain, before + 1);
    return { depth: marks.length, text, slug: before === 0 ? plain : `${plain}-${before}` };
  });
}

interface Source {
  /** From the root: "src/engine/port.ts". */
  path: string;
  text: string;
  lines: number;
  tree: ts.SourceFile;
}

function filesIn(folder: string, extension: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension))
    .map((name) => join(folder, name));
}

function parse(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8');
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  return { path, text, lines: text.trimEnd().split('\n').length, tree };
}

/** "src/engine/port.ts" and "engine/port.ts" → "engine"; "src/errors.ts" → "errors.ts" */
function roomOf(path: string): string {
  return path.replace(/^src\//, '').split('/')[0] ?? '';
}

function importsOf({ path, tree }: Source): Import[] {
  const found: Import[] = [];
  const add = (target: string, isType: boolean) => {
    const isPackage = !target.startsWith('.');
    const scope = target.startsWith('@') ? 2 : 1;
    const to = isPackage
      ? target
          .replace(/^node:/, 'node:')
          .split('/')
          .slice(0, scope)
          .join('/')
      : roomOf(relative(root, join(root, dirname(path), target)));
    found.push({ from: path.replace(/^src\//, ''), target, to, isType, isPackage });
  };
  visit(tree, (node) => {
    if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier))
      add(node.moduleSpecifier.text, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword);
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier && ts.isStringLiteral(node.moduleSpecifier))
      add(node.moduleSpecifier.text, node.isTypeOnly);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [target] = node.arguments;
      if (target && ts.isStringLiteral(target)) add(target.text, false);
    }
  });
  return found;
}

function functionsOf({ path, tree }: Source): { path: string; name: string; lines: number }[] {
  const found: { path: string; name: string; lines: number }[] = [];
  /** @returns lines of the functions right inside */
  const measure = (node: ts.Node): number => {
    let inner = 0;
    ts.forEachChild(node, (child) => {
      inner += measure(child);
    });
    if (!ts.isFunctionLike(node) || !('body' in node) || !node.body) return inner;
    const lineOf = (at: number) => tree.getLineAndCharacterOfPosition(at).line;
    const lines = lineOf(node.end) - lineOf(node.getStart(tree)) + 1;
    const { parent } = node;
    const named = node.name ?? (ts.isVariableDeclaration(parent) ? parent.name : undefined);
    found.push({ path, name: named?.getText(tree) ?? 'a function without a name', lines: lines - inner });
    // One that takes a single line shares it with what is around.
    return lines === 1 ? 0 : lines;
  };
  measure(tree);
  return found;
}

function visit(node: ts.Node, see: (node: ts.Node) => void): void {
  see(node);
  ts.forEachChild(node, (child) => visit(child, see));
}

/** Tarjan's strongly connected components, those of more than one member. */
function circlesIn(ways: readonly (readonly [string, string])[]): string[][] {
  const next = new Map<string, string[]>();
  for (const [from, to] of ways) next.set(from, [...(next.get(from) ?? []), to]);
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const circles: string[][] = [];
  const walk = (at: string) => {
    index.set(at, index.size);
    low.set(at, index.get(at) ?? 0);
    stack.push(at);
    for (const to of next.get(at) ?? []) {
      if (!index.has(to)) walk(to);
      if (stack.includes(to)) low.set(at, Math.min(low.get(at) ?? 0, low.get(to) ?? 0));
    }
    if (low.get(at) !== index.get(at)) return;
    const circle = stack.splice(stack.indexOf(at));
    if (circle.length > 1) circles.push(circle.sort());
  };
  for (const at of next.keys()) if (!index.has(at)) walk(at);
  return circles;
}

function isForeign({ target, isPackage }: Import): boolean {
  return isPackage && !isBuiltin(target);
}

function shown({ from, target }: Import): string {
  return `${from} imports ${target}`;
}
