/**
 * WAL as a chain of records that directories share: two directories have the same history up to a record exactly when both reach that very object.
 * So twin timelines, and two writers on one timeline, are told apart by identity, whatever their numbers say.
 */
import { makeTimeline } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { Fork } from '../../../src/core/report.ts';

export type RecordKind = 'start' | 'commit' | 'write' | 'checkpoint' | 'shutdown' | 'end-of-recovery';

export interface WalRecord {
  /** Where it ends, in bytes. */
  readonly lsn: number;
  /** Timeline number that it was written on. */
  readonly tli: number;
  readonly kind: RecordKind;
  /** The client's id of a commit; null for other kinds. */
  readonly commit: number | null;
  readonly prev: WalRecord | null;
  /** An ancestor farther back, so that searches take logarithmic time. */
  readonly jump: WalRecord | null;
  readonly depth: number;
}

/** Bytes of a record, unless a writer says otherwise. */
const RECORD_BYTES: Readonly<Record<RecordKind, number>> = {
  start: 0,
  commit: 200,
  write: 96,
  checkpoint: 120,
  shutdown: 120,
  'end-of-recovery': 56,
};
/** Where initdb leaves off. */
const FIRST_LSN = 0x3000028;

export function firstRecord(): WalRecord {
  return { lsn: FIRST_LSN, tli: 1, kind: 'start', commit: null, prev: null, jump: null, depth: 0 };
}

export function appendRecord(
  prev: WalRecord,
  tli: number,
  kind: RecordKind,
  options: { readonly commit?: number; readonly bytes?: number } = {},
): WalRecord {
  const { jump } = prev;
  // Myers' skew-binary jumps. *Source:* E. W. Myers, "An applicative random-access stack", 1983.
  const farther = jump !== null && jump.jump !== null && prev.depth - jump.depth === jump.depth - jump.jump.depth;
  return {
    lsn: prev.lsn + (options.bytes ?? RECORD_BYTES[kind]),
    tli,
    kind,
    commit: options.commit ?? null,
    prev,
    jump: farther ? (jump?.jump ?? null) : prev,
    depth: prev.depth + 1,
  };
}

/** The ancestor of `record` (or itself) at that depth; null when it has fewer ancestors. */
export function ancestorAtDepth(record: WalRecord, depth: number): WalRecord | null {
  let at: WalRecord | null = record;
  while (at !== null && at.depth > depth) at = at.jump !== null && at.jump.depth >= depth ? at.jump : at.prev;
  return at !== null && at.depth === depth ? at : null;
}

/** True when `history` contains `record`. */
export function contains(history: WalRecord, record: WalRecord): boolean {
  return record.depth <= history.depth && ancestorAtDepth(history, record.depth) === record;
}

/** The newest record of the chain that ends at or before `lsn`; the first record when all end later. */
export function recordAt(end: WalRecord, lsn: number): WalRecord {
  let at = end;
  while (at.lsn > lsn && at.prev !== null) at = at.jump !== null && at.jump.lsn > lsn ? at.jump : at.prev;
  return at;
}

/** The newest record that both chains have; null when they have none (different clusters). */
export function commonAncestor(a: WalRecord, b: WalRecord): WalRecord | null {
  let left = ancestorAtDepth(a, Math.min(a.depth, b.depth));
  let right = ancestorAtDepth(b, Math.min(a.depth, b.depth));
  while (left !== right && left !== null && right !== null) {
    if (left.jump !== right.jump) {
      left = left.jump;
      right = right.jump;
    } else {
      left = left.prev;
      right = right.prev;
    }
  }
  return left === right ? left : null;
}

/** One promotion makes one; two promotions from the same point make two with the same number. */
export interface TimelineBranch {
  readonly tli: number;
  readonly parent: TimelineBranch | null;
  /** Where it leaves its parent; 0 for the first. */
  readonly forkLsn: number;
  readonly fork: WalRecord | null;
  /** Node that was promoted (or made by initdb). */
  readonly creator: string;
  /** Forks of all ancestors, oldest first: what its history file says. */
  readonly history: readonly Fork[];
}

export function firstTimeline(creator: string): TimelineBranch {
  return { tli: 1, parent: null, forkLsn: 0, fork: null, creator, history: [] };
}

export function forkTimeline(parent: TimelineBranch, tli: number, fork: WalRecord, creator: string): TimelineBranch {
  const history = [...parent.history, { timeline: makeTimeline(parent.tli), forkLsn: makeLsn(BigInt(fork.lsn)) }];
  return { tli, parent, forkLsn: fork.lsn, fork, creator, history };
}

/** A history file that only says that the number is taken: it names no ancestors. As src/agent/postgres/skipped-timelines.ts. */
export function takenTimeline(tli: number): TimelineBranch {
  return { tli, parent: null, forkLsn: 0, fork: null, creator: TAKEN, history: [] };
}

export function isTaken(timeline: TimelineBranch): boolean {
  return timeline.creator === TAKEN;
}

const TAKEN = 'somebody else';

/** The branch of that number among `timeline` and its ancestors; null when the history does not name it. */
export function branchOf(timeline: TimelineBranch, tli: number): TimelineBranch | null {
  for (let at: TimelineBranch | null = timeline; at !== null; at = at.parent) if (at.tli === tli) return at;
  return null;
}

/** Where `tli` ended in the history of `timeline`; null when it is not among the ancestors. */
export function forkLsnOf(timeline: TimelineBranch, tli: number): number | null {
  for (let at: TimelineBranch | null = timeline; at?.parent != null; at = at.parent) if (at.parent.tli === tli) return at.forkLsn;
  return null;
}
