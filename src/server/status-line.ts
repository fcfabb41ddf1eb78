/** The periodic line (S12): a log that is silent for hours cannot be told from a process that hangs. */
import { type Loop, startLoop } from '../base/loop.ts';
import type { ShowAnswer } from '../api/schema.ts';
import { type ServerContext, viewOf } from './context.ts';
import { describe } from './reads.ts';
import { listClusters } from './view.ts';

export function startStatusLine(context: ServerContext): Loop {
  let first = true;
  return startLoop({
    name: 'status-line',
    intervalMs: context.config.statusLineMs,
    clock: context.clock,
    log: context.log,
    step: async () => {
      // At the start nothing has been seen yet.
      if (first) {
        first = false;
        return;
      }
      for (const cluster of listClusters(context.cache)) {
        const found = await viewOf(context, cluster);
        if (!found.ok) continue;
        const shown = describe(context, found.value);
        context.log[shown.problems.length === 0 ? 'info' : 'warn'](
          { cluster, term: shown.term, state: shown.state, problems: shown.problems.length },
          formatStatus(shown),
        );
      }
    },
  });
}

/** One line: state, primary, each standby with its lag, and the first problem. */
export function formatStatus(shown: ShowAnswer): string {
  const standbys = shown.nodes
    .filter((node) => node.id !== shown.primary)
    .map((node) => `${node.id} ${node.streaming ? `streaming, ${node.replayLagBytes ?? '?'} bytes behind` : node.state}`);
  const head = `monitoring ${shown.cluster} in state ${shown.state}: ${shown.primary === null ? 'no primary' : `primary ${shown.primary} (term ${shown.term})`}`;
  const [problem] = shown.problems;
  return [head, ...standbys, ...(problem === undefined ? [] : [`problem: ${problem.text}`])].join('; ');
}
