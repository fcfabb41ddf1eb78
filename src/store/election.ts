/**
 * The election of the controller: one key, created only when absent, under the holder's lease.
 *
 * follower → (key absent, or left behind by a former run at this very place: lease granted, key put) → leader → (lease lost, key gone, own deadline passed, resigned) → follower.
 *
 * *Invariant:* two leaders never both write. *Because:* every write of a leader carries `guards(leadership)`: the store judges them with the write.
 * The own deadline only saves work: it ends the deciding of a leader that is cut off, before another can be elected.
 * *Broken if:* a write of the controller goes without the guards.
 */
import { type Clock, realClock } from '../base/clock.ts';
import { type MonoMs, addMono, makeRevision, type Revision } from '../core/ids.ts';
import { decodeJson, encodeJson, nullable, object, text, withDefault } from '../core/decode.ts';
import type { Compare, KeyValue, Store, Watcher } from './store.ts';

export interface Leadership {
  readonly key: string;
  readonly createRevision: Revision;
  readonly leaseId: string;
}

export interface ElectionOptions {
  /** Who campaigns, e.g. `server/host1`: for people, and stored as the key's value `{"version":1,"name":…}`. */
  readonly name: string;
  /**
   * A place that holds one candidate at a time, whatever happens: a key that names it was left by a run that has ended, and is taken over without waiting
   * for its lease, to which a store that was restarted with its server gives a full TTL once more. Stored beside the name. Default: there is none.
   */
  readonly home?: string;
  /** Whole seconds in both engines; etcd grants at least about 2 s. */
  readonly ttlMs: number;
  readonly clock?: Clock;
  /** How long a vacancy is left to candidates that suit better; asked at each vacancy. Default: not at all. */
  readonly standBackMs?: () => number;
  /** Asked at each renewal: true resigns, so that another candidate can follow; at most once in `YIELD_EVERY_MS`, for there may be no other. */
  readonly yields?: () => boolean;
  /** Ends the campaign like close(), without waiting. */
  readonly signal?: AbortSignal;
  /** Called at each change: elected, or no longer (null). */
  readonly onChange?: (leadership: Leadership | null) => void;
}

export interface Election {
  /** Null when not elected, or when the own deadline has passed. */
  leadership(): Leadership | null;
  /** Until when the leadership stands by the own clock; null when not elected. */
  validUntil(): MonoMs | null;
  /** Value of the key as seen last, whoever holds it; null when nobody does or nothing was seen. */
  holder(): string | null;
  /** Resigns: the lease is revoked (bounded: 1 s), so that the next candidate follows at once. */
  close(): Promise<void>;
}

/** What every transaction of the leader must compare. */
export function guards(leadership: Leadership): Compare[] {
  return [
    { target: 'create', key: leadership.key, op: '=', revision: leadership.createRevision },
    { target: 'lease', key: leadership.key, op: '=', lease: leadership.leaseId },
  ];
}

/** Renewals per TTL: three may be lost. */
const RENEWALS = 4;
/** The own deadline ends this much before the lease could: covers the answer's way and the drift of two clocks over one TTL. */
const MARGIN_MS = 100;
const RETRY_MS = 100;
/** A follower looks again after this time even when its watch says nothing. */
const LOOK_MS = 1_000;
const CLOSE_MS = 1_000;
const YIELD_EVERY_MS = 60_000;

const leftBehind = object({ home: withDefault(nullable(text), null) });

interface State {
  leader: (Leadership & { readonly ttlMs: number }) | null;
  deadline: MonoMs;
  holder: string | null;
  /** No yielding before. */
  yieldAfter: MonoMs;
  closed: boolean;
  readonly abort: AbortController;
}

interface Context {
  readonly store: Store;
  readonly key: string;
  readonly value: string;
  readonly home: string | null;
  readonly ttlMs: number;
  readonly clock: Clock;
  readonly standBackMs: () => number;
  readonly yields: () => boolean;
  readonly state: State;
  readonly onChange: (leadership: Leadership | null) => void;
}

/** Campaigns until closed; never throws, a lost store means: not elected. */
export function electController(store: Store, key: string, options: ElectionOptions): Election {
  const clock = options.clock ?? realClock;
  const state: State = {
    leader: null,
    deadline: clock.now().mono,
    holder: null,
    yieldAfter: clock.now().mono,
    closed: false,
    abort: new AbortController(),
  };
  const value = encodeJson({ version: 1, name: options.name, ...(options.home === undefined ? {} : { home: options.home }) });
  const context: Context = {
    store,
    key,
    value,
    home: options.home ?? null,
    ttlMs: options.ttlMs,
    clock,
    standBackMs: options.standBackMs ?? (() => 0),
    yields: options.yields ?? (() => false),
    state,
    onChange: options.onChange ?? (() => undefined),
  };
  const stop = (): void => {
    state.closed = true;
    state.abort.abort();
  };
  if (options.signal?.aborted === true) stop();
  options.signal?.addEventListener('abort', stop, { once: true });
  const running = campaign(context);
  return {
    leadership: () => (state.leader !== null && clock.now().mono < state.deadline ? state.leader : null),
    validUntil: () => (state.leader === null ? null : state.deadline),
    holder: () => state.holder,
    close: async () => {
      stop();
      options.signal?.removeEventListener('abort', stop);
      await running;
    },
  };
}

async function campaign(context: Context): Promise<void> {
  const { state, clock } = context;
  while (!state.closed) {
    const elected = await tryElect(context);
    if (elected === 'elected') await lead(context);
    else if (elected === 'taken') await waitForVacancy(context);
    else await clock.sleep(RETRY_MS, state.abort.signal);
  }
}

/**
 * Grants a lease and puts the key in one guarded transaction: it is absent, or still the one that was left behind. Whoever held that one writes no more:
 * its guards compare the lease of the key. A lease that won nothing is revoked; one whose outcome is unknown runs out. */
async function tryElect(context: Context): Promise<'elected' | 'taken' | 'failed'> {
  const { store, key, value, ttlMs, clock, state, onChange } = context;
  let found = await look(context);
  const standBack = context.standBackMs();
  if (found === 'vacant' && standBack > 0) {
    await clock.sleep(standBack, state.abort.signal);
    found = await look(context);
  }
  if (found === null || state.closed) return 'failed';
  if (found !== 'vacant' && !isLeftBehind(context, found)) return 'taken';
  const sentAt = clock.now().mono;
  const granted = await store.grantLease(ttlMs);
  if (!granted.ok) return 'failed';
  const { id, ttlMs: grantedMs } = granted.value;
  const unchanged = { target: 'mod', key, op: '=', revision: found === 'vacant' ? makeRevision(0) : found.modRevision } as const;
  const done = await store.txn([unchanged], [{ kind: 'put', key, value, lease: id }], [{ kind: 'get', key }]);
  if (done.ok && done.value.succeeded && !state.closed) {
    state.leader = { key, createRevision: found === 'vacant' ? done.value.revision : found.createRevision, leaseId: id, ttlMs: grantedMs };
    state.deadline = addMono(sentAt, grantedMs - MARGIN_MS);
    state.holder = value;
    onChange(state.leader);
    return 'elected';
  }
  await store.revokeLease(id, { deadline: addMono(clock.now().mono, CLOSE_MS) });
  if (done.ok) state.holder = done.value.reads[0]?.[0]?.value ?? state.holder;
  return done.ok ? 'taken' : 'failed';
}

/** Null when the store does not answer. */
async function look({ store, key, state }: Context): Promise<KeyValue | 'vacant' | null> {
  const found = await store.get(key);
  if (!found.ok) return null;
  state.holder = found.value?.value ?? null;
  return found.value ?? 'vacant';
}

function isLeftBehind({ home }: Context, { value }: KeyValue): boolean {
  const decoded = decodeJson(leftBehind, value);
  return home !== null && decoded.ok && decoded.value.home === home;
}

/** Renews until the leadership is over, then resigns. */
async function lead(context: Context): Promise<void> {
  const { store, key, clock, state, onChange } = context;
  const leader = state.leader;
  if (leader === null) return;
  const gone = new AbortController();
  const watcher = watchKey(context, leader.createRevision, () => gone.abort());
  const wake = AbortSignal.any([gone.signal, state.abort.signal]);
  while (!wake.aborted && clock.now().mono < state.deadline) {
    const sentAt = clock.now().mono;
    if (sentAt >= state.yieldAfter && context.yields()) {
      state.yieldAfter = addMono(sentAt, YIELD_EVERY_MS);
      break;
    }
    const limit = { deadline: addMono(sentAt, Math.min(leader.ttlMs / 2, state.deadline - sentAt)) };
    const renewed = await store.keepAlive(leader.leaseId, limit);
    if (!renewed.ok && renewed.error.kind !== 'unavailable' && renewed.error.kind !== 'unknown') break;
    // The keep-alive proves the lease only; the key may be gone or another's.
    const held = renewed.ok ? await store.txn(guards(leader), [], [{ kind: 'get', key }], limit) : null;
    if (held?.ok === true && !held.value.succeeded) break;
    if (held?.ok === true) state.deadline = addMono(sentAt, leader.ttlMs - MARGIN_MS);
    await clock.sleep(held?.ok === true ? leader.ttlMs / RENEWALS : RETRY_MS, wake);
  }
  watcher.close();
  state.leader = null;
  state.holder = null;
  onChange(null);
  await store.revokeLease(leader.leaseId, { deadline: addMono(clock.now().mono, CLOSE_MS) });
}

/** Returns when the key vanished, after LOOK_MS, or at close. */
async function waitForVacancy(context: Context): Promise<void> {
  const { store, key, clock, state } = context;
  const found = await store.list(key, { limit: 1 });
  if (!found.ok || !found.value.kvs.some((kv) => kv.key === key)) return;
  const vacant = new AbortController();
  const watcher = watchKey(context, found.value.revision, () => vacant.abort());
  await clock.sleep(LOOK_MS, AbortSignal.any([vacant.signal, state.abort.signal]));
  watcher.close();
}

function watchKey({ store, key }: Context, after: Revision, onGone: () => void): Watcher {
  return store.watch(key, after, {
    onBatch: (batch) => {
      if (batch.events.some((event) => event.kind === 'delete' && event.key === key)) onGone();
    },
    onAlive: () => undefined,
    // The loops look for themselves at their own pace.
    onEnd: () => undefined,
  });
}
