/**
 * The lab's command: `list`, `run NAME [--json] [--runs N] [--keep]`, `table [--runs N] [NAME…]`, `summary FILE…`, `measure-agent`, `measure-add`.
 * With --json, one line a run on standard output and nothing else there. Exit code 0 only when every run was good.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { measureAdd } from './measure-add.ts';
import { measureAgent } from './measure-agent.ts';
import { cannotRunHere } from './network.ts';
import { type Calm, STOLEN_LIMIT_PERCENT, referenceMs, waitForCalm, watchStolen } from './machine-speed.ts';
import { runScenario } from './runner.ts';
import { type ResultLine, STORE_KINDS, type Scenario, type StoreKind } from './scenario.ts';
import { SCENARIOS, findScenario } from './scenarios/all.ts';
import { MEASUREMENTS_FILE, type Measured, describeCalm, renderRun, renderSummary, summarise, writeMeasurements } from './table.ts';

const USAGE = `Usage: npm run lab -- list
       npm run lab -- run NAME|all [--json] [--runs N] [--keep] [--store embedded|etcd] [--seconds N]
       npm run lab -- table [--runs 5] [--calm MS] [NAME …]      writes ${MEASUREMENTS_FILE}
       npm run lab -- summary FILE …      a table of what \`run --json\` wrote into files, in any number of sessions
       npm run lab -- measure-agent [--json]
       npm run lab -- measure-add [--mib 1024] [--json]

Real PostgreSQL and real agents on hosts that are network namespaces of this machine. Needs root.
--keep keeps the working directory (logs, data) of each run.
--store etcd runs any scenario with three etcd members on the nodes' hosts, with TLS and a login; without it each scenario has its own.
--calm: a run begins when a fixed calculation takes at most MS milliseconds (waited for, 5 minutes at most) and counts when it does so at its end too,
        and the hypervisor gave at most ${STOLEN_LIMIT_PERCENT} % of the processors to others meanwhile;
        the others are repeated, as many times as there are runs, and listed with their figures. Without it each run counts.
--seconds: how long the store is away or disturbed in the scenarios that last (etcd-member-loss, store-lost, store-loss); what was measured then says so.
`;

/** The machine's slow minutes have lasted up to a quarter of an hour; whoever measures does not wait for ever. */
const CALM_PATIENCE_MS = 300_000;

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
  if (command === 'summary') {
    process.stdout.write(`${renderSummary(SCENARIOS, names.map((name) => readFileSync(name, 'utf8')).join('\n'))}\n`);
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
  if (command === 'table') return table(scenarios, parsed);
  const lines = await runAll(scenarios, { runs, json, keep, store, lengthMs });
  return lines.every((line) => line.ok) ? 0 : 1;
}

async function runAll(
  scenarios: readonly Scenario[],
  options: Pick<Parsed, 'runs' | 'json' | 'keep' | 'store' | 'lengthMs'>,
): Promise<readonly ResultLine[]> {
  const lines: ResultLine[] = [];
  for (const scenario of scenarios) {
    for (let run = 1; run <= options.runs && !interrupted; run++) {
      const stolen = watchStolen();
      const line = await runScenario(scenario, { ...options, say });
      lines.push(line);
      const whole = { ...line, store: options.store ?? null, stolenPercent: stolen() };
      process.stdout.write(options.json ? `${JSON.stringify(whole)}\n` : `${renderRun(line)}\n`);
    }
  }
  return lines;
}

async function table(scenarios: readonly Scenario[], options: Parsed): Promise<number> {
  const { runs, names, calmMs, keep } = options;
  const counted: Measured[] = [];
  const disturbed: Measured[] = [];
  for (const scenario of scenarios) await runCalm(scenario, options, { counted, disturbed });
  if (calmMs !== null) await waitForCalm(calmMs, CALM_PATIENCE_MS, () => interrupted);
  const agent = interrupted ? null : await measureAgent({ keep, say });
  const lines = counted.map(({ line }) => line);
  writeMeasurements(summarise(scenarios, lines), { runs, agent, names, calmMs, calm: counted.map(({ calm }) => calm), disturbed });
  return lines.every((line) => line.ok) ? 0 : 1;
}

/** Until `runs` count: as many repetitions as runs, so that on a machine that is never calm the last ones count as they are. */
async function runCalm(scenario: Scenario, options: Parsed, into: { readonly counted: Measured[]; readonly disturbed: Measured[] }): Promise<void> {
  const { runs, calmMs } = options;
  for (let tried = 0, counted = 0; counted < runs; tried++) {
    const before = calmMs === null ? await referenceMs() : await waitForCalm(calmMs, CALM_PATIENCE_MS, () => interrupted);
    if (interrupted) return;
    const stolen = watchStolen();
    const line = await runScenario(scenario, { ...options, say });
    const calm: Calm = { stolenPercent: stolen() ?? 0, referenceMs: Math.max(before, await referenceMs()) };
    process.stdout.write(`${renderRun(line)} · ${describeCalm(calm)}\n`);
    const isCalm = calmMs === null || (calm.referenceMs <= calmMs && calm.stolenPercent <= STOLEN_LIMIT_PERCENT);
    // Only times can be a busy machine's fault.
    const isSafe = (line.doubleWritableMs ?? 0) === 0 && (line.staleAckRows ?? 0) === 0;
    const counts = isCalm || !isSafe || tried >= runs + counted;
    if (counts) counted += 1;
    (counts ? into.counted : into.disturbed).push({ line, calm });
  }
}

async function measure({ json, keep }: { readonly json: boolean; readonly keep: boolean }): Promise<number> {
  const result = await measureAgent({ keep, say });
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${result.detail}\n`);
  return result.ok ? 0 : 1;
}

const COMMANDS = ['help', 'list', 'run', 'table', 'summary', 'measure-agent', 'measure-add'] as const;

interface Parsed {
  readonly command: (typeof COMMANDS)[number];
  readonly names: readonly string[];
  readonly runs: number;
  readonly json: boolean;
  readonly keep: boolean;
  readonly store: StoreKind | undefined;
  readonly lengthMs: number | undefined;
  /** What the reference calculation may take before and after a run that counts; null: each run counts. */
  readonly calmMs: number | null;
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
        calm: { type: 'string' },
        mib: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    const [asked = 'help', ...names] = positionals;
    const command = COMMANDS.find((one) => one === asked);
    if (command === undefined) return `unknown command "${asked}"`;
    if (values.help === true || command === 'help')
      return { command: 'help', names: [], runs: 1, json: false, keep: false, store: undefined, lengthMs: undefined, calmMs: null, mib: 0 };
    const runs = Number(values.runs ?? (command === 'table' ? 5 : 1));
    if (!Number.isInteger(runs) || runs < 1 || runs > 1000) return `--runs ${values.runs ?? ''}: expected a whole number from 1 to 1000`;
    if (command === 'run' && names.length === 0) return 'run which scenario? "list" shows them';
    if (command === 'summary' && names.length === 0) return 'a summary of which files?';
    const unknown = command === 'summary' ? undefined : names.find((name) => name !== 'all' && findScenario(name) === null);
    if (unknown !== undefined) return `there is no scenario "${unknown}"; "list" shows them`;
    const store = STORE_KINDS.find((kind) => kind === values.store);
    if (values.store !== undefined && store === undefined) return `--store ${values.store}: expected ${STORE_KINDS.join(' or ')}`;
    const seconds = values.seconds === undefined ? undefined : Number(values.seconds);
    if (seconds !== undefined && !(seconds >= 1 && seconds <= 86_400)) return `--seconds ${values.seconds}: expected a number from 1 to 86400`;
    const lengthMs = seconds === undefined ? undefined : seconds * 1000;
    const mib = Number(values.mib ?? 1024);
    if (!Number.isInteger(mib) || mib < 1 || mib > 100_000) return `--mib ${values.mib ?? ''}: expected a whole number from 1 to 100000`;
    const calmMs = values.calm === undefined ? null : Number(values.calm);
    if (calmMs !== null && !(calmMs >= 1 && calmMs <= 10_000)) return `--calm ${values.calm}: expected milliseconds from 1 to 10000`;
    return { command, names, runs, json: values.json === true, keep: values.keep === true, store, lengthMs, calmMs, mib };
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
