/** The shape of the house: who may know whom, how large things may grow, and that the pages tell what the code does. */
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { catalogue, exitCode } from '../src/errors.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const linesMax = { file: 400, function: 70 };

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

/** Room → what it may load. Types may come from further away: they are gone when the program runs. */
const arrows: Record<string, { loads: readonly string[]; types: readonly string[] }> = {
  'cli.ts': { loads: ['commands', 'errors.ts', 'report'], types: [] },
  'help.ts': { loads: ['commands'], types: [] },
  'config.ts': { loads: ['env', 'errors.ts', 'units.ts'], types: [] },
  'boot-rule.ts': { loads: [], types: ['release'] },
  'contract.ts': { loads: [], types: [] },
  'errors.ts': { loads: [], types: [] },
  'protocol.ts': { loads: [], types: [] },
  'tokens.ts': { loads: [], types: ['protocol.ts'] },
  'units.ts': { loads: [], types: [] },
  release: { loads: [], types: [] },
  report: { loads: ['errors.ts', 'units.ts'], types: ['release'] },
  env: { loads: ['errors.ts'], types: ['report'] },
  engine: { loads: ['config.ts', 'contract.ts', 'errors.ts', 'units.ts'], types: ['report'] },
  proxy: { loads: ['contract.ts', 'errors.ts'], types: ['engine', 'release', 'runner'] },
  database: {
    loads: ['boot-rule.ts', 'contract.ts', 'errors.ts', 'units.ts'],
    types: ['engine', 'env', 'report'],
  },
  foundation: { loads: ['contract.ts', 'errors.ts'], types: ['config.ts', 'engine', 'env', 'report'] },
  observe: {
    loads: ['client', 'contract.ts', 'errors.ts', 'protocol.ts', 'tokens.ts', 'units.ts'],
    types: ['engine', 'env', 'proxy', 'release', 'runner'],
  },
  runner: {
    loads: ['config.ts', 'contract.ts', 'env', 'errors.ts', 'proxy', 'release', 'report', 'units.ts'],
    types: ['engine', 'observe'],
  },
  client: { loads: ['protocol.ts'], types: [] },
  server: { loads: ['boot-rule.ts', 'contract.ts', 'env', 'protocol.ts', 'tokens.ts'], types: [] },
  commands: {
    loads: [
      ...['boot-rule.ts', 'config.ts', 'contract.ts', 'errors.ts', 'tokens.ts', 'units.ts'],
      ...['database', 'engine', 'env', 'foundation', 'observe', 'proxy', 'release', 'report', 'runner'],
    ],
    types: [],
  },
};

describe('arrows', () => {
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

  it('dockerode appears only in engine', () => {
    const wrong = imports.filter(({ from, to }) => to === 'dockerode' && roomOf(from) !== 'engine');
    expect(wrong.map(shown)).toEqual([]);
  });

  it('nothing of the CLI loads the game server', () => {
    const wrong = imports.filter(({ from, to }) => to === 'server' && roomOf(from) !== 'server');
    expect(wrong.map(shown)).toEqual([]);
  });

  it('what the server shares with the CLI brings no package of the CLI along', () => {
    const shared = imports.filter(({ from, isPackage, isType }) => {
      const isShared = ['contract.ts', 'protocol.ts', 'tokens.ts', 'env/schema.ts'].includes(from);
      return isShared && isPackage && !isType;
    });
    expect(shared.filter(({ to }) => !['zod', 'fast-jwt'].includes(to) && !isBuiltin(to)).map(shown)).toEqual(
      [],
    );
  });
});

describe('size and names', () => {
  it(`no file of src is longer than ${linesMax.file} lines`, () => {
    const long = sources.filter(({ lines }) => lines > linesMax.file);
    expect(long.map(({ path, lines }) => `${path}: ${lines}`)).toEqual([]);
  });

  it(`no function of src is longer than ${linesMax.function} lines`, () => {
    // Functions inside of one count by themselves, not for it: they are what shares its state.
    const long = sources.flatMap(functionsOf).filter(({ lines }) => lines > linesMax.function);
    expect(long.map(({ path, name, lines }) => `${path}: ${name}: ${lines}`)).toEqual([]);
  });

  it('no file is named after nothing in particular', () => {
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
  it('none is left out, alone, or still to be written', () => {
    const left = /\b(?:it|test|describe)\.(?:skip|skipIf|runIf|only|todo|fails)\b/;
    const wrong = filesIn('test', '.ts').filter((path) => left.test(readFileSync(join(root, path), 'utf8')));
    expect(wrong).toEqual([]);
  });
});

describe('pages', () => {
  it('docs/errors.md explains every code with its exit code, and no other', () => {
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

  it('every error code is met somewhere', () => {
    const text = sources.map((source) => (source.path === 'src/errors.ts' ? '' : source.text)).join('\n');
    expect(Object.keys(catalogue).filter((code) => !new RegExp(`'${code}'`).test(text))).toEqual([]);
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

function isForeign({ target, isPackage }: Import): boolean {
  return isPackage && !isBuiltin(target);
}

function shown({ from, target }: Import): string {
  return `${from} imports ${target}`;
}
