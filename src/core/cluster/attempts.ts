/** The attempt to open a new term: how it begins, and how it ends with an opened term. Shared by failover, switchover and restart. */
import { durabilityOf } from '../spec.ts';
import { type NodeId, type Now, type Term, type WallMs, makeWallMs, nextTerm } from '../ids.ts';
import { type NodeReport, hasShutDown } from '../report.ts';
import type { Attempt, ClusterState, Goal, SyncSet, TermRecord } from '../state.ts';
import { trimHistory } from '../timeline.ts';
import type { ClusterView } from '../view.ts';
import { compareLineage, isContained, relationOf } from './lineage.ts';
import { withGoal, without, UNFINISHED_PROMOTION, isPromotionUnfinished } from './goals.ts';
import { endOfWal, isMaintenance, lastKnown, live, mayCount, primaryEnd } from './observe.ts';
import { higherTimeline, reserveTimeline } from './reserved-timeline.ts';
import { NO_SET } from './sync-set.ts';
import { positionsAfter } from './positions.ts';
import { openingQuorum, openingSet } from './sync-wish.ts';

const MAX_TERMS = 32;

export interface AttemptOptions {
  readonly path: Attempt['path'];
  readonly rule: string;
  readonly reason: string;
  readonly outageFromWallMs: WallMs;
  readonly acceptLoss: boolean;
  readonly acceptTwoPrimaries?: boolean;
  readonly mayHaveOpened?: Attempt['mayHaveOpened'];
  readonly afterRestore?: boolean;
  readonly target: NodeId | null;
  readonly taskId: string | null;
}

/** What an attempt does not say of itself unless there is a reason: nothing was accepted, asked for or left open. */
export const PLAIN_ATTEMPT = {
  positions: {},
  lostBytes: null,
  acceptLoss: false,
  acceptTwoPrimaries: false,
  mayHaveOpened: [],
  afterRestore: false,
  target: null,
  taskId: null,
  sync: null,
} as const satisfies Partial<Attempt>;

/** The rule under which an open primary brings back a term that a restored store forgot. */
export const REPUBLISHED = 'housekeeping.republished';

/** False when some primary may have been open of which this attempt knows nothing. */
export function isLossKnown(attempt: Attempt): boolean {
  return attempt.mayHaveOpened.length === 0 && !attempt.afterRestore;
}

/**
 * Opens an attempt under the next term, in the phase `vote`. The old primary's goal becomes `fenced` in the new term.
 *
 * *Invariant:* once an attempt is open, the old primary cannot take the write lease again. *Because:* taking it compares the
 * revision of `state`, which this write changes, and in the new state its goal is not `primary`. *Broken if:* a rule gives
 * `primary` back in a term other than the attempt's.
 */
export function openAttempt(view: ClusterView, now: Now, options: AttemptOptions): ClusterState {
  const { state } = view;
  const term = nextTerm(state.term);
  const attempt: Attempt = {
    ...PLAIN_ATTEMPT,
    term,
    phase: 'vote',
    candidate: null,
    startedWallMs: now.wall,
    ...options,
  };
  const opened: ClusterState = { ...state, term, attempt, primaryLsn: primaryEnd(view) };
  return state.primary === null ? opened : withGoal(opened, state.primary, term, { kind: 'fenced', reason: options.reason });
}

/** Everybody but the old primary and members in maintenance is asked to vote. The same object when all were. */
export function askVotes(view: ClusterView, attempt: Attempt): ClusterState {
  let state = view.state;
  for (const node of view.spec.nodes) {
    if (node.id === state.primary || isMaintenance(view, node.id) || !mayCount(view, node.id)) continue;
    if (state.overrides[node.id]?.kind === 'stopped') continue;
    state = withGoal(state, node.id, attempt.term, { kind: 'vote' });
  }
  return state;
}

/** Gives the order of no return to `candidate`: `promote` with the set that it opens with, or `primary` when it is the old primary under a new term. */
export function orderOpening(view: ClusterView, candidate: NodeId, attempt: Attempt): ClusterState {
  const { state } = view;
  const next: ClusterState = { ...state, attempt: { ...attempt, phase: 'promote', candidate, sync: null } };
  if (candidate === state.primary) return attachAgain(withGoal(next, candidate, attempt.term, { kind: 'primary' }), candidate, attempt);
  const opening: ClusterState = { ...next, attempt: { ...attempt, phase: 'promote', candidate, sync: openingSet(view, candidate, attempt.term) } };
  return withGoal(reserveTimeline(view, opening), candidate, attempt.term, { kind: 'promote', requiredLsn: null });
}

/**
 * The old primary opens the new term where it is, with its facts and its set: its voters attach again at once, since it stays closed until enough of
 * them hold what it recovered. Its history is theirs, so an upstream that fails to open leads nobody astray (H28).
 */
function attachAgain(ordered: ClusterState, primary: NodeId, attempt: Attempt): ClusterState {
  let state = ordered;
  if (state.quorum.wanted.k === 0) return state;
  for (const [node, goal] of Object.entries(ordered.goals) as [NodeId, Goal][]) {
    if (goal.kind !== 'vote' || isPromotionUnfinished(state.recovery[node])) continue;
    state = withGoal(state, node, attempt.term, { kind: 'standby', upstream: primary, via: 'stream' });
  }
  return state;
}

/** When writes stopped, as well as members know: the last success that anyone saw of the primary; never in the future. */
export function outageStart(view: ClusterView, now: Now, primary: NodeId): WallMs {
  const seen = view.reports[primary];
  if (seen?.alive && (seen.report.postgres.state === 'crashed' || seen.report.postgres.state === 'stopped')) {
    return makeWallMs(Math.min(now.wall, Math.max(seen.report.atWallMs, now.wall - 600_000)));
  }
  // The agent of a hung server goes on reporting: that is no success of the server.
  const hangs = seen?.alive === true && seen.report.postgres.state === 'hung';
  let agoMs = seen === undefined || hangs ? 0 : seen.ageMs;
  for (const node of view.spec.nodes) {
    const other = view.reports[node.id];
    const lastOkAgoMs = node.id === primary || other === undefined || !other.alive ? null : (other.report.probes[primary]?.lastOkAgoMs ?? null);
    if (other !== undefined && lastOkAgoMs !== null) agoMs = agoMs === 0 ? lastOkAgoMs + other.ageMs : Math.min(agoMs, lastOkAgoMs + other.ageMs);
  }
  return makeWallMs(Math.round(now.wall - agoMs));
}

/** The state after `winner` reported that it is open in the attempt's term, and the record of that term. */
export function openTerm(
  view: ClusterView,
  now: Now,
  winner: NodeReport,
  attempt: Attempt,
): { readonly state: ClusterState; readonly opened: TermRecord } {
  const { state } = view;
  const term = attempt.term;
  const timeline = winner.postgres.timeline ?? state.timeline;
  const history = trimHistory(winner.postgres.history);
  const relation = relationOf(winner.postgres, state);
  // Of a term that the store forgot nothing is known but who is open: others may have been the primary since the one that the state names.
  const restarted = winner.node === state.primary && attempt.rule !== REPUBLISHED;
  const opened: TermRecord = {
    term,
    timeline,
    primary: winner.node,
    forkLsn: relation.kind === 'descendant' && !restarted ? relation.forkLsn : null,
    rule: attempt.rule,
    reason: attempt.reason,
    startedWallMs: now.wall,
    outageMs: Math.max(0, now.wall - attempt.outageFromWallMs),
    // The old primary itself has everything of its own term; what another candidate took in meanwhile is not known.
    lostBytes: restarted && isLossKnown(attempt) ? 0 : attempt.lostBytes,
  };
  const automatic = attempt.path === 'lease' || attempt.path === 'quorum';
  let next: ClusterState = {
    ...state,
    phase: 'running',
    systemIdentifier: state.systemIdentifier ?? winner.postgres.systemIdentifier,
    primary: winner.node,
    primaryTerm: term,
    timeline,
    history,
    reservedTimeline: higherTimeline(state.reservedTimeline, timeline),
    attempt: null,
    switchover: null,
    // How often a restart of the old primary failed says nothing of its return as a standby.
    recovery: state.primary === null ? state.recovery : without(state.recovery, state.primary),
    primaryLsn: endOfWal(winner)?.lsn ?? null,
    positions: positionsAfter(state.positions, relation),
    lastFailoverWallMs: automatic && !restarted ? now.wall : state.lastFailoverWallMs,
    terms: [...state.terms, opened].slice(-MAX_TERMS),
  };
  next = {
    ...next,
    quorum: restarted
      ? keptQuorum(state, term)
      : openingQuorum(view.spec, next, now, {
          set: attempt.sync ?? firstSet(view.spec),
          restored: attempt.rule === REPUBLISHED,
          floor: endOfWal(winner),
        }),
  };
  next = withGoal(next, winner.node, term, { kind: 'primary' });
  return { state: followersAfter(view, next, winner.node, term, state.primary), opened };
}

/** The same primary with the same WAL: what its voters hold they hold, and nobody acknowledged for anybody else meanwhile. */
function keptQuorum(state: ClusterState, term: Term): ClusterState['quorum'] {
  const revision = state.quorum.revision + 1;
  return { ...state.quorum, revision, term, wantedRevision: revision };
}

/** A new cluster has no standby yet: strict writes wait for the first ones, others do not. */
function firstSet(spec: ClusterView['spec']): SyncSet {
  const { mode, strict, k } = durabilityOf(spec);
  return mode === 'async' || !strict ? NO_SET : { method: mode === 'quorum' ? 'any' : 'first', k, members: [] };
}

/** Goals of everybody else in the new term. Members that cannot be heard get theirs too, so that no goal names a dead upstream (I11). */
function followersAfter(view: ClusterView, opened: ClusterState, winner: NodeId, term: Term, old: NodeId | null): ClusterState {
  let state = opened;
  for (const node of view.spec.nodes) {
    if (node.id === winner) continue;
    // One that was not told to copy yet gets its goal from `node add`; one that was told to leave goes on with that.
    if (!mayCount(view, node.id) && state.goals[node.id]?.kind !== 'standby') continue;
    if (node.kind !== 'witness' && mayHoldTwin(view, opened, node.id)) state = markUnfinished(state, node.id);
    if (node.kind === 'witness' || isMaintenance(view, node.id)) state = withGoal(state, node.id, term, { kind: 'none' });
    else if (state.overrides[node.id]?.kind === 'stopped') state = withGoal(state, node.id, term, { kind: 'stopped', reason: 'stopped on request' });
    else if (node.id === old && !isCleanHandover(view, node.id))
      state = withGoal(state, node.id, term, { kind: 'fenced', reason: `${winner} is primary since term ${term}` });
    else if (isPromotionUnfinished(state.recovery[node.id]) && !hasNoData(view, node.id))
      state = withGoal(state, node.id, term, { kind: 'fenced', reason: 'its promotion was not completed; it is compared with the primary first' });
    else if (view.state.attempt !== null && hasLeft(view, node.id, view.state))
      state = withGoal(markUnfinished(state, node.id), node.id, term, { kind: 'fenced', reason: OTHER_HISTORY });
    else if (hasLeft(view, node.id, opened)) state = withGoal(state, node.id, term, { kind: 'fenced', reason: OTHER_HISTORY });
    else if (hasNoData(view, node.id)) state = withGoal(state, node.id, term, { kind: 'standby', upstream: winner, via: 'clone' });
    else state = withGoal(state, node.id, term, { kind: 'standby', upstream: winner, via: 'stream' });
  }
  return state;
}

/**
 * Nothing to start, and nothing to compare: a copy that was under way begins anew, from the new primary, of a node that is marked too.
 *
 * *Invariant:* what may be a timeline of its own under the primary's number is not streamed (Z53). *Because:* the order is to copy, which sets aside whatever
 * was completed unseen, and the mark stays until that copy streams. *Broken if:* the mark is spared a node because it was last seen without data.
 */
function hasNoData(view: ClusterView, node: NodeId): boolean {
  const known = lastKnown(view, node)?.postgres.state;
  return known === 'absent' || known === 'incomplete' || known === 'cloning';
}

const OTHER_HISTORY = 'its WAL is not of the new primary’s history; it is compared with it first';

/**
 * The node's last known WAL is not of that lineage.
 *
 * *Invariant:* nobody is told to stream from a primary whose history its last known WAL is not of (I12). *Because:* a timeline of the same number, opened by a
 * promotion that nobody ordered, is not told apart by PostgreSQL: it would stream on top of WAL that is another. So one that had left the old lineage
 * before the new term opened counts as a promotion that was not completed, even when number and fork of its timeline are the new ones (Z53).
 * A restored store's lineage is an old one, and says nothing. *Broken if:* only numbers are compared.
 */
function hasLeft(view: ClusterView, node: NodeId, lineage: Pick<ClusterState, 'timeline' | 'history'>): boolean {
  const report = lastKnown(view, node);
  const position = report === null ? null : endOfWal(report);
  if (report === null || position === null || lineage.timeline === null) return false;
  return !isContained(compareLineage(position, report.postgres.history, { timeline: lineage.timeline, history: lineage.history }));
}

/**
 * The new primary's timeline has a number that was opened before: it was promoted without ever hearing of that one.
 *
 * *Invariant:* whoever may hold the older timeline of that number is marked. *Because:* number and fork can both be the same (two candidates that were
 * equally far, one after the other), and then neither the lineage nor PostgreSQL sees a difference (Z53). One that was detached for the new term on an
 * ancestor cannot hold it; an older report only says where a node was before it may have streamed on.
 * *Broken if:* the timeline of a restored store counts as the newest that was opened: the numbers after its backup are not known.
 */
function mayHoldTwin(view: ClusterView, opened: ClusterState, node: NodeId): boolean {
  const former = view.state.timeline;
  if (former === null || opened.timeline === null || opened.primary === view.state.primary) return false;
  if (opened.timeline > former && view.state.attempt?.afterRestore !== true) return false;
  const report = lastKnown(view, node);
  if (report?.vote?.term !== opened.primaryTerm) return true;
  // The files of a stopped standby show the timeline of its last restart point, which can be older than its WAL.
  return report.postgres.timeline === null || report.postgres.state !== 'running' || report.postgres.timeline >= opened.timeline;
}

/**
 * A primary is on a timeline that no term opened: somebody made it by hand.
 *
 * *Invariant:* whoever may have been promoted by hand as well is compared by more than numbers (Z53). *Because:* equally far nodes make twins, of one number
 * and one fork. One that was seen on an older timeline has none, and one that is fed by this primary is on its WAL.
 */
export function withTwinsMarked(view: ClusterView, primary: NodeReport): ClusterState {
  const { timeline } = primary.postgres;
  let { state } = view;
  for (const { id, kind } of view.spec.nodes) {
    if (id === primary.node || kind === 'witness' || timeline === null || isFedBy(view, id, primary.node)) continue;
    const known = lastKnown(view, id)?.postgres.timeline ?? null;
    if (known === null || known >= timeline) state = markUnfinished(state, id);
  }
  return state;
}

/** It streams from `primary`, itself or by others. False for one that cannot be heard. */
function isFedBy(view: ClusterView, node: NodeId, primary: NodeId | null): boolean {
  let upstream: NodeId | null = node;
  for (const _hop of view.spec.nodes) {
    const report: NodeReport | null = upstream === null ? null : live(view, upstream);
    upstream = report === null ? null : report.postgres.streamingFrom;
    if (upstream === null || upstream === primary) return upstream !== null;
  }
  return false;
}

function markUnfinished(state: ClusterState, node: NodeId): ClusterState {
  const progress = { checks: 0, firstSeenWallMs: makeWallMs(0), attempts: 0, notBeforeWallMs: makeWallMs(0), lastError: UNFINISHED_PROMOTION };
  return { ...state, recovery: { ...state.recovery, [node]: progress } };
}

/** The old primary ended with a shutdown checkpoint that its successor waited for: it holds nothing that the new one has not. */
function isCleanHandover(view: ClusterView, node: NodeId): boolean {
  const report = lastKnown(view, node);
  return view.state.switchover !== null && report !== null && hasShutDown(report.postgres);
}
