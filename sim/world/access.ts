/** How the processes of a host reach the store, and go over to one that was restored (src/store/restored.ts). */
import type { Logger } from '../../src/base/log.ts';
import { createMovableStore } from '../../src/store/movable.ts';
import { followRestores } from '../../src/store/restored.ts';
import type { Store } from '../../src/store/store.ts';
import type { StoreClient, StoreModel } from '../model/store.ts';
import type { HostClock } from './host-clock.ts';

export interface StoreAccess {
  open(client: Omit<StoreClient, 'now'>, clock: HostClock, log: Logger): Store;
}

/** `restores`: a store is restored in this run. Without it nobody looks, so that a run of which it is no part is the same run as ever. */
export function createStoreAccess(store: StoreModel, restores: boolean): StoreAccess {
  return {
    open: ({ host, scope }, clock, log) => {
      const open = (): Store => store.open({ host, scope, now: clock.now });
      if (!restores) return open();
      const movable = createMovableStore(open());
      void followRestores({
        movable,
        open,
        clock: clock.of(scope),
        log,
        signal: new AbortController().signal,
        onMoved: () => undefined,
      });
      return movable.store;
    },
  };
}
