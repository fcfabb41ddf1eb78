/** Puts the lease keeper together: store, guard, firewall, promises, and the fence that follows a loss. */
import { type Clock, realClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { isTold } from '../base/seldom.ts';
import type { NodeId, Term } from '../core/ids.ts';
import { LEASE_LOST, type NodeProblem } from '../core/report.ts';
import { type Failure, type Result, describeFailure, err } from '../core/result.ts';
import { type ClusterSpec, DEFAULTS } from '../core/spec.ts';
import type { ClusterState } from '../core/state.ts';
import type { ClusterKeys } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { type Firewall, openFirewall } from './firewall/firewall.ts';
import { type Gate, createGate } from './firewall/gate.ts';
import { resolveMembers } from './firewall/member-addresses.ts';
import { type GuardClient, adoptable, createGuardClient } from './guard/guard-client.ts';
import { type GuardedPostgres, NO_GUARD, createLeaseGuard } from './guard/lease-guard.ts';
import type { AgentConfig } from '../core/agent-config.ts';
import { NO_WATCHDOG, type WatchdogConfig, type WatchdogStatus } from './guard/protocol.ts';
import { bootMs } from './lease/boot-clock.ts';
import { type Hold, type LeaseKeeper, type PromisesAsked, createLeaseKeeper } from './lease/lease-keeper.ts';
import type { Promiser } from './promises/promiser.ts';
import type { PromiseAnswer, PromiseRequest, PromiseReturn } from '../core/node/promises.ts';
import { PROMISE_LIMIT_MS, askForPromises, returnPromises } from './promises/round.ts';
import type { Instance } from './postgres/instance.ts';
import type { Place } from './vip/kernel.ts';

/** What this part opens by itself, unless somebody else (the simulator) brings a model of it. */
export interface WriteLeaseDoors {
  readonly clock: Clock;
  readonly bootMs: () => number;
  readonly firewall: Firewall;
  /** Null: without a guard. */
  readonly guard: GuardClient | null;
  /** What a restarted agent may take over from the guard; null: nothing. */
  readonly adoptable: typeof adoptable;
  /** Addresses of a member's name; absent: the system's resolver. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

export interface WriteLeaseOptions {
  readonly config: Pick<AgentConfig, 'node' | 'cluster' | 'port' | 'firewall' | 'guard' | 'watchdog'>;
  readonly instance: Pick<Instance, 'stateDirectory' | 'dataDirectory'>;
  readonly doors?: WriteLeaseDoors;
  readonly bootId: string;
  readonly store: Store;
  readonly keys: ClusterKeys;
  readonly log: Logger;
  readonly spec: () => ClusterSpec | null;
  readonly state: () => ClusterState | null;
  readonly promiser: () => Promiser;
  readonly ask: (node: NodeId, request: PromiseRequest) => Promise<PromiseAnswer | null>;
  readonly tell: (node: NodeId, given: PromiseReturn) => Promise<void>;
  readonly postmaster: () => { readonly pid: number; readonly startTicks: number } | null;
  /** Virtual addresses that may be on this host; the guard removes them when it fences. Absent: none. */
  readonly addresses?: () => readonly Place[];
  readonly kill: () => Promise<Result<string, Failure>>;
  /** After the fence of a lost lease began; the loop takes over from here. */
  readonly onLost: () => void;
  readonly onChange: () => void;
}

export interface WriteLeaseParts {
  readonly keeper: LeaseKeeper;
  readonly gate: Gate;
  readonly firewall: Firewall;
  readonly guard: GuardClient | null;
  /** Of the watchdog device, as the guard told last. */
  readonly watchdog: () => WatchdogStatus;
  /** Members whose names cannot be resolved for the firewall. */
  problems(): readonly NodeProblem[];
  /** Takes over what the guard guards for a former run of this agent; true when there was a lease. */
  adopt(): Promise<boolean>;
  stop(): void;
}

export async function createWriteLease(options: WriteLeaseOptions): Promise<WriteLeaseParts> {
  const { config, instance, log } = options;
  const doors = options.doors ?? (await openDoors(options));
  const { firewall, guard } = doors;
  let fencing: Promise<void> | null = null;
  /** Why this primary was fenced last, by its agent or by its guard. */
  let lost: { readonly term: number; readonly why: string } | null = null;
  // Names are looked up only where a firewall needs their addresses.
  const resolve = doors.resolve === undefined ? {} : { resolve: doors.resolve };
  const members = firewall.kind === 'off' ? null : resolveMembers({ hosts: () => memberHosts(options.spec()), clock: doors.clock, log, ...resolve });
  /** Since the store renewed last. */
  let failures = 0;
  let byPromises = 0;
  // The keeper is made below and the gate is only used after it.
  let keeper: LeaseKeeper | null = null;
  const gate = createGate({
    firewall,
    deadline: () => keeper?.deadline() ?? null,
    members: () => members?.current() ?? [],
    onFailure: (failure) => log.error({ code: failure.code }, describeFailure(failure)),
  });
  const guarded = (): GuardedPostgres => {
    const found = options.postmaster();
    return {
      dataDirectory: instance.dataDirectory,
      postmaster: found === null ? null : { pid: found.pid, startTime: found.startTicks },
      table: firewall.table,
      addresses: options.addresses?.() ?? [],
    };
  };
  keeper = createLeaseKeeper({
    store: options.store,
    keys: options.keys,
    node: config.node,
    settings: () => leaseSettings(options.spec()),
    clock: doors.clock,
    bootMs: doors.bootMs,
    guard:
      guard === null
        ? config.watchdog.mode === 'required'
          ? NO_WATCHDOG_KEEPER
          : NO_GUARD
        : createLeaseGuard({
            client: guard,
            postgres: guarded,
            watchdog: watchdogOf(config),
            settings: () => leaseSettings(options.spec()),
            clock: doors.clock,
            onFenced: (record) => {
              lost = { term: record.term, why: `its guard fenced it: ${record.why}` };
              log.error({ record }, `the guard fenced this node: ${record.why}`);
            },
          }),
    askPromises: (what) => askMembers(options, what),
    returnPromises: (hold) => tellMembers(options, hold),
    onRenewed: () => void gate.refresh(),
    onPaused: () => void gate.block(),
    onLost: (term, why) => {
      lost ??= { term, why: `its agent fenced it: ${why}` };
      log.error({ term, why }, 'the write lease is lost; fencing');
      options.onLost();
      fencing = fenceNow(options, () => made.releaseLost()).finally(() => {
        fencing = null;
      });
    },
    onEvent: (event) => {
      if (event.kind === 'renewal-failed') {
        failures += 1;
        if (isTold(failures))
          log.warn({ term: event.term, leftMs: Math.round(event.leftMs), failures }, `renewing the write lease failed: ${event.why}`);
      } else if (event.kind !== 'renewed') log.warn({ event }, `write lease: ${event.kind}`);
      else if (event.by === 'promises') {
        byPromises += 1;
        if (isTold(byPromises))
          log.info({ term: event.term, times: byPromises }, 'the store does not answer; the write lease goes on with promises of the members');
      } else {
        if (byPromises > 0) log.info({ term: event.term, times: byPromises }, 'the store answers again, and renews the write lease');
        failures = 0;
        byPromises = 0;
      }
    },
  });
  const made = keeper;
  /** Told until it holds a lease again, or another node is the primary. */
  const lostProblems = (): readonly NodeProblem[] => {
    if (made.heldTerm() !== null || options.state()?.primary !== config.node) lost = null;
    if (lost === null) return [];
    const remedy = 'Look for what was slow then: the store, the host, or the way between them. "pgherd explain" says who is the primary next.';
    return [{ code: LEASE_LOST, text: `the write lease of term ${lost.term} ran out, and ${lost.why}`, remedy }];
  };
  return {
    // A lease is not taken while the fence of the last one still works: its end would meet a server that was started since.
    keeper: { ...made, acquire: async (term, revision, over) => (fencing === null ? made.acquire(term, revision, over) : err(STILL_FENCING)) },
    gate,
    firewall,
    guard,
    watchdog: () => guard?.watchdog() ?? NO_WATCHDOG,
    problems: () => [...(members?.problems() ?? []), ...lostProblems(), ...watchdogProblems(config, keeper?.heldTerm() ?? null, guard)],
    adopt: async () => {
      const status = guard === null ? null : await Promise.race([guard.ensure(), doors.clock.sleep(ADOPT_LIMIT_MS).then(() => null)]);
      if (status === null || !status.ok) return false;
      const lease = doors.adoptable(status.value, options.bootId);
      if (lease === null) return false;
      log.info({ term: lease.term }, 'taking over the write lease that the guard kept');
      const adopted = await made.adopt({ term: lease.term as Term, leaseId: lease.leaseId, deadline: lease.deadline });
      options.onChange();
      return adopted;
    },
    stop: () => {
      made.stop();
      members?.stop();
      guard?.close();
      firewall.close();
    },
  };
}

function watchdogOf({ watchdog }: WriteLeaseOptions['config']): WatchdogConfig | null {
  const { mode, device, timeoutSeconds } = watchdog;
  return mode === 'off' ? null : { mode, device, timeoutSeconds };
}

/** A node without a write lease has nothing to guard, except that a required device keeps it from getting one. */
function watchdogProblems({ watchdog }: WriteLeaseOptions['config'], held: Term | null, guard: GuardClient | null): readonly NodeProblem[] {
  const { state, detail, late } = guard?.watchdog() ?? { ...NO_WATCHDOG, detail: 'there is no guard to keep it' };
  if (state === 'armed' && late) {
    return [
      {
        code: 'fence.late-watchdog',
        text: `the watchdog device (${detail}) is slower than the write lease: another node may be promoted before it resets this host`,
        remedy:
          'Load a driver whose time can be set shorter (softdog can), see that wdctl of util-linux is installed, or raise `leaseTtlMs` with "pgherd meta edit".',
      },
    ];
  }
  if (watchdog.mode === 'off' || state === 'armed' || (held === null && state === 'off')) return [];
  const code = 'fence.no-watchdog';
  const text = `the watchdog device ${watchdog.device} is not in use: ${detail}`;
  const remedy =
    watchdog.mode === 'required'
      ? 'This node gets no write lease until it is: load its driver, or change `watchdog.mode` in agent.yaml.'
      : 'Load its driver, or set `watchdog: { mode: off }` in agent.yaml.';
  return [{ code, text, remedy }];
}

/** The guard keeps the device: without one a node that requires it gets no lease. */
const NO_WATCHDOG_KEEPER: typeof NO_GUARD = { ...NO_GUARD, prepare: async () => false, arm: async () => false };

async function openDoors({ config, instance, log }: WriteLeaseOptions): Promise<WriteLeaseDoors> {
  const firewall = await openFirewall({ setting: config.firewall, cluster: config.cluster, node: config.node, port: config.port });
  const guard = config.guard
    ? createGuardClient({
        stateDirectory: instance.stateDirectory,
        onGone: () => log.warn({}, 'the guard is gone; it is started again'),
        onStarted: (pid) => log.info({ pid }, 'guard started'),
      })
    : null;
  return { clock: realClock, bootMs, firewall, guard, adoptable };
}

/**
 * A guard that lives answers within milliseconds; one that is started anew guards nothing that could be taken over. The agent looks at its PostgreSQL only
 * after this: with a stopped guard nobody else would fence it. Too early costs a fence and a failover; too late, rows on a primary that has lost its lease.
 */
const ADOPT_LIMIT_MS = 1000;

const STILL_FENCING: Failure = {
  code: 'lease.still-fencing',
  what: 'the write lease was not asked for',
  cause: 'the fence of the last one has not ended',
  now: 'it is asked for again at once',
  remedy: '',
  retryable: true,
};

/** The fence blocks the firewall itself, bounded; after a complete kill the guard has nothing to fence any more and must let a read-only start live. */
async function fenceNow(options: WriteLeaseOptions, release: () => Promise<Result<null, Failure>>): Promise<void> {
  const killed = await options.kill();
  if (!killed.ok) options.log.error({ code: killed.error.code }, describeFailure(killed.error));
  else {
    const released = await release();
    if (!released.ok) options.log.info({ code: released.error.code }, describeFailure(released.error));
  }
  options.onChange();
}

async function askMembers(options: WriteLeaseOptions, { term, hold, ttlMs, longMs }: PromisesAsked): Promise<number | null> {
  const state = options.state();
  const clock = options.doors?.clock ?? realClock;
  if (state === null) return null;
  const count = await askForPromises({
    node: options.config.node,
    cluster: options.config.cluster,
    incarnation: state.incarnation,
    electorate: state.electorate,
    term,
    hold,
    ttlMs,
    longMs,
    // As for the other members: a disk that does not answer must not hold a renewal that the store confirms again.
    own: (request) => Promise.race([options.promiser().onPromise(request), clock.sleep(PROMISE_LIMIT_MS).then(() => null)]),
    ask: options.ask,
  });
  if (!count.enough)
    options.log.warn({ term, have: count.have, needed: count.needed }, 'too few members promise; without the store this primary will fence itself');
  return count.enough ? count.ttlMs : null;
}

function tellMembers(options: WriteLeaseOptions, { term, hold }: Hold): Promise<void> {
  return returnPromises({
    node: options.config.node,
    members: options.state()?.electorate.members ?? [],
    given: { cluster: options.config.cluster, term, from: options.config.node, hold },
    own: (given) => options.promiser().onReturn(given),
    tell: options.tell,
  });
}

export function leaseSettings(spec: ClusterSpec | null): { readonly ttlMs: number; readonly renewMs: number; readonly marginMs: number } {
  return {
    ttlMs: spec?.leaseTtlMs ?? DEFAULTS.leaseTtlMs,
    renewMs: spec?.leaseRenewMs ?? DEFAULTS.leaseRenewMs,
    marginMs: spec?.leaseMarginMs ?? DEFAULTS.leaseMarginMs,
  };
}

function memberHosts(spec: ClusterSpec | null): readonly string[] {
  return (spec?.nodes ?? []).map((node) => node.internalHost ?? node.host);
}
