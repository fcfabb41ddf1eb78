/** A controller for each cluster of the store: clusters come and go with their `spec`. */
import { type ClusterId, parseClusterId } from '../core/ids.ts';
import { ROOT } from '../store/keys.ts';
import type { KeyValue } from '../store/store.ts';
import { type ControllerOptions, runController } from './controller.ts';
import { followPrefix } from '../store/follow.ts';

export type ControllersOptions = Omit<ControllerOptions, 'cluster'>;

interface Running {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

/** Runs until `signal` aborts and every controller has resigned. */
export async function runControllers(options: ControllersOptions): Promise<void> {
  const { store, clock, log, signal } = options;
  const running = new Map<ClusterId, Running>();

  function begin(cluster: ClusterId): void {
    if (running.has(cluster) || signal.aborted) return;
    const stop = new AbortController();
    const ended = runController({ ...options, cluster, signal: AbortSignal.any([signal, stop.signal]) });
    running.set(cluster, { stop, ended });
    log.info({ cluster }, `watching the cluster ${cluster}`);
  }

  function end(cluster: ClusterId): void {
    running.get(cluster)?.stop.abort();
    running.delete(cluster);
  }

  await followPrefix({
    store,
    prefix: ROOT,
    clock,
    log,
    signal,
    onListing: (listing) => {
      const present = new Set(listing.kvs.flatMap((kv: KeyValue) => clusterOfSpec(kv.key) ?? []));
      for (const cluster of [...running.keys()]) if (!present.has(cluster)) end(cluster);
      for (const cluster of present) begin(cluster);
    },
    onBatch: (batch) => {
      for (const event of batch.events) {
        const cluster = clusterOfSpec(event.kind === 'put' ? event.kv.key : event.key);
        if (cluster === null) continue;
        if (event.kind === 'put') begin(cluster);
        else end(cluster);
      }
    },
    onLost: () => undefined,
  });
  await Promise.all([...running.values()].map((one) => one.ended));
}

/** The cluster whose spec lies under this key; null for every other key. */
export function clusterOfSpec(key: string): ClusterId | null {
  if (!key.startsWith(ROOT)) return null;
  const [name = '', what] = key.slice(ROOT.length).split('/', 2);
  return what === 'spec' ? parseClusterId(name) : null;
}
