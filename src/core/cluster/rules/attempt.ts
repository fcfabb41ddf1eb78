/**
 * The attempt for a new term. States: vote → promote → opened.
 * `vote` ends in `promote` of the most advanced node, in `promote` of the old primary itself (a restart under the new term), or waits
 * with a named reason. `promote` ends when the candidate is open, or in another attempt when it durably refused or is gone with no lease.
 */
import { type Now, makeWallMs } from '../../ids.ts';
import { maxLsn } from '../../lsn.ts';
import type { NodeReport, Position } from '../../report.ts';
import type { Attempt, ClusterState } from '../../state.ts';
import type { ClusterView, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { askVotes, isLossKnown, openAttempt, openTerm, orderOpening } from '../attempts.ts';
import { type Candidate, REFUSAL_BACKOFF_MS, describeCandidate, describeRejected, lagText, missingBytes, rankCandidates } from '../election.ts';
import { withGoal, UNFINISHED_PROMOTION } from '../goals.ts';
import {
  activityFor,
  elapsedMs,
  endOfWal,
  gaveUp,
  isDue,
  isOfThisStore,
  isOpen,
  lastKnown,
  live,
  liveSinceLease,
  primaryEnd,
  watchNeededMs,
} from '../observe.ts';
import { comparePositions } from '../lineage.ts';
import { bestVoterPosition, countDetached, countVotes, describeQuorum, twoPrimariesText } from '../quorum.ts';
import { NOTHING_ACKNOWLEDGED, isEndExact, judgeLoss } from '../loss.ts';
import { LONGEST_BACKOFF_MS } from '../recovery.ts';
import { floorText, isBelowFloor, isUnestablished, unestablishedText } from '../sync-wish.ts';
import { addStep, fail, finish, taskById } from '../tasks.ts';
import { stalledHow } from './primary-lost.ts';

/** Stragglers that can be heard get this long to report a final position; a promotion that misses the most advanced node loses data, one that waits costs outage. */
export const VOTE_GRACE_MS = 800;
/** For one that says it is detaching: longer than a blocked startup process is waited for (5 s) would hold everybody back. */
const VOTING_GRACE_MS = 4000;
/** An ordered promotion that shows no activity for this long is replaced by the next attempt, whose vote is the durable refusal. */
export const PROMOTE_LIMIT_MS = 60_000;
/** Without the lease it has not begun to promote; replacing the order is free of risk then. */
const TAKE_LIMIT_MS = 10_000;

function assess(view: ClusterView, now: Now): Assessment | null {
  const { attempt } = view.state;
  if (attempt === null) return null;
  // An attempt that came back with a restored store: the term may have been opened, and closed, since the backup.
  if (!isOfThisStore(view))
    return warn(
      view,
      'failover.blocked-store',
      'the store was restored in the middle of it; "pgherd failover" decides, or the primary when it is open',
    );
  return attempt.phase === 'vote' ? assessVote(view, now, attempt) : assessPromote(view, now, attempt);
}

function wait(rule: string, why: string, again = 100): Assessment {
  return { rule, outcome: { why, again } };
}

function warn(view: ClusterView, rule: string, why: string): Assessment {
  const events =
    view.state.decided.rule === rule
      ? []
      : [{ level: 'warn' as const, node: view.state.primary, text: `term ${view.state.term} cannot be opened: ${why}`, detail: {} }];
  return { rule, outcome: { why, events } };
}

/** The lease is no obstacle: it is gone, or the candidate itself holds it for this very term. */
function isLeaseFree(view: ClusterView): boolean {
  return view.writeLease === null;
}

/**
 * On the quorum path the order is given while the old lease may still stand.
 *
 * *Invariant:* the old primary acknowledges nothing any more at synchronous durability that the candidate lacks. *Because:* more than |voters| − k voters
 * are detached for this term, durably, so that fewer than k can acknowledge to it, whatever it believes and whoever reaches it; what the detached ones
 * said before, which may be on its way yet, is below their final positions; and the facts are those of its last set, since they are frozen while the
 * attempt is open and stand in the same record that this order is compared with. *Broken if:* a reload alone counted as detached.
 */
function isQuorumPath(view: ClusterView, attempt: Attempt): boolean {
  return attempt.path === 'quorum' && view.state.quorum.k > 0;
}

/** With published facts every path but an accepted loss needs the quorum of the voters (architecture 4.5). */
function needsQuorum(view: ClusterView, attempt: Attempt): boolean {
  return view.state.quorum.k > 0 && !attempt.acceptLoss;
}

function assessVote(view: ClusterView, now: Now, attempt: Attempt): Assessment {
  const quorumPath = isQuorumPath(view, attempt);
  const old = view.state.primary;
  const oldReport = old === null ? null : live(view, old);
  // No process of it is left: its walsenders are gone too, and nothing more can arrive.
  const oldIsGone =
    oldReport !== null &&
    ((oldReport.fenced && oldReport.leaseTerm === null) || oldReport.postgres.state === 'crashed' || oldReport.postgres.state === 'stopped');
  // Standbys stay attached until the old primary is fenced, so that they still receive what it flushed.
  if (!isLeaseFree(view) && !oldIsGone && !quorumPath) return leaseWait(view);
  const asked = askVotes(view, attempt);
  if (asked !== view.state)
    return { rule: 'attempt.ask-votes', outcome: { why: `members are asked to vote for term ${attempt.term}`, state: asked, again: 50 } };
  const ballot = countVotes(view, attempt.term);
  // A member that is detaching will have voted in a moment, however long the fence before it took; one that is silent gets the short grace.
  const voting = ballot.pending.some((node) => {
    const report = live(view, node);
    return report !== null && activityFor(report, view.state.goals[node] ?? null)?.kind === 'busy';
  });
  const graceMs = voting ? VOTING_GRACE_MS : VOTE_GRACE_MS;
  const graceOver = now.wall - attempt.startedWallMs >= graceMs || now.wall < attempt.startedWallMs;
  const quorum = countDetached(view, attempt.term);
  // The quorum holds every acknowledged commit: whoever is late could not have more.
  const decided = quorumPath && quorum.enough && ballot.voted.length >= ballot.needed;
  if (!graceOver && ballot.pending.length > 0 && !decided)
    return wait('attempt.waiting-votes', `waiting for ${ballot.pending.join(', ')} to vote for term ${attempt.term}`, 50);
  // Invariant: to accept loss never waives a vote. Because: votes are what keeps a primary that is cut off from living on promises beside the
  // new one; without them not some rows are at stake but two histories. Broken if: `acceptLoss` is looked at here.
  if (!ballot.enough && !attempt.acceptTwoPrimaries) {
    if (!graceOver) return wait('attempt.waiting-votes', `waiting for votes for term ${attempt.term}`, 50);
    return (
      restartOld(view, now, attempt, oldReport, 'too few votes') ??
      warn(
        view,
        'failover.blocked-votes',
        `${ballot.voted.length} of ${ballot.needed} needed votes; missing: ${ballot.missing.join(', ')}; ${twoPrimariesText(old)}`,
      )
    );
  }
  if (needsQuorum(view, attempt) && !quorum.enough) {
    if (!graceOver) return wait('attempt.waiting-votes', `waiting for voters: ${describeQuorum(quorum)}`, 50);
    return (
      restartOld(view, now, attempt, oldReport, 'too few voters are detached') ??
      warn(
        view,
        'failover.blocked-quorum',
        `${describeQuorum(quorum)}; an acknowledged commit may be on the missing ones only; "pgherd failover --accept-loss" promotes without them`,
      )
    );
  }
  if (!isLeaseFree(view) && !quorumPath) return leaseWait(view);
  return elect(view, now, attempt, oldReport, graceOver);
}

function leaseWait(view: ClusterView): Assessment {
  const lease = view.writeLease;
  return wait(
    'failover.blocked-lease',
    `the write lease of term ${lease?.term ?? 0} is still held by ${lease?.holder ?? ''}; nothing is promoted before it is released or expires`,
  );
}

function elect(view: ClusterView, now: Now, attempt: Attempt, oldReport: NodeReport | null, graceOver: boolean): Assessment {
  const { eligible, rejected } = rankCandidates(view, now, {
    positions: { kind: 'vote', term: attempt.term },
    acceptLoss: attempt.acceptLoss,
    target: attempt.target,
    descendants: attempt.afterRestore,
  });
  const best = eligible[0];
  if (best === undefined) {
    if (!graceOver) return wait('attempt.waiting-votes', `waiting for a final position for term ${attempt.term}`, 50);
    return (
      restartOld(view, now, attempt, oldReport, 'nobody can be promoted') ??
      warn(view, 'failover.blocked-no-candidate', `no node can be promoted: ${describeRejected(rejected)}`)
    );
  }
  const end = primaryEnd(view);
  const missing = missingBytes(best.position, { timeline: view.state.timeline, lsn: end });
  if (needsQuorum(view, attempt)) {
    const bound = bestVoterPosition(view, attempt.term);
    if (bound !== null && comparePositions(best.position, bound) >= 0) return promote(view, now, attempt, best, eligible, missing);
    return (
      restartOld(view, now, attempt, oldReport, 'the most advanced voter may not be promoted') ??
      warn(
        view,
        'failover.blocked-quorum',
        `${describeCandidate(best)} lacks what a voter has that may not be promoted: ${describeRejected(rejected)}`,
      )
    );
  }
  const endUnknown = oldReport !== null && oldReport.postgres.state === 'crashed' && !isEndExact(view, oldReport);
  if (attempt.rule === 'crash.failover' && endUnknown && !graceOver)
    return wait('attempt.waiting-votes', `waiting for the end of the WAL of ${oldReport.node}`, 50);
  if (attempt.rule === 'crash.failover' && (endUnknown || missing === null || missing > 0)) {
    const restart = restartOld(view, now, attempt, oldReport, `the best candidate, ${describeCandidate(best)}, lacks ${missing ?? 'unknown'} bytes`);
    if (restart !== null) return restart;
  }
  if (!attempt.acceptLoss && isUnestablished(view) && !(missing === 0 && isEndExact(view, oldReport))) {
    const why = unestablishedText(view);
    return restartOld(view, now, attempt, oldReport, why) ?? warn(view, 'failover.blocked-quorum', why);
  }
  if (!attempt.acceptLoss && isBelowFloor(view, best.position)) {
    const why = floorText(view, describeCandidate(best));
    return restartOld(view, now, attempt, oldReport, why) ?? warn(view, 'failover.blocked-quorum', why);
  }
  if (!attempt.acceptLoss && missing !== null && missing > view.spec.maxLagOnFailoverBytes) {
    return (
      restartOld(view, now, attempt, oldReport, `the best candidate lacks ${missing} bytes`) ??
      warn(view, 'failover.blocked-lag', lagText(view, describeCandidate(best), missing))
    );
  }
  return promote(view, now, attempt, best, eligible, missing);
}

/**
 * *Invariant:* the promote order goes to the most advanced final position, under a lease that nobody holds. *Because:* positions
 * are read after the walreceiver is gone and compared as (timeline, LSN); `view.writeLease` is null in the snapshot that the
 * transaction guards. *Broken if:* reports without a vote counted (I9, Q20).
 */
function promote(view: ClusterView, now: Now, attempt: Attempt, best: Candidate, eligible: readonly Candidate[], missing: number | null): Assessment {
  const positions: Record<string, Position> = {};
  for (const one of eligible) positions[one.node] = one.position;
  const loss = needsQuorum(view, attempt) && attempt.mayHaveOpened.length === 0 ? NOTHING_ACKNOWLEDGED : judgeLoss(view, attempt, missing);
  const state = orderOpening(view, best.node, { ...attempt, positions, lostBytes: loss.bytes });
  const why = `${describeCandidate(best)} is promoted in term ${attempt.term}${loss.text}`;
  const task = taskById(view, attempt.taskId);
  const tasks = task === null ? [] : [addStep(task, now, 'promote', why)];
  return {
    rule: 'attempt.promote',
    outcome: {
      why,
      state,
      tasks,
      again: 100,
      events: [{ level: 'warn', node: best.node, text: why, detail: { lostBytes: String(loss.bytes ?? 'unknown'), reason: attempt.reason } }],
    },
  };
}

/** The old primary itself opens the attempt's term, where it is, if its agent lives and its data is whole. Null when it cannot. */
function restartOld(view: ClusterView, now: Now, attempt: Attempt, report: NodeReport | null, because: string): Assessment | null {
  const old = view.state.primary;
  if (old === null || report === null || view.writeLease !== null) return null;
  const { state } = report.postgres;
  const whole = state === 'crashed' || state === 'stopped' || (state === 'running' && report.fenced);
  if (!whole || !report.fenced || report.leaseTerm !== null) return null;
  const failedBefore = view.state.recovery[old];
  if (failedBefore !== undefined && !isDue(now, failedBefore.notBeforeWallMs, LONGEST_BACKOFF_MS)) return null;
  if (report.refusedTerms.includes(attempt.term)) return null;
  const why = `${old} opens term ${attempt.term} itself: ${because}`;
  const ordered = orderOpening(view, old, { ...attempt, lostBytes: isLossKnown(attempt) ? 0 : null });
  const task = taskById(view, attempt.taskId);
  const problem = {
    code: 'failover.no-candidate',
    text: `Nothing was promoted: ${because}.`,
    remedy: 'See "pgherd explain"; "--accept-loss" promotes the best node in spite of what it lacks.',
  };
  return {
    rule: 'attempt.abandoned-for-restart',
    outcome: {
      why,
      state: ordered,
      tasks: task === null ? [] : [fail(task, now, problem, 'undone')],
      again: 100,
      events: [{ level: 'warn', node: old, text: why, detail: {} }],
    },
  };
}

/**
 * The old primary runs in the attempt's term, and lets nobody in before enough standbys hold what it recovered. The attempt is over then: those standbys
 * are taken back by the rules that only work outside of one, and a primary that waited for them inside would wait for ever.
 */
function runsClosed(view: ClusterView, attempt: Attempt, report: NodeReport): boolean {
  const { term, candidate } = attempt;
  const held = view.writeLease?.holder === candidate && view.writeLease?.term === term && report.leaseTerm === term;
  const runs = report.postgres.state === 'running' && report.postgres.role === 'primary';
  return candidate === view.state.primary && view.state.quorum.wanted.k > 0 && held && runs;
}

function assessPromote(view: ClusterView, now: Now, attempt: Attempt): Assessment | null {
  const { candidate } = attempt;
  if (candidate === null) return replace(view, now, attempt, 'attempt.candidate-lost', 'no candidate was recorded');
  const report = live(view, candidate);
  if (report !== null && (isOpen(report, attempt.term) || runsClosed(view, attempt, report))) return opened(view, now, attempt, report);
  const goal = view.state.goals[candidate] ?? null;
  // A controller that has just begun to watch knows too little to call anybody lost: a report that is missing may only be late.
  const justBegun = view.watchedMs < watchNeededMs(view.spec);
  // On the quorum path the lease of the old term may stand beside; it is no word of the candidate's.
  const taken = view.writeLease !== null && (attempt.path !== 'quorum' || view.writeLease.term === attempt.term);
  if (report === null) {
    if (justBegun) return wait('attempt.waiting-open', `${candidate} is silent, and this controller has only begun to watch`);
    if (taken)
      return wait(
        'attempt.waiting-open',
        `${candidate} is silent; the write lease of term ${view.writeLease?.term ?? 0} is held by ${view.writeLease?.holder ?? ''} until it expires`,
      );
    return replace(view, now, attempt, 'attempt.candidate-lost', `${candidate} was lost before it opened term ${attempt.term}`);
  }
  const refused = report.refusedTerms.includes(attempt.term) || (report.vote !== null && report.vote.term > attempt.term);
  if (refused || gaveUp(report, goal)) {
    const activity = activityFor(report, goal);
    return replace(
      view,
      now,
      attempt,
      'attempt.refused',
      `${candidate} refused term ${attempt.term}${activity?.kind === 'failed' ? `: ${activity.message}` : ''}`,
    );
  }
  const stalled = stalledHow(report, goal);
  if (stalled !== null)
    return replace(view, now, attempt, 'attempt.candidate-lost', `PostgreSQL of ${candidate} ${stalled} in the opening of term ${attempt.term}`);
  const busy = activityFor(report, goal)?.kind === 'busy' || report.postgres.state === 'starting';
  const sinceMs = elapsedMs(now, attempt.startedWallMs);
  const untaken = !justBegun && !taken && sinceMs > TAKE_LIMIT_MS + VOTE_GRACE_MS;
  if (untaken || (!busy && sinceMs > PROMOTE_LIMIT_MS)) {
    return replace(
      view,
      now,
      attempt,
      'attempt.candidate-lost',
      `${candidate} did not ${untaken ? 'take the write lease of' : 'open'} term ${attempt.term} in time`,
    );
  }
  return wait('attempt.waiting-open', `${candidate} is opening term ${attempt.term}`);
}

/**
 * Another attempt under a further term. The order of the old one becomes harmless: taking the lease compares the revision of
 * `state`, which this write changes, and a candidate that took it already is waited for.
 */
function replace(view: ClusterView, now: Now, attempt: Attempt, rule: string, why: string): Assessment {
  const { candidate } = attempt;
  const restarted = candidate !== null && candidate === view.state.primary;
  const marked: ClusterState =
    candidate === null
      ? view.state
      : {
          ...view.state,
          primaryLsn: reachedBy(view, attempt),
          recovery: {
            ...view.state.recovery,
            [candidate]: { ...stepBack(view.state, now, candidate, attempt), ...(restarted ? { lastError: null } : {}) },
          },
        };
  const state = openAttempt({ ...view, state: marked }, now, {
    path: attempt.path === 'planned' ? 'lease' : attempt.path,
    rule: restarted ? 'crash.restart-failed' : attempt.rule,
    reason: attempt.reason,
    outageFromWallMs: attempt.outageFromWallMs,
    acceptLoss: attempt.acceptLoss,
    acceptTwoPrimaries: attempt.acceptTwoPrimaries,
    mayHaveOpened: givenUp(view, attempt),
    afterRestore: attempt.afterRestore,
    target: attempt.target === candidate ? null : attempt.target,
    taskId: attempt.taskId,
  });
  // A candidate that lives may hold the lease of its term still: fenced, it releases it, and only then votes are asked.
  const called = candidate === null || restarted ? state : withGoal(state, candidate, state.term, { kind: 'fenced', reason: why });
  return {
    rule,
    outcome: {
      why,
      state: { ...called, switchover: null },
      again: 50,
      events: [{ level: 'error', node: candidate, text: `${why}; term ${state.term} is attempted`, detail: {} }],
    },
  };
}

/**
 * Bounded by the members. Two kinds of candidate opened nothing: one that durably refused a term that it had not opened before, and one that lives as a
 * standby on the timeline of before.
 *
 * *Invariant:* whoever acknowledged a row in this term is among them. *Because:* it held the write lease then, and a report that came after that was gone
 * tells of the promotion. *Broken if:* an older report counts: a candidate that took the lease and lost the store says nothing more.
 */
export function givenUp(view: ClusterView, attempt: Attempt): Attempt['mayHaveOpened'] {
  const { candidate, term } = attempt;
  if (candidate === null) return attempt.mayHaveOpened;
  const last = lastKnown(view, candidate);
  const now = liveSinceLease(view, candidate)?.postgres;
  const openedNothing = last?.refusedTerms.includes(term) === true || (now?.role === 'standby' && now.timeline === view.state.timeline);
  // One that opened, lost its lease and started as a standby again may refuse the same term because it cannot be promoted once more.
  if (openedNothing && last?.openedTerm !== term) return attempt.mayHaveOpened;
  return [...attempt.mayHaveOpened.filter((one) => one.node !== candidate), { node: candidate, term }];
}

/** The newest position that this attempt knew of: what the candidate had when it was elected is known to exist, also when it is gone now. */
function reachedBy(view: ClusterView, attempt: Attempt): ClusterState['primaryLsn'] {
  const had = attempt.candidate === null ? undefined : attempt.positions[attempt.candidate];
  return had === undefined || had.timeline !== view.state.timeline ? view.state.primaryLsn : maxLsn(view.state.primaryLsn, had.lsn);
}

export function stepBack(state: ClusterState, now: Now, candidate: string, attempt: Attempt): ClusterState['recovery'][string] {
  const attempts = (state.recovery[candidate]?.attempts ?? 0) + 1;
  return {
    checks: 0,
    firstSeenWallMs: now.wall,
    attempts,
    notBeforeWallMs: makeWallMs(now.wall + REFUSAL_BACKOFF_MS),
    lastError: `${UNFINISHED_PROMOTION} (term ${attempt.term})`,
  };
}

function opened(view: ClusterView, now: Now, attempt: Attempt, winner: NodeReport): Assessment {
  const { state, opened: record } = openTerm(view, now, winner, attempt);
  const task = taskById(view, attempt.taskId);
  const why = `${winner.node} is open in term ${attempt.term}${record.outageMs === null ? '' : `, ${record.outageMs} ms after writes stopped`}`;
  const planned = attempt.path === 'planned';
  const tasks =
    task === null || task.status !== 'running'
      ? []
      : [planned ? addStep(task, now, 'follow', why) : finish(task, now, `${winner.node} is primary in term ${attempt.term}`)];
  return {
    rule: 'attempt.opened',
    outcome: {
      why,
      state: withPrimaryEnd(state, winner),
      opened: record,
      tasks,
      events: [
        {
          level: 'info',
          node: winner.node,
          text: why,
          detail: { outageMs: String(record.outageMs), lostBytes: String(record.lostBytes ?? 'unknown'), reason: attempt.reason },
        },
      ],
    },
  };
}

function withPrimaryEnd(state: ClusterState, winner: NodeReport): ClusterState {
  return { ...state, primaryLsn: endOfWal(winner)?.lsn ?? state.primaryLsn };
}

const rule = assessedRules(assess);

/** Ids that both an attempt and the gates before it speak under are listed once, there. */
const SHARED = [
  'failover.blocked-store',
  'failover.blocked-lease',
  'failover.blocked-lag',
  'failover.blocked-no-candidate',
  'failover.blocked-quorum',
] as const;

/** Wraps a gate's rule so that it also speaks for an attempt that waits for the same thing. */
export function alsoDuringAttempt(before: Rule): Rule {
  if (!(SHARED as readonly string[]).includes(before.id)) return before;
  const during = rule(before.id, before.when, before.why);
  return { ...before, decide: (view, now) => (view.state.attempt === null ? before : during).decide(view, now) };
}

export const attemptRules: readonly Rule[] = [
  rule(
    'attempt.ask-votes',
    'an attempt is open and the old primary is fenced or its lease is gone',
    'Standbys stay attached until then, so that they still receive what the old primary flushed; the vote detaches them (architecture 4.5).',
  ),
  rule(
    'attempt.waiting-votes',
    'members that can be heard have not voted yet, within the grace',
    'A member that is ahead must not be missed by milliseconds (I9).',
  ),
  rule(
    'failover.blocked-votes',
    'fewer members voted than a promotion needs',
    'A primary that is cut off may still hold promises of the others (F + P > M); the missing are named (Q7).',
  ),
  rule(
    'attempt.promote',
    'enough votes, no lease (or a quorum of detached voters), and the best final position is within the bound',
    'The most advanced node wins, compared as numbers and by lineage (H31, Q20, Q21).',
  ),
  rule(
    'attempt.abandoned-for-restart',
    'no candidate qualifies, and the old primary is fenced with its data whole',
    'Its data is complete; under the new term it opens again where it is, so that no voter has to go back on its vote (I12, I15).',
  ),
  rule(
    'attempt.opened',
    'the candidate reports that it is open under the lease of the new term',
    'Only then is it the primary in the metadata (H28, H29), and the others follow it by name and term (I11).',
  ),
  rule(
    'attempt.waiting-open',
    'the promote order was given and its outcome is open',
    'The order is the point of no return; it is replaced only after a durable refusal or the loss of its lease.',
  ),
  rule(
    'attempt.refused',
    'the candidate durably refused the term or gave up, and holds no lease',
    'It stands back for a while, so that it does not win the next round at once (Z38).',
  ),
  rule(
    'attempt.candidate-lost',
    'the candidate is gone and no lease stands',
    'The change of `state` makes its order void; another term is attempted (Q12).',
  ),
];
