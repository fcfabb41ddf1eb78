/**
 * One proxy on a host of its own: the real knowledge (src/proxy/knowledge.ts), the real route decision and the real following of routes
 * (src/proxy/route-follower.ts) over a modelled write port: transactions wait under a hold and while nobody may get them, connect to the writer, are sent,
 * and are broken off when the writer is another one. What port.ts does beside that (sessions, their state, reads) is not modelled.
 */
import { type Knowledge, watchKnowledge } from '../../src/proxy/knowledge.ts';
import type { RouteAnswer } from '../../src/proxy/agent-asker.ts';
import { ACK_TTL_MS, type RouteFollower, STALE_MS, TICK_MS, createRouteFollower } from '../../src/proxy/route-follower.ts';
import { type Route, type RouteTarget, NO_ROUTE } from '../../src/core/route/decide.ts';
import type { ClusterId } from '../../src/core/ids.ts';
import { keepSession } from '../../src/store/session.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import type { Scope } from '../clock.ts';
import type { Network } from '../network.ts';
import type { Trace } from '../trace.ts';
import type { StoreAccess } from './access.ts';
import type { Machines } from './machines.ts';
import type { SimNode } from './node.ts';
import type { Random } from '../random.ts';
import { type SplitPort, type SplitSession, createSplitPort } from './split-port.ts';

export const PROXY_HOST = 'p1';
/** As in port.ts: between two tries of one session. */
const RETRY_MS = 50;
const RESTART_MS = 400;
/** As in agent-asker.ts. */
const ASK_LIMIT_MS = 400;
const MAX_READ_LAG_BYTES = 16_777_216;

/** One transaction of a client. */
export interface Errand {
  /** Performs it at that node's server; `done` is called at most once, when the answer is back at the proxy's host. */
  readonly send: (node: string, done: (outcome: 'acknowledged' | 'refused') => void) => void;
  readonly done: (outcome: 'acknowledged' | 'refused') => void;
}

export interface SimProxy {
  route(): Route;
  facts(): ReturnType<Knowledge['facts']> | null;
  /** A transaction arrives; the client's going away is the call of what it answers. */
  take(errand: Errand): () => void;
  /** Called right before a write goes out. */
  onSend(callback: (target: RouteTarget, route: Route) => void): void;
  /** A client connects to the split port; while no proxy runs, the session is dead from its beginning. */
  openSession(): SplitSession & { isAlive(): boolean };
  start(): void;
  kill(): void;
  stop(): void;
  resume(): void;
}

interface Running {
  readonly scope: Scope;
  readonly knowledge: Knowledge;
  readonly follower: RouteFollower<'write'>;
  readonly port: Port;
  readonly split: SplitPort;
}

export interface ProxyParts {
  readonly cluster: ClusterId;
  readonly machines: Machines;
  readonly network: Network;
  readonly access: StoreAccess;
  readonly trace: Trace;
  readonly random: Random;
  readonly peers: () => ReadonlyMap<string, SimNode>;
}

export function createProxy(parts: ProxyParts): SimProxy {
  const { machines, network, trace } = parts;
  const machine = machines.of(PROXY_HOST);
  const keys = clusterKeys(parts.cluster);
  const log = trace.logger('p1/proxy');
  const sends: ((target: RouteTarget, route: Route) => void)[] = [];
  let running: Running | null = null;

  function start(): void {
    if (running?.scope.alive() === true || !machine.scope().alive()) return;
    const scope = machine.scope().child('p1/proxy');
    const clock = machine.clock.of(scope);
    const store = parts.access.open({ host: PROXY_HOST, scope }, machine.clock, log);
    trace.add('p1/proxy', 'started');
    const session = keepSession(store, keys.proxyAck('p1'), { ttlMs: ACK_TTL_MS, clock });
    const port = createWritePort({
      scope,
      network,
      peers: parts.peers,
      onHeld: (epoch) => follower.held('write', epoch),
      onSend: (target, route) => {
        for (const call of sends) call(target, route);
      },
    });
    const follower = createRouteFollower<'write'>({
      ports: new Map([['write', port]]),
      facts: () => ({ ...knowledge.facts(), weights: new Map(), down: new Set() }),
      limits: { staleMs: STALE_MS, maxReadLagBytes: MAX_READ_LAG_BYTES, primaryReads: 'last-resort' },
      paused: () => false,
      acknowledge: (epoch, { term }) => session.put(JSON.stringify({ version: 1, id: 'p1', host: PROXY_HOST, epoch, term, paused: false })),
      onChange: (_before, { writer, term, closed, hold, epoch }) =>
        trace.add(
          'p1/proxy',
          `route ${epoch}: ${hold ? 'hold, ' : ''}${writer === null ? `closed: ${closed ?? ''}` : `writes to ${writer.node} in term ${term}`}`,
        ),
      onHeld: ({ epoch }) => trace.add('p1/proxy', `holds for route ${epoch}`),
    });
    const knowledge = watchKnowledge({
      store,
      keys,
      clock,
      log,
      asker: { ask: (of) => askAgent(scope, of.node), close: () => undefined },
      onChange: () => follower.apply(),
    });
    const split = createSplitPort({
      host: PROXY_HOST,
      scope,
      clock,
      network,
      random: parts.random,
      peers: parts.peers,
      route: () => follower.route(),
    });
    running = { scope, knowledge, follower, port, split };
    const tick = (): void => {
      follower.apply();
      scope.after(TICK_MS, tick);
    };
    tick();
  }

  function askAgent(scope: Scope, node: string): Promise<RouteAnswer | null> {
    return new Promise((resolve) => {
      const late = scope.after(ASK_LIMIT_MS, () => resolve(null));
      const answer = (value: RouteAnswer | null): void =>
        network.send(node, PROXY_HOST, () =>
          scope.deliver(() => {
            late.cancel();
            resolve(value);
          }),
        );
      network.send(PROXY_HOST, node, () => {
        const peer = parts.peers().get(node);
        if (peer === undefined || !machines.of(node).scope().alive()) return;
        const process = peer.agentScope();
        if (process?.alive() !== true) answer(null);
        else process.deliver(() => answer((peer.agent()?.routeAnswer() ?? null) as RouteAnswer | null));
      });
    });
  }

  machine.onPower((on) => {
    if (on) machine.scope().after(RESTART_MS, start);
  });
  return {
    route: () => running?.follower.route() ?? NO_ROUTE,
    facts: () => running?.knowledge.facts() ?? null,
    take: (errand) => {
      const at = running;
      if (at?.scope.alive() !== true) {
        errand.done('refused');
        return () => undefined;
      }
      // A stopped process reads it when it goes on, if the client has not left by then.
      let leave: (() => void) | null = null;
      let hasLeft = false;
      at.scope.deliver(() => {
        if (!hasLeft) leave = at.port.take(errand);
      });
      return () => {
        hasLeft = true;
        leave?.();
      };
    },
    onSend: (callback) => void sends.push(callback),
    openSession: () => {
      const at = running;
      const session = at?.split.open() ?? null;
      const alive = (): boolean => at?.scope.alive() === true;
      return {
        isAlive: alive,
        answered: () => session?.answered(),
        read: (rows, done) => {
          if (session === null || !alive()) done(null);
          else at?.scope.deliver(() => session.read(rows, done));
        },
      };
    },
    start,
    stop: () => running?.scope.pause(),
    resume: () => running?.scope.resume(),
    kill: () => {
      running?.scope.kill();
      running = null;
      trace.add('p1/proxy', 'killed');
      machine.scope().after(RESTART_MS, start);
    },
  };
}

interface Port {
  apply(route: Route): void;
  take(errand: Errand): () => void;
}

interface Transaction {
  readonly errand: Errand;
  /** Where it was sent; null: it waits, or connects. */
  at: string | null;
  connecting: boolean;
  over: boolean;
}

/** What port.ts promises of its write port. */
function createWritePort(options: {
  readonly scope: Scope;
  readonly network: Network;
  readonly peers: ProxyParts['peers'];
  readonly onHeld: (epoch: number) => void;
  readonly onSend: (target: RouteTarget, route: Route) => void;
}): Port {
  const { scope, network } = options;
  const open = new Set<Transaction>();
  let route: Route = NO_ROUTE;
  let heldEpoch = 0;

  function checkHeld(): void {
    if (!route.hold || heldEpoch === route.epoch || [...open].some((one) => one.at !== null)) return;
    heldEpoch = route.epoch;
    options.onHeld(route.epoch);
  }

  function end(one: Transaction, outcome: 'acknowledged' | 'refused' | null): void {
    if (one.over) return;
    one.over = true;
    open.delete(one);
    if (outcome !== null) one.errand.done(outcome);
    checkHeld();
  }

  const serves = (target: RouteTarget): boolean => !route.hold && route.writer?.node === target.node;

  /** A connection and its login: there and back; nothing of the client is sent with it. */
  function connect(one: Transaction): void {
    const target = route.writer;
    if (one.over || one.at !== null || one.connecting || target === null || route.hold) return;
    one.connecting = true;
    const settle = (connected: boolean): void => {
      if (!one.connecting) return;
      late.cancel();
      one.connecting = false;
      if (one.over) return;
      if (connected && serves(target)) send(one, target);
      else scope.after(RETRY_MS, () => connect(one));
    };
    const late = scope.after(ASK_LIMIT_MS, () => settle(false));
    network.send(PROXY_HOST, target.node, () => {
      const peer = options.peers().get(target.node);
      const lets = peer?.port.lets('client') === true && peer.database?.isReadable() === true;
      network.send(target.node, PROXY_HOST, () => scope.deliver(() => settle(lets)));
    });
  }

  function send(one: Transaction, target: RouteTarget): void {
    one.at = target.node;
    options.onSend(target, route);
    one.errand.send(target.node, (outcome) => scope.deliver(() => end(one, outcome)));
  }

  return {
    apply: (next) => {
      route = next;
      if (!next.hold) heldEpoch = 0;
      // Bytes that are on their way to a node that is not the primary any more: the client is told that nobody knows.
      for (const one of [...open]) if (one.at !== null && one.at !== next.writer?.node) end(one, 'refused');
      if (next.hold) checkHeld();
      else for (const one of [...open]) connect(one);
    },
    take: (errand) => {
      const one: Transaction = { errand, at: null, connecting: false, over: false };
      open.add(one);
      connect(one);
      return () => end(one, null);
    },
  };
}
