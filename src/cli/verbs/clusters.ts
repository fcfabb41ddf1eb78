import { Command } from 'commander';
import type { ClusterSummary } from '../../api/schema.ts';
import { cell, renderTable } from '../output/table.ts';
import { type Host, type Session, act } from '../session.ts';
import { showOrWatch } from '../watch.ts';

export function clustersCommand(host: Host): Command {
  return new Command('clusters')
    .description('all clusters of the server with their state')
    .option('-w, --watch [interval]', 'repeat until Ctrl+C (default: every 2s)')
    .action(
      act(host, async (session, command) => {
        const api = session.api();
        if (!api.ok) return api;
        const { watch } = command.opts<{ watch?: string | boolean }>();
        return showOrWatch(session, watch, {
          read: () => api.value.call('clusters', {}),
          render: (clusters) => renderClusters(clusters, session),
        });
      }),
    );
}

function renderClusters(clusters: readonly ClusterSummary[], session: Session): string {
  if (clusters.length === 0) return 'no cluster yet; create or adopt one with "pgherd init -f cluster.yaml"';
  const rows = clusters.map((item) => [
    cell(item.cluster, 'bold'),
    cell(item.state, item.state === 'healthy' ? 'good' : item.state === 'no-primary' ? 'bad' : 'warn'),
    cell(item.primary, item.primary === null ? 'bad' : 'plain'),
    cell(item.term),
    cell(`${item.nodesLive} of ${item.nodes}`, item.nodesLive < item.nodes ? 'warn' : 'plain'),
    cell(item.problems, item.problems > 0 ? 'warn' : 'plain'),
    cell(item.frozen ? 'yes' : 'no', item.frozen ? 'warn' : 'dim'),
  ]);
  const columns = [
    { head: 'CLUSTER', min: 8 },
    { head: 'STATE' },
    { head: 'PRIMARY', min: 6 },
    { head: 'TERM', align: 'right', rank: 3 },
    { head: 'NODES LIVE', rank: 1 },
    { head: 'PROBLEMS', align: 'right', rank: 2 },
    { head: 'FROZEN', rank: 4 },
  ] as const;
  return renderTable(columns, rows, session.view);
}
