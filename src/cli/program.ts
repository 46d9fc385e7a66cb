/**
 * The command line as commander knows it: global options, groups, verbs, help. Tells what was asked for and writes
 * nothing itself. Every start loads it, also `--help`, so it loads no verb.
 */
import { Argument, Command } from 'commander';
import type { Globals } from '../operations/context.ts';
import { groups, type Verb, verbs } from './verbs.ts';

export interface Request {
  verb: Verb;
  globals: Globals;
  options: object;
}

const exitCodes = `
Exit codes:
  0 done, or nothing to do           1 a bug in gameops
  2 wrong usage                      3 .env or gameops.yaml is invalid
  4 something needed is missing or does not answer
  5 failed and rolled back: players are where they were
  6 unfinished, or needs somebody: run gameops resume
  7 baseline not met                 8 another gameops holds the lock
  9 migration failed                10 certificate failed
  130 / 143 interrupted, stopped at a safe boundary`;

/** @param written collects the text that commander would print */
export function buildProgram(
  { written, version }: { written: { out: string; err: string }; version: string },
  chosen: (request: Request) => void,
): Command {
  const program = new Command('gameops')
    .description(
      'Takes a game server to production on Docker and keeps it there. No player notices a deploy.',
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        written.out += text;
      },
      writeErr: (text) => {
        written.err += text;
      },
      outputError: () => undefined,
    })
    .configureHelp({ showGlobalOptions: true })
    .version(version, '-V, --version', 'print the version')
    .option(
      '--project <name>',
      'name of the project (default: from gameops.yaml, else the name of the folder)',
    )
    .option('--config <path>', 'configuration file (default: gameops.yaml, which need not exist)')
    .option('--env-file <path>', 'file with settings and secrets (default: .env)')
    .option('--json', 'write one JSON document to stdout, and progress as JSON lines to stderr')
    .option('--yes', 'destroy data without asking (losses of reverted migrations need --accept-loss instead)')
    .option('--no-color', 'no colours (NO_COLOR works too)')
    .option('--verbose', 'write more detail to stderr')
    .option('--quiet', 'write only results, warnings and errors')
    .addHelpText(
      'after',
      `\nExamples:\n  gameops init\n  gameops deploy --plan\n  gameops deploy\n  gameops status --json\n${exitCodes}`,
    );
  const homes = new Map<string, Command>();
  for (const verb of verbs) addVerb(program, homes, verb, chosen);
  return program;
}

function addVerb(
  program: Command,
  homes: Map<string, Command>,
  verb: Verb,
  chosen: (request: Request) => void,
): void {
  const { argument } = verb;
  const [first = '', second] = verb.name.split(' ');
  let home = program;
  if (second !== undefined) {
    home = homes.get(first) ?? program.command(first).description(groups[first] ?? '');
    homes.set(first, home);
  }
  const command = home
    .command(second ?? first)
    .description(verb.summary)
    .addHelpText('after', `\nExamples:\n${verb.examples.map((line) => `  ${line}`).join('\n')}\n${exitCodes}`)
    .action((...given: unknown[]) => {
      const options = { ...command.opts(), ...(argument ? { [argument.name]: given[0] } : {}) };
      chosen({ verb, globals: program.opts<Globals>(), options });
    });
  if (argument) {
    const word = new Argument(`<${argument.name}>`, argument.description);
    command.addArgument(argument.choices ? word.choices(argument.choices) : word);
  }
  for (const option of verb.options ?? []) command.addOption(option);
}
