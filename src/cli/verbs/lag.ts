import { Command } from 'commander';
import { renderLag } from '../render/show.ts';
import { type Host, act } from '../session.ts';
import { showOrWatch } from '../watch.ts';

export function lagCommand(host: Host): Command {
  return new Command('lag')
    .description('how far each standby is behind: sent, written, flushed, replayed; sync and stream state, slot')
    .option('-w, --watch [interval]', 'repeat until Ctrl+C (default: every 2s)')
    .action(
      act(host, async (session, command) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const { watch } = command.opts<{ watch?: string | boolean }>();
        return showOrWatch(session, watch, {
          read: () => api.value.call('lag', { params: { cluster: cluster.value } }),
          render: (rows) => renderLag(rows, session.view),
        });
      }),
    );
}
