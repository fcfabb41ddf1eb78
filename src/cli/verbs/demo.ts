import { Command, InvalidArgumentError } from 'commander';
import { runDemo } from '../../demo/demo.ts';
import type { Host } from '../session.ts';

const MOST_NODES = 7;

export function demoCommand(host: Host): Command {
  const { io, run } = host;
  const screen = (sink: typeof io.stdout) => ({ isTTY: sink.isTTY, columns: sink.columns(), write: (text: string) => sink.write(text) });
  return new Command('demo')
    .description('a whole cluster on this machine, alive until Ctrl+C; --once runs the guided tour and exits 0 only if all of it held')
    .option('--nodes <number>', 'database nodes', parseNodes, 3)
    .option(
      '--once',
      'create, read-write-split, crash, failover, rejoin, switchover, add-node: each measured, then everything is removed; with --json the last line is the result',
    )
    .option('--keep', 'keep the working directory (logs, data)')
    .action(async function (this: Command) {
      const flags = this.optsWithGlobals() as { nodes: number; once?: boolean; keep?: boolean; json?: boolean; output?: string };
      run.exit = await runDemo({
        nodes: flags.nodes,
        once: flags.once === true,
        json: flags.json === true || flags.output === 'json',
        keep: flags.keep === true,
        out: screen(io.stdout),
        err: screen(io.stderr),
        onInterrupt: io.onInterrupt,
      });
    });
}

function parseNodes(text: string): number {
  const nodes = Number(text);
  if (!Number.isInteger(nodes) || nodes < 2 || nodes > MOST_NODES) throw new InvalidArgumentError(`expected 2 to ${MOST_NODES} nodes.`);
  return nodes;
}
