/** Compares a node's end of WAL with the cluster's lineage. Timelines are compared first, positions only within one. */
import { type Lsn, bytesBetween, formatLsn } from '../lsn.ts';
import type { Fork, NodeReport, Position, PostgresReport } from '../report.ts';
import type { ClusterState } from '../state.ts';
import { type Lineage, type Relation, forkOf, relate } from '../timeline.ts';

export type LineageVerdict =
  /** On the cluster's timeline. */
  | { readonly kind: 'same' }
  /** On an ancestor, not past its fork: streaming alone brings it here. */
  | { readonly kind: 'ancestor'; readonly forkLsn: Lsn }
  /** On an ancestor but past its fork, or on a timeline of the same number with another history: it has WAL that the cluster has not. */
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
 * very same timeline. *Because:* two late promotions may share a timeline number, so the whole way to it is compared (Z53; `relate`).
 * *Broken if:* highest timeline wins (Q9), or only numbers are compared.
 */
export function compareLineage(position: Position, nodeHistory: readonly Fork[], cluster: Lineage): LineageVerdict {
  const relation = relate({ timeline: position.timeline, history: nodeHistory }, cluster);
  if (relation.kind === 'same' || relation.kind === 'unknown') return relation;
  const { forkLsn } = relation;
  if (relation.kind === 'descendant') return { kind: 'foreign', forkLsn };
  const left = Math.max(0, bytesBetween({ from: forkLsn, to: position.lsn }));
  const end = forkOf(cluster.history, position.timeline);
  if (end !== null) return left > 0 ? { kind: 'diverged', forkLsn, bytes: left } : { kind: 'ancestor', forkLsn: end };
  return position.timeline === cluster.timeline ? { kind: 'diverged', forkLsn, bytes: left } : { kind: 'foreign', forkLsn };
}

/**
 * The same for the position of a vote; `unknown` without one. *Because:* a vote is newer than the look of the same report: the look's history is not that of a
 * timeline which the look had not reached, and then the number is believed.
 */
export function compareVote({ vote, postgres }: Pick<NodeReport, 'vote' | 'postgres'>, cluster: Lineage): LineageVerdict {
  const position = vote?.position ?? null;
  if (position === null) return { kind: 'unknown' };
  return compareLineage(position, (postgres.timeline ?? 0) < position.timeline ? [] : postgres.history, cluster);
}

/** How a server's timeline lies against the cluster's; `unknown` as long as either has none. */
export function relationOf(postgres: Pick<PostgresReport, 'timeline' | 'history'>, state: Pick<ClusterState, 'timeline' | 'history'>): Relation {
  if (postgres.timeline === null || state.timeline === null) return { kind: 'unknown' };
  return relate({ timeline: postgres.timeline, history: postgres.history }, { timeline: state.timeline, history: state.history });
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
