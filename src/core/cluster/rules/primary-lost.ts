/** The primary does not serve: what is known of it, which gates stand before a failover, and the attempt that opens when none does. */
import { type NodeId, type Now, makeWallMs } from '../../ids.ts';
import { formatLsn } from '../../lsn.ts';
import { LEASE_LOST, type NodeReport } from '../../report.ts';
import type { ClusterState, Goal } from '../../state.ts';
import type { ClusterView, Rule } from '../../view.ts';
import { type Assessment, assessedRules } from '../assessed-rules.ts';
import { askVotes, openAttempt, outageStart } from '../attempts.ts';
import { diskProblemOf, writeTrouble } from '../disks.ts';
import { describeCandidate, describeRejected, lagText, missingBytes, rankCandidates } from '../election.ts';
import { withGoal } from '../goals.ts';
import {
  endOfWal,
  gaveUp,
  activityFor,
  isGone,
  isOfThisStore,
  isOpen,
  live,
  otherDataNodes,
  primaryEnd,
  viewpoints,
  watchNeededMs,
  isDue,
} from '../observe.ts';
import { countReachable, describeQuorum, reachableVotes, twoPrimariesText } from '../quorum.ts';
import { LONGEST_BACKOFF_MS } from '../recovery.ts';
import { floorText, isBelowFloor, isUnestablished, unestablishedText } from '../sync-wish.ts';
import { formatIso } from '../text.ts';
import { blocked, isSilent, onItsWay } from './blocked.ts';
import { fenceGate, leaseBlocks } from './fence-gate.ts';

/** An agent that reports gets this long to take its lease back before it counts as lost; failing over early is worse than two seconds. */
const OWN_AGENT_GRACE_MS = 2000;
/**
 * A starting server in which nothing moved for this long does not get up: redo and the end-of-recovery checkpoint show CPU time many times a
 * second. Too early abandons rows that only this host has; too late is that much more outage after one that has already lasted.
 */
export const START_STALL_LIMIT_MS = 30_000;
/** Tries of the last step before clients (the gate, the opening) until another node is better: with the growing pause about 15 s. */
const OPEN_TRIES = 5;
/**
 * After a loss of power hosts come back within a minute of each other. Too short loses what only the primary wrote; too long keeps a cluster whose primary
 * stays away without a writer, once, after an outage of everything.
 */
const POWER_RETURN_MS = 60_000;
/** A restart in place that is neither open nor refused by now has failed, unless the server still starts (crash recovery takes as long as it takes). */
export const RESTART_LIMIT_MS = 30_000;

type Situation =
  | { readonly kind: 'crashed'; readonly report: NodeReport }
  | { readonly kind: 'restarting' }
  | { readonly kind: 'restart-failed'; readonly report: NodeReport }
  | { readonly kind: 'hung'; readonly report: NodeReport }
  /** It is open and answers, and its disk takes no writes. */
  | { readonly kind: 'unwritable'; readonly how: string }
  /** It lives and is on its way, but gets no further. */
  | { readonly kind: 'stalled'; readonly report: NodeReport; readonly how: string }
  /** Agent alive, but fenced without a lease: `own` counts as a viewpoint. */
  | { readonly kind: 'lost'; readonly own: boolean };

/** What is wrong with the primary; null when it is open, is being opened, or was stopped on request. */
function situationOf(view: ClusterView, now: Now, primary: NodeId): Situation | null {
  const { state } = view;
  const report = live(view, primary);
  const goal = state.goals[primary] ?? null;
  if (report === null || isSilent(view, primary)) return { kind: 'lost', own: false };
  if (isOpen(report, state.primaryTerm)) {
    const how = writeTrouble(view, report);
    return how === null ? null : { kind: 'unwritable', how };
  }
  const pg = report.postgres.state;
  if (isGone(report) || pg === 'absent' || pg === 'incomplete') {
    const restart = state.recovery[primary];
    if (restart === undefined) return { kind: 'crashed', report };
    const waiting = !gaveUp(report, goal) && !isDue(now, restart.notBeforeWallMs, LONGEST_BACKOFF_MS);
    return waiting ? { kind: 'restarting' } : { kind: 'restart-failed', report };
  }
  if (pg === 'hung') return { kind: 'hung', report };
  const stalled = stalledHow(report, goal);
  if (stalled !== null) return { kind: 'stalled', report, how: stalled };
  if (pg === 'starting' || pg === 'stopping' || activityFor(report, goal)?.kind === 'busy') return { kind: 'restarting' };
  if (view.writeLease !== null || view.writeLeaseGoneMs < OWN_AGENT_GRACE_MS || !report.fenced) return { kind: 'restarting' };
  return { kind: 'lost', own: true };
}

/** In words, why a server that lives will not be open by waiting; null when it may still get there. */
export function stalledHow(report: NodeReport, goal: Goal | null): string | null {
  const { state, stalledMs } = report.postgres;
  if (state === 'starting' && stalledMs !== null && stalledMs >= START_STALL_LIMIT_MS)
    return `has been starting without any progress for ${Math.round(stalledMs / 1000)} s`;
  const activity = activityFor(report, goal);
  if (activity?.kind === 'failed' && state === 'running' && report.leaseTerm !== null && activity.attempts >= OPEN_TRIES)
    return `cannot be opened after ${activity.attempts} tries (${activity.code})`;
  return null;
}

/** Null when no failover rule has anything to say. */
function assess(view: ClusterView, now: Now): Assessment | null {
  const { state } = view;
  if (state.phase !== 'running' || state.attempt !== null || state.switchover !== null || state.primary === null) return null;
  if (state.goals[state.primary]?.kind !== 'primary' || state.overrides[state.primary] !== undefined) return null;
  const situation = situationOf(view, now, state.primary);
  if (situation === null) return null;
  switch (situation.kind) {
    case 'restarting':
      return {
        rule: 'primary.restarting',
        outcome: { why: onItsWay(view, state.primary), then: 'continue' },
      };
    case 'crashed':
      return assessCrash(view, now, state.primary, situation.report, 'crash.failover');
    case 'restart-failed':
      return assessCrash(view, now, state.primary, situation.report, 'crash.restart-failed');
    case 'hung':
      return assessHang(view, now, state.primary);
    case 'unwritable':
      return assessDisk(view, now, state.primary, situation.how);
    case 'stalled':
      return assessStall(view, now, state.primary, situation.how);
    case 'lost':
      return assessLoss(view, now, state.primary, situation.own);
  }
}

/** Gates of every automatic failover, in the order in which people ask for them. */
function policyGate(view: ClusterView, now: Now): Assessment | null {
  const { state, spec } = view;
  if (view.watchedMs < watchNeededMs(spec))
    return blocked(view, 'watch', 'this controller has only begun to watch; absence of news proves nothing yet');
  if (!isOfThisStore(view)) {
    return blocked(
      view,
      'store',
      `the store is not the one in which term ${state.primaryTerm} was opened (incarnation ${view.incarnation}, was ${state.incarnation}); failover stays off until ${state.primary} is open again, or "pgherd failover" says that this store counts`,
    );
  }
  if (state.frozen !== null)
    return blocked(
      view,
      'frozen',
      `the cluster is frozen by ${state.frozen.by} (${state.frozen.reason}); "pgherd unfreeze" resumes automatic actions`,
    );
  if (spec.failover === 'manual') return blocked(view, 'manual', 'failover is manual; "pgherd failover" promotes the best candidate');
  const last = state.lastFailoverWallMs;
  if (last !== null && !isDue(now, makeWallMs(last + spec.antiFlappingMs), spec.antiFlappingMs)) {
    return blocked(
      view,
      'flapping',
      `the last automatic failover was less than ${spec.antiFlappingMs} ms ago; until ${formatIso(last + spec.antiFlappingMs)} only "pgherd failover" promotes`,
    );
  }
  return null;
}

/** A candidate that could win by what nodes report now; else why not. */
function candidateGate(view: ClusterView, now: Now): Assessment | null {
  const { eligible, rejected } = rankCandidates(view, now, { positions: { kind: 'report' }, acceptLoss: false, target: null });
  const best = eligible[0];
  if (best === undefined) {
    return blocked(
      view,
      'no-candidate',
      rejected.length === 0 ? 'there is no other data node' : `no node can be promoted: ${describeRejected(rejected)}`,
    );
  }
  const quorum = quorumGate(view);
  if (quorum !== 'not-needed') return quorum;
  if (isBelowFloor(view, best.position)) return blocked(view, 'quorum', floorText(view, describeCandidate(best)));
  const end = primaryEnd(view);
  const missing = missingBytes(best.position, { timeline: view.state.timeline, lsn: end });
  if (missing === null || missing <= view.spec.maxLagOnFailoverBytes) return null;
  return blocked(view, 'lag', lagText(view, describeCandidate(best), missing));
}

/**
 * Null: enough voters can be detached. Otherwise why not; `not-needed` in asynchronous mode, and while protection is lowered to it by the settings.
 * An attempt that cannot end is not begun: a primary that comes back would find itself fenced for nothing.
 */
function quorumGate(view: ClusterView): Assessment | null | 'not-needed' {
  const { quorum } = view.state;
  if (quorum.k > 0) {
    const count = countReachable(view);
    const votes = reachableVotes(view, isSilent(view, view.state.primary) ? view.state.primary : null);
    if (count.enough && !votes.enough)
      return blocked(
        view,
        'quorum',
        `${votes.reachable.length} of ${votes.needed} needed votes can be heard; ${twoPrimariesText(view.state.primary)}`,
      );
    return count.enough
      ? null
      : blocked(
          view,
          'quorum',
          `${describeQuorum(count)} can be heard; an acknowledged commit may be on the missing ones only; "pgherd failover --accept-loss" promotes without them`,
        );
  }
  return isUnestablished(view) ? blocked(view, 'quorum', unestablishedText(view)) : 'not-needed';
}

function assessLoss(view: ClusterView, now: Now, primary: NodeId, own: boolean): Assessment {
  const { spec, state } = view;
  const lease = view.writeLease;
  const leaseHeld = lease !== null && lease.term === state.primaryTerm;
  const policy = policyGate(view, now);
  if (policy !== null) return policy;
  const seen = viewpoints(view, primary);
  const agreeing = seen.down.length + (own ? 1 : 0);
  const needed = Math.min(spec.probeViewpoints, Math.max(1, seen.asked.length + (own ? 1 : 0)));
  const isSeenDown = seen.writable.length === 0 && agreeing >= needed;
  // Only a host that would be replaced is turned off before its lease ends.
  if (leaseHeld && state.quorum.k === 0 && (spec.fencing === 'off' || own || !isSeenDown)) return leaseBlocks(view, primary, '');
  if (seen.writable.length > 0)
    return blocked(view, 'viewpoints', `${seen.writable.join(', ')} still ${seen.writable.length === 1 ? 'sees' : 'see'} ${primary} accept writes`);
  if (agreeing < needed) {
    if (seen.untrusted.length > 0)
      return blocked(
        view,
        'trusted',
        `${seen.untrusted.join(', ')} ${seen.untrusted.length === 1 ? 'sees' : 'see'} ${primary} down but ${seen.untrusted.length === 1 ? 'reaches no trusted address, so it may itself be cut off' : 'reach no trusted address, so they may themselves be cut off'}`,
      );
    return blocked(view, 'viewpoints', `${agreeing} of ${needed} needed viewpoints see ${primary} down (${seen.down.join(', ') || 'none'})`);
  }
  const returning = own ? null : returnGate(view, now, primary);
  if (returning !== null) return returning;
  const candidate = candidateGate(view, now);
  if (candidate !== null) return candidate;
  const fence = own ? null : fenceGate(view, now, primary);
  if (fence !== null && fence !== 'fenced') return fence;
  const reason = own
    ? `${primary} fenced itself and did not take its lease back`
    : `${primary} is lost: its agent is silent,${leaseHeld ? '' : ' its write lease expired,'} seen down by ${seen.down.join(', ')}${fence === 'fenced' ? ', and the fencing command turned its host off' : ''}`;
  const assessment = attemptFrom(view, now, primary, 'primary.lost', reason);
  return fence === 'fenced' && leaseHeld ? { ...assessment, outcome: { ...assessment.outcome, dropLease: true } } : assessment;
}

/**
 * Everything was off: no standby has heard of the primary since its own server was started, so each of them may lack what the primary wrote last, and its
 * host is probably on its way as theirs were. Null with synchronous replication, where what was acknowledged is on a voter.
 */
function returnGate(view: ClusterView, now: Now, primary: NodeId): Assessment | null {
  if (view.state.quorum.k > 0) return null;
  const standbys = otherDataNodes(view).flatMap((node) => live(view, node.id) ?? []);
  const running = standbys.filter((report) => report.postgres.state === 'running' && report.postgres.role === 'standby');
  if (running.length === 0 || !running.every((report) => hasReceivedNothing(report.postgres))) return null;
  const startedAt = Math.max(...running.map((report) => report.postgres.startedAt ?? 0));
  const until = makeWallMs(startedAt + POWER_RETURN_MS);
  if (isDue(now, until, POWER_RETURN_MS)) return null;
  return blocked(
    view,
    'return',
    `${running.map((report) => report.node).join(', ')} heard nothing of ${primary} since they were started, so everything was off, and ${primary} may have newer rows; it is waited for until ${formatIso(until)}; "pgherd failover" does not wait`,
  );
}

/** Before the first record comes, the receive position is none, or the start of the segment that was asked for. Source: PostgreSQL walreceiverfuncs.c, RequestXLogStreaming. */
function hasReceivedNothing({ receivedLsn, replayedLsn }: NodeReport['postgres']): boolean {
  return receivedLsn === null || (replayedLsn !== null && receivedLsn < replayedLsn);
}

function assessHang(view: ClusterView, now: Now, primary: NodeId): Assessment {
  const policy = policyGate(view, now);
  if (policy !== null) return policy;
  const seen = viewpoints(view, primary);
  const needed = Math.min(view.spec.probeViewpoints, seen.asked.length + 1);
  if (seen.writable.length > 0 || seen.down.length + 1 < needed) {
    return blocked(
      view,
      'viewpoints',
      `the agent of ${primary} says that PostgreSQL hangs; ${seen.down.length + 1} of ${needed} needed viewpoints agree`,
    );
  }
  const candidate = candidateGate(view, now);
  if (candidate !== null) return candidate;
  return attemptFrom(
    view,
    now,
    primary,
    'hung.failover',
    `PostgreSQL of ${primary} hangs, seen by its own agent${seen.down.length === 0 ? '' : ` and ${seen.down.join(', ')}`}`,
  );
}

/** Clients of the primary wait or get errors. Its agent is one viewpoint; another must find so too, and the successor must be better off. */
function assessDisk(view: ClusterView, now: Now, primary: NodeId, how: string): Assessment {
  const policy = policyGate(view, now);
  if (policy !== null) return policy;
  const seen = viewpoints(view, primary);
  const needed = Math.min(view.spec.probeViewpoints, seen.asked.length + 1);
  if (seen.writable.length > 0 || seen.down.length + 1 < needed)
    return blocked(
      view,
      'viewpoints',
      `${primary} ${how}, by its own agent; ${seen.writable.length > 0 ? `${seen.writable.join(', ')} sees it accept writes` : `${seen.down.length + 1} of ${needed} needed viewpoints agree`}`,
    );
  const candidate = candidateGate(view, now);
  if (candidate !== null) return candidate;
  const [best] = rankCandidates(view, now, { positions: { kind: 'report' }, acceptLoss: false, target: null }).eligible;
  if (best?.diskProblem === true) return blocked(view, 'no-candidate', `${primary} ${how}, and the disk of ${best.node} is no better`);
  return attemptFrom(
    view,
    now,
    primary,
    'disk.failover',
    `PostgreSQL of ${primary} ${how}${seen.down.length === 0 ? '' : `, seen by ${seen.down.join(', ')} too`}`,
  );
}

/** It is left alone while nobody else can be promoted: what it waits for may still come. */
function assessStall(view: ClusterView, now: Now, primary: NodeId, how: string): Assessment {
  const gate = policyGate(view, now);
  if (gate !== null) return gate;
  const seen = viewpoints(view, primary);
  if (seen.writable.length > 0)
    return blocked(view, 'viewpoints', `PostgreSQL of ${primary} ${how}, but ${seen.writable.join(', ')} sees it accept writes`);
  const candidate = candidateGate(view, now);
  if (candidate !== null) return candidate;
  return attemptFrom(view, now, primary, 'start.stalled', `PostgreSQL of ${primary} ${how}`);
}

/** PostgreSQL is gone on a living host: fail over to a lossless candidate, or restart in place. */
function assessCrash(view: ClusterView, now: Now, primary: NodeId, report: NodeReport, rule: 'crash.failover' | 'crash.restart-failed'): Assessment {
  const { state, spec } = view;
  if (state.frozen !== null)
    return blocked(view, 'frozen', `PostgreSQL of ${primary} is gone, but the cluster is frozen by ${state.frozen.by} (${state.frozen.reason})`);
  const gate = policyGate(view, now) ?? candidateGate(view, now);
  const wantsFailover = rule === 'crash.restart-failed' || spec.onCrash === 'failover';
  // In a store that is not confirmed nobody takes a lease: a restart would end nowhere, and hide what a person has to decide.
  if (gate?.rule === 'failover.blocked-watch' || gate?.rule === 'failover.blocked-store') return gate;
  if (wantsFailover && gate === null) {
    const disk = diskProblemOf(report);
    const lost = report.problems.find((one) => one.code === LEASE_LOST);
    const what = `${lost !== undefined ? `was stopped: ${lost.text}` : report.postgres.state === 'crashed' ? 'crashed' : `is ${report.postgres.state}`}${disk === null ? '' : ` (${disk.code}: ${disk.text})`}`;
    return attemptFrom(
      view,
      now,
      primary,
      rule,
      `PostgreSQL of ${primary} ${what}${rule === 'crash.failover' ? '' : ' and could not be restarted in place'}`,
    );
  }
  if (report.postgres.state === 'absent' || report.postgres.state === 'incomplete') {
    return gate ?? blocked(view, 'no-candidate', `the data directory of ${primary} is ${report.postgres.state} and nothing may be promoted`);
  }
  const because = !wantsFailover ? 'onCrash is restart' : (gate?.outcome.why ?? 'no candidate');
  return {
    rule: 'crash.restart',
    outcome: {
      why: `${primary} is restarted in place: ${because}`,
      state: restartInPlace(state, now, primary),
      events: [{ level: 'warn', node: primary, text: `PostgreSQL of ${primary} is gone; it is restarted in place (${because})`, detail: {} }],
    },
  };
}

/** The order to run as primary of the same term anew, with the time from which it counts as failed. `request`: stop a running server first. */
export function restartInPlace(state: ClusterState, now: Now, primary: NodeId, request: string | null = null): ClusterState {
  const attempts = (state.recovery[primary]?.attempts ?? 0) + 1;
  const progress = { checks: 0, firstSeenWallMs: now.wall, attempts, notBeforeWallMs: makeWallMs(now.wall + RESTART_LIMIT_MS), lastError: null };
  return withGoal(
    { ...state, recovery: { ...state.recovery, [primary]: progress } },
    primary,
    state.primaryTerm,
    request === null ? { kind: 'primary' } : { kind: 'primary', restart: request },
    'anew',
  );
}

function attemptFrom(view: ClusterView, now: Now, primary: NodeId, rule: string, reason: string): Assessment {
  const outageFromWallMs = outageStart(view, now, primary);
  const path = view.state.quorum.k > 0 ? ('quorum' as const) : ('lease' as const);
  const opened = openAttempt(view, now, { path, rule, reason, outageFromWallMs, acceptLoss: false, target: null, taskId: null });
  // On the quorum path nothing is waited for: the votes are what makes the old primary harmless.
  const state = path === 'quorum' && opened.attempt !== null ? askVotes({ ...view, state: opened }, opened.attempt) : opened;
  const end = live(view, primary);
  const position = end === null ? null : endOfWal(end);
  const detail = position === null ? {} : { primaryWalEnd: formatLsn(position.lsn) };
  return {
    rule,
    outcome: { why: reason, state, events: [{ level: 'warn', node: primary, text: `${reason}; term ${state.term} is being opened`, detail }] },
  };
}

const rule = assessedRules(assess);

/** *Invariant:* exactly one of these speaks for a snapshot, since all read one assessment. */
export const primaryLostRules: readonly Rule[] = [
  rule(
    'primary.restarting',
    'the primary starts, stops, or takes its lease back, within its time',
    'Its own agent works on it; a second hand would only delay it. Crash recovery is limited by progress, not by a flat time (Q17).',
  ),
  rule(
    'failover.blocked-watch',
    'the primary does not serve, and this controller has just begun to watch',
    'Absence of a report proves nothing before reports had time to come.',
  ),
  rule(
    'failover.blocked-store',
    'the primary does not serve, and the store was restored or made anew since its term was opened',
    'A restored store may have forgotten newer terms; only the primary itself, or a person, can say that nothing is newer (architecture 4.10, Z14).',
  ),
  rule(
    'failover.blocked-frozen',
    'the primary does not serve, and the cluster is frozen',
    'Freeze stops automatic actions; leases, guards and fences go on.',
  ),
  rule('failover.blocked-manual', 'the primary does not serve, and `failover: manual`', 'A person decides; the command is named.'),
  rule(
    'failover.blocked-flapping',
    'the primary does not serve, within `antiFlappingMs` of the last automatic failover',
    'A cascade of promotions is worse than a minute without a primary; shown while active, manual exempt (Q41).',
  ),
  rule(
    'failover.blocked-lease',
    'the primary is silent, or is being fenced, and the write lease still stands',
    'In asynchronous mode the lease is the only proof that it cannot accept writes (H14, H16).',
  ),
  rule(
    'fence.ask',
    'a lost primary would be replaced, `fencing` is on, and its host was not turned off yet',
    'The command of the operator proves sooner than the lease, or beyond it, that nothing there can write (H14).',
  ),
  rule(
    'fence.failed',
    'the fencing command ended with another exit code than 0, or did not end in time',
    'People must see why their power controller does not answer; it is tried again a few times.',
  ),
  rule(
    'failover.blocked-fence',
    '`fencing: required`, and the command runs, or did not say that the host is off',
    'Its result is believed only when it says so; a time-out or an error is no proof.',
  ),
  rule(
    'failover.blocked-viewpoints',
    'the lease is gone, but too few members see the primary down, or one sees it accept writes',
    'One viewpoint alone never causes a failover (H12, H13, I3).',
  ),
  rule(
    'failover.blocked-trusted',
    'the members that see the primary down reach no trusted address',
    'They may be the ones that are cut off (H17, I28).',
  ),
  rule(
    'failover.blocked-return',
    'replication is asynchronous, and every standby was started less than 60 s ago and has heard nothing of the primary since',
    'The power of everything failed: the primary has the newest rows, and comes back as the others did (Q15, Q24). Later, availability counts more.',
  ),
  rule(
    'failover.blocked-no-candidate',
    'no data node can be promoted',
    'Each one has its reason; a stale, incomplete or foreign node is worse than waiting (Q22, Q23).',
  ),
  rule(
    'failover.blocked-quorum',
    'too few of the voters that may hold an acknowledged commit can be detached, or the most advanced of them may not be promoted',
    'A commit that was acknowledged may be on the missing ones only (I4, I6, Q7); they are named, and a person can accept the loss.',
  ),
  rule(
    'failover.blocked-lag',
    'the best candidate lacks more than `maxLagOnFailoverBytes`',
    'The loss is bounded; the figures and the override are shown (Q13, Q45).',
  ),
  rule(
    'crash.failover',
    'PostgreSQL of the primary is gone on a living host, `onCrash: failover`, and a candidate within the bound streams',
    'Promotion is faster than crash recovery; it is completed only if the votes prove that nothing is lost.',
  ),
  rule(
    'crash.restart-failed',
    'a restart in place failed, and a candidate within the bound exists',
    'A primary that cannot start must not keep the cluster without one (Z34, Z35).',
  ),
  rule(
    'start.stalled',
    'the primary is starting and nothing moved in it for 30 s, or it cannot be opened after five tries, and a candidate within the bound exists',
    'A start is limited by progress, not by a flat time; one that hangs must not keep the cluster without a writer (Z34, Q17).',
  ),
  rule(
    'crash.restart',
    'PostgreSQL of the primary is gone, and failing over is not wanted or not possible',
    'The data is on this host; a restart loses nothing. The server starts directly as a primary (Z33).',
  ),
  rule(
    'hung.failover',
    'the own agent and at least one other viewpoint find the primary hanging',
    'A hung server holds its lease as long as its agent renews it: it is fenced first, then replaced (H50, I6).',
  ),
  rule(
    'disk.failover',
    'the primary is open and answers, its disk has refused or held writes for `writeStallMs`, and another viewpoint finds so too',
    'Reads alone look healthy for as long as nothing is written; clients that write wait without end (architecture 4.6, I6). A successor whose own disk is in trouble would be no help.',
  ),
  rule(
    'primary.lost',
    'the lease is gone, enough viewpoints agree, and no gate stands before a failover',
    'Nobody can be writable in the old term any more, so a new one may open (architecture 4.5).',
  ),
];
