/** `explain`: which rule decides now and why, who could be promoted, and what would happen if the primary died this moment. */
import type { NodeId, Now } from '../ids.ts';
import { makeWallMs } from '../ids.ts';
import type { NodeReport } from '../report.ts';
import type { ClusterView, SeenReport } from '../view.ts';
import { decideCluster } from './decide.ts';
import { describeCandidate, missingBytes, rankCandidates } from './election.ts';
import { primaryEnd } from './observe.ts';
import { writesWait } from './problems.ts';
import { formatIso } from './text.ts';

/** Votes, and the promotion with one more renewal, as measured on an idle server; shown as an estimate. */
const VOTE_MS = 300;
const PROMOTE_MS = 700;

export interface Explanation {
  readonly rule: string;
  readonly why: string;
  /** The last decision that changed something; `rule` may only say that all is steady. */
  readonly last: { readonly rule: string; readonly why: string; readonly at: string };
  /** How the present term came about, and what that cost; null: no term was opened, or its record is lost. `at`, `startedAt`: ISO 8601. */
  readonly term: {
    readonly term: number;
    readonly primary: NodeId;
    readonly startedAt: string;
    readonly rule: string;
    readonly reason: string;
    readonly outageMs: number | null;
    readonly lostBytes: number | null;
  } | null;
  readonly candidates: readonly { readonly node: NodeId; readonly eligible: boolean; readonly reasons: readonly string[] }[];
  readonly ifPrimaryDies: {
    readonly action: string;
    readonly rule: string;
    readonly promoted: NodeId | null;
    /** By the last reports; null: unknown, or nobody is promoted. */
    readonly mayLoseBytes: number | null;
    /** Commits that are acknowledged after the last reports may be lost too: replication is asynchronous. */
    readonly mayLoseLater: boolean;
    readonly estimatedOutageMs: number | null;
  };
}

/** Candidates are in the order in which they would be promoted, then the rejected ones in the spec's order; never the primary itself. */
export function explainCluster(view: ClusterView, now: Now): Explanation {
  const decision = decideCluster(view, now);
  const waiting = writesWait(view);
  const { eligible, rejected } = rankCandidates(view, now, { positions: { kind: 'report' }, acceptLoss: false, target: null });
  const end = { timeline: view.state.timeline, lsn: primaryEnd(view) };
  return {
    rule: decision.rule,
    // A rule that has nothing to do says so; that writes wait is what people ask about.
    why: [decision.why, ...(waiting === null ? [] : [waiting])].join('. '),
    last: { rule: view.state.decided.rule, why: view.state.decided.why, at: formatIso(view.state.decided.atWallMs) },
    term: presentTerm(view),
    candidates: [
      ...eligible.map((one, index) => ({
        node: one.node,
        eligible: true,
        reasons: [`${describeCandidate(one)}${lagWords(missingBytes(one.position, end))}${index === 0 ? ', first in line' : ''}`],
      })),
      ...rejected.map((one) => ({ node: one.node, eligible: false, reasons: one.reasons })),
    ],
    ifPrimaryDies: imagineLoss(view, now),
  };
}

function presentTerm({ state }: ClusterView): Explanation['term'] {
  const found = state.terms.findLast((one) => one.term === state.primaryTerm);
  if (found === undefined) return null;
  const { term, primary, startedWallMs, rule, reason, outageMs, lostBytes } = found;
  return { term, primary, startedAt: formatIso(startedWallMs), rule, reason, outageMs, lostBytes };
}

const lagWords = (bytes: number | null): string => (bytes === null || bytes === 0 ? '' : `, ${bytes} bytes behind`);

/** Asks the very rules what they would say of a snapshot in which the primary's host is gone. */
function imagineLoss(view: ClusterView, now: Now): Explanation['ifPrimaryDies'] {
  const { primary } = view.state;
  if (primary === null || view.state.phase !== 'running')
    return {
      action: 'nothing: there is no running primary',
      rule: 'bootstrap.waiting',
      promoted: null,
      mayLoseBytes: null,
      mayLoseLater: false,
      estimatedOutageMs: null,
    };
  if (view.state.attempt !== null)
    return {
      action: `term ${view.state.attempt.term} is being opened already`,
      rule: view.state.attempt.rule,
      promoted: view.state.attempt.candidate,
      mayLoseBytes: view.state.attempt.lostBytes,
      mayLoseLater: false,
      estimatedOutageMs: null,
    };
  const later = { ...now, wall: makeWallMs(now.wall + view.spec.leaseTtlMs) };
  const decision = decideCluster(withoutPrimary(view, primary), later);
  if (decision.rule !== 'primary.lost')
    return {
      action: `nothing is promoted: ${decision.why}`,
      rule: decision.rule,
      promoted: null,
      mayLoseBytes: null,
      mayLoseLater: false,
      estimatedOutageMs: null,
    };
  const best = rankCandidates(view, later, { positions: { kind: 'report' }, acceptLoss: false, target: null }).eligible[0] ?? null;
  if (best === null)
    return {
      action: 'nothing is promoted: there is no candidate',
      rule: 'failover.blocked-no-candidate',
      promoted: null,
      mayLoseBytes: null,
      mayLoseLater: false,
      estimatedOutageMs: null,
    };
  const fencing = fencingText(view, primary);
  if (view.state.quorum.k > 0) {
    const { k, voters } = view.state.quorum;
    return {
      action: `${fencing.first}once ${voters.length - k + 1} of ${voters.length} voters are detached, ${best.node} is promoted without waiting for the write lease of ${primary}`,
      rule: decision.rule,
      promoted: best.node,
      mayLoseBytes: 0,
      mayLoseLater: false,
      // Both looks of a probe fail together, and nothing has to expire.
      estimatedOutageMs: view.spec.probeIntervalMs + view.spec.probeTimeoutMs + VOTE_MS + PROMOTE_MS,
    };
  }
  const detectMs = view.spec.probeAttempts * view.spec.probeIntervalMs + view.spec.probeTimeoutMs;
  return {
    action: `${fencing.first}${fencing.lease ?? `once the write lease of ${primary} has expired`}, ${best.node} is promoted`,
    rule: decision.rule,
    promoted: best.node,
    mayLoseBytes: missingBytes(best.position, { timeline: view.state.timeline, lsn: primaryEnd(view) }),
    mayLoseLater: true,
    estimatedOutageMs: Math.max(view.spec.leaseTtlMs, detectMs) + VOTE_MS + PROMOTE_MS,
  };
}

/** `first`: what must happen before; `lease`: what takes the place of the lease's end, null: nothing. */
function fencingText(view: ClusterView, primary: NodeId): { readonly first: string; readonly lease: string | null } {
  switch (view.spec.fencing) {
    case 'off':
      return { first: '', lease: null };
    case 'automatic':
      return { first: '', lease: `once the fencing command has turned ${primary} off, or its write lease has expired` };
    case 'required':
      return view.state.quorum.k > 0
        ? { first: `the fencing command turns ${primary} off (nothing is promoted before); `, lease: null }
        : { first: '', lease: `once the fencing command has turned ${primary} off (nothing is promoted before)` };
  }
}

function withoutPrimary(view: ClusterView, primary: NodeId): ClusterView {
  const reports: Record<string, SeenReport> = {};
  for (const [node, seen] of Object.entries(view.reports)) {
    reports[node] = node === primary ? { ...seen, alive: false } : { ...seen, ageMs: 0, report: seesDown(seen.report, primary) };
  }
  return {
    ...view,
    reports: reports as ClusterView['reports'],
    // What the command will say is not known here; the sentence names it.
    spec: { ...view.spec, fencing: 'off' },
    writeLease: null,
    writeLeaseGoneMs: view.spec.leaseTtlMs,
    fenceResult: null,
    tasks: [],
    watchedMs: 3_600_000,
    state: { ...view.state, switchover: null },
  };
}

function seesDown(report: NodeReport, primary: NodeId): NodeReport {
  return {
    ...report,
    probes: { ...report.probes, [primary]: { verdict: 'down', failures: 99, lastOkAgoMs: null, error: 'imagined', agentAlive: false } },
  };
}
