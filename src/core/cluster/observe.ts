/** Readings of one snapshot that several rules share. */
import { type NodeId, type Now, type Term, type WallMs, makeTerm } from '../ids.ts';
import { type Lsn, maxLsn } from '../lsn.ts';
import type { NodeReport, Position, PostgresReport } from '../report.ts';
import { type ClusterSpec, type NodeSpec, findNode, isMember } from '../spec.ts';
import type { ClusterState, Goal } from '../state.ts';
import type { ClusterView } from '../view.ts';
import { type LineageVerdict, compareLineage, relationOf } from './lineage.ts';

/** Three missed reports: one may be lost, two may be late; longer would let a silent node count as a viewpoint. */
export function freshLimitMs(spec: ClusterSpec): number {
  return Math.max(1500, 3 * spec.reportIntervalMs);
}

/** The controller knows what is fresh only after it has watched for two report intervals. */
export function watchNeededMs(spec: ClusterSpec): number {
  return 2 * spec.reportIntervalMs + 100;
}

/** False: the store was restored or made anew since, and what was decided in the former one is not known to be the newest (§4.10). */
export function isOfThisStore(view: ClusterView): boolean {
  return view.state.incarnation === view.incarnation;
}

/**
 * The agent has read this state, or a newer one, of this very store.
 *
 * *Invariant:* revisions are compared only within one store (§4.10). *Because:* a store that was made anew counts from the beginning, so that an
 * agent of the old one seems to know everything. *Broken if:* `stateRevision` is compared anywhere else.
 */
export function hasRead(view: ClusterView, report: NodeReport): boolean {
  return report.incarnation === view.incarnation && report.stateRevision >= view.stateRevision;
}

/** The node's report while its lease stands in the store; null when the agent is gone. */
export function live(view: ClusterView, node: NodeId): NodeReport | null {
  const seen = view.reports[node];
  return seen?.alive ? seen.report : null;
}

/** A live report that is also recent: this node can be heard now. */
export function fresh(view: ClusterView, node: NodeId): NodeReport | null {
  const seen = view.reports[node];
  return seen?.alive && seen.ageMs <= freshLimitMs(view.spec) ? seen.report : null;
}

/**
 * A live report that came after the write lease was last seen to go: a node that says there that it is a standby of the timeline of before has taken it for
 * nothing. An older report says nothing of that, however the lease went. Null: there is none, or the lease stands.
 */
export function liveSinceLease(view: ClusterView, node: NodeId): NodeReport | null {
  const seen = view.reports[node];
  return seen?.alive && seen.ageMs < view.writeLeaseGoneMs ? seen.report : null;
}

/** The last report, of a dead node too. */
export function lastKnown(view: ClusterView, node: NodeId): NodeReport | null {
  return view.reports[node]?.report ?? null;
}

export function dataNodes(spec: ClusterSpec): readonly NodeSpec[] {
  return spec.nodes.filter((node) => node.kind === 'data');
}

/** By the settings, or by a command; what is null is not known, and says nothing. */
export function isMaintenance({ spec, state }: { readonly spec: ClusterSpec | null; readonly state: ClusterState | null }, node: NodeId): boolean {
  return (spec !== null && findNode(spec, node)?.maintenance === true) || state?.overrides[node]?.kind === 'maintenance';
}

/** Somebody asked for this node to be left alone. */
export function isLeftAlone(view: ClusterView, node: NodeId): boolean {
  return isMaintenance(view, node) || view.state.overrides[node] !== undefined;
}

/** A full member that nobody asked to be left alone: it can be counted on. */
export function isAvailable(view: ClusterView, node: NodeId): boolean {
  return isMember(view.spec, node) && !isLeftAlone(view, node);
}

/**
 * What it says can still count: a member, or one that is being removed and was not stopped yet. One that is being added never counted.
 *
 * *Invariant:* a node is asked for its vote as long as some electorate or some facts may name it (I4, I7). *Because:* `node remove` stops it only when none
 * does. *Broken if:* a leaving node is left out of an attempt while it still holds what was acknowledged.
 */
export function mayCount(view: ClusterView, node: NodeId): boolean {
  return findNode(view.spec, node)?.membership !== 'joining' && view.state.goals[node]?.kind !== 'removed';
}

/** Data nodes other than the primary, in the order of the spec. */
export function otherDataNodes(view: ClusterView): readonly NodeSpec[] {
  return dataNodes(view.spec).filter((node) => node.id !== view.state.primary);
}

/** The newest WAL that the node is known to hold; null when unknown or when it has no data. */
export function endOfWal(report: NodeReport): Position | null {
  return endOf(report.postgres);
}

/** The same of a look at the own server. */
export function endOf(pg: PostgresReport): Position | null {
  if (pg.timeline === null) return null;
  const lsn = maxLsn(pg.flushLsn, pg.receivedLsn, pg.replayedLsn, pg.walEnd, pg.shutdownLsn);
  return lsn === null ? null : { timeline: pg.timeline, lsn };
}

/**
 * The newest position on the cluster's timeline that the primary is known to have reached, from the state and from its last report. One that somebody
 * promoted by hand is on a timeline of its own: its history says how far it had come on the cluster's.
 */
export function primaryEnd(view: ClusterView): Lsn | null {
  const { primary, primaryLsn, timeline } = view.state;
  const report = primary === null ? null : lastKnown(view, primary);
  if (report === null || timeline === null) return primaryLsn;
  const relation = relationOf(report.postgres, view.state);
  if (relation.kind === 'same') return maxLsn(primaryLsn, endOfWal(report)?.lsn ?? null);
  return relation.kind === 'descendant' ? maxLsn(primaryLsn, relation.forkLsn) : primaryLsn;
}

export function isPrimaryRole(report: NodeReport): boolean {
  return report.postgres.role === 'primary' && (report.postgres.state === 'running' || report.postgres.state === 'starting');
}

/** Open for writes in exactly this term, by its own word. */
export function isOpen(report: NodeReport | null, term: number): boolean {
  return report !== null && report.leaseTerm === term && report.open && report.postgres.role === 'primary' && report.postgres.state === 'running';
}

export function isStreaming(report: NodeReport | null, upstream: NodeId | null): boolean {
  return (
    report !== null &&
    upstream !== null &&
    report.postgres.state === 'running' &&
    report.postgres.role === 'standby' &&
    report.postgres.streamingFrom === upstream
  );
}

/** PostgreSQL of a living agent ended without being asked to. */
export function isGone(report: NodeReport): boolean {
  return report.postgres.state === 'crashed' || report.postgres.state === 'stopped';
}

/** Null when the cluster has no timeline yet or the node reports none. */
export function lineageOf(view: ClusterView, report: NodeReport): LineageVerdict | null {
  const position = endOfWal(report);
  if (position === null || view.state.timeline === null) return null;
  return compareLineage(position, report.postgres.history, { timeline: view.state.timeline, history: view.state.history });
}

export function isForeignSystem(view: ClusterView, report: NodeReport): boolean {
  const known = view.state.systemIdentifier;
  return known !== null && report.postgres.systemIdentifier !== null && report.postgres.systemIdentifier !== known;
}

/** What the node's activity says of exactly this goal; null when it speaks of another or of none. */
export function activityFor(report: NodeReport, goal: Goal | null): Exclude<NodeReport['activity'], { kind: 'idle' }> | null {
  const activity = report.activity;
  return goal !== null && activity.kind !== 'idle' && activity.goalId === goal.id ? activity : null;
}

/** The agent gave up on this goal and waits for another. */
export function gaveUp(report: NodeReport, goal: Goal | null): boolean {
  const activity = activityFor(report, goal);
  return activity?.kind === 'failed' && !activity.retrying;
}

export interface Viewpoints {
  /** Members that were asked and can be heard. */
  readonly asked: readonly NodeId[];
  /** They say that the node serves nothing. */
  readonly down: readonly NodeId[];
  /** They see it accept writes. */
  readonly writable: readonly NodeId[];
  /** They said `down` but reach no trusted address, so it may be they who are cut off. */
  readonly untrusted: readonly NodeId[];
}

/**
 * How the other members see `target`. A viewpoint is a fresh report with a probe result; a witness has one too.
 * With trusted addresses configured, a member that does not reach them does not count (H17).
 */
export function viewpoints(view: ClusterView, target: NodeId): Viewpoints {
  const asked: NodeId[] = [];
  const down: NodeId[] = [];
  const writable: NodeId[] = [];
  const untrusted: NodeId[] = [];
  for (const node of view.spec.nodes) {
    const report = node.id === target ? null : fresh(view, node.id);
    if (report === null) continue;
    asked.push(node.id);
    const verdict = report.probes[target]?.verdict;
    if (verdict === 'primary') writable.push(node.id);
    if (verdict !== 'down' && verdict !== 'blocked') continue;
    if (view.spec.trustedAddresses.length > 0 && report.trustedReachable !== true) untrusted.push(node.id);
    else down.push(node.id);
  }
  return { asked, down, writable, untrusted };
}

/** True when `at` is reached. A clock that was set back by more than `longestMs` counts as reached, so that nothing waits for hours. */
export function isDue(now: Now, at: WallMs, longestMs: number): boolean {
  return now.wall >= at || at - now.wall > longestMs;
}

/** Clocks of two controllers may differ by this much; a step further back is a clock that was set. */
const CLOCK_SKEW_MS = 5000;

/**
 * Milliseconds of wall clock since a step began; 0 when it lies a little ahead. A clock that was set back makes it infinite, so
 * that a step ends at its limit, by its own undo, and does not hold writers for as long as the clock was set back.
 */
export function elapsedMs(now: Now, since: number): number {
  const passed = now.wall - since;
  return passed < -CLOCK_SKEW_MS ? Number.POSITIVE_INFINITY : Math.max(0, passed);
}

/** Some node holds the write lease. */
export function isLeaseTaken(view: ClusterView): boolean {
  return view.writeLease !== null;
}

/** The newest term that a member which can be heard ever saw; 0 when none. */
export function newestKnownTerm(view: ClusterView): Term {
  let newest = 0;
  for (const node of view.spec.nodes) {
    const report = live(view, node.id);
    newest = Math.max(newest, report?.highestTerm ?? 0, report?.vote?.term ?? 0, report?.leaseTerm ?? 0);
  }
  return makeTerm(newest);
}
