/**
 * A store's content moves to another one while everybody works: agents keep their leases, clients notice nothing.
 *
 * *Invariant:* at no moment may two stores each let somebody become the primary. *Because:* the old one is sealed before the copy is read: its controller keys are taken
 * by a holder without a lease, which no election gets past and whose presence breaks the guards of every decision under way. The next one gets its controllers only after
 * `moved` stands in the old one. From that transaction on nobody can take or renew a write lease in the old one; the same lease, under the same name, holds in
 * the next one for a full TTL, counted from a renewal less than the holder's margin before it: longer than any renewal that the old one still confirmed, since a
 * holder gives up a margin before its lease ends. Nobody has to live on after the mark to make it true.
 * *Broken if:* the copy is read before the seal, the mark is written later than that, or a controller of the next store starts before it.
 */
import type { Clock } from '../base/clock.ts';
import { decodeJson, encodeJson } from '../core/decode.ts';
import { addMono, parseClusterId, type ClusterId, type Revision, makeRevision } from '../core/ids.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import { type ClusterSpec, DEFAULTS, clusterSpec } from '../core/spec.ts';
import { clusterState } from '../core/state.ts';
import { ROOT, clusterKeys } from './keys.ts';
import { MOVED_LEASE, MOVE_KEY, MOVE_PREFIX, type MoveRecord, SEALED_CONTROLLER, moveReady, readMove, readyPrefix } from './move-record.ts';
import { RESTORE_KEY, type RestoreMark, putMark, readMark } from './restore-mark.ts';
import { inPortions } from './snapshot.ts';
import type { Compare, KeyValue, Op, Store, StoreError } from './store.ts';

export interface Move {
  readonly from: Store;
  readonly to: Store;
  readonly record: Omit<MoveRecord, 'phase'>;
  readonly clock: Clock;
}

/** An answer that was lost is asked for again for this long. */
const UNCLEAR_MS = 10_000;
const RETRY_MS = 200;
/** What the mark in the old store comes earlier than the shortest margin by which a holder gives up before its lease ends. */
const SPARE_MS = 50;

/** What keeps a cluster from being moved now, in words: something is under way that two stores would have to agree on. */
export function disturbances(kvs: readonly KeyValue[]): readonly string[] {
  const found: string[] = [];
  for (const cluster of clustersOf(kvs)) {
    const keys = clusterKeys(cluster);
    const state = kvs.find((kv) => kv.key === keys.state);
    const decoded = state === undefined ? null : decodeJson(clusterState, state.value);
    if (decoded?.ok === false) found.push(`the state of ${cluster} cannot be read`);
    if (decoded?.ok === true && decoded.value.attempt !== null) found.push(`${cluster} is opening term ${decoded.value.attempt.term}`);
    if (decoded?.ok === true && decoded.value.switchover !== null) found.push(`${cluster} is in a switchover to ${decoded.value.switchover.to}`);
    for (const kv of kvs)
      if (kv.key.startsWith(keys.tasks) && /"status":"(pending|running)"/.test(kv.value))
        found.push(`task ${kv.key.slice(keys.tasks.length)} of ${cluster} is not finished`);
  }
  return found;
}

export function clustersOf(kvs: readonly KeyValue[]): readonly ClusterId[] {
  return kvs.flatMap(({ key }) => {
    const [name = '', what, ...more] = key.slice(ROOT.length).split('/');
    const cluster = parseClusterId(name);
    return cluster !== null && what === 'spec' && more.length === 0 ? [cluster] : [];
  });
}

/** Tells every host to get ready. Refused (`store.moving`) while another move is under way. */
export async function announce({ from, record }: Move): Promise<Result<null, Failure>> {
  const found = await from.get(MOVE_KEY);
  if (!found.ok) return err(storeFailed(found.error));
  const present = readMove(found.value);
  if (present !== null && present.phase !== 'aborted' && present.phase !== 'moved')
    return err(
      failure(
        'store.moving',
        'another move of the store is under way',
        `it is ${present.phase}, to ${present.endpoints.join(', ')}`,
        'wait for its end, or restart the server, which gives it up',
      ),
    );
  const unchanged = { target: 'mod', key: MOVE_KEY, op: '=', revision: found.value?.modRevision ?? makeRevision(0) } as const;
  const written = await from.txn([unchanged], [put(record, 'prepare')]);
  if (!written.ok) return err(storeFailed(written.error));
  return written.value.succeeded
    ? ok(null)
    : err(failure('store.moving', 'another move of the store began at this moment', '', 'look at "pgherd store status"'));
}

/** Who said that it is ready, and what the others say; by `agent/CLUSTER/NODE`. */
export async function readiness({ from, record }: Move): Promise<Result<ReadonlyMap<string, string | null>, Failure>> {
  const prefix = readyPrefix(record.id);
  const listed = await from.list(prefix);
  if (!listed.ok) return err(storeFailed(listed.error));
  const said = new Map<string, string | null>();
  for (const kv of listed.value.kvs) {
    const decoded = decodeJson(moveReady, kv.value);
    said.set(
      kv.key.slice(prefix.length),
      decoded.ok ? (decoded.value.ready ? null : (decoded.value.problem ?? 'not ready')) : 'its answer cannot be read',
    );
  }
  return ok(said);
}

/** No decision is written in the old store from here on. Answers what was in it at that moment. */
export async function seal({ from, record }: Move): Promise<Result<readonly KeyValue[], Failure>> {
  const before = await from.list(ROOT);
  if (!before.ok) return err(storeFailed(before.error));
  const holders = clustersOf(before.value.kvs).map(
    (cluster): Op => ({ kind: 'put', key: clusterKeys(cluster).controller, value: SEALED_CONTROLLER }),
  );
  const sealed = await from.txn([], [put(record, 'sealed'), ...holders]);
  if (!sealed.ok) return err(storeFailed(sealed.error));
  const after = await from.list(ROOT);
  return after.ok ? ok(after.value.kvs) : err(storeFailed(after.error));
}

/** Everything but what hangs on a lease, and each write lease under its own name. What the next store held below the root is gone. */
export async function copy({ to, record }: Move, kvs: readonly KeyValue[]): Promise<Result<readonly string[], Failure>> {
  const before = readMark(kvs.find((kv) => kv.key === RESTORE_KEY)?.value ?? null)?.stores ?? [];
  const mark = (phase: RestoreMark['phase']): Op => putMark({ phase, from: record.from, before, revision: 0, takenAt: '' });
  const wiped = await to.txn([], [{ kind: 'delete-prefix', prefix: ROOT }]);
  if (!wiped.ok) return err(storeFailed(wiped.error));
  const begun = await to.txn([], [mark('begun')]);
  if (!begun.ok) return err(storeFailed(begun.error));
  const sealedKeys = new Set(clustersOf(kvs).map((cluster) => clusterKeys(cluster).controller));
  const entries = kvs
    .filter((kv) => kv.lease === null && !kv.key.startsWith(MOVE_PREFIX) && kv.key !== RESTORE_KEY && !sealedKeys.has(kv.key))
    .map(({ key, value }) => ({ key, value, leased: false }));
  for (const ops of inPortions(entries, (state) => ({ ...state, incarnation: record.to }))) {
    const written = await to.txn([], ops);
    if (!written.ok) return err(storeFailed(written.error));
  }
  const leases: string[] = [];
  for (const cluster of clustersOf(kvs)) {
    const held = kvs.find((kv) => kv.key === clusterKeys(cluster).writeLease);
    if (held === undefined || held.lease === null) continue;
    // On the way back soon after, the lease of then may stand there still.
    const former = await to.revokeLease(held.lease);
    if (!former.ok && former.error.kind !== 'lease-not-found') return err(storeFailed(former.error));
    const granted = await to.grantLease(specOf(kvs, cluster)?.leaseTtlMs ?? DEFAULTS.leaseTtlMs, { id: held.lease });
    if (!granted.ok) return err(storeFailed(granted.error));
    const put = await to.txn([], [{ kind: 'put', key: held.key, value: held.value, lease: held.lease }]);
    if (!put.ok) return err(storeFailed(put.error));
    leases.push(held.lease);
  }
  const done = await to.txn([], [mark('done')]);
  return done.ok ? ok(leases) : err(storeFailed(done.error));
}

function specOf(kvs: readonly KeyValue[], cluster: ClusterId): ClusterSpec | null {
  const spec = decodeJson(clusterSpec, kvs.find((kv) => kv.key === clusterKeys(cluster).spec)?.value ?? '');
  return spec.ok ? spec.value : null;
}

/**
 * The point of no return. `moved`: hosts go over. `not-moved`: somebody ended this move before; nothing was changed. An answer that is lost is read again;
 * `store.move-unclear` when that does not work either: the mark in the old store tells at the next start of the server.
 */
export async function commit(
  { from, to, record, clock }: Move,
  kvs: readonly KeyValue[],
  leases: readonly string[],
): Promise<Result<'moved' | 'not-moved', Failure>> {
  const holders = clustersOf(kvs).map((cluster): Op => ({ kind: 'put', key: clusterKeys(cluster).writeLease, value: MOVED_LEASE }));
  const sealedStill = { target: 'value', key: MOVE_KEY, op: '=', value: encodeJson({ ...record, phase: 'sealed' }) } as const;
  // A lease that was taken anew since the copy stands in the next store under its old name: its holder would not find it.
  const leasesStill = clustersOf(kvs).map((cluster): Compare => {
    const key = clusterKeys(cluster).writeLease;
    return { target: 'mod', key, op: '=', revision: kvs.find((kv) => kv.key === key)?.modRevision ?? makeRevision(0) };
  });
  const keptAt = clock.now().mono;
  for (const lease of leases) {
    const kept = await to.keepAlive(lease);
    if (!kept.ok) return err(storeFailed(kept.error));
  }
  const marginMs = Math.min(
    DEFAULTS.leaseMarginMs,
    ...clustersOf(kvs).map((cluster) => specOf(kvs, cluster)?.leaseMarginMs ?? DEFAULTS.leaseMarginMs),
  );
  const deadline = addMono(keptAt, marginMs - SPARE_MS);
  const written = await from.txn([sealedStill, ...leasesStill], [put(record, 'moved'), ...holders], [], { deadline });
  let moved: boolean;
  if (written.ok) moved = written.value.succeeded;
  else {
    const read = await readAgain(from, clock);
    if (read === null)
      return err(
        failure(
          'store.move-unclear',
          'it is not known whether the store was moved',
          written.error.message,
          'restart the server: it looks at the old store, and goes on or gives up',
        ),
      );
    moved = read.id === record.id && read.phase === 'moved';
  }
  return ok(moved ? 'moved' : 'not-moved');
}

async function readAgain(from: Store, clock: Clock): Promise<MoveRecord | null> {
  const until = clock.now().mono + UNCLEAR_MS;
  while (clock.now().mono < until) {
    const read = await from.get(MOVE_KEY);
    if (read.ok) return readMove(read.value);
    await clock.sleep(RETRY_MS);
  }
  return null;
}

/** Gives a move up that has not come to `moved`: the seal is taken off, and controllers are elected again. False: it was moved, or another one is there. */
export async function abort(from: Store, id: string): Promise<Result<boolean, Failure>> {
  const listed = await from.list(ROOT);
  if (!listed.ok) return err(storeFailed(listed.error));
  const found = listed.value.kvs.find((kv) => kv.key === MOVE_KEY) ?? null;
  const record = readMove(found);
  if (found === null || record === null || record.id !== id || record.phase === 'moved') return ok(false);
  const unchanged = { target: 'mod', key: MOVE_KEY, op: '=', revision: found.modRevision as Revision } as const;
  const seals = listed.value.kvs.filter((kv) => kv.value === SEALED_CONTROLLER).map((kv): Op => ({ kind: 'delete', key: kv.key }));
  const { phase: _phase, ...rest } = record;
  const done = await from.txn([unchanged], [put(rest, 'aborted'), { kind: 'delete-prefix', prefix: readyPrefix(id) }, ...seals]);
  return done.ok ? ok(done.value.succeeded) : err(storeFailed(done.error));
}

function put(record: Omit<MoveRecord, 'phase'>, phase: MoveRecord['phase']): Op {
  return { kind: 'put', key: MOVE_KEY, value: encodeJson({ ...record, phase }) };
}

function failure(code: string, what: string, cause: string, remedy: string): Failure {
  return { code, what, cause, now: 'clusters go on in the store that they use', remedy, retryable: false };
}

function storeFailed(error: StoreError): Failure {
  return failure('store.move', 'a store did not take a step of the move', `${error.kind}: ${error.message}`, 'look at both stores, then ask again');
}
