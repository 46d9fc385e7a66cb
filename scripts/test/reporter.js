/**
 * A reporter of vitest for `npm test`: writes what it saw to the file that GAMEOPS_TEST_REPORT names, anew after each test
 * file, so that a run that is killed still leaves what is known by then.
 */
import { writeFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';

export default class Reporter {
  #seen = { passed: 0, failed: 0, files: [], failures: [] };
  #path = process.env.GAMEOPS_TEST_REPORT ?? '';

  onTestModuleEnd(module) {
    const { duration, collectDuration } = module.diagnostic();
    this.#seen.files.push({ file: module.relativeModuleId, seconds: (duration + collectDuration) / 1_000 });
    this.#addFailures(module, '', module.errors());
    for (const suite of module.children.allSuites())
      this.#addFailures(module, suite.fullName, suite.errors());
    for (const test of module.children.allTests()) {
      const { state, errors } = test.result();
      if (state === 'passed') this.#seen.passed += 1;
      else if (state === 'failed') this.#addFailures(module, test.fullName, errors);
    }
    this.#write();
  }

  onTestRunEnd(_modules, unhandled) {
    for (const error of unhandled) this.#addFailure('outside of any test', '', [error]);
    this.#write();
  }

  #addFailures(module, title, errors) {
    if (errors.length > 0) this.#addFailure(module.relativeModuleId, title, errors);
  }

  #addFailure(file, title, errors) {
    this.#seen.failed += 1;
    this.#seen.failures.push({
      name: title === '' ? file : `${file} > ${title}`,
      text: errors.map(inWords).join('\n\n'),
    });
  }

  #write() {
    if (this.#path !== '') writeFileSync(this.#path, JSON.stringify(this.#seen));
  }
}

function inWords({ message, stack, diff }) {
  // Where it came from is in our own files.
  const places = (stack ?? '')
    .split('\n')
    .filter((line) => /^ +at /.test(line) && !/node_modules/.test(line));
  return stripVTControlCharacters([message, diff, ...places].filter((part) => part).join('\n'));
}
