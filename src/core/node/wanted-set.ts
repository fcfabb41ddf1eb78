/** Which synchronous set a node is to act on, by the state. Pure. */
import type { NodeId } from '../ids.ts';
import type { ClusterState, SyncSet } from '../state.ts';
import { NO_SET } from '../cluster/sync-set.ts';

export interface WantedSet {
  readonly set: SyncSet;
  /** Orders rise by (term, revision); an older one is never followed. */
  readonly term: number;
  readonly revision: number;
}

/** The candidate's set while its order stands, the published one for the primary; null for everybody else. */
export function wantedSetOf(state: ClusterState | null, node: NodeId): WantedSet | null {
  if (state === null) return null;
  const { attempt, quorum, primary } = state;
  if (attempt?.phase === 'promote' && attempt.candidate === node && primary !== node) {
    return { set: attempt.sync ?? NO_SET, term: attempt.term, revision: 0 };
  }
  if (primary !== node) return null;
  return { set: quorum.wanted, term: quorum.term, revision: quorum.wantedRevision };
}
