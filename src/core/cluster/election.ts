/** Ranks candidates for a new term. Pure; every rejected one has its reasons. */
import type { NodeId, Now } from '../ids.ts';
import { type Lsn, bytesBetween, formatLsn } from '../lsn.ts';
import type { NodeReport, Position } from '../report.ts';
import { type NodeSpec, findNode, isNear } from '../spec.ts';
import type { ClusterView } from '../view.ts';
import { type LineageVerdict, comparePositions, compareVote, describeLineage, isContained, relationOf } from './lineage.ts';
import { isTwinSuspect } from './recovery.ts';
import { diskProblemOf } from './disks.ts';
import { dataNodes, endOfWal, isDue, isForeignSystem, isMaintenance, lineageOf, live, mayCount, primaryEnd } from './observe.ts';
import { wishedUpstream } from './upstream.ts';

/** A candidate that refused or failed a promotion stands back this long (Z38). */
export const REFUSAL_BACKOFF_MS = 10_000;

export interface Candidate {
  readonly node: NodeId;
  readonly position: Position;
  readonly priority: number;
  readonly sameLocation: boolean;
  /** Its settings name another standby as its upstream. */
  readonly cascading: boolean;
  /** Its agent finds the disk of its data full, read-only or stuck. */
  readonly diskProblem: boolean;
}

export interface Rejected {
  readonly node: NodeId;
  readonly reasons: readonly string[];
}

export interface Ranking {
  /** Best first. */
  readonly eligible: readonly Candidate[];
  readonly rejected: readonly Rejected[];
}

export interface ElectionOptions {
  /** `vote`: only final positions of the attempt's term count. `report`: what nodes say now (before an attempt, `explain`). */
  readonly positions: { readonly kind: 'vote'; readonly term: number } | { readonly kind: 'report' };
  /** Lifts the ban on priority 0. */
  readonly acceptLoss: boolean;
  /** After a restore the state's timeline may be an old one: a node on a timeline that came out of it is the better one, not a stranger. */
  readonly descendants?: boolean;
  /** Only this node may win; null: any. */
  readonly target: NodeId | null;
}

/**
 * Data nodes other than the primary, ranked by lineage, position, a sound disk, direct before cascading, location (the old primary's first), priority, node id.
 * `eligible` is empty when nobody may be promoted; then each data node is in `rejected`. The present primary is in neither.
 */
export function rankCandidates(view: ClusterView, now: Now, options: ElectionOptions): Ranking {
  const eligible: Candidate[] = [];
  const rejected: Rejected[] = [];
  const home = view.state.primary === null ? null : (findNode(view.spec, view.state.primary)?.location ?? null);
  for (const node of dataNodes(view.spec)) {
    if (node.id === view.state.primary) continue;
    const report = live(view, node.id);
    const position = report === null ? null : positionFor(report, options);
    const far = !isNear(view.spec, node, home) && options.target !== node.id;
    const reasons = [
      ...(far
        ? [`it is in ${node.location}, the primary in ${home}, and crossLocation is manual (only "pgherd failover --to ${node.id}" promotes it)`]
        : []),
      ...rejections(view, now, node, report, position, options),
    ];
    const diskProblem = report !== null && diskProblemOf(report) !== null;
    if (reasons.length > 0 || position === null) rejected.push({ node: node.id, reasons });
    // One that is to leave can be the only one with everything, as long as commits may wait for it; among equals it is the last (then it stays).
    else if (node.membership === 'leaving')
      eligible.push({ node: node.id, position, priority: 0, sameLocation: false, cascading: true, diskProblem });
    else {
      const cascading = wishedUpstream(view, node.id) !== null;
      eligible.push({ node: node.id, position, priority: node.priority, sameLocation: node.location === home, cascading, diskProblem });
    }
  }
  return { eligible: eligible.sort(better), rejected };
}

/** Sort order, best first. Positions are compared as (timeline, LSN) numbers, never as text (H31, Q20). */
export function better(a: Candidate, b: Candidate): number {
  const position = comparePositions(b.position, a.position);
  if (position !== 0) return position;
  if (a.diskProblem !== b.diskProblem) return a.diskProblem ? 1 : -1;
  if (a.cascading !== b.cascading) return a.cascading ? 1 : -1;
  if (a.sameLocation !== b.sameLocation) return a.sameLocation ? -1 : 1;
  if (a.priority !== b.priority) return b.priority - a.priority;
  return a.node < b.node ? -1 : 1;
}

/** Bytes of `known` that `position` has not; 0 when it has all, null when they cannot be compared. */
export function missingBytes(position: Position, known: { readonly timeline: number | null; readonly lsn: Lsn | null }): number | null {
  if (known.lsn === null || known.timeline === null) return null;
  if (position.timeline > known.timeline) return 0;
  return Math.max(0, bytesBetween({ from: position.lsn, to: known.lsn }));
}

function positionFor(report: NodeReport, options: ElectionOptions): Position | null {
  if (options.positions.kind === 'report') return endOfWal(report);
  const { vote } = report;
  return vote !== null && vote.term === options.positions.term && vote.final ? vote.position : null;
}

function rejections(
  view: ClusterView,
  now: Now,
  node: NodeSpec,
  report: NodeReport | null,
  position: Position | null,
  options: ElectionOptions,
): readonly string[] {
  if (report === null) return ['its agent does not report'];
  const reasons: string[] = [];
  const { state } = report.postgres;
  if (!mayCount(view, node.id)) reasons.push(`it is being ${node.membership === 'joining' ? 'added' : 'removed'}`);
  if (isMaintenance(view, node.id)) reasons.push('it is in maintenance');
  else if (view.state.overrides[node.id] !== undefined) reasons.push(`it was ${view.state.overrides[node.id]?.kind ?? ''} on request`);
  if (node.priority === 0 && !options.acceptLoss) reasons.push('its priority is 0 (never promoted)');
  // To promote it would replay at once what its delay is there to keep back.
  if (node.delayMs > 0) reasons.push(`it is delayed by ${node.delayMs} ms (never promoted)`);
  if (options.target !== null && options.target !== node.id) reasons.push(`${options.target} was asked for`);
  if (state === 'absent') reasons.push('it has no data');
  if (state === 'incomplete' || state === 'cloning' || state === 'rewinding')
    reasons.push(`its data directory is ${state === 'incomplete' ? 'incomplete' : `being ${state === 'cloning' ? 'cloned' : 'rewound'}`}`);
  if (state === 'hung') reasons.push('its PostgreSQL hangs');
  if (isForeignSystem(view, report)) reasons.push(`its system identifier ${report.postgres.systemIdentifier} is not the cluster's`);
  // Position and lineage of such a node prove nothing: with the same number and fork, its rows are others than the cluster's (Z53).
  if (isTwinSuspect({ view, node: node.id, report }) && !options.acceptLoss)
    reasons.push(`it may hold a timeline of its own under number ${report.postgres.timeline ?? 0}`);
  const refused = report.refusedTerms.some((term) => term > view.state.primaryTerm);
  const progress = view.state.recovery[node.id];
  if (refused && progress !== undefined && !isDue(now, progress.notBeforeWallMs, REFUSAL_BACKOFF_MS))
    reasons.push('it refused a promotion a moment ago');
  if (position === null) {
    if (reasons.length === 0)
      reasons.push(
        options.positions.kind === 'vote' ? `it reported no final position for term ${options.positions.term}` : 'its position is unknown',
      );
    return reasons;
  }
  const verdict = lineage(view, report, options);
  if (verdict !== null && !isContained(verdict) && !(options.descendants === true && isDescendant(view, report)))
    reasons.push(describeLineage(verdict, position));
  return reasons;
}

/** Its timeline came out of the state's. */
function isDescendant(view: ClusterView, report: NodeReport): boolean {
  return relationOf(report.postgres, view.state).kind === 'descendant';
}

function lineage(view: ClusterView, report: NodeReport, { positions }: ElectionOptions): LineageVerdict | null {
  const { timeline, history } = view.state;
  const seen = lineageOf(view, report);
  if (positions.kind === 'report' || timeline === null) return seen;
  // It went over to another timeline since it voted, and not to one of the cluster's: somebody promoted it.
  const isLater = (report.postgres.timeline ?? 0) > (report.vote?.position?.timeline ?? 0);
  return isLater && seen !== null && !isContained(seen) ? seen : compareVote(report, { timeline, history });
}

/** `n2 at 0/3000060 on timeline 1` */
export function describeCandidate(candidate: Candidate): string {
  return `${candidate.node} at ${formatLsn(candidate.position.lsn)} on timeline ${candidate.position.timeline}`;
}

export function describeRejected(rejected: readonly Rejected[]): string {
  return rejected.map((one) => `${one.node}: ${one.reasons.join(', ')}`).join('; ');
}

/** The figures and the command that overrides them (Q45). */
export function lagText(view: ClusterView, best: string, missing: number): string {
  const end = primaryEnd(view);
  return `the best candidate, ${best}, lacks ${missing} bytes of the primary's last known position ${end === null ? '' : formatLsn(end)}; the bound maxLagOnFailoverBytes is ${view.spec.maxLagOnFailoverBytes}; "pgherd failover --accept-loss" gives them up`;
}
