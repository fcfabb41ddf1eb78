/** Who votes, and the published quorum facts. In asynchronous mode k = 0: a commit is promised on the primary only. */
import type { NodeId } from '../ids.ts';
import { type ClusterState, votesNeeded } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { activityFor, fresh, hasRead, isMaintenance, live } from './observe.ts';

/** Members that vote: all of the spec but those in maintenance, in the spec's order. A witness votes. */
export function electorateOf(view: ClusterView): readonly NodeId[] {
  return view.spec.nodes.filter((node) => !isMaintenance(view, node.id)).map((node) => node.id);
}

/** The state with the electorate of the spec; the same object when it already is. Revisions rise. */
export function publishElectorate(view: ClusterView): ClusterState {
  const members = electorateOf(view);
  const { state } = view;
  if (members.length === state.electorate.members.length && members.every((node, index) => node === state.electorate.members[index])) return state;
  return { ...state, electorate: { revision: state.electorate.revision + 1, members } };
}

/** Facts for the primary's term: asynchronous, so no voter is needed. Published with the opening of a term. */
export function publishFacts(state: ClusterState): ClusterState {
  const { quorum } = state;
  if (quorum.term === state.primaryTerm && quorum.k === 0 && quorum.voters.length === 0) return state;
  return { ...state, quorum: { revision: quorum.revision + 1, term: state.primaryTerm, k: 0, voters: [] } };
}

export interface Ballot {
  readonly needed: number;
  readonly voted: readonly NodeId[];
  /** Members that did not vote for this term yet. */
  readonly missing: readonly NodeId[];
  /** Missing ones that can be heard, and data nodes whose position is not final yet: worth a short wait. */
  readonly pending: readonly NodeId[];
}

/**
 * Votes for the attempt's term.
 *
 * *Invariant:* a promotion has P votes, so that a primary cut off from the store cannot hold F promises (F + P > M).
 * *Because:* a vote is durable before it is reported, and a voter promises nothing to a lower term. The old primary counts
 * once its living agent reports that it is fenced, holds no lease and acts on this very state: opening again needs the
 * store's write lease, which is compared with the revision of `state`. *Broken if:* a dead node's last report counted.
 */
export function countVotes(view: ClusterView, term: number): Ballot {
  const { members } = view.state.electorate;
  const voted: NodeId[] = [];
  const pending: NodeId[] = [];
  for (const node of members) {
    const report = live(view, node);
    if (report === null) continue;
    const fencedPrimary = node === view.state.primary && report.fenced && report.leaseTerm === null && knowsAttempt(view, node);
    if (report.vote?.term === term || fencedPrimary) voted.push(node);
    else if (fresh(view, node) !== null) pending.push(node);
    if (
      report.vote?.term === term &&
      !report.vote.final &&
      fresh(view, node) !== null &&
      report.postgres.state !== 'absent' &&
      node !== view.state.primary
    )
      pending.push(node);
  }
  const witnesses = new Set(view.spec.nodes.filter((node) => node.kind === 'witness').map((node) => node.id));
  return {
    needed: votesNeeded(members.length).promotion,
    voted,
    missing: members.filter((node) => !voted.includes(node)),
    pending: pending.filter((node) => !(witnesses.has(node) && voted.includes(node))),
  };
}

/** What is at stake when votes are waived, and the flag that does it; said wherever votes are missing. */
export function twoPrimariesText(primary: NodeId | null): string {
  const old = primary ?? 'the old primary';
  return `if ${old} still runs somewhere out of sight, promoting without them makes two primaries, and what one of them acknowledged is lost; only when ${old} is surely powered off or cut off from every client: "pgherd failover --accept-two-primaries"`;
}

/**
 * Votes that an attempt could collect by what can be heard now: living members that are asked, and the old primary, which counts once it is
 * fenced. Before an attempt there are no votes yet; this tells whether one would wait in vain.
 */
export function reachableVotes(view: ClusterView): {
  readonly needed: number;
  readonly reachable: readonly NodeId[];
  readonly missing: readonly NodeId[];
} {
  const { members } = view.state.electorate;
  const reachable = members.filter(
    (node) => live(view, node) !== null && (node === view.state.primary || view.state.overrides[node]?.kind !== 'stopped'),
  );
  return {
    needed: votesNeeded(members.length).promotion,
    reachable,
    missing: members.filter((node) => !reachable.includes(node)),
  };
}

/** The agent acts on the goal that the attempt gave it. */
function knowsAttempt(view: ClusterView, node: NodeId): boolean {
  const report = live(view, node);
  return report !== null && (hasRead(view, report) || activityFor(report, view.state.goals[node] ?? null) !== null);
}
