/** The data of the modelled store: keys with revisions, what changed at each revision, keys of leases. No time, no faults. */
import { makeRevision, type Revision } from '../../../src/core/ids.ts';
import { type Result, err, ok } from '../../../src/core/result.ts';
import type { Compare, KeyValue, Op, StoreError, TxnResult, WatchBatch } from '../../../src/store/store.ts';

/** etcd's own limits. *Source:* etcd 3.4, `--max-request-bytes`, `--max-txn-ops`. */
const MAX_REQUEST_BYTES = 1.5 * 1024 * 1024;
const MAX_TXN_OPS = 128;
/** Revisions that are kept for watches that resume; older ones are compacted away, as a server that is compacted every few minutes does. */
const KEPT_REVISIONS = 2000;

export interface Keyspace {
  revision(): Revision;
  compactRevision(): Revision;
  get(key: string): KeyValue | null;
  /** Sorted by key. */
  list(prefix: string, limit?: number): KeyValue[];
  /** Judges and applies at one revision. `batch` is null when nothing was written. Errors: `refused`, `lease-not-found`. */
  txn(request: Txn): Result<{ readonly result: TxnResult; readonly batch: WatchBatch | null }, StoreError>;
  addLease(id: string): boolean;
  hasLease(id: string): boolean;
  /** Removes the lease and its keys in one revision; null when it has none. */
  removeLease(id: string): WatchBatch | null;
  leases(): readonly string[];
  /** Batches with a revision above `after`; null when that was compacted. */
  since(after: number): readonly WatchBatch[] | null;
  /** History before `revision` is forgotten. */
  compact(revision: number): void;
  copy(): Keyspace;
}

export interface Txn {
  readonly compares: readonly Compare[];
  readonly then: readonly Op[];
  readonly otherwise: readonly Op[];
}

interface Data {
  readonly kvs: Map<string, KeyValue>;
  /** All keys, sorted. */
  keys: string[];
  readonly leases: Map<string, Set<string>>;
  log: WatchBatch[];
  revision: number;
  compacted: number;
}

export function createKeyspace(): Keyspace {
  return keyspaceOf({ kvs: new Map(), keys: [], leases: new Map(), log: [], revision: 1, compacted: 0 });
}

function keyspaceOf(data: Data): Keyspace {
  const { kvs, leases } = data;

  function list(prefix: string, limit = 0): KeyValue[] {
    const found: KeyValue[] = [];
    for (let i = firstAtLeast(data.keys, prefix); i < data.keys.length; i++) {
      const key = data.keys[i] as string;
      if (!key.startsWith(prefix) || (limit > 0 && found.length >= limit)) break;
      found.push(kvs.get(key) as KeyValue);
    }
    return found;
  }

  function drop(key: string, at: Revision, events: WatchBatch['events'][number][]): void {
    const known = kvs.get(key);
    if (known === undefined) return;
    kvs.delete(key);
    data.keys.splice(firstAtLeast(data.keys, key), 1);
    if (known.lease !== null) leases.get(known.lease)?.delete(key);
    events.push({ kind: 'delete', key, revision: at });
  }

  function put(op: Extract<Op, { kind: 'put' }>, at: Revision, events: WatchBatch['events'][number][]): void {
    const known = kvs.get(op.key);
    if (known === undefined) data.keys.splice(firstAtLeast(data.keys, op.key), 0, op.key);
    else if (known.lease !== null) leases.get(known.lease)?.delete(op.key);
    const lease = op.lease === undefined || op.lease === '0' ? null : op.lease;
    const kv: KeyValue = {
      key: op.key,
      value: op.value,
      createRevision: known?.createRevision ?? at,
      modRevision: at,
      version: (known?.version ?? 0) + 1,
      lease,
    };
    kvs.set(op.key, kv);
    if (lease !== null) leases.get(lease)?.add(op.key);
    events.push({ kind: 'put', kv });
  }

  function commit(events: readonly WatchBatch['events'][number][]): WatchBatch | null {
    if (events.length === 0) return null;
    data.revision += 1;
    const batch: WatchBatch = { revision: makeRevision(data.revision), events };
    data.log.push(batch);
    if (data.log.length > KEPT_REVISIONS * 2) compact(data.revision - KEPT_REVISIONS);
    return batch;
  }

  function compact(revision: number): void {
    if (revision <= data.compacted || revision > data.revision) return;
    data.compacted = revision;
    data.log = data.log.filter((batch) => batch.revision >= revision);
  }

  function apply(ops: readonly Op[]): { readonly reads: KeyValue[][]; readonly batch: WatchBatch | null } {
    const reads: KeyValue[][] = [];
    const events: WatchBatch['events'][number][] = [];
    const at = makeRevision(data.revision + 1);
    for (const op of ops) {
      switch (op.kind) {
        case 'put':
          put(op, at, events);
          break;
        case 'delete':
          drop(op.key, at, events);
          break;
        case 'delete-prefix':
          for (const kv of list(op.prefix)) drop(kv.key, at, events);
          break;
        case 'get': {
          const kv = kvs.get(op.key);
          reads.push(kv === undefined ? [] : [kv]);
          break;
        }
        default:
          reads.push(list(op.prefix));
      }
    }
    return { reads, batch: commit(events) };
  }

  return {
    revision: () => makeRevision(data.revision),
    compactRevision: () => makeRevision(data.compacted),
    get: (key) => kvs.get(key) ?? null,
    list,
    txn: (request) => {
      const bad = findBadRequest(request);
      if (bad !== null) return err({ kind: 'refused', message: bad });
      const succeeded = request.compares.every((compare) => holds(kvs.get(compare.key), compare));
      const ops = succeeded ? request.then : request.otherwise;
      for (const op of ops) {
        if (op.kind === 'put' && op.lease !== undefined && op.lease !== '0' && !leases.has(op.lease))
          return err({ kind: 'lease-not-found', message: 'etcdserver: requested lease not found' });
      }
      const { reads, batch } = apply(ops);
      return ok({ result: { succeeded, revision: makeRevision(data.revision), reads }, batch });
    },
    addLease: (id) => {
      if (leases.has(id)) return false;
      leases.set(id, new Set());
      return true;
    },
    hasLease: (id) => leases.has(id),
    removeLease: (id) => {
      const keys = leases.get(id);
      if (keys === undefined) return null;
      const events: WatchBatch['events'][number][] = [];
      const at = makeRevision(data.revision + 1);
      for (const key of [...keys].sort()) drop(key, at, events);
      leases.delete(id);
      return commit(events);
    },
    leases: () => [...leases.keys()],
    since: (after) => {
      if (after + 1 < data.compacted) return null;
      let low = 0;
      let high = data.log.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((data.log[middle] as WatchBatch).revision <= after) low = middle + 1;
        else high = middle;
      }
      return data.log.slice(low);
    },
    compact,
    copy: () =>
      keyspaceOf({
        ...data,
        kvs: new Map(kvs),
        keys: [...data.keys],
        leases: new Map([...leases].map(([id, keys]) => [id, new Set(keys)])),
        log: [...data.log],
      }),
  };
}

function firstAtLeast(keys: readonly string[], wanted: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as string) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A missing key has revision 0 and lease 0, and fails every compare of its value. *Source:* etcd 3.4, mvcc apply.go, applyCompare. */
function holds(kv: KeyValue | undefined, compare: Compare): boolean {
  switch (compare.target) {
    case 'mod':
      return compareNumbers(kv?.modRevision ?? 0, compare.op, compare.revision);
    case 'create':
      return compareNumbers(kv?.createRevision ?? 0, compare.op, compare.revision);
    case 'value':
      return kv !== undefined && (kv.value === compare.value) === (compare.op === '=');
    default:
      return ((kv?.lease ?? '0') === compare.lease) === (compare.op === '=');
  }
}

function compareNumbers(found: number, op: '=' | '<' | '>' | '!=', wanted: number): boolean {
  switch (op) {
    case '=':
      return found === wanted;
    case '<':
      return found < wanted;
    case '>':
      return found > wanted;
    default:
      return found !== wanted;
  }
}

function findBadRequest({ compares, then, otherwise }: Txn): string | null {
  if (compares.length > MAX_TXN_OPS || then.length > MAX_TXN_OPS || otherwise.length > MAX_TXN_OPS)
    return 'etcdserver: too many operations in txn request';
  let bytes = 0;
  for (const branch of [then, otherwise]) {
    const written: string[] = [];
    const doomed: Extract<Op, { kind: 'delete' | 'delete-prefix' }>[] = [];
    for (const op of branch) {
      if (op.kind === 'delete' || op.kind === 'delete-prefix') doomed.push(op);
      if (op.kind !== 'put') continue;
      if (written.includes(op.key)) return 'etcdserver: duplicate key given in txn request';
      written.push(op.key);
      bytes += op.key.length + op.value.length;
    }
    const isDoomed = (key: string): boolean => doomed.some((op) => (op.kind === 'delete' ? op.key === key : key.startsWith(op.prefix)));
    if (written.some(isDoomed)) return 'etcdserver: duplicate key given in txn request';
  }
  return bytes > MAX_REQUEST_BYTES ? 'etcdserver: request is too large' : null;
}
