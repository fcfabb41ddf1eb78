import type { Revision } from '../../src/core/ids.ts';
import type { Store, WatchBatch } from '../../src/store/store.ts';

export interface Collected {
  readonly batches: WatchBatch[];
  readonly state: { alive: number; sentAt: number; ended: string | null };
  events(): string[];
  close(): void;
}

/** Collects what a watch delivers. */
export function collect(store: Store, prefix: string, from: Revision): Collected {
  const batches: WatchBatch[] = [];
  const state = { alive: 0, sentAt: 0, ended: null as string | null };
  const watcher = store.watch(prefix, from, {
    onBatch: (batch) => batches.push(batch),
    onAlive: (sentAt) => {
      state.alive += 1;
      state.sentAt = sentAt;
    },
    onEnd: (reason) => {
      state.ended = reason;
    },
  });
  const events = (): string[] =>
    batches.flatMap((batch) =>
      batch.events.map((event) =>
        event.kind === 'put' ? `+${event.kv.key}=${event.kv.value}@${event.kv.modRevision}` : `-${event.key}@${event.revision}`,
      ),
    );
  return { batches, state, events, close: () => watcher.close() };
}
