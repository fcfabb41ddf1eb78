/** The program: verbs, the flags that all of them know, help, and how a run becomes an exit code. */
import { Command, CommanderError, Option } from 'commander';
import { EXIT, usageError } from './exit.ts';
import type { Io } from './io.ts';
import { renderFailure, renderFailureJson } from './output/errors.ts';
import { isColourWanted, makeStyle } from './output/style.ts';
import { type Host, errorWidth } from './session.ts';
import { agentCommand } from './verbs/agent.ts';
import { proxyCommand } from './verbs/proxy.ts';
import { certCommand } from './verbs/cert.ts';
import { clusterCommand } from './verbs/cluster.ts';
import { clustersCommand } from './verbs/clusters.ts';
import { completeCommand, completionCommand } from './verbs/completion.ts';
import { configCommand } from './verbs/config.ts';
import { demoCommand } from './verbs/demo.ts';
import { doctorCommand } from './verbs/doctor.ts';
import { eventsCommand } from './verbs/events.ts';
import { explainCommand } from './verbs/explain.ts';
import { failoverCommand } from './verbs/failover.ts';
import { freezeCommand, unfreezeCommand } from './verbs/freeze.ts';
import { historyCommand } from './verbs/history.ts';
import { importCommand } from './verbs/import.ts';
import { initCommand } from './verbs/init.ts';
import { lbCommand } from './verbs/lb.ts';
import { lagCommand } from './verbs/lag.ts';
import { logCommand } from './verbs/log.ts';
import { lsnCommand } from './verbs/lsn.ts';
import { metaCommand } from './verbs/meta.ts';
import { nodeCommand } from './verbs/node.ts';
import { psqlCommand } from './verbs/psql.ts';
import { settingsCommand } from './verbs/settings.ts';
import { showCommand } from './verbs/show.ts';
import { storeCommand } from './verbs/store.ts';
import { switchoverCommand } from './verbs/switchover.ts';
import { taskCommand } from './verbs/task.ts';
import { tokenCommand } from './verbs/token.ts';
import { userCommand } from './verbs/user.ts';
import { versionCommand } from './verbs/version.ts';
import { VERSION } from '../base/version.ts';

/** Verbs by what a person wants of them, in the order of the help page. */
const GROUPS: readonly (readonly [string, readonly ((host: Host) => Command)[]])[] = [
  ['Look:', [clustersCommand, showCommand, lsnCommand, lagCommand, explainCommand, eventsCommand, historyCommand, logCommand]],
  [
    'Operate:',
    [initCommand, switchoverCommand, failoverCommand, freezeCommand, unfreezeCommand, nodeCommand, clusterCommand, lbCommand, taskCommand],
  ],
  ['Configure:', [settingsCommand, metaCommand, configCommand, importCommand]],
  ['Administer:', [userCommand, tokenCommand, certCommand, storeCommand, doctorCommand]],
  ['Tools:', [demoCommand, psqlCommand, completionCommand, versionCommand]],
];

const AFTER_HELP = `
Roles (foreground, one configuration file each):
  server [--config FILE]  HTTP API, controller and, unless etcd is used, the store (/etc/pgherd/server.yaml)
  agent [--config FILE]   on every database host: PostgreSQL, write lease, fencing (/etc/pgherd/agent.yaml)
  proxy [--config FILE]   client traffic: writes, reads, or both on one port (/etc/pgherd/proxy.yaml)

Environment: PGHERD_SERVER, PGHERD_TOKEN, PGHERD_CLUSTER, PGHERD_CA, NO_COLOR
Settings:    $XDG_CONFIG_HOME/pgherd/config.yaml, /etc/pgherd/config.yaml (server, tokenFile, caFile, cluster)
Exit codes:  0 done and verified · 1 failed · 2 wrong usage or configuration · 3 refused: a precondition does not hold
             4 server not reachable, or token not accepted · 5 the time limit passed; the task goes on
`;

/** A fresh program; its verbs talk through `io` and leave their exit code in `host.run`. */
export function buildProgram(io: Io, run: Host['run'] = { exit: EXIT.done }): Command {
  const host: Host = { io, run };
  const program = buildVerbs(host);
  program.addCommand(
    completeCommand(host, () => buildVerbs(host)),
    { hidden: true },
  );
  for (const command of withSubcommands(program)) configure(command, io);
  return program;
}

function buildVerbs(host: Host): Command {
  const program = new Command('pgherd')
    .description('PostgreSQL clusters: create or adopt, watch, fail over, take back, move, explain')
    .usage('[options] VERB …')
    .version(`pgherd ${VERSION}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'help for a verb')
    .addHelpCommand(new Command('help').description('help for a verb').argument('[verb...]').helpGroup('Tools:'))
    .addHelpText('after', AFTER_HELP);
  for (const option of globalOptions()) program.addOption(option);
  for (const [heading, builders] of GROUPS) {
    program.commandsGroup(heading);
    for (const build of builders) program.addCommand(build(host).helpGroup(heading));
  }
  program.addCommand(agentCommand(host).helpGroup('Administer:'));
  program.addCommand(proxyCommand(host).helpGroup('Administer:'));
  return program;
}

function globalOptions(): readonly Option[] {
  return [
    new Option('--server <url>', 'the server (default: https://127.0.0.1:8433)'),
    new Option('--token-file <file>', 'file with your token'),
    new Option('--ca-file <file>', "certificate of the server's authority"),
    new Option('-c, --cluster <name>', 'which cluster; not needed when there is one'),
    new Option('-o, --output <format>', 'table, json or yaml').default('table'),
    new Option('--json', 'the same as -o json'),
    new Option('--no-color', 'no colour (also: NO_COLOR)'),
    new Option('-q, --quiet', 'data and errors only'),
    new Option('-v, --verbose', 'more detail'),
  ];
}

function withSubcommands(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap((child) => withSubcommands(child))];
}

function configure(command: Command, io: Io): void {
  const width = (): number => Math.min(io.stdout.columns() ?? 100, 120);
  command
    .exitOverride()
    .showHelpAfterError(false)
    .allowExcessArguments(false)
    .configureHelp({ showGlobalOptions: command.parent !== null })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      getOutHelpWidth: width,
      getErrHelpWidth: width,
      // Colours are ours to decide; commander writes none itself.
      getOutHasColors: () => false,
      getErrHasColors: () => false,
      // The whole error is printed in four parts by runCli.
      outputError: () => undefined,
    });
}

/** Runs one command line (without `node` and the script) and returns its exit code. Throws only for our own mistakes. */
export async function runCli(words: readonly string[], io: Io): Promise<number> {
  const run: Host['run'] = { exit: EXIT.done };
  const program = buildProgram(io, run);
  const asked = helpFor(program, words);
  if (asked.kind === 'unknown') return printUsage(program, words, io, new CommanderError(EXIT.usage, 'cli.help', `unknown command '${asked.name}'`));
  const { argv } = asked;
  if (argv.length === 0) {
    io.stdout.write(program.helpInformation());
    io.stdout.write(AFTER_HELP);
    return EXIT.usage;
  }
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return run.exit;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return EXIT.done;
    return printUsage(program, argv, io, error);
  }
}

/** `help node stop` is `node stop --help`, however deep. A name that is no verb is an error, as it is without `help`. */
function helpFor(
  program: Command,
  argv: readonly string[],
): { readonly kind: 'run'; readonly argv: readonly string[] } | { readonly kind: 'unknown'; readonly name: string } {
  const verbs = argv.slice(1).filter((word) => !word.startsWith('-'));
  if (argv[0] !== 'help' || verbs.length === 0) return { kind: 'run', argv };
  let at: Command = program;
  for (const name of verbs) {
    const next = at.commands.find((command) => command.name() === name || command.aliases().includes(name));
    if (next === undefined) return { kind: 'unknown', name };
    at = next;
  }
  return { kind: 'run', argv: [...verbs, '--help'] };
}

/** A group without its verb (`pgherd node`) has had its help printed already. */
function printUsage(program: Command, argv: readonly string[], io: Io, error: CommanderError): number {
  if (error.code === 'commander.help') return EXIT.usage;
  const json = argv.includes('--json') || argv.some((word, index) => word === '-ojson' || (argv[index - 1] === '-o' && word === 'json'));
  const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
  const failure = usageError('cli.usage', { what: message, remedy: `see: ${[...verbPath(program, argv), '--help'].join(' ')}` }).error;
  const style = makeStyle(isColourWanted({ isTTY: io.stderr.isTTY, noColorFlag: argv.includes('--no-color'), env: io.env }));
  io.stderr.write(json ? renderFailureJson(failure) : renderFailure(failure, { style, width: errorWidth(io) }));
  return EXIT.usage;
}

/** `pgherd node stop` of `node stop --foo`. */
function verbPath(program: Command, argv: readonly string[]): readonly string[] {
  const path = [program.name()];
  let at: Command | undefined = program;
  for (const word of argv) {
    const next: Command | undefined = at.commands.find((command) => command.name() === word || command.aliases().includes(word));
    if (next === undefined) {
      if (word.startsWith('-')) continue;
      break;
    }
    path.push(next.name());
    at = next;
  }
  return path;
}
