/** Runs the fencing command for the orders that the state names, once each, and remembers the last answer. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { runProcess } from '../base/process.ts';
import type { FenceResult } from '../core/cluster/fencing.ts';
import type { ClusterId, MonoMs, NodeId } from '../core/ids.ts';
import { findNode, internalHost } from '../core/spec.ts';
import type { ClusterView } from '../core/view.ts';

export interface FenceTarget {
  readonly cluster: ClusterId;
  readonly node: NodeId;
  readonly host: string;
  readonly internalHost: string;
}

export interface FenceAnswer {
  readonly ok: boolean;
  readonly text: string;
}

/** Never rejects. */
export type Fencer = (target: FenceTarget) => Promise<FenceAnswer>;

/** Bytes of the command's output that are read; one line of it is shown. */
const OUTPUT_BYTES = 4096;
const TEXT_LENGTH = 200;

/**
 * The command of the configuration. `{cluster}`, `{node}`, `{host}` and `{internalHost}` in its arguments are replaced; there is no shell, so nothing in a name can
 * become a command. Success is exit code 0 and nothing else: a time-out (the whole process group is killed), a signal or a missing program is a failure.
 */
export function createFencer({ command, timeoutMs }: { readonly command: readonly string[]; readonly timeoutMs: number }): Fencer {
  return async (target) => {
    const fill = (text: string): string =>
      text.replace(/\{(cluster|node|host|internalHost)\}/g, (_all, name: string) => String(target[name as keyof FenceTarget]));
    const ran = await runProcess([String(command[0]), ...command.slice(1).map(fill)], { timeoutMs, maxOutputBytes: OUTPUT_BYTES });
    if (!ran.ok) return { ok: false, text: ran.error.message };
    const words = lastLine(ran.value.stderr) || lastLine(ran.value.stdout);
    if (ran.value.exitCode === 0) return { ok: true, text: words };
    return { ok: false, text: `exit code ${ran.value.exitCode}${words === '' ? '' : `: ${words}`}` };
  };
}

function lastLine(output: string): string {
  return (output.trim().split('\n').at(-1) ?? '').replace(/\p{Cc}/gu, ' ').slice(0, TEXT_LENGTH);
}

export interface FenceRunner {
  /** Begins what the view's state asks for and was not begun here, and answers what is known of it; null: nothing yet. */
  look(view: ClusterView): FenceResult | null;
}

export interface FenceRunnerOptions {
  readonly fencer: Fencer | null;
  readonly cluster: ClusterId;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onEnd: () => void;
}

export function createFenceRunner({ fencer, cluster, clock, log, onEnd }: FenceRunnerOptions): FenceRunner {
  let begun: string | null = null;
  let answer: (FenceAnswer & { readonly id: string; readonly at: MonoMs }) | null = null;

  async function run(id: string, target: FenceTarget): Promise<void> {
    log.warn({ node: target.node, host: target.host }, `the fencing command is run for ${target.node}`);
    const said =
      fencer === null
        ? { ok: false, text: 'no fencing command is configured where the controller runs (fencing.command in server.yaml or agent.yaml)' }
        : await fencer(target);
    if (begun !== id) return;
    answer = { ...said, id, at: clock.now().mono };
    if (said.ok) log.warn({ node: target.node }, `the fencing command says that ${target.node} is off${said.text === '' ? '' : `: ${said.text}`}`);
    else log.error({ node: target.node }, `the fencing command for ${target.node} failed: ${said.text}`);
    onEnd();
  }

  return {
    look: ({ state, spec }) => {
      const order = state.fence;
      if (order === null) {
        begun = null;
        answer = null;
        return null;
      }
      const node = findNode(spec, order.node);
      if (begun !== order.id && node !== null) {
        begun = order.id;
        answer = null;
        void run(order.id, { cluster, node: order.node, host: node.host, internalHost: internalHost(node) });
      }
      return answer === null ? null : { id: answer.id, ok: answer.ok, text: answer.text, ageMs: clock.now().mono - answer.at };
    },
  };
}
