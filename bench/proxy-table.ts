/** The figures of `npm run bench -- proxy` as a table, beside their targets. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const MODES = ['simple', 'prepared', 'connect'] as const;
export type Mode = (typeof MODES)[number];

export interface Measure {
  readonly way: string;
  readonly mode: Mode;
  readonly clients: number;
  /** Of each repetition, in order: the same places of two ways were measured one after the other. */
  readonly tps: readonly number[];
  /** Processor time of what stands between, for each transaction; empty when nobody's is counted. */
  readonly cpuUs: readonly number[];
}

export interface ProxyBench {
  readonly measures: readonly Measure[];
  readonly missing: readonly string[];
}

/** What is compared with what, and the least (or most) that it must reach. */
interface Target {
  readonly way: string;
  readonly modes: readonly Mode[];
  readonly to: string;
  readonly figure: 'tps' | 'cpuUs';
  readonly must: number;
}

const TARGETS: readonly Target[] = [
  { way: 'write port', modes: ['simple', 'prepared'], to: 'haproxy', figure: 'tps', must: 0.95 },
  { way: 'write port', modes: ['simple', 'prepared'], to: 'haproxy', figure: 'cpuUs', must: 1.1 },
  { way: 'write port', modes: ['connect'], to: 'direct', figure: 'tps', must: 0.88 },
  { way: 'session pool', modes: ['connect'], to: 'direct', figure: 'tps', must: 5 },
  { way: 'transaction pool', modes: ['connect'], to: 'direct', figure: 'tps', must: 5 },
  { way: 'split port', modes: ['simple'], to: 'pgpool', figure: 'tps', must: 1.4 },
  { way: 'split port', modes: ['prepared'], to: 'pgpool', figure: 'tps', must: 2.2 },
];

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

/** Of each repetition; empty when one of the two was not measured. */
function ratiosOf(one: Measure, other: Measure | undefined, figure: Target['figure']): readonly number[] {
  const [above, below] = [one[figure], other?.[figure] ?? []];
  return above.flatMap((value, index) => (below[index] === undefined || below[index] === 0 ? [] : [value / below[index]]));
}

function ratioOf(one: Measure, other: Measure | undefined, figure: Target['figure']): number | null {
  const ratios = ratiosOf(one, other, figure);
  return ratios.length === 0 ? null : median(ratios);
}

/**
 * `direct` is the same thing in each repetition: where it varies by more than this, others used the processors meanwhile, and the figures beside it compare
 * moments, not ways.
 */
const MOST_SPREAD = 1.25;

function spreadOf(direct: Measure | undefined): number {
  const tps = direct?.tps ?? [];
  return tps.length === 0 ? 1 : Math.max(...tps) / Math.min(...tps);
}

export function renderProxyBench({ measures, missing }: ProxyBench): string {
  const find = (way: string, like: Measure): Measure | undefined =>
    measures.find((one) => one.way === way && one.mode === like.mode && one.clients === like.clients);
  const show = (value: number | null): string => (value === null ? '' : value.toFixed(2));
  const rows = measures.map((one) => {
    const ratios = [ratioOf(one, find('direct', one), 'tps'), ratioOf(one, find('haproxy', one), 'tps'), ratioOf(one, find('pgpool', one), 'tps')];
    const cpu = one.cpuUs.length === 0 ? '' : median(one.cpuUs).toFixed(1);
    const cells = [
      one.way,
      one.mode,
      one.clients,
      Math.round(median(one.tps)),
      ...ratios.map(show),
      cpu,
      show(ratioOf(one, find('haproxy', one), 'cpuUs')),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const verdicts = TARGETS.flatMap((target) =>
    measures
      .filter((one) => one.way === target.way && target.modes.includes(one.mode))
      .flatMap((one) => {
        const ratios = ratiosOf(one, find(target.to, one), target.figure);
        if (ratios.length === 0) return [];
        const reached = median(ratios);
        const range = `${reached.toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`;
        const good = target.figure === 'tps' ? reached >= target.must : reached <= target.must;
        const what = target.figure === 'tps' ? 'transactions a second' : 'processor time a transaction';
        const spread = spreadOf(find('direct', one));
        const holds = spread > MOST_SPREAD ? `not known: direct varied by ${spread.toFixed(1)}` : good ? 'yes' : '**no**';
        const wanted = `${target.figure === 'tps' ? '≥' : '≤'} ${target.must}`;
        return [`| ${one.way} | ${one.mode} | ${one.clients} | ${what}, to ${target.to} | ${wanted} | ${range} | ${holds} |`];
      }),
  );
  const head = [
    '| way | mode | clients | tps | to direct | to haproxy | to pgpool | CPU us/tx | CPU to haproxy |',
    '|---|---|---|---|---|---|---|---|---|',
  ];
  const targets = ['', '| way | mode | clients | target | must | reached | holds |', '|---|---|---|---|---|---|---|', ...verdicts];
  const notes = missing.length === 0 ? [] : ['', `Not installed, so not measured: ${missing.join(', ')}.`];
  return [...head, ...rows, ...(verdicts.length === 0 ? [] : targets), ...notes].join('\n');
}

/** Several pieces as one. */
export function joinBenches(pieces: readonly ProxyBench[]): ProxyBench {
  return { measures: pieces.flatMap((piece) => piece.measures), missing: [...new Set(pieces.flatMap((piece) => piece.missing))] };
}

/** Read anew with each run of `--write`. */
const FILE = join(dirname(fileURLToPath(import.meta.url)), '..', 'docs', 'measurements-proxy.md');

export function writeProxyBench(bench: ProxyBench, options: { readonly seconds: string; readonly runs: string }): void {
  const text = `# What a proxy costs

Written by \`npm run bench -- proxy --write --seconds ${options.seconds} --runs ${options.runs}\`; run it again to reproduce or refute it. ${cpus().length} processors
(${cpus()[0]?.model ?? 'unknown'}).

\`pgbench -S\` (connect: a new connection for each transaction), every way in turn, ${options.runs} times; medians, and medians of the ratios of each turn.
pgbench, PostgreSQL and what is measured share the processors, so a ratio is a bill for CPU. The split port and pgpool-II read on a standby, too; the
others on one server only. CPU is that of what stands between, kernel included.

${renderProxyBench(bench)}
`;
  writeFileSync(FILE, text);
}
