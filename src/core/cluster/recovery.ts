/**
 * The ladder that takes a node back: stream, rewind, clone. Pure: one step for one node from one snapshot.
 *
 *   fenced/none ──looks──> stream | rewind | clone ──> streaming
 *   stream ──WAL removed──> clone        stream ──past the fork──> rewind
 *   rewind ──failed for good──> clone    clone ──failed──> clone again, after a back-off
 *   any ──unknown lineage or foreign system──> quarantined (fenced, never wiped; a person decides)
 *
 * Looks: `recoveryChecks` good looks, one report interval apart, before a node's data is changed or its role given back.
 * `recoveryDelayMs` is the least pause before a *repeated* try; a first one is not delayed, so that a returned primary
 * streams again within seconds.
 */
import type { NodeId, Now, Timeline } from '../ids.ts';
import { makeWallMs } from '../ids.ts';
import type { NodeReport } from '../report.ts';
import type { NodeSpec } from '../spec.ts';
import type { Goal, RecoveryProgress } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { UNFINISHED_PROMOTION, isPromotionUnfinished, orderTerm, type Via, type Wanted } from './goals.ts';
import { type LineageVerdict, describeLineage, isContained } from './lineage.ts';
import { activityFor, endOfWal, fresh, gaveUp, isForeignSystem, isOfThisStore, isStreaming, lineageOf, hasRead } from './observe.ts';
import { upstreamNow, waitsForDelay } from './upstream.ts';

/** 60 s: a node that fails again and again is tried once a minute; more often only fills logs. */
export const LONGEST_BACKOFF_MS = 60_000;
export type RecoveryRule =
  | 'standby.stream'
  | 'standby.rewind'
  | 'standby.clone'
  | 'standby.retry'
  | 'standby.back'
  | 'standby.checking'
  | 'standby.fenced'
  | 'standby.quarantined'
  | 'standby.waits-for-person';

export type RecoveryStep =
  | { readonly kind: 'nothing' }
  | {
      readonly kind: 'step';
      readonly rule: RecoveryRule;
      readonly why: string;
      readonly wanted: Wanted | null;
      readonly repeat: 'as-is' | 'anew';
      /** Null: progress is complete, forget it. */
      readonly progress: RecoveryProgress | null;
    };

const NOTHING: RecoveryStep = { kind: 'nothing' };

interface Case {
  readonly view: ClusterView;
  readonly now: Now;
  readonly node: NodeId;
  readonly report: NodeReport;
  readonly goal: Goal | null;
  readonly primary: NodeId;
  /** Whom it is to stream from: the primary, or another standby. A rewind and a copy always follow the primary. */
  readonly upstream: NodeId;
  readonly verdict: LineageVerdict | null;
  readonly progress: RecoveryProgress | null;
}

/** The next step for a data node that is not the primary. `nothing` when it streams, works on its goal, or cannot be heard. */
export function nextRecoveryStep(view: ClusterView, spec: NodeSpec, now: Now): RecoveryStep {
  const { state } = view;
  const report = fresh(view, spec.id);
  if (report === null || state.primary === null || state.timeline === null) return NOTHING;
  const one: Case = {
    view,
    now,
    node: spec.id,
    report,
    goal: state.goals[spec.id] ?? null,
    primary: state.primary,
    upstream: upstreamNow(view, spec.id) ?? state.primary,
    verdict: lineageOf(view, report),
    progress: state.recovery[spec.id] ?? null,
  };
  // A rewind is ordered only for a node whose timeline is nobody else's; it stands on the primary's number afterwards, like a twin.
  const trusted = !isTwinSuspect(one) || (one.goal?.kind === 'standby' && one.goal.via !== 'stream');
  const streams = isStreaming(report, upstreamFor(one)) || (waitsForDelay(view, spec.id) && one.goal?.kind === 'standby' && !asksOther(one));
  if (trusted && streams && one.goal?.kind === 'standby' && !isForeignSystem(view, report)) return settled(one);
  if (one.goal?.kind === 'standby' && one.goal.via !== 'stream' && !gaveUp(report, one.goal) && !isHopeless(one)) return NOTHING;
  return unsettled(one);
}

/** Its goal names another upstream or term than it is to have. */
function asksOther(one: Case): boolean {
  const { goal, view } = one;
  return goal?.kind !== 'standby' || goal.upstream !== upstreamFor(one) || goal.term !== orderTerm(view.state);
}

/** Whom it streams from when its goal is reached. */
function upstreamFor({ goal, primary, upstream }: Case): NodeId {
  return goal?.kind === 'standby' && goal.via !== 'stream' ? primary : upstream;
}

/** It streams: the rung is done, and its progress forgotten. */
function settled(one: Case): RecoveryStep {
  const { goal, progress, upstream } = one;
  if (goal?.kind !== 'standby') return NOTHING;
  const sameGoal = goal.via === 'stream';
  // A node that was told to rewind or clone still streams for a moment before it begins.
  if (!sameGoal && activityFor(one.report, goal)?.kind !== 'done' && !(one.report.activity.kind === 'idle' && hasRead(one.view, one.report)))
    return NOTHING;
  if (sameGoal && progress === null) return NOTHING;
  // Where what it gave up is kept: whoever reads that rows were lost looks for it here.
  const activity = sameGoal ? null : activityFor(one.report, goal);
  const how = activity?.kind === 'done' && activity.detail !== '' ? `: ${activity.detail}` : '';
  const text = `${one.node} streams from ${upstreamFor(one)}${how}`;
  return step('standby.back', text, sameGoal ? null : { kind: 'standby', upstream, via: 'stream' }, null);
}

function unsettled(one: Case): RecoveryStep {
  const { report, goal, verdict } = one;
  if (report.postgres.role === 'primary' && report.postgres.state === 'running' && !report.fenced) {
    const reason = `${one.primary} is the primary of term ${one.view.state.primaryTerm}`;
    if (goal?.kind === 'fenced') {
      // An old primary that is still to be fenced is on an older timeline; one that was promoted by hand can be on the present number.
      const marked = report.postgres.timeline === one.view.state.timeline ? markTwin(one) : one.progress;
      const news = marked?.lastError !== one.progress?.lastError;
      return news ? step('standby.fenced', `${one.node} was promoted although ${reason}`, null, marked) : NOTHING;
    }
    return step('standby.fenced', `${one.node} runs as a primary although ${reason}`, { kind: 'fenced', reason }, markTwin(one));
  }
  if (one.view.state.frozen !== null) return NOTHING;
  const strange = quarantineReason(one);
  if (strange !== null) {
    if (goal?.kind === 'fenced' && goal.reason === strange) return NOTHING;
    // A restored store may have forgotten the very term that opened this timeline; it is judged when the store is confirmed (§4.10).
    if (!isOfThisStore(one.view) && !isForeignSystem(one.view, report)) return NOTHING;
    return step('standby.quarantined', `${one.node} ${strange}`, { kind: 'fenced', reason: strange }, one.progress);
  }
  const via = rung(one);
  const rightGoal = goal?.kind === 'standby' && goal.upstream === upstreamFor(one) && goal.term === orderTerm(one.view.state);
  const hasData = report.postgres.state !== 'absent' && report.postgres.state !== 'incomplete';
  if (rightGoal && hasData && activityFor(report, goal)?.kind === 'busy') return NOTHING;
  if (goal?.kind === 'standby' && goal.via === 'stream' && via === 'stream') return retryStream(one);
  if (via === 'stream' && goal?.kind !== 'fenced' && (verdict === null || isContained(verdict))) return order(one, 'stream');
  return afterLooks(one, via);
}

/**
 * *Invariant:* a node whose promotion was not completed streams again only when it cannot have opened one of the cluster's timelines, or after a clone.
 * *Because:* its own timeline can have the number and the fork of the primary's (two candidates that were equally far), and then neither the
 * lineage nor pg_rewind sees a difference, while its tables may hold rows that nobody else has. The clone sets the directory aside first.
 * *Broken if:* the mark is forgotten because the node streams.
 */
export function isTwinSuspect({ view, node, report }: Pick<Case, 'view' | 'node' | 'report'>): boolean {
  if (!isPromotionUnfinished(view.state.recovery[node])) return false;
  const own = report.postgres.timeline;
  // Timeline 1 was opened by initdb alone; a number above the primary's cannot be taken for one of the cluster's.
  return own !== null && view.state.timeline !== null && own > 1 && own <= view.state.timeline;
}

/** Nobody ordered this promotion. When its timeline has a number of the cluster's, nothing but this mark will tell the two apart. */
function markTwin(one: Case): RecoveryProgress | null {
  const own = one.report.postgres.timeline;
  const { timeline } = one.view.state;
  if (own === null || timeline === null || own <= 1 || own > timeline) return one.progress;
  const blank = { checks: 0, firstSeenWallMs: one.now.wall, attempts: 0, notBeforeWallMs: one.now.wall };
  return { ...blank, ...one.progress, lastError: UNFINISHED_PROMOTION };
}

/** Which rung fits what is known now. */
function rung(one: Case): Via {
  const { report, goal, verdict } = one;
  const { state } = report.postgres;
  if (state === 'absent' || state === 'incomplete' || isTwinSuspect(one)) return 'clone';
  const failed = failureToFollow(one);
  if (failed !== null && (isWalRemoved(failed.code, failed.message) || failed.code.startsWith('clone.'))) return 'clone';
  // A rewind that left such a directory believed that there was nothing to do.
  if (isHopeless(one)) return goal?.kind === 'standby' && goal.via === 'stream' ? 'rewind' : 'clone';
  if (goal?.kind === 'standby' && goal.via === 'clone' && gaveUp(report, goal)) return 'clone';
  if (goal?.kind === 'standby' && goal.via === 'rewind' && gaveUp(report, goal)) return isPassingRewindFailure(one) ? 'rewind' : 'clone';
  // A position that cannot be told now (a server that is starting) is no reason to give a directory up (Z44).
  return verdict === null || isContained(verdict) ? 'stream' : 'rewind';
}

/** Null also for one that failed to follow another standby: the primary is followed then, and may well have what that one has not. */
function failureToFollow({ report, goal, primary }: Case): Extract<NodeReport['activity'], { kind: 'failed' }> | null {
  const activity = activityFor(report, goal);
  const cascading = goal?.kind === 'standby' && goal.via === 'stream' && goal.upstream !== primary;
  return activity?.kind === 'failed' && !cascading ? activity : null;
}

/** *Source:* PostgreSQL, src/backend/replication/walsender.c and xlogreader.c: "requested WAL segment %s has already been removed". */
function isWalRemoved(code: string, message: string): boolean {
  return code === 'follow.wal-removed' || (code.startsWith('follow.') && UPSTREAM_LACKS.test(message));
}

/** WAL, or a history between the standby's timeline and the upstream's, which is asked for first. *Source:* PostgreSQL, walsender.c, SendTimeLineHistory. */
const UPSTREAM_LACKS =
  /requested WAL segment \S+ has already been removed|could not receive timeline history file from the primary server: ERROR: +could not open file "pg_wal\/\S+\.history"/;

/**
 * PostgreSQL itself says that this directory is of another history than the primary's: waiting and trying again change nothing, whatever the
 * numbers in the report say. A server that was promoted by hand and stopped before its first checkpoint is such a one: pg_rewind takes it for
 * one of the old timeline, and its history file leads it astray.
 * *Source:* PostgreSQL, src/backend/replication/walreceiver.c, src/backend/access/transam/xlogrecovery.c.
 */
function isHopeless(one: Case): boolean {
  const activity = failureToFollow(one);
  if (activity === null || !/^(follow|start)\./.test(activity.code)) return false;
  return OTHER_HISTORY.test(activity.message) || isWalRemoved(activity.code, activity.message);
}

const OTHER_HISTORY =
  /highest timeline \d+ of the primary is behind recovery timeline \d+|requested timeline \d+ (does not contain minimum recovery point|is not a child of this server)/;

/** The source was lost or busy: the directory was not changed, and trying again can work. Twice at most, then clone. */
function isPassingRewindFailure(one: Case): boolean {
  const activity = activityFor(one.report, one.goal);
  const code = activity?.kind === 'failed' ? activity.code : '';
  return ['rewind.source-unreachable', 'rewind.source-in-recovery', 'rewind.timeout'].includes(code) && (one.progress?.attempts ?? 0) < 2;
}

/** A term opened that timeline, and no later one came out of it: its primary was lost with what only it and its standbys had. */
function wasOpened(view: ClusterView, report: NodeReport, timeline: Timeline): boolean {
  const fork = report.postgres.history.at(-1)?.forkLsn ?? null;
  return fork !== null && view.state.terms.some((term) => term.timeline === timeline && term.forkLsn === fork);
}

/**
 * *Invariant:* a directory whose content no term of this cluster explains is never rewound or wiped by a rule.
 * *Because:* it may be the only copy of what somebody wrote (Q9, I9). *Broken if:* the highest timeline wins.
 */
function quarantineReason(one: Case): string | null {
  const { report, verdict, view } = one;
  if (isForeignSystem(view, report)) {
    return `holds a data directory of another cluster (system identifier ${report.postgres.systemIdentifier}, expected ${view.state.systemIdentifier})`;
  }
  if (verdict === null || isContained(verdict) || verdict.kind === 'diverged') return null;
  if (isPromotionUnfinished(one.progress)) return null;
  const position = endOfWal(report);
  if (position === null) return null;
  if (verdict.kind === 'foreign' && wasOpened(view, report, position.timeline)) return null;
  const oldest = view.state.history[0];
  if (verdict.kind === 'unknown' && oldest !== undefined && position.timeline < oldest.timeline) return null;
  return describeLineage(verdict, position);
}

/** Its goal is to stream, and streaming is right; only an agent that gave up gets the goal anew. */
function retryStream(one: Case): RecoveryStep {
  const { goal, report } = one;
  if (goal?.kind !== 'standby') return NOTHING;
  if (goal.upstream !== one.upstream || goal.term !== orderTerm(one.view.state)) return order(one, 'stream');
  if (!gaveUp(report, goal)) return NOTHING;
  return afterFailure(one, 'stream');
}

function afterLooks(one: Case, via: Via): RecoveryStep {
  const { view, report, goal, progress, now } = one;
  const person = waitsForPerson(one);
  if (person !== null) {
    if (goal?.kind === 'fenced' && goal.reason === person) return NOTHING;
    return step('standby.waits-for-person', `${one.node} ${person}`, { kind: 'fenced', reason: person }, progress);
  }
  if (!isGoodLook(report)) return NOTHING;
  // What PostgreSQL calls hopeless is tried again and again by the agent: the same rung once more is another order, after its back-off.
  if (goal?.kind === 'standby' && (gaveUp(report, goal) || (goal.via === via && isHopeless(one)))) return afterFailure(one, via);
  if (progress !== null && progress.notBeforeWallMs > now.wall && progress.notBeforeWallMs - now.wall <= LONGEST_BACKOFF_MS) return NOTHING;
  const needed = view.spec.recoveryChecks;
  const checks = progress?.checks ?? 0;
  const since = progress?.firstSeenWallMs ?? now.wall;
  if (report.postgres.state !== 'absent' && checks < needed) {
    const due = since + checks * view.spec.reportIntervalMs;
    if (now.wall < due && due - now.wall <= LONGEST_BACKOFF_MS) return NOTHING;
    const next = {
      checks: checks + 1,
      firstSeenWallMs: makeWallMs(since),
      attempts: progress?.attempts ?? 0,
      notBeforeWallMs: now.wall,
      lastError: progress?.lastError ?? null,
    };
    if (next.checks < needed)
      return step('standby.checking', `${one.node} is back; it is looked at ${needed} times before it is taken in`, null, next);
    return order({ ...one, progress: next }, via);
  }
  return order(one, via);
}

function isGoodLook(report: NodeReport): boolean {
  const { state, role } = report.postgres;
  const quiet = state === 'stopped' || state === 'crashed' || state === 'absent' || state === 'incomplete';
  return report.leaseTerm === null && (quiet || (state === 'running' && role === 'standby') || report.fenced) && state !== 'hung';
}

/** Under `manual`, and under `standby` for a node that was no standby, a person takes the node back. */
function waitsForPerson(one: Case): string | null {
  const { recovery } = one.view.spec;
  if (recovery === 'automatic' || one.report.postgres.state === 'absent') return null;
  if (recovery === 'standby' && one.report.postgres.role === 'standby') return null;
  const what = one.verdict !== null && !isContained(one.verdict) ? `${describeLineageOf(one)}; ` : '';
  return `${what}recovery is ${recovery}: take it back with "pgherd node rejoin ${one.node}"`;
}

function describeLineageOf(one: Case): string {
  const position = endOfWal(one.report);
  return one.verdict === null || position === null ? '' : describeLineage(one.verdict, position);
}

function order(one: Case, via: Via): RecoveryStep {
  const upstream = via === 'stream' ? one.upstream : one.primary;
  // A restart that was asked for is not forgotten because the upstream changes meanwhile.
  const asked = one.goal?.kind === 'standby' && one.goal.term === orderTerm(one.view.state) ? one.goal.restart : null;
  const wanted: Wanted = { kind: 'standby', upstream, via, ...(asked === null ? {} : { restart: asked }) };
  const position = endOfWal(one.report);
  const reason = via === 'clone' ? cloneReason(one) : one.verdict === null || position === null ? '' : describeLineage(one.verdict, position);
  const why = `${one.node} ${via === 'stream' ? `follows ${upstream}` : via === 'rewind' ? `is rewound to ${one.primary}` : `is cloned from ${one.primary}`}${reason === '' ? '' : `: it ${reason}`}`;
  const rules = { stream: 'standby.stream', rewind: 'standby.rewind', clone: 'standby.clone' } as const;
  return step(rules[via], why, wanted, one.progress);
}

function cloneReason(one: Case): string {
  const { state } = one.report.postgres;
  if (state === 'absent') return 'has no data';
  if (state === 'incomplete') return 'has an incomplete data directory';
  if (isTwinSuspect(one)) return 'may hold a timeline of its own under the number of the primary’s (its promotion was not completed)';
  const activity = activityFor(one.report, one.goal);
  return activity?.kind === 'failed' ? `could not be taken back otherwise (${activity.code})` : 'could not be taken back otherwise';
}

/** The agent gave up: the next try, or the next rung, after a doubling pause. */
function afterFailure(one: Case, via: Via): RecoveryStep {
  const { goal, report, progress, now, view } = one;
  const activity = activityFor(report, goal);
  const message = withMark(progress, activity?.kind === 'failed' ? `${activity.code}: ${activity.message}` : 'failed');
  const escalates = goal?.kind === 'standby' && goal.via !== via;
  const waiting = progress !== null && progress.lastError === message && progress.attempts > 0;
  if (!escalates && !waiting) {
    const attempts = (progress?.attempts ?? 0) + 1;
    const pauseMs = Math.max(view.spec.recoveryDelayMs, Math.min(LONGEST_BACKOFF_MS, 1000 * 2 ** Math.min(attempts - 1, 10)));
    const next: RecoveryProgress = {
      checks: 0,
      firstSeenWallMs: now.wall,
      attempts,
      notBeforeWallMs: makeWallMs(now.wall + pauseMs),
      lastError: message,
    };
    return step('standby.retry', `${one.node} failed (${message}); it is tried again later`, null, next);
  }
  if (!escalates && progress !== null && progress.notBeforeWallMs > now.wall && progress.notBeforeWallMs - now.wall <= LONGEST_BACKOFF_MS)
    return NOTHING;
  const cleared = progress === null || escalates ? progress : { ...progress, lastError: withMark(progress, '') };
  const ordered = order({ ...one, progress: cleared }, via);
  return ordered.kind === 'step' ? { ...ordered, repeat: 'anew' } : ordered;
}

/** An unfinished promotion stays known until the node streams again. */
function withMark(progress: RecoveryProgress | null, message: string): string | null {
  if (isPromotionUnfinished(progress)) return message === '' ? UNFINISHED_PROMOTION : `${UNFINISHED_PROMOTION}; ${message}`;
  return message === '' ? null : message;
}

function step(rule: RecoveryRule, why: string, wanted: Wanted | null, progress: RecoveryProgress | null): RecoveryStep {
  return { kind: 'step', rule, why, wanted, repeat: 'as-is', progress };
}

/**
 * The next rung for a node whose agent gave up the one that it was told, for a person's `rejoin` without `--via`; null: there is none above it, or the same
 * one is to be tried again.
 */
export function nextVia(view: ClusterView, now: Now, node: NodeId): Via | null {
  const { state } = view;
  const report = fresh(view, node);
  const goal = state.goals[node] ?? null;
  if (report === null || state.primary === null || goal?.kind !== 'standby' || !gaveUp(report, goal)) return null;
  const next = rung({
    view,
    now,
    node,
    report,
    goal,
    primary: state.primary,
    upstream: upstreamNow(view, node) ?? state.primary,
    verdict: lineageOf(view, report),
    progress: state.recovery[node] ?? null,
  });
  const order: readonly Via[] = ['stream', 'rewind', 'clone'];
  return order.indexOf(next) > order.indexOf(goal.via) ? next : null;
}

/** The rung that fits a node now, for a person's `rejoin` without `--via`. */
export function fittingVia(view: ClusterView, report: NodeReport): Via {
  const { state } = report.postgres;
  if (state === 'absent' || state === 'incomplete' || isTwinSuspect({ view, node: report.node, report })) return 'clone';
  const verdict = lineageOf(view, report);
  return verdict === null ? 'clone' : isContained(verdict) ? 'stream' : 'rewind';
}
