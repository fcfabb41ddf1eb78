/** Compares a node's end of WAL with the cluster's lineage. Timelines are compared first, positions only within one. */
import type { Timeline } from '../ids.ts';
import { type Lsn, bytesBetween, formatLsn } from '../lsn.ts';
import type { Fork, Position } from '../report.ts';
import { forkOf } from '../timeline.ts';

export interface Lineage {
  readonly timeline: Timeline;
  readonly history: readonly Fork[];
}

export type LineageVerdict =
  /** On the cluster's timeline. */
  | { readonly kind: 'same' }
  /** On an ancestor, not past its fork: streaming alone brings it here. */
  | { readonly kind: 'ancestor'; readonly forkLsn: Lsn }
  /** On an ancestor but past its fork, or on a timeline of the same number with another fork: it has WAL that the cluster has not. */
  | { readonly kind: 'diverged'; readonly forkLsn: Lsn; readonly bytes: number }
  /**
   * On a timeline that is not of this cluster's history although it left it at a known fork: a promotion that nobody ordered, an order that was not completed,
   * or a primary whose timeline no later one came out of.
   */
  | { readonly kind: 'foreign'; readonly forkLsn: Lsn }
  /** Nothing in common is known. */
  | { readonly kind: 'unknown' };

/**
 * Where `position` lies against `cluster`. `nodeHistory` is the node's own list of forks; it may be empty (then timelines
 * that share a number are taken for the same one).
 *
 * *Invariant:* a node judged `same` or `ancestor` holds no record that the cluster's primary has not, or is only ahead on the
 * very same timeline. *Because:* two late promotions may share a timeline number, so the fork where the node's timeline began
 * is compared too (Z53). *Broken if:* highest timeline wins (Q9), or only numbers are compared.
 */
export function compareLineage(position: Position, nodeHistory: readonly Fork[], cluster: Lineage): LineageVerdict {
  const twin = firstDifferentFork(nodeHistory, cluster.history);
  if (position.timeline === cluster.timeline) {
    return twin === null ? { kind: 'same' } : { kind: 'diverged', forkLsn: twin, bytes: Math.max(0, bytesBetween({ from: twin, to: position.lsn })) };
  }
  const forkLsn = forkOf(cluster.history, position.timeline);
  if (forkLsn !== null) {
    const from = twin !== null && twin < forkLsn ? twin : forkLsn;
    const bytes = bytesBetween({ from, to: position.lsn });
    return bytes > 0 ? { kind: 'diverged', forkLsn: from, bytes } : { kind: 'ancestor', forkLsn };
  }
  const left = forkOf(nodeHistory, cluster.timeline) ?? sharedFork(nodeHistory, cluster.history);
  return left === null ? { kind: 'unknown' } : { kind: 'foreign', forkLsn: left };
}

/** The smaller fork of the first ancestor at which the two histories part; null when they agree where both know. */
function firstDifferentFork(a: readonly Fork[], b: readonly Fork[]): Lsn | null {
  for (const fork of a) {
    const other = forkOf(b, fork.timeline);
    if (other !== null && other !== fork.forkLsn) return earlier(other, fork.forkLsn);
  }
  return null;
}

function sharedFork(a: readonly Fork[], b: readonly Fork[]): Lsn | null {
  for (const fork of a.toReversed()) {
    const other = forkOf(b, fork.timeline);
    if (other !== null) return earlier(other, fork.forkLsn);
  }
  return null;
}

/** Math.min knows no bigint. */
function earlier(a: Lsn, b: Lsn): Lsn {
  if (a < b) return a;
  return b;
}

/** True when the node needs nothing but streaming. */
export function isContained(verdict: LineageVerdict): boolean {
  return verdict.kind === 'same' || verdict.kind === 'ancestor';
}

/** Words for people; empty for a node on the cluster's own timeline. */
export function describeLineage(verdict: LineageVerdict, position: Position): string {
  switch (verdict.kind) {
    case 'same':
      return '';
    case 'ancestor':
      return `is on ancestor timeline ${position.timeline}, not past its end ${formatLsn(verdict.forkLsn)}`;
    case 'diverged':
      return `has ${verdict.bytes} bytes of WAL on timeline ${position.timeline} past the fork at ${formatLsn(verdict.forkLsn)}`;
    case 'foreign':
      return `is on timeline ${position.timeline}, which is not of the cluster's history (it left that at ${formatLsn(verdict.forkLsn)})`;
    case 'unknown':
      return `is on timeline ${position.timeline}, which this cluster's history does not know`;
  }
}

/** Orders by (timeline, LSN): positive when `a` is the more advanced. Only for positions of one lineage. */
export function comparePositions(a: Position, b: Position): number {
  if (a.timeline !== b.timeline) return a.timeline - b.timeline;
  return a.lsn === b.lsn ? 0 : a.lsn > b.lsn ? 1 : -1;
}
