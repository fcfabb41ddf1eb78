import { Command } from 'commander';
import { EXIT } from '../exit.ts';
import { renderExplain } from '../render/explain.ts';
import { type Host, act } from '../session.ts';

export function explainCommand(host: Host): Command {
  return new Command('explain')
    .description('which rule decided last and why; what would happen if the primary died now; who could be promoted')
    .action(
      act(host, async (session) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const explain = await api.value.call('explain', { params: { cluster: cluster.value } });
        if (!explain.ok) return explain;
        session.show(explain.value, () =>
          renderExplain(cluster.value, explain.value, { style: session.view.style, width: Math.min(session.view.width ?? 100, 100) }),
        );
        return { ok: true, value: EXIT.done };
      }),
    );
}
