/** What a proxy does with each new route: it brings its ports in line, and tells the store which route it has applied. */
import { NO_ROUTE, type Route, type RouteFacts, type RouteLimits, decideRoute } from '../core/route/decide.ts';

/** Knowledge that neither the store nor the primary's agent confirmed for this long closes the way to the primary: no longer than a write lease lives. */
export const STALE_MS = 3000;
/** The acknowledgement vanishes this long after the proxy's last sign of life, and a switchover does not wait for it any more. */
export const ACK_TTL_MS = 3000;
/** Ages are looked at this often; changes are applied at once. */
export const TICK_MS = 250;

/** A port as the route sees it (port.ts). */
export interface RoutedPort {
  /** Brings every session in line with the route. Answers nothing: a hold is complete when `held` is called for its epoch. */
  apply(route: Route): void;
}

export interface FollowerOptions<K extends string> {
  readonly ports: ReadonlyMap<K, RoutedPort>;
  readonly facts: () => RouteFacts;
  readonly limits: RouteLimits;
  /** A person asked for a pause: new transactions wait whatever the cluster does. */
  readonly paused: () => boolean;
  /** Of the acknowledged epoch: every port applied it; under a hold, nothing is under way any more. */
  readonly acknowledge: (epoch: number, route: Route, isHeld: boolean) => void;
  readonly onChange: (before: Route, route: Route) => void;
  readonly onHeld: (route: Route) => void;
}

export interface RouteFollower<K extends string> {
  route(): Route;
  /** Decides anew; harmless when nothing changed. */
  apply(): void;
  /** Every session of that port is idle under the hold of this epoch. */
  held(port: K, epoch: number): void;
}

export function createRouteFollower<K extends string>(options: FollowerOptions<K>): RouteFollower<K> {
  const { ports } = options;
  let route: Route = NO_ROUTE;
  let acknowledged = 0;
  const holding = new Map<K, number>();
  const isHeld = (epoch: number): boolean => [...ports.keys()].every((port) => holding.get(port) === epoch);

  function acknowledge(epoch: number): void {
    acknowledged = epoch;
    options.acknowledge(epoch, route, route.hold && isHeld(epoch));
  }

  return {
    route: () => route,
    apply: () => {
      const decided = decideRoute(options.facts(), options.limits);
      const next = options.paused() ? { ...decided, hold: true } : decided;
      const changed = JSON.stringify(next, withoutLag) !== JSON.stringify(route, withoutLag);
      const before = route;
      route = next;
      if (!changed) return;
      options.onChange(before, next);
      if (!next.hold) holding.clear();
      for (const port of ports.values()) port.apply(next);
      if ((next.epoch !== acknowledged || before.hold) && (!next.hold || ports.size === 0)) acknowledge(next.epoch);
    },
    held: (port, epoch) => {
      holding.set(port, epoch);
      if (!isHeld(epoch)) return;
      options.onHeld(route);
      acknowledge(epoch);
    },
  };
}

/** Lags change with every report, and only matter when a reader comes or goes. */
function withoutLag(name: string, value: unknown): unknown {
  return name === 'lagBytes' || (name === 'closed' && typeof value === 'string' && value.startsWith('neither')) ? null : value;
}
