/** From what is true here to the report that the cluster reads. */
import type { NodeId, WallMs } from '../core/ids.ts';
import { SILENT_MS } from '../core/cluster/sync-wish.ts';
import { mayAcceptWrites } from '../core/node/decide.ts';
import type { NodeProblem, NodeReport } from '../core/report.ts';
import { assertNever } from '../core/result.ts';
import type { HandoverPart } from '../core/state.ts';
import type { ClusterKnowledge } from './cluster-watch.ts';
import type { LoopStatus } from './loop.ts';
import type { FirewallPort, MemoryPort, PostgresPort, ViewpointPort } from './ports.ts';

export interface PublishInput {
  readonly node: NodeId;
  readonly agentVersion: string;
  readonly agentRun: string;
  readonly bootId: string;
  readonly at: WallMs;
  readonly status: LoopStatus;
  readonly knowledge: Pick<ClusterKnowledge, 'incarnation' | 'newestRevision'>;
  readonly memory: MemoryPort;
  readonly viewpoints: ViewpointPort;
  readonly firewall: FirewallPort['kind'];
  readonly guard: NodeReport['guard'];
  readonly watchdog: NodeReport['watchdog'];
  readonly slots: NodeReport['slots'];
  readonly sync: NodeReport['sync'];
  readonly vips: NodeReport['vips'];
  readonly host: NodeReport['host'];
  readonly writes: NodeReport['writes'];
  readonly diskKnown: boolean;
  readonly weakCommits: NodeReport['weakCommits'];
  readonly problems: ReturnType<PostgresPort['problems']>;
}

export function buildReport(input: PublishInput): NodeReport {
  const { status } = input;
  return {
    version: 1,
    node: input.node,
    agentVersion: input.agentVersion,
    agentRun: input.agentRun,
    bootId: input.bootId,
    atWallMs: input.at,
    stateRevision: status.stateRevision,
    incarnation: input.knowledge.incarnation,
    newestRevision: input.knowledge.newestRevision,
    highestTerm: input.memory.highestTerm(),
    postgres: status.postgres,
    leaseTerm: status.leaseTerm,
    fenced: status.leaseTerm === null && !mayAcceptWrites(status.postgres),
    open: status.open,
    vote: input.memory.vote(),
    refusedTerms: input.memory.refusedTerms(),
    openedTerm: input.memory.openedTerm(),
    activity: status.activity,
    probes: input.viewpoints.probes(),
    guard: input.guard,
    firewall: input.firewall,
    watchdog: input.watchdog,
    trustedReachable: input.viewpoints.trustedReachable(),
    slots: input.slots,
    sync: input.sync,
    vips: input.vips,
    host: input.host,
    writes: input.writes,
    diskKnown: input.diskKnown,
    weakCommits: input.weakCommits,
    problems: [...weakFencing(input), ...input.problems],
  };
}

function weakFencing(input: PublishInput): readonly NodeProblem[] {
  const problems: NodeProblem[] = [];
  if (input.firewall === 'off') {
    problems.push({
      code: 'fence.no-firewall',
      text: 'no fail-closed firewall rule: if agent and guard are both killed, PostgreSQL stays writable; and after a crash clients are let in before standbys hold what the primary recovered, and may read what a failover then loses',
      remedy: 'run the agent as root with nftables installed, and `firewall: auto` in agent.yaml',
    });
  }
  if (input.guard === 'off') {
    problems.push({
      code: 'fence.no-guard',
      text: 'no guard process: a frozen agent cannot fence its PostgreSQL',
      remedy: 'remove `guard: false` from agent.yaml',
    });
  }
  return problems;
}

export interface UrgentParts {
  /** What the role and the promotion of a node rest on. */
  readonly decisive: string;
  /** What of it somebody waits for while this very node takes over, or has handed over. */
  readonly outcome: Readonly<Record<'taking' | 'left', string>>;
  /** Told at once too, except during a handover. */
  readonly news: string;
}

/**
 * What must be told at once when it changes. Positions and times are left out: they change all the time and are told with the next regular report.
 *
 * While a switchover stops the old primary and promotes the new one, only the decisive part is: everybody sees connections end, probes fail and orders
 * change at that moment, and a dozen reports of it would use the processor time that the switchover needs. No rule waits for them. The steps of a promotion
 * itself are told by nobody: what counts is that it is open, or why it will not be; and the last processes of a server that has handed over may end unseen.
 */
export function urgentParts(report: NodeReport): UrgentParts {
  const common = outcomePart(report);
  return {
    decisive: JSON.stringify(decisivePart(report)),
    outcome: { taking: JSON.stringify([report.postgres.state, ...common]), left: JSON.stringify([report.leaseTerm, ...common]) },
    news: JSON.stringify(newsPart(report)),
  };
}

export const NOTHING_TOLD: UrgentParts = { decisive: '', outcome: { taking: '', left: '' }, news: '' };

/** Must it be told at once, when `last` is what was told last? */
export function isUrgent(now: UrgentParts, last: UrgentParts, part: HandoverPart): boolean {
  switch (part) {
    case 'none':
      return now.decisive !== last.decisive || now.news !== last.news;
    case 'watching':
      return now.decisive !== last.decisive;
    case 'taking':
    case 'left':
      return now.outcome[part] !== last.outcome[part];
    default:
      return assertNever(part, 'part in a handover');
  }
}

function outcomePart(report: NodeReport): readonly unknown[] {
  const { activity } = report;
  return [
    report.open,
    report.vote?.term,
    report.vote?.final,
    report.refusedTerms,
    report.vips,
    activity.kind === 'failed' ? [activity.goalId, activity.code] : '',
  ];
}

function decisivePart(report: NodeReport): readonly unknown[] {
  const { postgres } = report;
  return [postgres.state, postgres.role, postgres.timeline, postgres.cleanShutdown, report.leaseTerm, report.fenced, ...outcomePart(report)];
}

function newsPart(report: NodeReport): readonly unknown[] {
  const { postgres } = report;
  const probes = Object.entries(report.probes).map(([node, probe]) => `${node}:${probe.verdict}`);
  return [
    report.stateRevision,
    postgres.streamingFrom,
    postgres.walsenders.map((w) => [w.node, w.state, w.syncState]),
    report.activity.kind,
    report.activity.kind === 'idle' ? '' : report.activity.goalId,
    report.activity.kind === 'busy' || report.activity.kind === 'failed' ? report.activity.step : '',
    probes,
    report.guard,
    report.trustedReachable,
    report.writes?.state ?? '',
    report.problems.filter((one) => one.code.startsWith('disk.')).map((one) => one.code),
    report.sync === null ? null : [report.sync.revision, report.sync.inForceLsn !== null, report.sync.silence.map((one) => one.ms >= SILENT_MS)],
    // Who holds all WAL of the moment in which the set was in force: the facts wait for it.
    report.sync?.inForceLsn == null
      ? ''
      : postgres.walsenders.filter((one) => one.flushLsn !== null && one.flushLsn >= (report.sync?.inForceLsn ?? 0n)).length,
  ];
}
