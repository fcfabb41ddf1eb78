/** Results for people: one line a run, medians, and docs/measurements.md. */
import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { readFileSync, writeFileSync } from 'node:fs';
import { type Calm, STOLEN_LIMIT_PERCENT } from './machine-speed.ts';
import type { AgentMeasurement } from './measure-agent.ts';
import type { ResultLine, Scenario } from './scenario.ts';
import { ROOT } from './stage.ts';

export const MEASUREMENTS_FILE = 'docs/measurements.md';

export interface Row {
  readonly scenario: string;
  readonly target: string;
  readonly runs: number;
  readonly good: number;
  /** Median, and the worst in brackets when it differs; `–` when never measured. */
  readonly outage: string;
  readonly errors: string;
  readonly lost: string;
  readonly doubleWritable: string;
  readonly stale: string;
  readonly rejoin: string;
  /** Why runs were not good, without repetition. */
  readonly notes: readonly string[];
}

export function renderRun(line: ResultLine): string {
  const figure = (value: number | null, unit = ''): string => (value === null ? '–' : `${value}${unit}`);
  const facts = [
    `outage ${figure(line.outageMs, ' ms')}`,
    `errors ${figure(line.clientErrors)}`,
    `lost ${figure(line.lostRows)}`,
    `two writable ${figure(line.doubleWritableMs, ' ms')}`,
    `stale ${figure(line.staleAckRows)}`,
    `rejoin ${figure(line.rejoinMs, ' ms')}`,
  ];
  return `${line.ok ? 'ok  ' : 'BAD '} ${line.scenario.padEnd(26)} ${facts.join(' · ')}${line.detail === '' ? '' : ` · ${line.detail}`}`;
}

/** The middle one; of an even number the lower of both, so that it is a value that was measured. Null when there is none. */
export function median(values: readonly (number | null)[]): number | null {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? null;
}

export function summarise(scenarios: readonly Scenario[], lines: readonly ResultLine[]): readonly Row[] {
  return scenarios.flatMap((scenario) => {
    const own = lines.filter((line) => line.scenario === scenario.name);
    if (own.length === 0) return [];
    const spread = (pick: (line: ResultLine) => number | null): string => {
      const values = own.map(pick);
      const middle = median(values);
      const worst = values.reduce<number | null>((most, value) => (value === null ? most : Math.max(most ?? value, value)), null);
      return middle === null ? '–' : middle === worst ? `${middle}` : `${middle} (${worst})`;
    };
    return [
      {
        scenario: scenario.name,
        target: scenario.expect.outageMs === null ? '–' : `≤ ${scenario.expect.outageMs}`,
        runs: own.length,
        good: own.filter((line) => line.ok).length,
        outage: spread((line) => line.outageMs),
        errors: spread((line) => line.clientErrors),
        lost: spread((line) => line.lostRows),
        doubleWritable: spread((line) => line.doubleWritableMs),
        stale: spread((line) => line.staleAckRows),
        rejoin: spread((line) => line.rejoinMs),
        notes: [...new Set(own.filter((line) => !line.ok).map((line) => line.detail))],
      },
    ];
  });
}

export function renderTable(rows: readonly Row[]): string {
  const head = [
    'scenario',
    'good runs',
    'target outage ms',
    'outage ms',
    'client errors',
    'acknowledged rows lost',
    'ms with two writable',
    'stale acknowledgements',
    'rejoin ms',
  ];
  const body = rows.map((row) => [
    row.scenario,
    `${row.good} of ${row.runs}`,
    row.target,
    row.outage,
    row.errors,
    row.lost,
    row.doubleWritable,
    row.stale,
    row.rejoin,
  ]);
  return [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/**
 * The table of lines that `run --json` wrote, scenarios in their usual order, each with each store by itself. Text between the lines (what a shell wrote there) is skipped; of
 * scenarios that are not known any more nothing is shown. Without a line: a table without rows.
 */
export function renderSummary(scenarios: readonly Scenario[], text: string): string {
  const lines = text
    .split('\n')
    .flatMap((line) =>
      line.startsWith('{"scenario":') ? [JSON.parse(line) as ResultLine & { store?: string | null; stolenPercent?: number | null }] : [],
    );
  const stores = [...new Set(lines.map((line) => line.store ?? ''))].sort();
  const rows = scenarios.flatMap((scenario) =>
    stores.flatMap((store) => {
      const own = lines.filter((line) => (line.store ?? '') === store);
      return summarise([scenario], own).map((row) => ({ ...row, scenario: store === '' ? row.scenario : `${row.scenario}, ${store}` }));
    }),
  );
  const stolen = lines.flatMap((line) => line.stolenPercent ?? []);
  const notes = rows.flatMap((row) => row.notes.map((note) => `- **${row.scenario}**: ${note}`));
  const machineText =
    stolen.length === 0
      ? []
      : [
          '',
          `Taken by the hypervisor during a run: ${median(stolen) ?? '–'} % of the processors in the middle one, ${Math.max(...stolen)} % at most.`,
        ];
  return [renderTable(rows), ...machineText, ...(notes.length === 0 ? [] : ['', ...notes])].join('\n');
}

/** A run, and how the machine was meanwhile. */
export interface Measured {
  readonly line: ResultLine;
  readonly calm: Calm;
}

export function describeCalm({ referenceMs, stolenPercent }: Calm): string {
  return `reference ${referenceMs} ms, ${stolenPercent} % stolen`;
}

export interface About {
  readonly runs: number;
  /** Null: interrupted before. */
  readonly agent: AgentMeasurement | null;
  /** As they were asked for; empty: all. */
  readonly names: readonly string[];
  readonly calmMs: number | null;
  /** Beside each run that counts. */
  readonly calm: readonly Calm[];
  /** Those that do not count, because the machine was not as calm as was asked for. */
  readonly disturbed: readonly Measured[];
}

export function writeMeasurements(rows: readonly Row[], about: About): void {
  writeFileSync(join(ROOT, MEASUREMENTS_FILE), renderMeasurements(rows, about, machine()));
}

export function renderMeasurements(rows: readonly Row[], about: About, where: string): string {
  const notes = rows.flatMap((row) => row.notes.map((note) => `- **${row.scenario}**: ${note}`));
  const command = ['npm run lab -- table --runs', about.runs, ...(about.calmMs === null ? [] : ['--calm', about.calmMs]), ...about.names].join(' ');
  return `# Measurements

Written by \`${command}\`; run it again to reproduce or refute it. ${where}

Medians of ${about.runs} runs, the worst in brackets. Three nodes in network namespaces, embedded store (scenarios with etcd in their name, and store-lost: three etcd members on the nodes' hosts), default settings, asynchronous
replication. A client writes a numbered row every 10 ms with all hosts in its connection string, without a proxy; the outage is the
longest gap between two acknowledgements. Every node is also written to directly every 50 ms. A row without a clear answer is an
error, never an acknowledgement. In asynchronous mode the last rows before a lost host can be lost; they are counted here.
Targets are bounds for a single run; where no goal was set for a scenario it is the lab's own.

${renderTable(rows)}

Agent and guard of an idle cluster: ${about.agent?.detail ?? 'not measured, interrupted.'}

${renderSpeed(about)}
${notes.length === 0 ? '' : `\n## What did not hold\n\n${notes.join('\n')}\n`}${renderDisturbed(about)}`;
}

function renderSpeed({ calmMs, calm }: About): string {
  const referencesMs = calm.map((one) => one.referenceMs);
  const sorted = referencesMs.toSorted((a, b) => a - b);
  const stolen = Math.max(0, ...calm.map((one) => one.stolenPercent));
  const spread = `${median(referencesMs) ?? '–'} ms beside the middle run, ${sorted[0] ?? '–'} to ${sorted.at(-1) ?? '–'} ms in all; its hypervisor gave up to ${stolen} % of the processors to others`;
  const counts =
    calmMs === null
      ? 'Every run counts.'
      : `A run counts when it took at most ${calmMs} ms before and after it, and at most ${STOLEN_LIMIT_PERCENT} % of the processors went to others meanwhile; the others were repeated, as many times as there were runs at most.`;
  return `How quick the machine was (a fixed calculation on one core, lab/machine-speed.ts): ${spread}. ${counts}`;
}

function renderDisturbed({ disturbed, calmMs }: About): string {
  if (disturbed.length === 0) return '';
  const lines = disturbed.map(({ line, calm }) => `- ${describeCalm(calm)}: ${renderRun(line).replaceAll(/ +/g, ' ')}`);
  return `\n## Runs that do not count, because the machine was slower than ${calmMs ?? 0} ms, or not its own\n\n${lines.join('\n')}\n`;
}

/** Processors, memory, and the versions of what every measurement rests on, in one sentence. */
export function machine(): string {
  const model = cpus()[0]?.model ?? 'unknown processor';
  const release = /PRETTY_NAME="(.*)"/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  const postgres = execFileSync('sh', ['-c', 'ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1'], { encoding: 'utf8' }).trim();
  const version =
    postgres === '' ? 'no PostgreSQL' : execFileSync(postgres, ['-V'], { encoding: 'utf8' }).trim().replace('postgres (PostgreSQL)', 'PostgreSQL');
  return `Machine: ${cpus().length} × ${model}, ${Math.round(totalmem() / 2 ** 30)} GB, ${release}, ${version}, Node ${process.version}.`;
}
