/** The modelled store: `createStoreModel` makes the servers, `open` gives a process its handle. See store/service.ts for what can go wrong with it. */
import type { Now } from '../../src/core/ids.ts';
import type { Store } from '../../src/store/store.ts';
import type { Scheduler, Scope } from '../clock.ts';
import type { Network } from '../network.ts';
import type { Random } from '../random.ts';
import { createClient } from './store/client.ts';
import { createClientConnection } from './store/connection.ts';
import { type StoreHost, type StoreService, createStoreService } from './store/service.ts';
import { createWatchSet } from './store/watches.ts';
import type { StreamHub } from './stream.ts';

export type { Backup, StoreHost, StoreService } from './store/service.ts';

export interface StoreModel extends StoreService {
  open(client: StoreClient): Store;
}

export interface StoreClient {
  readonly host: string;
  /** The process: killed, it hears nothing more; stopped, it hears later. */
  readonly scope: Scope;
  /** Its clocks. */
  readonly now: () => Now;
}

export interface StoreModelOptions {
  readonly clock: Scheduler;
  readonly network: Network;
  readonly streams: StreamHub;
  readonly random: Random;
  /** One: as the embedded engine. Three or five: as etcd. */
  readonly members: readonly StoreHost[];
  /** Decimal text; drawn when absent. */
  readonly incarnation?: string;
}

export function createStoreModel(options: StoreModelOptions): StoreModel {
  const { network, streams, random } = options;
  const service = createStoreService({ ...options, incarnation: options.incarnation ?? String(1 + random.int(2 ** 31)) });
  let clients = 0;
  return {
    ...service,
    open: ({ host, scope, now }) => {
      const own = random.stream(`client ${clients++}`);
      const connection = createClientConnection({ service, streams, network, host, scope });
      const watches = createWatchSet({ service, connection, network, host, scope, now, random: own });
      return createClient({ service, connection, watches, scope, now, random: own });
    },
  };
}
