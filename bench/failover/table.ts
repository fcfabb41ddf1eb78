/** The runs as tables for people: one a fault, medians with the worst in brackets, and where a peer was better. Pure but for `writePage`. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { machine, median } from '../../lab/table.ts';
import { ROOT } from '../../lab/stage.ts';
import { FAULTS, type Fault, PEERS, type RunLine, type System } from './types.ts';

export const PAGE = 'docs/measurements-failover.md';

type Figure = 'outageMs' | 'clientErrors' | 'lostRows' | 'doubleWritableMs' | 'staleAckRows' | 'rejoinMs';

const COLUMNS: readonly { readonly figure: Figure; readonly head: string; readonly unit: string }[] = [
  { figure: 'outageMs', head: 'outage ms', unit: ' ms' },
  { figure: 'clientErrors', head: 'client errors', unit: '' },
  { figure: 'lostRows', head: 'acknowledged rows lost', unit: '' },
  { figure: 'doubleWritableMs', head: 'ms with two writable', unit: ' ms' },
  { figure: 'staleAckRows', head: 'stale acknowledgements', unit: '' },
  { figure: 'rejoinMs', head: 'rejoin ms', unit: ' ms' },
];

const ABOUT: Readonly<Record<Fault, string>> = {
  'host-kill':
    "Everything on the primary's host is killed at once; later what it starts at boot is started again. Its address goes on to refuse connections, which is kinder than a host that is silent.",
  'postgres-crash': "`kill -9` of the primary's postmaster; its manager lives.",
  'partition-primary':
    'The primary is cut from the other nodes and from the store or monitor; its clients still reach it. Healed five seconds after the takeover.',
  switchover: "The primary is moved by the system's own command.",
};

/** One run for people, on one line. */
export function renderLine(line: RunLine): string {
  const facts = COLUMNS.map(({ figure, head, unit }) => `${head.replace(/ ms$/, '')} ${line[figure] === null ? '–' : `${line[figure]}${unit}`}`);
  return `${line.ok ? 'ok  ' : 'BAD '} ${line.system.padEnd(24)} ${line.fault.padEnd(18)} ${facts.join(' · ')} · ${line.detail}`;
}

/** Median, and the worst in brackets when it differs; `–` when it was never measured. */
export function spread(values: readonly (number | null)[]): string {
  const middle = median(values);
  if (middle === null) return '–';
  const worst = Math.max(...values.filter((value) => value !== null));
  return middle === worst ? `${middle}` : `${middle} (${worst})`;
}

/** The table of one fault, in the order of `systems`; null when nobody was measured with it. */
export function renderFault(fault: Fault, systems: readonly System[], lines: readonly RunLine[]): string | null {
  const rows = systems.flatMap((system) => {
    const own = runsOf(lines, system.id, fault);
    if (own.length === 0) return [];
    const figures = [...COLUMNS.map(({ figure }) => figure), 'stolenPercent' as const].map((figure) => spread(own.map((line) => line[figure])));
    return [[system.id, system.durability, `${own.filter((line) => line.ok).length} of ${own.length}`, ...figures]];
  });
  if (rows.length === 0) return null;
  const head = ['system', 'durability', 'served again', ...COLUMNS.map((column) => column.head), 'stolen %'];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/**
 * Where the median of a peer is better than pgherd's at the same kind of durability, in words. A figure that only one of both has is no comparison.
 * Each peer is compared with the pgherd variant that is best in that figure, so nothing is listed that another setting of pgherd would take back.
 */
export function whereBetter(systems: readonly System[], lines: readonly RunLine[]): readonly string[] {
  const found: string[] = [];
  for (const fault of FAULTS) {
    for (const peer of systems.filter((system) => system.product !== 'pgherd')) {
      const ours = systems.filter((system) => system.product === 'pgherd' && isProtected(system) === isProtected(peer));
      for (const { figure, head, unit } of COLUMNS) {
        const theirs = median(runsOf(lines, peer.id, fault).map((line) => line[figure]));
        const best = ours
          .map((system) => ({ id: system.id, value: median(runsOf(lines, system.id, fault).map((line) => line[figure])) }))
          .reduce<{ id: string; value: number } | null>(
            (least, { id, value }) => (value !== null && (least === null || value < least.value) ? { id, value } : least),
            null,
          );
        if (theirs !== null && best !== null && theirs < best.value)
          found.push(
            `${fault}, ${head.replace(/ ms$/, '')}: ${peer.id} ${theirs}${unit} (${count(lines, peer.id, fault)}), ${best.id} ${best.value}${unit} (${count(lines, best.id, fault)})`,
          );
      }
    }
  }
  return found;
}

function count(lines: readonly RunLine[], system: string, fault: Fault): string {
  const runs = runsOf(lines, system, fault).length;
  return runs === 1 ? '1 run' : `${runs} runs`;
}

function isProtected(system: System): boolean {
  return system.syncStandbys > 0;
}

/** Those that came to their fault. */
function runsOf(lines: readonly RunLine[], system: string, fault: Fault): readonly RunLine[] {
  return lines.filter((line) => line.system === system && line.fault === fault && line.outageMs !== null);
}

export interface PageParts {
  readonly systems: readonly System[];
  readonly lines: readonly RunLine[];
  /** Product → its version, in words. */
  readonly versions: ReadonlyMap<string, string>;
  readonly machine: string;
}

export function renderPage({ systems, lines, versions, machine: words }: PageParts): string {
  const measured = systems.filter((system) => lines.some((line) => line.system === system.id && line.outageMs !== null));
  const left = PEERS.filter((peer) => !measured.some((system) => system.product === peer));
  const better = whereBetter(measured, lines);
  const unserved = lines.filter((line) => !line.ok && line.outageMs !== null);
  const unstarted = lines.filter((line) => line.outageMs === null);
  const perFault = FAULTS.flatMap((fault) => {
    const table = renderFault(fault, measured, lines);
    return table === null ? [] : [`## ${fault}\n\n${ABOUT[fault]}\n\n${table}\n`];
  });
  const settings = measured.map(
    (system) => `| ${system.id} | ${versions.get(system.product) ?? 'unknown'} | ${system.durability} | ${system.settings} |`,
  );
  const remarks = measured.flatMap((system) => (system.remark === null ? [] : [`- **${system.id}**: ${system.remark}`]));
  return `# The same faults with other cluster managers

Written by \`npm run bench -- failover --write\`; run it again to reproduce or refute it. ${words}

Medians (of an even number of runs the lower of the middle two), the worst in brackets. Every run begins with empty hosts (network namespaces of this
machine) and three nodes; the systems take turns within one session, which several commands may have added to (\`--continue\`). The client is the same for
all: all hosts in its list, tried in parallel with 250 ms each, primary only, a numbered row every 10 ms, 500 ms a statement. The outage is its longest gap
between two acknowledgements around the fault; a row without a clear answer is an error, never an acknowledgement. Every node is also written to directly every 50 ms, which is how two writable nodes are seen. Lost are rows that were acknowledged and that
the final primary (of several writable nodes, the one with the highest timeline) does not have. Rejoin: until the old primary streams again, counted from the
start of its host, the end of the partition, or the fault. Stolen: what the hypervisor gave to others of the processors' time, from the fault to the end; where
it is high the times next to it are too long, whoever was measured; – is not known. All PostgreSQL servers run with fsync; what is not named is at its default.

${perFault.join('\n')}
## Where a peer is better

${left.length === PEERS.length ? 'No peer was measured in this session.' : better.length === 0 ? 'In none of these figures, by medians at the same kind of durability.' : `By medians, at the same kind of durability (asynchronous, or a standby confirms):\n\n${better.map((one) => `- ${one}`).join('\n')}`}

## Versions and settings

| system | version | durability | settings |
| --- | --- | --- | --- |
${settings.join('\n')}
${[
  ...(remarks.length === 0 ? [] : ['', ...remarks]),
  ...(left.length === 0 ? [] : ['', `Not measured in this session: ${left.join(', ')}.`]),
  ...listed('Runs in which it was not served again', unserved),
  ...listed('Runs that never came to their fault, and count nowhere', unstarted),
].join('\n')}
`;
}

function listed(title: string, lines: readonly RunLine[]): readonly string[] {
  if (lines.length === 0) return [];
  return [
    '',
    `## ${title}`,
    '',
    ...lines.map((line) => `- **${line.system}**, ${line.fault}, run ${line.run}: ${line.detail.replaceAll(/\s+/g, ' ')}`),
  ];
}

export function writePage(parts: Omit<PageParts, 'machine'>): void {
  writeFileSync(join(ROOT, PAGE), renderPage({ ...parts, machine: machine() }).replace(/\n+$/, '\n'));
}
