/** What goes wrong with a proxy, and the planned changes that it is there for; drawn from a stream of its own, after everything else of a plan. */
import { type FaultKind, type Plan, withMore } from './plan.ts';
import type { Shape } from './profiles.ts';
import type { Random } from './random.ts';
import { PROXY_HOST } from './world/proxy.ts';

const MEAN_MS = 9000;

export function addProxyFaults(random: Random, plan: Plan, shape: Shape): Plan {
  return withMore(plan, ({ lengthMs }) =>
    Array.from({ length: random.pick([1, 2, 4, 6]) }, () => {
      const what = draw(random, shape);
      const at = Math.round(random.between(500, lengthMs - 2000));
      const forMs = what.kind === 'cut' ? Math.round(Math.min(lengthMs - at, 100 - Math.log(1 - random.next()) * MEAN_MS)) : 0;
      return { at, forMs, what };
    }),
  );
}

/** What makes reads old: the proxy stands still and goes on, a standby replays nothing for a while, or has much to replay, or cannot be reached. */
export function addReadFaults(random: Random, plan: Plan, shape: Shape): Plan {
  const dataNodes = shape.nodes.filter((node) => node.kind === 'data').map((node) => node.name);
  return withMore(plan, ({ lengthMs }) =>
    Array.from({ length: random.pick([2, 4, 7]) }, () => {
      const { what, meanMs } = drawReadFault(random, dataNodes);
      const at = Math.round(random.between(500, lengthMs - 2000));
      const forMs = meanMs === 0 ? 0 : Math.round(Math.min(lengthMs - at, 100 - Math.log(1 - random.next()) * meanMs));
      return { at, forMs, what };
    }),
  );
}

function drawReadFault(random: Random, dataNodes: readonly string[]): { readonly what: FaultKind; readonly meanMs: number } {
  switch (random.int(6)) {
    case 0:
    case 1:
      return { what: { kind: 'proxy-stop' }, meanMs: 4000 };
    case 2:
      return { what: { kind: 'replay-pause', node: random.pick(dataNodes) }, meanMs: 5000 };
    case 3:
      return { what: { kind: 'burst', bytes: 2_000_000 }, meanMs: 0 };
    case 4:
      return { what: { kind: 'postgres-kill', node: random.pick(dataNodes) }, meanMs: 0 };
    default:
      return { what: { kind: 'task', request: { kind: 'switchover', to: null } }, meanMs: 0 };
  }
}

function draw(random: Random, shape: Shape): FaultKind {
  const nodes = shape.nodes.map((node) => node.name);
  const from = (hosts: readonly string[], what: string): FaultKind => ({
    kind: 'cut',
    what: `the proxy from ${what}`,
    links: hosts.flatMap((host): [string, string][] => [
      [PROXY_HOST, host],
      [host, PROXY_HOST],
    ]),
  });
  switch (random.int(7)) {
    case 0:
    case 1:
      return from(shape.store, 'the store');
    case 2:
      return from([...new Set([...shape.store, ...nodes])], 'all but clients');
    case 3: {
      const one = random.pick(nodes);
      return from([one], one);
    }
    case 4:
      return { kind: 'proxy-kill' };
    default:
      return { kind: 'task', request: { kind: 'switchover', to: null } };
  }
}
