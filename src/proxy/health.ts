/**
 * The proxy's own look at the nodes that serve reads: a standby whose host is gone is noticed by its silence, since nothing resets the connections to it.
 * Only reads follow it; who gets writes is not the proxy's to judge.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { NodeId } from '../core/ids.ts';
import type { RouteTarget } from '../core/route/decide.ts';
import type { Controls } from './control.ts';

const INTERVAL_MS = 300;
/** One look. Longer than any healthy answer of `select 1`; reads stop for two of these at most. */
const LIMIT_MS = 400;
/** One lost answer is no death: a standby that is busy with a checkpoint may be late once. */
const FAILURES = 2;

export interface Health {
  /** Nodes that did not answer lately. */
  down(): ReadonlySet<NodeId>;
  close(): void;
}

/** Starts at once; `onChange` when a node is found silent, or answers again. `targets` is asked before each round. */
export function watchHealth(options: {
  readonly controls: Controls;
  readonly clock: Clock;
  readonly log: Logger;
  readonly targets: () => readonly RouteTarget[];
  readonly onChange: () => void;
}): Health {
  const { controls, clock, log } = options;
  const stopping = new AbortController();
  const failures = new Map<NodeId, number>();
  const down = new Set<NodeId>();
  const looking = new Set<NodeId>();

  const look = async (target: RouteTarget): Promise<void> => {
    if (looking.has(target.node)) return;
    looking.add(target.node);
    const answered = new AbortController();
    const asked = controls
      .of(target)
      .ask('select 1')
      .then((answer) => {
        answered.abort();
        looking.delete(target.node);
        return answer.ok;
      });
    const late = clock.sleep(LIMIT_MS, answered.signal).then(() => false);
    note(target.node, await Promise.race([asked, late]));
  };
  const note = (node: NodeId, good: boolean): void => {
    failures.set(node, good ? 0 : (failures.get(node) ?? 0) + 1);
    const silent = (failures.get(node) ?? 0) >= FAILURES;
    if (silent === down.has(node)) return;
    if (silent) down.add(node);
    else down.delete(node);
    log[silent ? 'warn' : 'info']({ node }, silent ? 'a node does not answer; it gets no reads' : 'a node answers again');
    options.onChange();
  };
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const targets = options.targets();
      for (const node of [...down, ...failures.keys()])
        if (!targets.some((target) => target.node === node)) {
          down.delete(node);
          failures.delete(node);
        }
      // A look that is not over counts as a failed one in each round.
      for (const target of targets) if (looking.has(target.node)) note(target.node, false);
      void Promise.all(targets.map(look));
      await clock.sleep(INTERVAL_MS, stopping.signal);
    }
  };
  run().catch((cause: unknown) => {
    log.error({ error: cause }, 'looking at the nodes broke');
    throw cause;
  });
  return { down: () => down, close: () => stopping.abort() };
}
