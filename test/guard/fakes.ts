/** A virtual clock and a small store for the keeper's tests: ports, not mocks of our own code. */
import type { Clock } from '../../src/base/clock.ts';
import { type MonoMs, makeMonoMs, makeRevision, makeWallMs } from '../../src/core/ids.ts';
import { err, ok } from '../../src/core/result.ts';
import type { Compare, KeyValue, Op, Store, StoreError } from '../../src/store/store.ts';

export interface FakeClock extends Clock {
  /** Lets `ms` pass, waking sleepers in order. */
  pass(ms: number): Promise<void>;
  /** Time that the monotonic clock does not count. */
  pause(ms: number): void;
  readonly boot: () => number;
}

export function createFakeClock(): FakeClock {
  let mono = 100_000;
  let uncounted = 0;
  const sleepers = new Set<{ at: number; wake: () => void }>();
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 60; i++) await Promise.resolve();
  };
  return {
    now: () => ({ mono: makeMonoMs(mono), wall: makeWallMs(1_700_000_000_000 + Math.round(mono + uncounted)) }),
    boot: () => mono + uncounted,
    pause: (ms) => {
      uncounted += ms;
    },
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (ms <= 0 || signal?.aborted === true) return resolve();
        const sleeper = { at: mono + ms, wake: () => done() };
        const done = (): void => {
          sleepers.delete(sleeper);
          signal?.removeEventListener('abort', done);
          resolve();
        };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', done, { once: true });
      }),
    pass: async (ms) => {
      const end = mono + ms;
      await settle();
      for (;;) {
        const next = [...sleepers].sort((a, b) => a.at - b.at)[0];
        if (next === undefined || next.at > end) break;
        mono = Math.max(mono, next.at);
        next.wake();
        await settle();
      }
      mono = end;
      await settle();
    },
  };
}

export interface FakeStore extends Store {
  /** `down`: nothing is answered and nothing happens. `unknown`: the next writing transaction happens, its answer is lost. */
  mode: 'up' | 'down' | 'unknown';
  readonly data: Map<string, KeyValue>;
  put(key: string, value: string, lease?: string): void;
  expire(lease: string): void;
  readonly leases: Set<string>;
}

export function createFakeStore(clock: FakeClock): FakeStore {
  let revision = 10;
  let nextLease = 1;
  const data = new Map<string, KeyValue>();
  const leases = new Set<string>();
  const unavailable: StoreError = { kind: 'unavailable', message: 'nobody answers' };
  const gone: StoreError = { kind: 'lease-not-found', message: 'no such lease' };
  const write = (key: string, value: string, lease: string | null): void => {
    const old = data.get(key);
    const createRevision = old?.createRevision ?? makeRevision(revision);
    data.set(key, { key, value, createRevision, modRevision: makeRevision(revision), version: (old?.version ?? 0) + 1, lease });
  };
  const holds = (compare: Compare): boolean => {
    const found = data.get(compare.key);
    const [left, right] =
      compare.target === 'mod'
        ? [found?.modRevision ?? 0, compare.revision]
        : compare.target === 'create'
          ? [found?.createRevision ?? 0, compare.revision]
          : compare.target === 'value'
            ? [found?.value ?? '', compare.value]
            : [found?.lease ?? '0', compare.lease];
    return compare.op === '=' ? left === right : compare.op === '!=' ? left !== right : compare.op === '<' ? left < right : left > right;
  };
  const dropLease = (lease: string): void => {
    leases.delete(lease);
    for (const kv of [...data.values()]) if (kv.lease === lease) data.delete(kv.key);
  };
  /** A lost answer takes its time. */
  const down = async () => {
    await clock.sleep(300);
    return err(unavailable);
  };
  const store: FakeStore = {
    mode: 'up',
    data,
    leases,
    put: (key, value, lease) => {
      revision += 1;
      write(key, value, lease ?? null);
    },
    expire: dropLease,
    status: () => Promise.reject(new Error('not used')),
    list: () => Promise.reject(new Error('not used')),
    watch: () => ({ close: () => undefined }),
    close: () => undefined,
    get: async (key) => (store.mode === 'down' ? down() : ok(data.get(key) ?? null)),
    grantLease: async (ttlMs) => {
      if (store.mode === 'down') return down();
      const id = String(nextLease++);
      leases.add(id);
      return ok({ id, ttlMs });
    },
    keepAlive: async (lease) => (store.mode === 'down' ? down() : leases.has(lease) ? ok({ ttlMs: 3000 }) : err(gone)),
    revokeLease: async (lease) => {
      if (store.mode === 'down') return down();
      const had = leases.has(lease);
      dropLease(lease);
      return had ? ok(null) : err(gone);
    },
    txn: async (compares, then, otherwise = []) => {
      if (store.mode === 'down') return down();
      const succeeded = compares.every(holds);
      const ops: readonly Op[] = succeeded ? then : otherwise;
      const reads: KeyValue[][] = [];
      if (ops.some((op) => op.kind === 'put' || op.kind === 'delete')) revision += 1;
      for (const op of ops) {
        if (op.kind === 'put' && op.lease !== undefined && !leases.has(op.lease)) return err(gone);
        if (op.kind === 'put') write(op.key, op.value, op.lease ?? null);
        if (op.kind === 'delete') data.delete(op.key);
        if (op.kind === 'get') reads.push([data.get(op.key)].filter((kv) => kv !== undefined));
      }
      if (store.mode === 'unknown' && ops.some((op) => op.kind === 'put')) {
        store.mode = 'up';
        return err({ kind: 'unknown', message: 'the answer was lost' });
      }
      return ok({ succeeded, revision: makeRevision(revision), reads });
    },
  };
  return store;
}

export type { MonoMs };
