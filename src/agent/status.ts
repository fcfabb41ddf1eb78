/** What the agent's HTTP side tells, derived from the newest report and the lease at this moment. */
import type { MonoMs, NodeId, Term } from '../core/ids.ts';
import { bytesBetween } from '../core/lsn.ts';
import type { NodeReport } from '../core/report.ts';
import { findNode } from '../core/spec.ts';
import { nodeOfVoter } from '../core/cluster/sync-set.ts';
import { VERSION } from '../base/version.ts';
import type { ClusterKnowledge } from './cluster-watch.ts';
import type { AgentConfig } from '../core/agent-config.ts';
import type { AgentStatus } from './http/status.ts';

export function agentStatus(input: {
  readonly config: AgentConfig;
  readonly knowledge: ClusterKnowledge;
  readonly report: NodeReport | null;
  readonly highestTerm: Term;
  readonly lease: { readonly term: Term | null; readonly deadline: MonoMs | null };
}): AgentStatus {
  const { config, knowledge, report } = input;
  const { state, spec } = knowledge;
  const postgres = report?.postgres ?? null;
  const running = postgres?.state === 'running';
  const { term, deadline } = input.lease;
  const replayed = postgres?.replayedLsn ?? null;
  const own = spec === null ? null : findNode(spec, config.node);
  const primaryLsn = state?.primaryLsn ?? null;
  return {
    cluster: config.cluster,
    node: config.node,
    version: VERSION,
    incarnation: state?.incarnation ?? null,
    role: running ? (postgres?.role ?? null) : null,
    term: state !== null && state.primaryTerm > input.highestTerm ? state.primaryTerm : input.highestTerm,
    lease: term === null || deadline === null ? null : { term, deadline },
    open: report?.open === true && term !== null,
    streaming: running && postgres?.streamingFrom != null && postgres.streamingFrom === upstreamOf(knowledge, config.node),
    lagBytes: replayed === null || primaryLsn === null ? null : Math.max(0, bytesBetween({ from: replayed, to: primaryLsn })),
    synchronous: state?.quorum.voters.some((voter) => nodeOfVoter(voter) === config.node) === true,
    maintenance: own?.maintenance === true,
    delayed: (own?.delayMs ?? 0) > 0,
    ready: report !== null,
  };
}

/** Whom it is to stream from: the primary, or the standby that its goal names while that one is in order. */
function upstreamOf({ state }: ClusterKnowledge, node: NodeId): NodeId | null {
  const goal = state?.goals[node];
  return goal?.kind === 'standby' && goal.via === 'stream' && goal.term === state?.primaryTerm ? goal.upstream : (state?.primary ?? null);
}

/** Prometheus text. Source: prometheus.io, "Exposition formats". */
export function renderMetrics(status: AgentStatus, report: NodeReport | null): string {
  const labels = `{cluster="${status.cluster}",node="${status.node}"}`;
  const lines: string[] = [];
  const gauge = (name: string, help: string, value: number | null): void => {
    if (value === null) return;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, `${name}${labels} ${value}`);
  };
  gauge('pgherd_node_up', '1 when PostgreSQL answers.', report?.postgres.state === 'running' ? 1 : 0);
  gauge('pgherd_node_primary', '1 when open for writes under a valid lease.', status.open ? 1 : 0);
  gauge('pgherd_node_streaming', '1 when a standby streams from the primary.', status.streaming ? 1 : 0);
  gauge('pgherd_node_term', 'Newest term this agent knows.', status.term);
  gauge('pgherd_node_timeline', 'Timeline of the server.', report?.postgres.timeline ?? null);
  gauge('pgherd_node_lag_bytes', 'Bytes behind the last known position of the primary.', status.lagBytes);
  gauge('pgherd_node_guard_alive', '1 when the guard process answers.', report?.guard === 'alive' ? 1 : 0);
  const addresses = report?.vips ?? [];
  const perVip = (name: string, help: string, value: (vip: (typeof addresses)[number]) => boolean): void => {
    if (addresses.length === 0) return;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`);
    for (const vip of addresses)
      lines.push(`${name}{cluster="${status.cluster}",node="${status.node}",vip="${vip.vip}",address="${vip.address}"} ${value(vip) ? 1 : 0}`);
  };
  perVip('pgherd_node_vip_held', '1 when the virtual address is on this host.', (vip) => vip.state === 'held');
  perVip(
    'pgherd_node_vip_conflict',
    '1 when another host answers for the virtual address.',
    (vip) => vip.state === 'conflict' || vip.otherMac !== null,
  );
  return `${lines.join('\n')}\n`;
}
