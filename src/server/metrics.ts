/** /metrics: what a person would want to be woken for, in Prometheus' text form. */
import { Gauge, Registry } from 'prom-client';
import { showLag } from '../core/cluster/describe.ts';
import { clusterStateWord } from '../api/schema.ts';
import { type ServerContext, viewOf } from './context.ts';
import { describe } from './reads.ts';
import { listClusters } from './view.ts';

export interface Metrics {
  readonly contentType: string;
  render(): Promise<string>;
}

/** Computed at each scrape; nothing is counted in between. */
export function createMetrics(context: ServerContext, streams: () => number): Metrics {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: string[] = []): Gauge =>
    new Gauge({ name: `pgherd_${name}`, help, labelNames, registers: [registry] });
  const state = gauge('cluster_state', '1 for the state that the cluster is in', ['cluster', 'state']);
  const term = gauge('cluster_term', 'Newest term that was opened', ['cluster']);
  const problems = gauge('cluster_problems', 'Problems that pgherd shows', ['cluster']);
  const protection = gauge('cluster_sync_promised', 'Standbys besides the primary that hold each acknowledged commit', ['cluster']);
  const lowered = gauge('cluster_sync_lowered', '1 while less is promised than `durability` asks', ['cluster']);
  const loweredSince = gauge('cluster_sync_lowered_since_seconds', 'When less began to be promised, Unix time', ['cluster', 'reason']);
  const up = gauge('node_up', '1 when the node’s PostgreSQL runs and its agent reports', ['cluster', 'node']);
  const primary = gauge('node_primary', '1 for the primary', ['cluster', 'node']);
  const lag = gauge('node_replay_lag_bytes', 'Bytes of WAL that the node has not replayed', ['cluster', 'node']);
  const watchAge = gauge('store_watch_age_seconds', 'Since the store last confirmed that nothing was missed');
  const open = gauge('server_streams', 'Open live streams');
  const certificate = gauge('certificate_days_left', 'Days until the certificate ends', ['subject']);

  return {
    contentType: registry.contentType,
    render: async () => {
      registry.resetMetrics();
      const age = context.cache.ageMs();
      watchAge.set(age === null ? Number.NaN : age / 1000);
      open.set(streams());
      for (const row of context.authority.list()) certificate.set({ subject: row.subject }, row.daysLeft);
      for (const cluster of listClusters(context.cache)) {
        const found = await viewOf(context, cluster);
        if (!found.ok) continue;
        const shown = describe(context, found.value);
        for (const word of clusterStateWord.options) state.set({ cluster, state: word }, shown.state === word ? 1 : 0);
        term.set({ cluster }, shown.term);
        problems.set({ cluster }, shown.problems.length);
        protection.set({ cluster }, shown.sync.k);
        const less = found.value.view.state.quorum.lowered;
        lowered.set({ cluster }, less === null ? 0 : 1);
        // One series at a time: a scrape forgets the reasons of those before.
        if (less !== null) loweredSince.set({ cluster, reason: less.reason }, less.sinceWallMs / 1000);
        for (const node of shown.nodes) {
          up.set({ cluster, node: node.id }, node.state === 'running' ? 1 : 0);
          primary.set({ cluster, node: node.id }, shown.primary === node.id ? 1 : 0);
        }
        for (const row of showLag(found.value.view)) if (row.replayLagBytes !== null) lag.set({ cluster, node: row.node }, row.replayLagBytes);
      }
      return await registry.metrics();
    },
  };
}
