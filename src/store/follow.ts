/** Lists a prefix, watches it from there, and lists again whenever the watch ends: the store cancelled it, compacted what it lacks, or somebody here asks. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { MonoMs, Revision } from '../core/ids.ts';
import type { Listing, Store, WatchBatch } from './store.ts';

export interface FollowOptions {
  readonly store: Store;
  readonly prefix: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** `sentAt`: before the listing was asked for; what it shows is fresh as of then. */
  readonly onListing: (listing: Listing, sentAt: MonoMs) => void;
  readonly onBatch: (batch: WatchBatch) => void;
  /** Nothing is newer than what was told by `sentAt`; about every second. */
  readonly onAlive?: (sentAt: MonoMs) => void;
  /** The watch ended; a listing follows as soon as the store answers. */
  readonly onLost: () => void;
  /** Called once, at the start, with what ends the present watch: what was told cannot be right, and everything is listed again. */
  readonly onStart?: (listAgain: () => void) => void;
}

const RETRY_MS = 100;

/** Returns when `signal` aborts. A store that does not answer is tried again for ever, slowly. */
export async function followPrefix(options: FollowOptions): Promise<void> {
  const { store, prefix, clock, log, signal } = options;
  const running: Running = { end: null };
  options.onStart?.(() => running.end?.());
  while (!signal.aborted) {
    const sentAt = clock.now().mono;
    const listed = await store.list(prefix);
    if (signal.aborted) return;
    if (!listed.ok) {
      log.debug({ error: listed.error.kind }, `listing ${prefix} failed: ${listed.error.message}`);
      await clock.sleep(RETRY_MS, signal);
      continue;
    }
    options.onListing(listed.value, sentAt);
    await watchFrom(options, running, listed.value.revision);
    options.onLost();
    await clock.sleep(RETRY_MS / 4, signal);
  }
}

/** The watch that runs now; null: none does, and a listing is on its way. */
interface Running {
  end: (() => void) | null;
}

function watchFrom({ store, prefix, log, signal, onBatch, onAlive }: FollowOptions, running: Running, revision: Revision): Promise<void> {
  return new Promise((resolve) => {
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      running.end = null;
      signal.removeEventListener('abort', end);
      watcher.close();
      resolve();
    };
    const watcher = store.watch(prefix, revision, {
      onBatch: (batch) => {
        if (!over) onBatch(batch);
      },
      onAlive: (sentAt) => {
        if (!over) onAlive?.(sentAt);
      },
      onEnd: (reason, message) => {
        log.info({ reason, prefix }, `the watch ended: ${message}; listing again`);
        queueMicrotask(end);
      },
    });
    running.end = end;
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}
