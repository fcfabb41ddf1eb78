/** Who votes, who voted, and which voters of the quorum facts are detached. */
import type { NodeId } from '../ids.ts';
import { type ClusterState, votesNeeded } from '../state.ts';
import type { ClusterView } from '../view.ts';
import type { NodeReport, Position } from '../report.ts';
import { comparePositions, compareVote } from './lineage.ts';
import { activityFor, endOfWal, fresh, hasRead, isLeftAlone, isMaintenance, isOpen, live } from './observe.ts';
import { type QuorumCount, countQuorum, nodeOfVoter, voterName } from './sync-set.ts';

/** Members that vote: all of the spec but those in maintenance and those that are being added or removed, in the spec's order. A witness votes. */
export function electorateOf(view: ClusterView): readonly NodeId[] {
  return view.spec.nodes.filter((node) => node.membership === 'full' && !isMaintenance(view, node.id)).map((node) => node.id);
}

/**
 * The state with the electorate of the spec, or with a change of it settled; the same object when nothing is to change. Revisions rise.
 *
 * *Invariant:* whatever electorate the primary counts its promises with, a promotion beside it is impossible: F + P > M holds within one set only, so
 * while the primary may still count with the former one, votes of both are needed. *Because:* the set changes only while the primary is open here, one
 * change at a time, and the former set goes when the primary has read the new one and holds its lease in this store. *Broken if:* members are taken out
 * of the count while nobody knows where the primary is: then a few of them could elect beside a primary that lives on the others.
 */
export function publishElectorate(view: ClusterView): ClusterState {
  const { state } = view;
  const { electorate } = state;
  const report = state.primary === null ? null : live(view, state.primary);
  const open = isOpen(report, state.primaryTerm);
  const running = state.phase === 'running' || state.phase === 'stopping';
  if (electorate.former.length > 0) {
    const counted =
      open && report !== null && hasRead(view, report) && view.writeLease?.holder === state.primary && view.writeLease.term === state.primaryTerm;
    return counted || !running ? { ...state, electorate: { ...electorate, former: [] } } : state;
  }
  const members = electorateOf(view);
  const same = members.length === electorate.members.length && members.every((node, index) => node === electorate.members[index]);
  if (same || (running && !open)) return state;
  const former = running ? electorate.members : [];
  return { ...state, electorate: { revision: electorate.revision + 1, members, former } };
}

/** The sets of which each must be won, by itself. */
function electorates(state: ClusterState): readonly (readonly NodeId[])[] {
  const { members, former } = state.electorate;
  return former.length === 0 ? [members] : [members, former];
}

function everyMember(state: ClusterState): readonly NodeId[] {
  return [...new Set(electorates(state).flat())];
}

function isMajority(state: ClusterState, voted: readonly NodeId[]): boolean {
  return electorates(state).every((members) => members.filter((node) => voted.includes(node)).length >= votesNeeded(members.length).promotion);
}

/** So many members gave no vote that the others are too few for a promotion (F + P > M). */
export function isElectionRuledOut(state: ClusterState, gaveNoVote: (member: NodeId) => boolean): boolean {
  return electorates(state).every((members) => members.filter(gaveNoVote).length >= votesNeeded(members.length).promises);
}

/** Of the larger requirement, for texts. */
function neededOf(state: ClusterState): number {
  return Math.max(...electorates(state).map((members) => votesNeeded(members.length).promotion));
}

export interface Ballot {
  readonly needed: number;
  /** Enough votes of each electorate that counts. */
  readonly enough: boolean;
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
  const members = everyMember(view.state);
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
    needed: neededOf(view.state),
    enough: isMajority(view.state, voted),
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
 * Votes that an attempt could collect by what can be heard now: members with a recent report that are asked, and the old primary, which counts once it is
 * fenced and is not the one `without` whom it is to be done. Before an attempt there are no votes yet; this tells whether one would wait in vain.
 */
export function reachableVotes(
  view: ClusterView,
  without: NodeId | null = null,
): {
  readonly needed: number;
  readonly enough: boolean;
  readonly reachable: readonly NodeId[];
  readonly missing: readonly NodeId[];
} {
  const members = everyMember(view.state);
  const isAsked = (node: NodeId): boolean => !isMaintenance(view, node) && view.state.overrides[node]?.kind !== 'stopped';
  const reachable = members.filter((node) => node !== without && fresh(view, node) !== null && (node === view.state.primary || isAsked(node)));
  return {
    needed: neededOf(view.state),
    enough: isMajority(view.state, reachable),
    reachable,
    missing: members.filter((node) => !reachable.includes(node)),
  };
}

/** The agent acts on the goal that the attempt gave it. */
function knowsAttempt(view: ClusterView, node: NodeId): boolean {
  const report = live(view, node);
  return report !== null && (hasRead(view, report) || activityFor(report, view.state.goals[node] ?? null) !== null);
}

/** Voters of the facts that are detached for `term` by a final position, with the data directory that the facts mean. */
export function countDetached(view: ClusterView, term: number): QuorumCount {
  const detached = view.spec.nodes.flatMap((node) => {
    const report = live(view, node.id);
    const incarnation = report?.postgres.incarnation ?? null;
    const final = report?.vote?.term === term && report.vote.final && report.vote.position !== null;
    return final && incarnation !== null ? [voterName(node.id, incarnation)] : [];
  });
  return countQuorum(view.state.quorum, detached);
}

/** Voters that could be detached if they were asked now: heard, with the data directory that the facts mean, and nobody told us to leave them alone. */
export function countReachable(view: ClusterView): QuorumCount {
  const reachable = view.spec.nodes.flatMap((node) => {
    const report = fresh(view, node.id);
    const incarnation = report?.postgres.incarnation ?? null;
    return report !== null && incarnation !== null && !isLeftAlone(view, node.id) && endOfWal(report) !== null
      ? [voterName(node.id, incarnation)]
      : [];
  });
  return countQuorum(view.state.quorum, reachable);
}

/** The best final position among the detached voters: no acknowledged commit lies beyond it, and none is missing up to it. */
export function bestVoterPosition(view: ClusterView, term: number): Position | null {
  let best: Position | null = null;
  for (const voter of countDetached(view, term).have) {
    const node = nodeOfVoter(voter);
    const report = node === null ? null : live(view, node);
    const position = report?.vote?.position == null ? null : onLineage(view, report, report.vote.position);
    if (position !== null && (best === null || comparePositions(position, best) > 0)) best = position;
  }
  return best;
}

/**
 * As far as the position lies in the cluster's history. A voter whose promotion was not completed has a timeline of its own beyond it: what stands there
 * was acknowledged to nobody, since it never opened, and must not keep a candidate back that has all of the history.
 */
function onLineage(view: ClusterView, report: NodeReport, position: Position): Position {
  const { timeline, history } = view.state;
  if (timeline === null) return position;
  const verdict = compareVote(report, { timeline, history });
  const isBeyond = verdict.kind === 'foreign' || (verdict.kind === 'diverged' && position.timeline === timeline);
  return isBeyond ? { timeline, lsn: verdict.forkLsn } : position;
}

/** `2 of 2 needed voters (missing: n3)` */
export function describeQuorum(count: QuorumCount): string {
  const missing = count.missing.map((voter) => nodeOfVoter(voter) ?? voter);
  return `${count.have.length} of ${count.needed} needed voters${missing.length === 0 ? '' : `; missing: ${missing.join(', ')}`}`;
}
