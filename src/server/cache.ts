/**
 * Everything below /pgherd/v1/ in memory, kept by one watch, for people who look. What changes something is never decided from it:
 * writes read the store itself, and are guarded by the revisions they read.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type MonoMs, type Revision, makeRevision } from '../core/ids.ts';
import { ROOT } from '../store/keys.ts';
import type { KeyValue, Store, WatchBatch } from '../store/store.ts';

export interface Cached {
  readonly kv: KeyValue;
  /** When this cache saw the key at its present revision. */
  readonly seenAt: MonoMs;
}

export interface StoreCache {
  get(key: string): Cached | null;
  /** Sorted by key. */
  list(prefix: string): readonly Cached[];
  /** When the key was seen to vanish; null while it exists, and when it never did. */
  goneAt(key: string): MonoMs | null;
  revision(): Revision;
  /** Empty before the first contact. */
  incarnation(): string;
  /** How long ago the store confirmed that nothing was missed; null before the first listing. */
  ageMs(): number | null;
  /** How long this watch has gone on without a gap. */
  watchedMs(): number;
  /** Called after each batch is applied, and after a new listing with `null`. */
  subscribe(listener: (batch: WatchBatch | null) => void): () => void;
  /** Resolves true once the first listing is there; false after `limitMs`. */
  ready(limitMs: number): Promise<boolean>;
  close(): Promise<void>;
}

const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 2000;
/** Keys seen to vanish; only lease keys are asked for, so a bound by count is enough. */
const MAX_GONE = 1000;

export function openCache({ store, clock, log }: { readonly store: Store; readonly clock: Clock; readonly log: Logger }): StoreCache {
  let entries = new Map<string, Cached>();
  const gone = new Map<string, MonoMs>();
  const listeners = new Set<(batch: WatchBatch | null) => void>();
  const stop = new AbortController();
  let revision = makeRevision(0);
  let incarnation = '';
  let freshAt: MonoMs | null = null;
  let since: MonoMs | null = null;
  let sorted: readonly string[] | null = null;

  const tell = (batch: WatchBatch | null): void => {
    for (const listener of listeners) {
      try {
        listener(batch);
      } catch (cause) {
        log.error({ error: cause }, 'a reader of the watch failed');
      }
    }
  };
  const vanish = (key: string, at: MonoMs): void => {
    if (gone.size >= MAX_GONE) gone.clear();
    gone.set(key, at);
  };
  const apply = (batch: WatchBatch): void => {
    const at = clock.now().mono;
    for (const event of batch.events) {
      if (event.kind === 'put') {
        entries.set(event.kv.key, { kv: event.kv, seenAt: at });
        gone.delete(event.kv.key);
      } else if (entries.delete(event.key)) vanish(event.key, at);
    }
    sorted = null;
    revision = batch.revision;
    freshAt = at;
    tell(batch);
  };

  /** Lists, then watches until the watch ends. Answers whether it got as far as watching. */
  const follow = async (): Promise<boolean> => {
    const sentAt = clock.now().mono;
    const status = await store.status();
    if (!status.ok) return false;
    const listing = await store.list(ROOT);
    if (!listing.ok) return false;
    // The store was moved between the two answers: the listing may be of either.
    const again = await store.status();
    if (!again.ok || again.value.incarnation !== status.value.incarnation) return false;
    const at = clock.now().mono;
    const before = entries;
    entries = new Map();
    for (const kv of listing.value.kvs) {
      const old = before.get(kv.key);
      // A gap in the watch does not make an old report young again.
      entries.set(kv.key, old !== undefined && old.kv.modRevision === kv.modRevision ? old : { kv, seenAt: at });
      gone.delete(kv.key);
    }
    for (const key of before.keys()) if (!entries.has(key)) vanish(key, at);
    sorted = null;
    incarnation = status.value.incarnation;
    revision = listing.value.revision;
    freshAt = sentAt;
    since = at;
    tell(null);
    await watchUntilEnd();
    since = null;
    return true;
  };
  const watchUntilEnd = (): Promise<void> =>
    new Promise((resolve) => {
      if (stop.signal.aborted) {
        resolve();
        return;
      }
      const watcher = store.watch(ROOT, revision, {
        onBatch: apply,
        onAlive: (sentAt) => {
          if (freshAt === null || sentAt > freshAt) freshAt = sentAt;
        },
        onEnd: (reason, message) => {
          if (!stop.signal.aborted) log.info({ reason, why: message }, 'the watch ended; listing again');
          resolve();
        },
      });
      stop.signal.addEventListener('abort', () => {
        watcher.close();
        resolve();
      });
    });
  const run = async (): Promise<void> => {
    let pause = RETRY_FIRST_MS;
    while (!stop.signal.aborted) {
      const watched = await follow();
      pause = watched ? RETRY_FIRST_MS : Math.min(pause * 2, RETRY_LAST_MS);
      await clock.sleep(pause, stop.signal);
    }
  };
  const running = run();

  return {
    get: (key) => entries.get(key) ?? null,
    list: (prefix) => {
      sorted ??= [...entries.keys()].sort();
      const found: Cached[] = [];
      for (let at = lowerBound(sorted, prefix); at < sorted.length; at++) {
        const key = sorted[at] ?? '';
        if (!key.startsWith(prefix)) break;
        const entry = entries.get(key);
        if (entry !== undefined) found.push(entry);
      }
      return found;
    },
    goneAt: (key) => gone.get(key) ?? null,
    revision: () => revision,
    incarnation: () => incarnation,
    ageMs: () => (freshAt === null ? null : Math.max(0, clock.now().mono - freshAt)),
    watchedMs: () => (since === null ? 0 : clock.now().mono - since),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    ready: async (limitMs) => {
      const deadline = clock.now().mono + limitMs;
      while (freshAt === null && clock.now().mono < deadline && !stop.signal.aborted) await clock.sleep(20, stop.signal);
      return freshAt !== null;
    },
    close: async () => {
      stop.abort();
      listeners.clear();
      await running;
    },
  };
}

/** Index of the first key that is not below `prefix`. */
function lowerBound(sorted: readonly string[], prefix: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] ?? '') < prefix) low = middle + 1;
    else high = middle;
  }
  return low;
}
