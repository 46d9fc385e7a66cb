// Starts a program of dist/ from what V8 compiled of it when it was built: over a third of a start was compiling. Node's own way
// (module.enableCompileCache) needs Node 22.1. Another version of Node refuses what was kept and compiles as usual.
const { createHash } = require('node:crypto');
const { mkdirSync, readFileSync, writeFileSync } = require('node:fs');
const { createRequire, wrap } = require('node:module');
const { dirname, join } = require('node:path');
const { Script } = require('node:vm');

function load(dist, name) {
  const filename = join(dist, `${name}.cjs`);
  const source = readFileSync(filename);
  // V8 compares no more than the length of the source, so the name tells what it was compiled from.
  const digest = createHash('sha256').update(source).digest('hex');
  const keptFile = join(dist, 'compiled', `${name}-${digest}`);
  const script = new Script(wrap(source.toString()), { filename, cachedData: readOrNothing(keptFile) });
  const module = { exports: {} };
  script
    .runInThisContext()
    .call(module.exports, module.exports, createRequire(filename), module, filename, dist);
  return { script, exports: module.exports, keptFile };
}

function readOrNothing(file) {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}

function keep(script, keptFile) {
  mkdirSync(dirname(keptFile), { recursive: true });
  writeFileSync(keptFile, script.createCachedData());
}

module.exports = { load, keep };
