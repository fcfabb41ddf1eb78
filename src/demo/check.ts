/** Judges a recorded history. Pure: the same events give the same verdict. */
import type { Ack, HistoryEvent } from './history.ts';

export interface Verdict {
  /** Longest gap between two acknowledged rows of the recorder that ends after the fault. Null when nothing was ever acknowledged. */
  readonly outageMs: number | null;
  /** Rows of the recorder that were refused or got no clear answer. */
  readonly clientErrors: number;
  /** Acknowledged rows that the final primary does not have; null when it was not asked. */
  readonly lostRows: number | null;
  /** Time during which two nodes are proven to have acknowledged writes; at least 1 when it happened at all. */
  readonly doubleWritableMs: number;
  /** Rows (of recorder and probes) that an older primary acknowledged after a newer one had acknowledged its first. */
  readonly staleAckRows: number;
  readonly ackedRows: number;
}

export interface CheckOptions {
  /** Moment of the fault; null: judge the whole history. */
  readonly faultMs: number | null;
  /** Moment at which the observation ended; a gap that is still open then counts up to here. */
  readonly endMs: number;
  /** Row numbers of this run found on the final primary. */
  readonly present: ReadonlySet<number> | null;
}

/** Two acknowledgements of one node that are farther apart than this do not prove that it was writable in between. */
const CONTINUITY_MS = 250;

export function checkHistory(events: readonly HistoryEvent[], options: CheckOptions): Verdict {
  const acks = events.filter((event): event is Ack => event.kind === 'ack').sort((a, b) => a.atMs - b.atMs);
  const rows = acks.filter((ack) => ack.client === 'recorder');
  const clientErrors = events.filter((event) => (event.kind === 'failed' || event.kind === 'unknown') && event.client === 'recorder').length;
  const { present } = options;
  return {
    outageMs: longestGap(rows, options),
    clientErrors,
    lostRows: present === null ? null : rows.filter((row) => !present.has(row.n)).length,
    doubleWritableMs: doubleWritable(acks),
    staleAckRows: staleAcks(acks),
    ackedRows: rows.length,
  };
}

function longestGap(rows: readonly Ack[], { faultMs, endMs }: CheckOptions): number | null {
  const times = rows.map((row) => row.atMs);
  if (times.length === 0) return null;
  let longest = 0;
  for (let i = 1; i <= times.length; i++) {
    const from = times[i - 1] ?? endMs;
    const to = times[i] ?? Math.max(endMs, from);
    if (faultMs !== null && to < faultMs) continue;
    longest = Math.max(longest, to - from);
  }
  return Math.round(longest);
}

interface Period {
  readonly node: string;
  readonly from: number;
  to: number;
}

/** Times during which a node is proven writable: runs of acknowledgements, from the first answer to the last. */
export function writablePeriods(acks: readonly Ack[]): readonly Period[] {
  const open = new Map<string, Period>();
  const all: Period[] = [];
  for (const ack of acks) {
    const current = open.get(ack.node);
    if (current !== undefined && ack.atMs - current.to <= CONTINUITY_MS) {
      current.to = ack.atMs;
      continue;
    }
    const period = { node: ack.node, from: ack.atMs, to: ack.atMs };
    open.set(ack.node, period);
    all.push(period);
  }
  return all;
}

function doubleWritable(acks: readonly Ack[]): number {
  const periods = writablePeriods(acks);
  const overlaps: { from: number; to: number }[] = [];
  for (const [index, a] of periods.entries()) {
    for (const b of periods.slice(index + 1)) {
      if (a.node === b.node) continue;
      const from = Math.max(a.from, b.from);
      const to = Math.min(a.to, b.to);
      if (from <= to) overlaps.push({ from, to: Math.max(to, from + 1) });
    }
  }
  // Three nodes that overlap pairwise count their common time once.
  overlaps.sort((a, b) => a.from - b.from);
  let total = 0;
  let reached = Number.NEGATIVE_INFINITY;
  for (const { from, to } of overlaps) {
    total += Math.max(0, to - Math.max(from, reached));
    reached = Math.max(reached, to);
  }
  return Math.ceil(total);
}

/**
 * Invariant: a row is stale when a higher timeline, or another node on the same timeline, had acknowledged before it.
 * Because: each opening of a new primary starts a higher timeline on exactly one node, and each row says in which
 * timeline its server wrote it.
 * Broken if: a server reported the timeline of its last checkpoint instead (it lags behind a promotion).
 */
function staleAcks(acks: readonly Ack[]): number {
  const owners = new Map<number, string>();
  let newest = 0;
  let stale = 0;
  for (const ack of acks) {
    const owner = owners.get(ack.timeline);
    if (owner === undefined) owners.set(ack.timeline, ack.node);
    if (ack.timeline < newest || (owner !== undefined && owner !== ack.node)) stale += 1;
    newest = Math.max(newest, ack.timeline);
  }
  return stale;
}
