/**
 * Prints the path of a Chromium for the tests of the page: the one that GAMEOPS_CHROMIUM names, else one that is
 * installed, else Debian's, which it installs. Exit 1 with what to do when there is none to be had. Plain JavaScript on
 * Node alone, because `npm test` runs it before anything else is sure to be there.
 */
import { spawnSync } from 'node:child_process';

const known = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

const path = found() ?? installed();
console.log(path);

/** Asked for its version, because on Ubuntu a script of that name only tells of another package manager. */
function found() {
  const candidates = process.env.GAMEOPS_CHROMIUM ? [process.env.GAMEOPS_CHROMIUM] : known;
  const one = candidates.find((name) => {
    const { status, stdout } = spawnSync(name, ['--version'], { encoding: 'utf8' });
    return status === 0 && /Chrom/.test(stdout);
  });
  if (one === undefined && process.env.GAMEOPS_CHROMIUM)
    fail(`GAMEOPS_CHROMIUM names ${process.env.GAMEOPS_CHROMIUM}, which is no Chromium.`);
  return one === undefined ? null : spawnSync('which', [one], { encoding: 'utf8' }).stdout.trim();
}

function installed() {
  if (process.getuid?.() !== 0) fail('There is none, and installing one takes root.');
  // A machine whose lists of packages are empty, or older than its mirror, is told of once more.
  const isDone = apt('install', 'chromium') || (apt('update') && apt('install', 'chromium'));
  const one = isDone ? found() : null;
  return one ?? fail('apt-get could not install one; its words are above.');
}

/** What apt says goes to stderr: stdout is for the path. */
function apt(act, ...packages) {
  const options = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=120', '--no-install-recommends'];
  const { status, error } = spawnSync('apt-get', [...options, act, ...packages], {
    stdio: ['ignore', 2, 2],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (error) fail(`There is none, and no apt-get to install one (${error.code}).`);
  return status === 0;
}

function fail(why) {
  console.error(
    `The tests of the page need Chromium. ${why}\nInstall Chromium or Chrome, or name one in GAMEOPS_CHROMIUM.`,
  );
  process.exit(1);
}
