import { Command } from 'commander';
import { type Host, act } from '../session.ts';
import { renderShow } from '../render/show.ts';
import { showOrWatch } from '../watch.ts';

export function showCommand(host: Host): Command {
  return new Command('show')
    .description('the cluster, its nodes, and every problem in words with its remedy')
    .option('-w, --watch [interval]', 'repeat until Ctrl+C (default: every 2s)')
    .action(
      act(host, async (session, command) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const { watch } = command.opts<{ watch?: string | boolean }>();
        return showOrWatch(session, watch, {
          read: () => api.value.call('show', { params: { cluster: cluster.value } }),
          render: (show) => renderShow(show, session.view),
        });
      }),
    );
}
