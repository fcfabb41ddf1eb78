/** What the handlers of the API work with. */
import type { RecentLines } from '../base/recent-lines.ts';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type ClusterId, makeClusterId } from '../core/ids.ts';
import { type Result, err, ok } from '../core/result.ts';
import { clusterKeys } from '../store/keys.ts';
import type { KeyValue, Store, StoreError } from '../store/store.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import type { Answer, Body, Params, Query, RouteName } from '../api/routes.ts';
import type { RoleName } from '../api/schema.ts';
import type { Audit } from './audit.ts';
import type { Authority } from './authority.ts';
import type { StoreCache } from './cache.ts';
import type { ServerConfig } from '../core/server-config.ts';
import type { JoinTokens } from './join.ts';
import type { Secrets } from './secrets.ts';
import type { StorePlace } from './store-place.ts';
import type { Users } from './users.ts';
import { type ServerView, buildView, listClusters } from './view.ts';

export interface ServerContext {
  readonly config: ServerConfig;
  readonly store: Store;
  readonly cache: StoreCache;
  readonly users: Users;
  readonly authority: Authority;
  readonly joinTokens: JoinTokens;
  readonly secrets: Secrets;
  readonly audit: Audit;
  readonly log: Logger;
  readonly recentLog: RecentLines;
  readonly clock: Clock;
  readonly version: string;
  /** Where the store is, and how hosts are told. */
  readonly place: StorePlace;
  readonly controllers: { start(): void; stop(): Promise<void> };
  /** `https://host:port` of this server. */
  readonly url: () => string;
  /** The server's certificate was renewed: use it for new connections. */
  readonly reloadTls: () => void;
}

export interface Caller {
  readonly name: string;
  readonly role: RoleName | null;
  readonly address: string;
  readonly socket: TLSSocket | null;
}

export interface ApiRequest<R extends RouteName> {
  readonly params: Params<R>;
  readonly query: Query<R>;
  readonly body: Body<R>;
  readonly caller: Caller;
  /** Revision of `If-Match`; null without the header. */
  readonly ifMatch: number | null;
}

export type ApiResult<T> = Result<T, ApiFailure>;
export type Handler<R extends RouteName> = (context: ServerContext, request: ApiRequest<R>) => Promise<ApiResult<Answer<R>>> | ApiResult<Answer<R>>;

export function storeFailure(error: StoreError, doing: string): ApiFailure {
  if (error.kind === 'unknown') {
    return makeApiFailure('store.unknown', {
      what: `${doing}: the answer of the store was lost`,
      cause: error.message,
      now: 'It may or may not have been done.',
      remedy: 'Look (`pgherd show`, `pgherd task list`) before you ask again.',
    });
  }
  return makeApiFailure('store.unavailable', {
    what: `${doing}: the store did not accept it`,
    cause: error.message,
    now: 'Nothing was changed. Running clusters go on; no failover is possible while the store is away.',
    remedy: 'See `pgherd store status`; for etcd, `etcdctl endpoint status`.',
  });
}

export function unknownCluster(context: ServerContext, cluster: string): ApiFailure {
  const known = listClusters(context.cache);
  const age = context.cache.ageMs();
  return makeApiFailure('cluster.not-found', {
    what: `there is no cluster "${cluster}"`,
    cause: known.length === 0 ? (age === null ? 'the store has not answered yet' : 'no cluster exists') : `known: ${known.join(', ')}`,
    remedy: known.length === 0 ? 'Create one with `pgherd init -f cluster.yaml`.' : 'Name one of them with -c.',
  });
}

/** The view of a cluster, or `cluster.not-found`. A cluster that was made a moment ago by this server is found: the cache is waited for, briefly. */
export async function viewOf(context: ServerContext, name: string): Promise<ApiResult<ServerView>> {
  const cluster = makeClusterId(name);
  for (let attempt = 0; ; attempt++) {
    const view = buildView(context.cache, cluster, context.clock.now());
    if (view !== null) return ok(view);
    if (attempt === 0 && (await readKey(context, cluster)) !== null) await context.clock.sleep(100);
    else return err(unknownCluster(context, name));
  }
}

async function readKey(context: ServerContext, cluster: ClusterId): Promise<KeyValue | null> {
  const read = await context.store.get(clusterKeys(cluster).spec);
  return read.ok ? read.value : null;
}
