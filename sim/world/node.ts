/** A host of a cluster node: its machine, clocks, disk, port, guard, database, and the agent that a service manager keeps running. */
import type { ClusterId, NodeId } from '../../src/core/ids.ts';
import type { RememberedCluster } from '../../src/agent/cluster-watch.ts';
import { PROMISE_LIMIT_MS } from '../../src/agent/promises/round.ts';
import type { PromiseAnswer, PromiseRequest, PromiseReturn } from '../../src/core/node/promises.ts';
import type { Scope, VirtualClock } from '../clock.ts';
import type { NodeShape } from '../profiles.ts';
import type { Network } from '../network.ts';
import type { Random } from '../random.ts';
import type { Trace } from '../trace.ts';
import type { StoreAccess } from './access.ts';
import { type SimAgent, startSimAgent } from './agent.ts';
import type { Database } from './database.ts';
import { type Disk, createDisk } from './disk.ts';
import { type SimGuard, createSimGuard } from './guard.ts';
import type { HostClock } from './host-clock.ts';
import type { Lan } from './lan.ts';
import type { Machines } from './machines.ts';
import { type Port, createPort } from './port.ts';

export interface SimNode {
  readonly name: NodeId;
  readonly kind: 'data' | 'witness';
  readonly clock: HostClock;
  readonly disk: Disk;
  readonly port: Port;
  readonly guard: SimGuard;
  /** Null for a witness. */
  readonly database: Database | null;
  /** Null while none runs, or while it starts. */
  agent(): SimAgent | null;
  agentScope(): Scope | null;
  killAgent(): void;
  /** Harmless when one runs. */
  startAgent(): void;
  stopAgent(): void;
  resumeAgent(): void;
  /** The service manager leaves a dead agent alone until `startAgent`. */
  holdAgent(): void;
  /** When the machine went on after it was suspended; null: never, or long ago. */
  lastPause: { readonly from: number; readonly until: number } | null;
  /** When the present agent was started; infinite while none runs. */
  agentSince(): number;
  /** When its agent asked others for promises last, because the store did not answer. */
  lastAskedAt: number;
}

export interface NodeParts {
  readonly scheduler: VirtualClock;
  readonly random: Random;
  readonly trace: Trace;
  readonly network: Network;
  readonly access: StoreAccess;
  readonly machines: Machines;
  readonly cluster: ClusterId;
  readonly firewall: 'fail-closed' | 'off';
  readonly peers: () => ReadonlyMap<string, SimNode>;
  /** Null: without virtual addresses. */
  readonly lan: Lan | null;
  /** The host behind the trusted addresses. */
  readonly trusted: string | null;
  readonly createDatabase: (node: { readonly name: NodeId; readonly port: Port; readonly random: Random }) => Database;
}

/** As pgherd-agent.service has it: Restart=always, RestartSec=0.1, and some time to start. */
const RESTART_MS = 350;
const CALL_LIMIT_MS = 400;

export function createNode(parts: NodeParts, shape: NodeShape): SimNode {
  const { scheduler, trace, network, machines } = parts;
  const name = shape.name as NodeId;
  const random = parts.random.stream(`node ${name}`);
  const machine = machines.of(name);
  const { clock } = machine;
  const disk = createDisk(scheduler, random.stream('disk'));
  const port = createPort(parts.firewall, clock);
  const database = shape.kind === 'witness' ? null : parts.createDatabase({ name, port, random: random.stream('database') });
  const guard = createSimGuard({
    name,
    machine: machine.scope,
    clock,
    disk,
    trace,
    bootId: machine.bootId,
    closePort: port.close,
    killAll: async () => (database === null ? true : database.killAll()),
    isAlive: (postmaster) => database?.isAlive(postmaster) ?? false,
  });
  const remembered: { current: RememberedCluster | null } = { current: null };
  let scope: Scope | null = null;
  let agent: SimAgent | null = null;
  let held = false;
  let runs = 0;
  let startedAt = 0;
  let pausedAt = 0;

  function start(): void {
    if (held || scope?.alive() === true || !machine.scope().alive()) return;
    const own = machine.scope().child(`${name}/agent`);
    scope = own;
    agent = null;
    runs++;
    startedAt = scheduler.now();
    trace.add(`${name}/agent`, 'started');
    const store = parts.access.open({ host: name, scope: own }, clock, trace.logger(`${name}/agent`));
    void startSimAgent({
      node: name,
      cluster: parts.cluster,
      kind: shape.kind,
      bootId: machine.bootId(),
      scope: own,
      hostClock: clock,
      disk: scopedDisk(disk, own),
      port,
      guard,
      trace,
      agentRun: `${name}-run-${runs}`,
      store,
      remembered,
      postgres: database === null ? null : (options) => database.bind(own, options),
      ask: (other, request) => ask(own, other, request),
      tell: (other, given) => tell(own, other, given),
      onAsked: () => {
        node.lastAskedAt = scheduler.now();
      },
      agentAlive: (other) => alive(own, other),
      probe: (other, timeoutMs) => probe(own, other, timeoutMs),
      trusted: (timeoutMs) => reach(own, parts.trusted, timeoutMs),
      lan: parts.lan === null ? null : { kernel: parts.lan.kernel(name, own), mac: parts.lan.mac(name) },
      broken: (violation) => void crashes.push(violation),
      crash: (error) => {
        trace.add(`${name}/agent`, `!! died: ${error.stack ?? error.message}`);
        crashes.push(error);
        kill();
        again(own);
      },
    }).then(
      (made) => {
        agent = made;
        if (made === null) {
          own.kill();
          again(own);
        }
      },
      (cause: unknown) => {
        trace.add(`${name}/agent`, `!! could not start: ${String(cause)}`);
        crashes.push(cause instanceof Error ? cause : new Error(String(cause)));
      },
    );
  }

  const crashes: Error[] = machines.crashes;

  function again(died: Scope): void {
    machine.scope().after(RESTART_MS, () => {
      if (scope === died) start();
    });
  }

  function kill(): void {
    scope?.kill();
    agent = null;
  }

  /** One call over HTTP; null: no answer within the limit, or the connection is refused. */
  function call<T>(from: Scope, to: NodeId, answer: (peer: SimAgent) => Promise<T>, limitMs = CALL_LIMIT_MS): Promise<T | null> {
    return new Promise((resolve) => {
      const late = from.after(limitMs, () => resolve(null));
      const done = (value: T | null): void => {
        late.cancel();
        resolve(value);
      };
      network.send(name, to, () => {
        const peer = parts.peers().get(to);
        const process = peer?.agentScope() ?? null;
        const back = (value: T | null): void => network.send(to, name, () => from.deliver(() => done(value)));
        if (peer === undefined || !machines.of(to).scope().alive()) return;
        const service = peer.agent();
        if (process?.alive() !== true || service === null) {
          back(null);
          return;
        }
        process.deliver(() => void answer(service).then(back));
      });
    });
  }

  const ask = (from: Scope, to: NodeId, request: PromiseRequest): Promise<PromiseAnswer | null> => {
    node.lastAskedAt = scheduler.now();
    return call(from, to, (peer) => peer.onPromise(request), PROMISE_LIMIT_MS);
  };
  const tell = async (from: Scope, to: NodeId, given: PromiseReturn): Promise<void> => {
    await call(from, to, async (peer) => peer.onPromiseReturn(given));
  };
  const alive = async (from: Scope, to: NodeId): Promise<boolean> => (await call(from, to, async () => true)) === true;

  /** Whether a host answers at all, there and back. */
  function reach(from: Scope, to: string | null, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      if (to === null) {
        resolve(true);
        return;
      }
      const late = from.after(timeoutMs, () => resolve(false));
      network.send(name, to, () =>
        network.send(to, name, () =>
          from.deliver(() => {
            late.cancel();
            resolve(true);
          }),
        ),
      );
    });
  }

  /** What probe-member.ts finds out: a bounded write, refused by a closed port, silent when the other side hangs. */
  function probe(
    from: Scope,
    to: NodeId,
    timeoutMs: number,
  ): Promise<{ readonly verdict: 'primary' | 'standby' | 'blocked' | 'failed'; readonly error: string | null }> {
    return new Promise((resolve) => {
      const late = from.after(timeoutMs, () => resolve({ verdict: 'failed', error: 'no answer' }));
      network.send(name, to, () => {
        const peer = parts.peers().get(to);
        const server = peer?.database ?? null;
        if (peer === undefined || server === null || !machines.of(to).scope().alive() || machines.of(to).scope().paused()) return;
        const back = (verdict: 'primary' | 'standby' | 'blocked' | 'failed'): void =>
          network.send(to, name, () =>
            from.deliver(() => {
              late.cancel();
              resolve({ verdict, error: verdict === 'failed' ? 'connection refused' : null });
            }),
          );
        // A closed port answers with a reset: one failed look.
        if (!peer.port.lets('client') && !peer.port.lets('member')) back('failed');
        else server.probe(back);
      });
    });
  }

  const node: SimNode = {
    name,
    kind: shape.kind,
    clock,
    disk,
    port,
    guard,
    database,
    agent: () => (scope?.alive() === true ? agent : null),
    agentScope: () => scope,
    agentSince: () => (scope?.alive() === true ? startedAt : Number.POSITIVE_INFINITY),
    killAgent: () => {
      const died = scope;
      kill();
      trace.add(`${name}/agent`, 'killed');
      if (died !== null) again(died);
    },
    startAgent: () => {
      held = false;
      start();
    },
    holdAgent: () => {
      held = true;
    },
    stopAgent: () => scope?.pause(),
    resumeAgent: () => scope?.resume(),
    lastPause: null,
    lastAskedAt: Number.NEGATIVE_INFINITY,
  };
  machine.onPower((on) => {
    if (on) {
      port.reset();
      database?.powerOn(machine.scope());
      machine.scope().after(1500, () => node.startAgent());
    } else {
      agent = null;
      database?.powerOff();
    }
  });
  machine.onSuspend(() => {
    pausedAt = scheduler.now();
  });
  machine.onResume(() => {
    node.lastPause = { from: pausedAt, until: scheduler.now() };
  });
  return node;
}

/** A killed agent's write still ends (the kernel has it), but nobody hears of it; the files are the host's. */
function scopedDisk(disk: Disk, scope: Scope): Disk {
  return {
    ...disk,
    get full() {
      return disk.full;
    },
    get slowMs() {
      return disk.slowMs;
    },
    file: (name) => {
      const file = disk.file(name);
      return { read: file.read, write: (text) => scope.enter(file.write(text)) };
    },
  };
}
