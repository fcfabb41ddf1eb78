/** A store in memory behind the Store interface: revisions, compares, leases by hand, watches, and faults on request. */
import { monoMs } from '../../src/base/clock.ts';
import { makeRevision, type Revision } from '../../src/core/ids.ts';
import { err, ok } from '../../src/core/result.ts';
import type { Compare, KeyValue, Op, Store, WatchBatch, WatchHandlers } from '../../src/store/store.ts';

export interface MemoryStore {
  readonly store: Store;
  readonly kvs: ReadonlyMap<string, KeyValue>;
  put(key: string, value: string, lease?: string): void;
  remove(key: string): void;
  /** Ends every watch, as a lost connection does. */
  loseWatches(): void;
  /** Confirms to every watch that it was told everything up to now. */
  confirmWatches(): void;
  /** True: this key's events are lost on the way to the watches. */
  loseEvents: (key: string) => boolean;
  expire(lease: string): void;
  /** Runs before each transaction with writes; may change the store, to make the transaction lose its race. */
  beforeWrite: ((ops: readonly Op[]) => void) | null;
  /** The next transactions with writes are answered `unknown` after they happened. */
  unknownWrites: number;
  writes: number;
}

export function createMemoryStore(): MemoryStore {
  const kvs = new Map<string, KeyValue>();
  const watches = new Set<{ prefix: string; handlers: WatchHandlers }>();
  const leases = new Set<string>();
  const log: WatchBatch[] = [];
  let revision = 1;
  let nextLease = 1;

  function apply(ops: readonly Op[]): readonly (readonly KeyValue[])[] {
    const reads: KeyValue[][] = [];
    const events: WatchBatch['events'][number][] = [];
    const writes = ops.some((op): boolean => op.kind === 'put' || op.kind === 'delete' || op.kind === 'delete-prefix');
    if (writes) revision += 1;
    const at = makeRevision(revision);
    const drop = (key: string): void => {
      if (kvs.delete(key)) events.push({ kind: 'delete', key, revision: at });
    };
    for (const op of ops) {
      if (op.kind === 'put') {
        const known = kvs.get(op.key);
        const kv: KeyValue = {
          key: op.key,
          value: op.value,
          createRevision: known?.createRevision ?? at,
          modRevision: at,
          version: (known?.version ?? 0) + 1,
          lease: op.lease ?? null,
        };
        kvs.set(op.key, kv);
        events.push({ kind: 'put', kv });
      } else if (op.kind === 'delete') drop(op.key);
      else if (op.kind === 'delete-prefix') {
        for (const key of [...kvs.keys()]) if (key.startsWith(op.prefix)) drop(key);
      } else if (op.kind === 'get') reads.push([kvs.get(op.key)].filter((kv) => kv !== undefined));
      else if (op.kind === 'get-prefix') reads.push([...kvs.values()].filter((kv) => kv.key.startsWith(op.prefix)));
    }
    if (events.length > 0) log.push({ revision: at, events });
    for (const watch of watches) {
      const mine = events.filter((event) => {
        const key = event.kind === 'put' ? event.kv.key : event.key;
        return key.startsWith(watch.prefix) && !self.loseEvents(key);
      });
      if (mine.length > 0) queueMicrotask(() => watches.has(watch) && watch.handlers.onBatch({ revision: at, events: mine }));
    }
    return reads;
  }

  function holds(compare: Compare): boolean {
    const kv = kvs.get(compare.key);
    switch (compare.target) {
      case 'mod':
        return (compare.op === '=') === ((kv?.modRevision ?? 0) === compare.revision);
      case 'create':
        return (compare.op === '=') === ((kv?.createRevision ?? 0) === compare.revision);
      case 'lease':
        return (compare.op === '=') === (kv?.lease === compare.lease);
      case 'value':
        return (compare.op === '=') === (kv?.value === compare.value);
    }
  }

  const self: MemoryStore = {
    kvs,
    beforeWrite: null,
    unknownWrites: 0,
    writes: 0,
    put: (key, value, lease) => void apply([lease === undefined ? { kind: 'put', key, value } : { kind: 'put', key, value, lease }]),
    remove: (key) => void apply([{ kind: 'delete', key }]),
    loseWatches: () => {
      for (const watch of [...watches]) {
        watches.delete(watch);
        watch.handlers.onEnd('lost', 'cut');
      }
    },
    confirmWatches: () => {
      for (const watch of watches) watch.handlers.onAlive?.(monoMs());
    },
    loseEvents: () => false,
    expire: (lease) => {
      leases.delete(lease);
      apply([...kvs.values()].filter((kv) => kv.lease === lease).map((kv) => ({ kind: 'delete', key: kv.key })));
    },
    store: {
      status: async () =>
        ok({
          engine: 'simulated',
          version: '0',
          incarnation: 'store-1',
          revision: makeRevision(revision),
          dbSizeBytes: 0,
          endpoint: 'memory',
          members: 1,
        }),
      get: async (key) => ok(kvs.get(key) ?? null),
      list: async (prefix) =>
        ok({
          revision: makeRevision(revision) as Revision,
          incarnation: 'store-1',
          kvs: [...kvs.values()].filter((kv) => kv.key.startsWith(prefix)).sort((a, b) => (a.key < b.key ? -1 : 1)),
        }),
      txn: async (compares, then, otherwise = []) => {
        const writing = then.some((op) => op.kind === 'put' || op.kind === 'delete');
        if (writing) self.beforeWrite?.(then);
        const succeeded = compares.every(holds);
        const reads = apply(succeeded ? then : otherwise);
        if (writing && succeeded) self.writes += 1;
        if (writing && self.unknownWrites > 0) {
          self.unknownWrites -= 1;
          return err({ kind: 'unknown', message: 'the answer was lost' });
        }
        return ok({ succeeded, revision: makeRevision(revision), reads });
      },
      grantLease: async (ttlMs) => {
        const id = String(nextLease++);
        leases.add(id);
        return ok({ id, ttlMs });
      },
      keepAlive: async (lease) => (leases.has(lease) ? ok({ ttlMs: 2000 }) : err({ kind: 'lease-not-found', message: lease })),
      revokeLease: async (lease) => {
        self.expire(lease);
        return ok(null);
      },
      watch: (prefix, after, handlers) => {
        const watch = { prefix, handlers };
        watches.add(watch);
        const missed = log
          .filter((batch) => batch.revision > after)
          .map((batch) => ({
            ...batch,
            events: batch.events.filter((event) => (event.kind === 'put' ? event.kv.key : event.key).startsWith(prefix)),
          }));
        queueMicrotask(() => {
          for (const batch of missed) if (watches.has(watch) && batch.events.length > 0) handlers.onBatch(batch);
        });
        return { close: () => void watches.delete(watch) };
      },
      close: () => watches.clear(),
    },
  };
  return self;
}
