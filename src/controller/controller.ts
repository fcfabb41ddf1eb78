/**
 * The loop that hosts the brain: elected in the store, it watches one cluster, decides on every change, and writes each decision in one guarded
 * transaction. A decision that loses a race is thrown away; the next one rests on what won.
 *
 * Only the elected one decides; the others watch all the same, so that a takeover needs no listing and no waiting for reports.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { startLoop } from '../base/loop.ts';
import { decideCluster } from '../core/cluster/decide.ts';
import type { ClusterId, Now } from '../core/ids.ts';
import { DEFAULTS } from '../core/spec.ts';
import type { ClusterEvent } from '../core/state.ts';
import type { ClusterView, Decision } from '../core/view.ts';
import { type Election, type Leadership, electController } from '../store/election.ts';
import { clusterKeys } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { type ClusterCache, createClusterCache } from './cache.ts';
import { type FenceRunner, type Fencer, createFenceRunner } from './fencing.ts';
import { followPrefix } from '../store/follow.ts';
import { buildTransaction, isEmpty, ownEvent, trim, written } from './write.ts';

export interface ControllerOptions {
  readonly store: Store;
  readonly cluster: ClusterId;
  readonly clock: Clock;
  readonly log: Logger;
  /** Who campaigns, e.g. `server/host1`. */
  readonly name: string;
  readonly signal: AbortSignal;
  readonly ttlMs?: number;
  /** See `electController`. */
  readonly home?: string;
  /** See `electController`. */
  readonly standBackMs?: () => number;
  readonly yields?: () => boolean;
  /** Turns hosts off; null: no command is configured here. */
  readonly fencer?: Fencer | null;
  /** A planned switchover has begun, and nobody was told to stop yet: the time for what would disturb it. */
  readonly onSwitchover?: () => void;
  /** A term was opened, and its record is written. */
  readonly onOpened?: () => void;
  /** What a broken invariant ends; default: the process. */
  readonly crash?: (error: Error) => void;
}

/** Waits that rules count pass also when nothing changes. */
const TICK_MS = 250;
/** Changes that come together (a report of each node after one event) make one decision. */
const COALESCE_MS = 3;
/** After a lost race or an unknown outcome: time for the watch to bring what won. */
const AFTER_RACE_MS = 20;
const AFTER_ERROR_MS = 100;
/** Events between two clean-ups. */
const TRIM_EVERY = 100;
const STATUS_RETRY_MS = 200;

interface Context extends ControllerOptions {
  readonly keys: ReturnType<typeof clusterKeys>;
  readonly cache: ClusterCache;
  readonly election: Election;
  readonly fencing: FenceRunner;
  incarnation: string;
  /** Unreadable values that were not told yet. */
  untold: ClusterEvent[];
  eventsSinceTrim: number;
  /** The watch has told everything up to then. */
  confirmedAt: number;
  /** What the last transaction that lost its race compared, and when that was answered first; null: none lost since one was written. */
  race: { readonly compared: string; readonly at: number } | null;
  /** Ends the watch, so that everything is listed again. */
  listAgain: () => void;
  /** The last decision that was logged without being written, so that a waiting rule makes one line. */
  lastLogged: string;
}

/** Runs until `signal` aborts; then resigns and returns. Never throws for a store that fails; a broken invariant ends the process (startLoop), or what `crash` says. */
export async function runController(options: ControllerOptions): Promise<void> {
  const { store, clock, signal } = options;
  const log = options.log.child({ cluster: options.cluster });
  const keys = clusterKeys(options.cluster);
  const incarnation = await readIncarnation(options);
  if (incarnation === null) return;
  const cache = createClusterCache(keys);
  const wake = (reason: string): void => loop.wake(reason);
  const election = electController(store, keys.controller, {
    name: options.name,
    ttlMs: options.ttlMs ?? DEFAULTS.controllerTtlMs,
    clock,
    signal,
    ...(options.home === undefined ? {} : { home: options.home }),
    ...(options.standBackMs === undefined ? {} : { standBackMs: options.standBackMs }),
    ...(options.yields === undefined ? {} : { yields: options.yields }),
    onChange: (leadership) => {
      log.info({ elected: leadership !== null }, leadership === null ? 'no longer the controller' : 'elected as the controller');
      wake('election');
    },
  });
  const fencing = createFenceRunner({ fencer: options.fencer ?? null, cluster: options.cluster, clock, log, onEnd: () => wake('fencing command') });
  const context: Context = {
    ...options,
    log,
    keys,
    cache,
    election,
    fencing,
    incarnation,
    untold: [],
    eventsSinceTrim: TRIM_EVERY,
    confirmedAt: -Infinity,
    race: null,
    listAgain: () => undefined,
    lastLogged: '',
  };
  const loop = startLoop({
    name: `controller/${options.cluster}`,
    intervalMs: TICK_MS,
    log,
    clock,
    step: (reason) => step(context, reason),
    ...(options.crash === undefined ? {} : { crash: options.crash }),
  });
  await followPrefix({
    store,
    prefix: keys.prefix,
    clock,
    log,
    signal,
    onListing: (listing) => {
      cache.replace(listing.kvs, listing.revision, clock.now());
      wake('listing');
    },
    onBatch: (batch) => {
      const now = clock.now();
      for (const event of batch.events) {
        if (event.kind === 'put') cache.put(event.kv, now);
        else cache.remove(event.key, event.revision, now);
      }
      if (batch.events.some((event) => matters(keys, event.kind === 'put' ? event.kv.key : event.key))) wake('change');
    },
    onAlive: (sentAt) => {
      context.confirmedAt = Math.max(context.confirmedAt, sentAt);
    },
    onLost: () => cache.lost(),
    onStart: (listAgain) => {
      context.listAgain = listAgain;
    },
  });
  await loop.stop();
  await election.close();
}

/** Our own events, terms and registrations decide nothing. */
function matters(keys: ReturnType<typeof clusterKeys>, key: string): boolean {
  return !key.startsWith(keys.events) && !key.startsWith(keys.history) && key !== keys.controller && !key.endsWith('/member');
}

/** Null when the signal aborted first. */
async function readIncarnation({ store, clock, log, signal }: ControllerOptions): Promise<string | null> {
  while (!signal.aborted) {
    const status = await store.status();
    if (status.ok) return status.value.incarnation;
    log.debug({ error: status.error.kind }, `the store does not answer: ${status.error.message}`);
    await clock.sleep(STATUS_RETRY_MS, signal);
  }
  return null;
}

async function step(context: Context, reason: string): Promise<number> {
  const { clock, election, cache, signal } = context;
  if (reason === 'change') await clock.sleep(COALESCE_MS, signal);
  const leadership = election.leadership();
  if (leadership === null) return TICK_MS;
  const now = clock.now();
  const seen = cache.view(now, context.incarnation);
  const view = seen === null ? null : { ...seen, fenceResult: context.fencing.look(seen) };
  tellUnreadable(context, view, now);
  if (view === null) return context.untold.length === 0 ? TICK_MS : await writeUntold(context, leadership);
  const decided = decideCluster(view, now);
  const decision: Decision = context.untold.length === 0 ? decided : { ...decided, events: [...decided.events, ...context.untold] };
  if (isEmpty(decision)) {
    logWaiting(context, view, decision);
    return decision.again ?? TICK_MS;
  }
  return await write(context, leadership, view, decision);
}

function tellUnreadable(context: Context, view: ClusterView | null, now: Now): void {
  for (const one of context.cache.takeUnreadable()) {
    const text = `${one.key} in the store cannot be read: ${one.message}; nothing is decided from it`;
    context.log.error({ key: one.key, revision: one.revision }, text);
    context.untold.push(ownEvent(view, now.wall, 'error', 'controller.unreadable', text));
  }
}

/** Spec or state themselves cannot be read: only that is told, nothing decided, nothing overwritten. */
async function writeUntold(context: Context, leadership: Leadership): Promise<number> {
  const empty: Decision = {
    rule: 'controller.unreadable',
    why: '',
    state: null,
    spec: null,
    events: context.untold,
    tasks: [],
    opened: null,
    again: null,
    dropLease: false,
  };
  const { compares, ops } = buildTransaction(context.keys, context.cache, leadership, empty);
  const done = await context.store.txn(compares.slice(0, 2), ops);
  if (done.ok && done.value.succeeded) context.untold = [];
  return TICK_MS;
}

async function write(context: Context, leadership: Leadership, view: ClusterView, decision: Decision): Promise<number> {
  const { store, keys, cache, clock, log, election } = context;
  const { compares, ops } = buildTransaction(keys, cache, leadership, decision);
  const validUntil = election.validUntil();
  const done = await store.txn(compares, ops, [], validUntil === null ? {} : { deadline: validUntil });
  if (!done.ok) {
    log.warn({ rule: decision.rule, error: done.error.kind }, `the decision was not written for certain: ${done.error.message}; it is decided again`);
    return AFTER_ERROR_MS;
  }
  if (!done.value.succeeded) {
    log.debug({ rule: decision.rule, viewRevision: view.stateRevision }, 'the decision lost a race and is thrown away');
    judgeRace(context, JSON.stringify(compares));
    return AFTER_RACE_MS;
  }
  const now = clock.now();
  for (const kv of written(ops, done.value.revision)) cache.put(kv, now);
  if (decision.dropLease) cache.remove(keys.writeLease, done.value.revision, now);
  context.untold = [];
  context.race = null;
  logDecision(context, view, decision);
  if (decision.opened !== null) context.onOpened?.();
  if (view.state.switchover === null && decision.state?.switchover?.phase === 'checkpoint') context.onSwitchover?.();
  context.eventsSinceTrim += decision.events.length;
  if (context.eventsSinceTrim >= TRIM_EVERY) {
    context.eventsSinceTrim = 0;
    await trim(store, keys, leadership);
  }
  // What was just written may let the next rule speak (an undo, then a failover): no waiting for the watch.
  return decision.state === null && decision.spec === null ? TICK_MS : Math.min(decision.again ?? TICK_MS, AFTER_RACE_MS);
}

/**
 * A race is over once the watch has brought what won it.
 *
 * *Invariant:* a view that misses a change of what decisions are compared with is not decided from for ever. *Because:* the same comparison fails again although
 * the watch has meanwhile confirmed that it told everything up to a moment after the first failure: so an event was lost on the way, which no store should do
 * and some did (*Source:* etcd issues 15220, 18089), and everything is listed again. *Broken if:* the confirmation is older than the failure: then what won may
 * still be on its way, and a new listing would make the controller blind for a moment without need.
 */
function judgeRace(context: Context, compared: string): void {
  const { race, clock, log } = context;
  if (race === null || race.compared !== compared) context.race = { compared, at: clock.now().mono };
  else if (context.confirmedAt > race.at) {
    log.warn({}, 'the watch says that it told everything, and decisions still lose against something that it did not tell; listing again');
    context.race = null;
    context.listAgain();
  }
}

function logDecision(context: Context, view: ClusterView, decision: Decision): void {
  const goals =
    decision.state === null
      ? []
      : Object.entries(decision.state.goals).filter(([node, goal]) => view.state.goals[node as keyof typeof view.state.goals]?.id !== goal.id);
  const fields = {
    rule: decision.rule,
    why: decision.why,
    term: decision.state?.term ?? view.state.term,
    viewRevision: view.stateRevision,
    actions: goals.map(([node, goal]) => `${node}: ${goal.id}`),
  };
  context.lastLogged = decision.rule;
  if (decision.events.length > 0 || goals.length > 0) context.log.info(fields, decision.why);
  else context.log.debug(fields, decision.why);
}

function logWaiting(context: Context, view: ClusterView, decision: Decision): void {
  if (decision.rule === context.lastLogged || decision.rule === 'cluster.steady') return;
  context.lastLogged = decision.rule;
  context.log.debug({ rule: decision.rule, why: decision.why, term: view.state.term, viewRevision: view.stateRevision }, decision.why);
}
