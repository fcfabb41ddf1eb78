import { Command } from 'commander';
import type { Api } from '../api.ts';
import { type CliResult, EXIT, type Outcome } from '../exit.ts';
import { type Host, type Session, act } from '../session.ts';
import { readLimit } from './events.ts';

const FOLLOW_MS = 1000;
/** Lines asked for at each turn of --follow: more than a node writes in a second on a bad day. */
const FOLLOW_LINES = 500;

interface NodeLog {
  readonly node: string;
  readonly lines: readonly string[];
}

export function logCommand(host: Host): Command {
  return new Command('log')
    .description("last lines of a node's logs (agent and PostgreSQL); of all nodes when none is named")
    .argument('[node]', 'node')
    .option('-f, --follow', 'go on with new lines until Ctrl+C')
    .option('-n, --lines <count>', 'how many lines of each node', (text) => readLimit(text, 5000), 50)
    .action(
      act(host, async (session, command) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const options = command.opts<{ follow?: boolean; lines: number }>();
        const named = command.processedArgs[0] as string | undefined;
        const nodes = named === undefined ? await allNodes(api.value, cluster.value) : { ok: true as const, value: [named] };
        if (!nodes.ok) return nodes;
        const read = (node: string, lines: number): Promise<CliResult<NodeLog>> =>
          api.value.call('nodeLog', { params: { cluster: cluster.value, node }, query: { lines } });
        const several = nodes.value.length > 1;
        if (options.follow === true) return follow(session, nodes.value, { lines: options.lines, read });
        const logs: NodeLog[] = [];
        for (const node of nodes.value) {
          const log = await read(node, options.lines);
          // One node that is away must not hide the logs of the others.
          if (log.ok) logs.push(log.value);
          else if (several) session.note(`${node}: ${log.error.failure.what}`);
          else return log;
        }
        session.show(several ? logs : logs[0], () => logs.flatMap((log) => log.lines.map((line) => prefixed(log.node, line, several))).join('\n'));
        return { ok: true, value: EXIT.done };
      }),
    );
}

function prefixed(node: string, line: string, several: boolean): string {
  return several ? `${node}  ${line}` : line;
}

async function allNodes(api: Api, cluster: string): Promise<CliResult<readonly string[]>> {
  const show = await api.call('show', { params: { cluster } });
  return show.ok ? { ok: true, value: show.value.nodes.map((node) => node.id) } : show;
}

interface Following {
  readonly lines: number;
  readonly read: (node: string, lines: number) => Promise<CliResult<NodeLog>>;
}

async function follow(session: Session, nodes: readonly string[], { lines, read }: Following): Promise<Outcome> {
  const stop = new AbortController();
  const release = session.io.onInterrupt(() => stop.abort());
  const seen = new Map<string, readonly string[]>();
  try {
    for (;;) {
      for (const node of nodes) {
        const before = seen.get(node);
        const log = await read(node, before === undefined ? lines : FOLLOW_LINES);
        if (!log.ok) {
          if (!log.error.failure.retryable && before === undefined && nodes.length === 1) return log;
          continue;
        }
        for (const line of before === undefined ? log.value.lines : newLines(before, log.value.lines))
          session.io.stdout.write(`${prefixed(node, line, nodes.length > 1)}\n`);
        seen.set(node, log.value.lines);
      }
      await session.io.clock.sleep(FOLLOW_MS, stop.signal);
      if (stop.signal.aborted) return { ok: true, value: EXIT.done };
    }
  } finally {
    release();
  }
}

/** Lines of `after` that come behind the longest end of `before` found in it; all of them when nothing overlaps. */
export function newLines(before: readonly string[], after: readonly string[]): readonly string[] {
  for (let start = after.length; start > 0; start--) {
    const overlap = Math.min(start, before.length);
    if (overlap > 0 && after.slice(start - overlap, start).every((line, index) => line === before[before.length - overlap + index]))
      return after.slice(start);
  }
  return after;
}
