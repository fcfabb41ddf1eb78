/**
 * One key under a lease of its own, kept alive: a node's report, a proxy's acknowledgement.
 *
 * States: no lease → lease without the key → key stands → (lease lost) → no lease. Whatever happens, the loop goes back to the first and on.
 * Every write compares the key's revision that this session saw last, so that a late write whose answer was lost cannot overwrite a newer one.
 */
import { type Clock, realClock } from '../base/clock.ts';
import { type MonoMs, addMono, makeMonoMs, makeRevision, type Revision } from '../core/ids.ts';
import type { Store, StoreError } from './store.ts';

export interface SessionOptions {
  /** In etcd at least about 2 s are granted. */
  readonly ttlMs: number;
  readonly clock?: Clock;
  /** Called once for each new reason why the store does not take the key, and with null when it does again. */
  readonly onProblem?: (error: StoreError | null) => void;
}

export interface Session {
  /** The newest value wins; returns at once. An equal value is not written again. */
  put(value: string): void;
  /** Decimal text; null while there is none. */
  lease(): string | null;
  /** When the request was sent whose answer proved last that the key stands with this session's lease. 0: never. */
  confirmedAt(): MonoMs;
  /** Resolves once the value that was put last stands in the store; rejects never, waits for ever while the store is lost. */
  settled(): Promise<void>;
  /** Revokes the lease (bounded: 1 s), so that the key vanishes at once. */
  close(): Promise<void>;
  /** Renews no more; the key stands until its lease ends. Resolves when nothing runs any more. */
  leave(): Promise<void>;
}

/** After a failure, and between looks at a new value: short, because reports wait for it; not zero, because a lost store must not be hammered. */
const RETRY_MS = 100;
const CLOSE_MS = 1_000;
const WOKEN = 'woken';

interface State {
  lease: { readonly id: string; readonly ttlMs: number } | null;
  wanted: string | null;
  written: string | null;
  /** Of the key, as this session saw it last; 0: absent. */
  modRevision: Revision;
  confirmedAt: MonoMs;
  renewedAt: MonoMs;
  problem: string | null;
  wake: AbortController;
  closed: boolean;
  settled: (() => void)[];
}

/** Starts at once; nothing is written before the first put(). */
export function keepSession(store: Store, key: string, options: SessionOptions): Session {
  const clock = options.clock ?? realClock;
  const never = makeMonoMs(0);
  const state: State = {
    lease: null,
    wanted: null,
    written: null,
    modRevision: makeRevision(0),
    confirmedAt: never,
    renewedAt: never,
    problem: null,
    wake: new AbortController(),
    closed: false,
    settled: [],
  };
  const ending = new AbortController();
  // With a reason given, no exception with a stack is made for it.
  const wake = (): void => state.wake.abort(WOKEN);

  const run = async (): Promise<void> => {
    while (!state.closed) {
      state.wake = new AbortController();
      const error = await step(store, key, { state, clock, ttlMs: options.ttlMs });
      if ((error?.message ?? null) !== state.problem) {
        state.problem = error?.message ?? null;
        options.onProblem?.(error);
      }
      if (state.closed) break;
      if (error !== null) await clock.sleep(RETRY_MS, ending.signal);
      else if (state.written === state.wanted) {
        for (const resolve of state.settled.splice(0)) resolve();
        await clock.sleep(untilRenewal(state, clock), state.wake.signal);
      }
    }
  };
  const running = run();
  const end = async (): Promise<void> => {
    state.closed = true;
    ending.abort();
    wake();
    await running;
  };

  return {
    put: (value) => {
      if (value === state.wanted) return;
      state.wanted = value;
      wake();
    },
    lease: () => state.lease?.id ?? null,
    confirmedAt: () => state.confirmedAt,
    settled: () =>
      new Promise((resolve) => {
        state.settled.push(resolve);
        wake();
      }),
    leave: end,
    close: async () => {
      await end();
      if (state.lease !== null) await store.revokeLease(state.lease.id, { deadline: addMono(clock.now().mono, CLOSE_MS) });
      for (const resolve of state.settled.splice(0)) resolve();
    },
  };
}

/** Without a value there is no lease and nothing to renew: only put() and close() end that wait. */
const IDLE_MS = 60_000;

function untilRenewal(state: State, clock: Clock): number {
  if (state.lease === null) return IDLE_MS;
  return Math.max(0, state.renewedAt + state.lease.ttlMs / 3 - clock.now().mono);
}

interface Context {
  readonly state: State;
  readonly clock: Clock;
  readonly ttlMs: number;
}

/** One request's worth of progress. Null: done or progressed; else what the store said. */
async function step(store: Store, key: string, { state, clock, ttlMs }: Context): Promise<StoreError | null> {
  if (state.wanted === null) return null;
  const sentAt = clock.now().mono;
  if (state.lease === null) {
    const granted = await store.grantLease(ttlMs);
    if (!granted.ok) return granted.error;
    state.lease = granted.value;
    state.renewedAt = sentAt;
    state.written = null;
    return null;
  }
  // A write that goes out now takes a renewal that is nearly due with it.
  const soon = state.written !== state.wanted && untilRenewal(state, clock) < ttlMs / 6;
  if (soon) return writeAndRenew(store, key, { state, clock, ttlMs });
  if (untilRenewal(state, clock) === 0) {
    const renewed = await store.keepAlive(state.lease.id, { deadline: addMono(sentAt, ttlMs / 2) });
    if (!renewed.ok) return forget(state, renewed.error);
    state.renewedAt = sentAt;
    // A write that was answered since the last renewal proved that the key stands.
    return sentAt - state.confirmedAt < ttlMs / 3 ? null : confirm(store, key, state, sentAt);
  }
  return state.written === state.wanted ? null : write(store, key, state, sentAt);
}

async function writeAndRenew(store: Store, key: string, { state, clock, ttlMs }: Context): Promise<StoreError | null> {
  const sentAt = clock.now().mono;
  const lease = state.lease;
  if (lease === null) return null;
  const [renewed, written] = await Promise.all([
    store.keepAlive(lease.id, { deadline: addMono(sentAt, ttlMs / 2) }),
    write(store, key, state, sentAt),
  ]);
  if (!renewed.ok) return forget(state, renewed.error);
  state.renewedAt = sentAt;
  return written;
}

/** A keep-alive proves the lease only; that the key still stands below it is read. */
async function confirm(store: Store, key: string, state: State, sentAt: MonoMs): Promise<StoreError | null> {
  const found = await store.get(key);
  if (!found.ok) return found.error;
  state.modRevision = found.value?.modRevision ?? makeRevision(0);
  if (state.written === null) return null;
  if (found.value?.lease === state.lease?.id && found.value?.value === state.written) state.confirmedAt = sentAt;
  else state.written = null;
  return null;
}

async function write(store: Store, key: string, state: State, sentAt: MonoMs): Promise<StoreError | null> {
  const { wanted, lease } = state;
  if (wanted === null || lease === null) return null;
  const guard = { target: 'mod', key, op: '=', revision: state.modRevision } as const;
  const done = await store.txn([guard], [{ kind: 'put', key, value: wanted, lease: lease.id }], [{ kind: 'get', key }]);
  if (!done.ok) return forget(state, done.error);
  if (!done.value.succeeded) {
    // Ours from before a lost answer, or of an earlier run of this role: the next step writes over it, knowing its revision.
    state.modRevision = done.value.reads[0]?.[0]?.modRevision ?? makeRevision(0);
    return null;
  }
  state.modRevision = done.value.revision;
  state.written = wanted;
  state.confirmedAt = sentAt;
  return null;
}

function forget(state: State, error: StoreError): StoreError {
  if (error.kind === 'lease-not-found') {
    state.lease = null;
    state.written = null;
  }
  return error;
}
