/**
 * The lab's command: `list`, `run NAME [--json] [--runs N] [--keep]`, `table [--runs N] [NAME…]`, `measure-agent`, `measure-add`.
 * With --json, one line a run on standard output and nothing else there. Exit code 0 only when every run was good.
 */
import { parseArgs } from 'node:util';
import { measureAdd } from './measure-add.ts';
import { measureAgent } from './measure-agent.ts';
import { cannotRunHere } from './network.ts';
import { runScenario } from './runner.ts';
import { type ResultLine, STORE_KINDS, type Scenario, type StoreKind } from './scenario.ts';
import { SCENARIOS, findScenario } from './scenarios/all.ts';
import { MEASUREMENTS_FILE, renderRun, summarise, writeMeasurements } from './table.ts';

const USAGE = `Usage: npm run lab -- list
       npm run lab -- run NAME|all [--json] [--runs N] [--keep] [--store embedded|etcd] [--seconds N]
       npm run lab -- table [--runs 5] [NAME …]      writes ${MEASUREMENTS_FILE}
       npm run lab -- measure-agent [--json]
       npm run lab -- measure-add [--mib 1024] [--json]

Real PostgreSQL and real agents on hosts that are network namespaces of this machine. Needs root.
--keep keeps the working directory (logs, data) of each run.
--store etcd runs any scenario with three etcd members on the nodes' hosts, with TLS and a login; without it each scenario has its own.
--seconds: how long the store is away or disturbed in the scenarios that last (etcd-member-loss, store-lost, store-loss); what was measured then says so.
`;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function main(argv: readonly string[]): Promise<number> {
  const parsed = parse(argv);
  if (typeof parsed === 'string') {
    say(`lab: ${parsed}\n\n${USAGE}`);
    return 2;
  }
  const { command, names, runs, json, keep, store, lengthMs } = parsed;
  if (command === 'help') {
    process.stdout.write(USAGE);
    return 0;
  }
  if (command === 'list') {
    for (const { name, about } of SCENARIOS) process.stdout.write(json ? `${JSON.stringify({ name, about })}\n` : `${name.padEnd(26)} ${about}\n`);
    return 0;
  }
  const why = cannotRunHere();
  if (why !== null) {
    say(`lab: ${why}`);
    return 1;
  }
  if (command === 'measure-agent') return measure({ json, keep });
  if (command === 'measure-add') {
    const result = await measureAdd({ mib: parsed.mib, keep, say });
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${result.detail}\n`);
    return result.ok ? 0 : 1;
  }
  const scenarios = names.length === 0 || names[0] === 'all' ? SCENARIOS : names.map(findScenario).filter((scenario) => scenario !== null);
  const lines = await runAll(scenarios, { runs, json: json && command === 'run', keep, store, lengthMs });
  if (command === 'table') await writeMeasurements(summarise(scenarios, lines), { runs, agent: await measureAgent({ keep, say }) });
  return lines.every((line) => line.ok) ? 0 : 1;
}

async function runAll(
  scenarios: readonly Scenario[],
  options: Pick<Parsed, 'runs' | 'json' | 'keep' | 'store' | 'lengthMs'>,
): Promise<readonly ResultLine[]> {
  const lines: ResultLine[] = [];
  for (const scenario of scenarios) {
    for (let run = 1; run <= options.runs && !interrupted; run++) {
      const line = await runScenario(scenario, { ...options, say });
      lines.push(line);
      process.stdout.write(options.json ? `${JSON.stringify(line)}\n` : `${renderRun(line)}\n`);
    }
  }
  return lines;
}

async function measure({ json, keep }: { readonly json: boolean; readonly keep: boolean }): Promise<number> {
  const result = await measureAgent({ keep, say });
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${result.detail}\n`);
  return result.ok ? 0 : 1;
}

interface Parsed {
  readonly command: 'help' | 'list' | 'run' | 'table' | 'measure-agent' | 'measure-add';
  readonly names: readonly string[];
  readonly runs: number;
  readonly json: boolean;
  readonly keep: boolean;
  readonly store: StoreKind | undefined;
  readonly lengthMs: number | undefined;
  /** Size of the database that is copied. */
  readonly mib: number;
}

/** What is wrong with the arguments, in words, or the arguments. */
function parse(argv: readonly string[]): Parsed | string {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        json: { type: 'boolean' },
        keep: { type: 'boolean' },
        runs: { type: 'string' },
        store: { type: 'string' },
        seconds: { type: 'string' },
        mib: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    const [command = 'help', ...names] = positionals;
    if (values.help === true || command === 'help')
      return { command: 'help', names: [], runs: 1, json: false, keep: false, store: undefined, lengthMs: undefined, mib: 0 };
    if (command !== 'list' && command !== 'run' && command !== 'table' && command !== 'measure-agent' && command !== 'measure-add')
      return `unknown command "${command}"`;
    const runs = Number(values.runs ?? (command === 'table' ? 5 : 1));
    if (!Number.isInteger(runs) || runs < 1 || runs > 1000) return `--runs ${values.runs ?? ''}: expected a whole number from 1 to 1000`;
    if (command === 'run' && names.length === 0) return 'run which scenario? "list" shows them';
    const unknown = names.find((name) => name !== 'all' && findScenario(name) === null);
    if (unknown !== undefined) return `there is no scenario "${unknown}"; "list" shows them`;
    const store = STORE_KINDS.find((kind) => kind === values.store);
    if (values.store !== undefined && store === undefined) return `--store ${values.store}: expected ${STORE_KINDS.join(' or ')}`;
    const seconds = values.seconds === undefined ? undefined : Number(values.seconds);
    if (seconds !== undefined && !(seconds >= 1 && seconds <= 86_400)) return `--seconds ${values.seconds}: expected a number from 1 to 86400`;
    const lengthMs = seconds === undefined ? undefined : seconds * 1000;
    const mib = Number(values.mib ?? 1024);
    if (!Number.isInteger(mib) || mib < 1 || mib > 100_000) return `--mib ${values.mib ?? ''}: expected a whole number from 1 to 100000`;
    return { command, names, runs, json: values.json === true, keep: values.keep === true, store, lengthMs, mib };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Ctrl+C ends after the run that is under way, so that its hosts and processes are removed; twice ends at once. */
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interrupted) process.exit(130);
    interrupted = true;
    say('lab: ends after this run, when everything is removed (again: ends at once; the next run then removes what is left)');
  });
}

process.exitCode = await main(process.argv.slice(2));
