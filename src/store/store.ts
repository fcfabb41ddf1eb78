/**
 * The store: a revisioned key-value store with leases, watches and compare-and-set transactions (etcd v3).
 * One client, two engines (embedded, etcd); one contract suite runs against both.
 *
 * Promises, each pinned by the contract suite:
 *  1. Revisions rise by one with each writing transaction; all writes of one transaction share a revision.
 *  2. A read without `serializable` is linearizable: it sees every write that was answered before it was sent.
 *  3. A transaction is atomic: all compares are judged and all writes applied at one revision.
 *  4. `unknown` means unknown: the write may have happened, now or up to its deadline's end on the server. The caller reads again.
 *  5. A key under a lease vanishes, seen by every watcher, when the lease expires or is revoked; never before its TTL passed
 *     since the last granted renewal, as the server counts; a restarted server gives a full TTL again.
 *  6. A watch delivers every revision after `from`, in order, each transaction's events together, or ends with `compacted`/`lost`; then the caller lists again.
 *  7. All deadlines are monotonic and counted from before the request was sent. Endpoints are tried one after the other inside the deadline.
 */
import type { MonoMs, Revision } from '../core/ids.ts';
import type { Result } from '../core/result.ts';

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
  /** Counts writes to this key since it was created; 1 at creation. */
  readonly version: number;
  /** Lease id as decimal text; null when none. */
  readonly lease: string | null;
}

export type StoreError =
  /** Nothing answered, and nothing was changed: the request was never accepted. */
  | { readonly kind: 'unavailable'; readonly message: string }
  /** The answer was lost: the write may or may not have happened. */
  | { readonly kind: 'unknown'; readonly message: string }
  /** The lease does not exist (any more). */
  | { readonly kind: 'lease-not-found'; readonly message: string }
  /** The revision asked for was compacted. */
  | { readonly kind: 'compacted'; readonly message: string; readonly compactRevision: Revision }
  /** Refused: permission, bad request, too large, no space. Trying again does not help. */
  | { readonly kind: 'refused'; readonly message: string };

export type Compare =
  | { readonly target: 'mod'; readonly key: string; readonly op: '=' | '<' | '>' | '!='; readonly revision: Revision }
  | { readonly target: 'create'; readonly key: string; readonly op: '=' | '<' | '>' | '!='; readonly revision: Revision }
  | { readonly target: 'value'; readonly key: string; readonly op: '=' | '!='; readonly value: string }
  | { readonly target: 'lease'; readonly key: string; readonly op: '=' | '!='; readonly lease: string };

export type Op =
  | { readonly kind: 'put'; readonly key: string; readonly value: string; readonly lease?: string }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'delete-prefix'; readonly prefix: string }
  | { readonly kind: 'get'; readonly key: string }
  | { readonly kind: 'get-prefix'; readonly prefix: string };

export interface TxnResult {
  readonly succeeded: boolean;
  readonly revision: Revision;
  /** Answers to the `get`/`get-prefix` ops of the branch taken, in order (a missing key: an empty list). */
  readonly reads: readonly (readonly KeyValue[])[];
}

export interface Listing {
  readonly revision: Revision;
  /** Of the store that answered; see StoreStatus. */
  readonly incarnation: string;
  readonly kvs: readonly KeyValue[];
}

export interface WatchBatch {
  readonly revision: Revision;
  readonly events: readonly (
    | { readonly kind: 'put'; readonly kv: KeyValue }
    | { readonly kind: 'delete'; readonly key: string; readonly revision: Revision }
  )[];
}

export interface Watcher {
  /** Stops the watch; no callback comes after it returns. */
  close(): void;
}

export interface WatchHandlers {
  readonly onBatch: (batch: WatchBatch) => void;
  /** Called about every second, and when the server confirms that nothing was missed: the view is fresh as of `sentAt`. */
  readonly onAlive: (sentAt: MonoMs) => void;
  /** The watch is over. The caller lists and watches again. `lost`: connection or freshness lost. */
  readonly onEnd: (reason: 'compacted' | 'lost', message: string) => void;
}

export interface StoreStatus {
  readonly engine: 'embedded' | 'etcd' | 'simulated';
  readonly version: string;
  /** etcd's cluster id as decimal text: the incarnation of the store. */
  readonly incarnation: string;
  readonly revision: Revision;
  readonly dbSizeBytes: number;
  readonly endpoint: string;
  readonly members: number;
}

export interface CallOptions {
  /** Monotonic; default: now + 2 s. */
  readonly deadline?: MonoMs;
}

export interface Store {
  /** The incarnation is part of every answer that counts: a client whose endpoint answers with another one than it first saw refuses all further calls with `refused`. */
  status(options?: CallOptions): Promise<Result<StoreStatus, StoreError>>;
  /** Null when the key does not exist. */
  get(key: string, options?: CallOptions): Promise<Result<KeyValue | null, StoreError>>;
  /** Sorted by key; at most `limit` (default: all). */
  list(prefix: string, options?: CallOptions & { readonly limit?: number }): Promise<Result<Listing, StoreError>>;
  txn(compares: readonly Compare[], then: readonly Op[], otherwise?: readonly Op[], options?: CallOptions): Promise<Result<TxnResult, StoreError>>;
  /** `id`: decimal text, only to give a lease of another store the same name here; refused when it exists. Returns the lease id as decimal text and the TTL really granted (whole seconds in etcd). */
  grantLease(
    ttlMs: number,
    options?: CallOptions & { readonly id?: string },
  ): Promise<Result<{ readonly id: string; readonly ttlMs: number }, StoreError>>;
  /** A bare keep-alive: proves only that the lease exists, not who holds a key. */
  keepAlive(lease: string, options?: CallOptions): Promise<Result<{ readonly ttlMs: number }, StoreError>>;
  revokeLease(lease: string, options?: CallOptions): Promise<Result<null, StoreError>>;
  /** Watches all keys with the prefix from the revision after `after`. */
  watch(prefix: string, after: Revision, handlers: WatchHandlers): Watcher;
  close(): void;
}
