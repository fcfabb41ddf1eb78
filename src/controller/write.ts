/** One decision becomes one guarded transaction. Also the bounds of what the controller leaves in the store. */
import { encodeJson } from '../core/decode.ts';
import { type Revision, makeRevision, makeTerm } from '../core/ids.ts';
import type { ClusterEvent } from '../core/state.ts';
import type { ClusterView, Decision } from '../core/view.ts';
import { type Leadership, guards } from '../store/election.ts';
import type { ClusterKeys } from '../store/keys.ts';
import type { Compare, KeyValue, Op, Store } from '../store/store.ts';
import type { ClusterCache } from './cache.ts';

/** Newest entries that are kept a cluster: a few weeks of an eventful one, and well below the store's limits (I22). */
export const MAX_EVENTS = 1000;
export const MAX_TERMS = 1000;
export const MAX_FINISHED_TASKS = 200;
/** One transaction's share of a clean-up; etcd refuses more than 128 operations by default. */
const DELETES_AT_ONCE = 100;

export function isEmpty(decision: Decision): boolean {
  return (
    decision.state === null &&
    decision.spec === null &&
    decision.events.length === 0 &&
    decision.tasks.length === 0 &&
    decision.opened === null &&
    !decision.dropLease
  );
}

/**
 * The transaction of one decision.
 *
 * *Invariant:* it is applied only if this controller is still elected and nothing that the decision rested on was changed by another writer.
 * *Because:* it compares the election key, and the revisions of state, spec, write lease and of each task it writes.
 * *Broken if:* a compare is dropped to save a retry: the lease could have been taken between the reading and a promote order.
 */
export function buildTransaction(
  keys: ClusterKeys,
  cache: ClusterCache,
  leadership: Leadership,
  decision: Decision,
): { readonly compares: readonly Compare[]; readonly ops: readonly Op[] } {
  const compares: Compare[] = [...guards(leadership)];
  for (const key of [keys.state, keys.spec, keys.writeLease, ...decision.tasks.map((task) => keys.task(task.id))]) {
    compares.push({ target: 'mod', key, op: '=', revision: cache.revisionOf(key) });
  }
  const ops: Op[] = decision.dropLease ? [{ kind: 'delete', key: keys.writeLease }] : [];
  if (decision.state !== null) ops.push({ kind: 'put', key: keys.state, value: encodeJson(decision.state) });
  if (decision.spec !== null) ops.push({ kind: 'put', key: keys.spec, value: encodeJson(decision.spec) });
  for (const task of decision.tasks) ops.push({ kind: 'put', key: keys.task(task.id), value: encodeJson(task) });
  if (decision.opened !== null) ops.push({ kind: 'put', key: keys.term(decision.opened.term), value: encodeJson(decision.opened) });
  const sequence = cache.revision();
  for (const [index, event] of decision.events.entries()) ops.push({ kind: 'put', key: keys.event(sequence, index), value: encodeJson(event) });
  return { compares, ops };
}

/** What was written, as the watch will bring it: the next decision rests on it at once. */
export function written(ops: readonly Op[], revision: Revision): readonly KeyValue[] {
  return ops.flatMap((op) =>
    op.kind === 'put' ? [{ key: op.key, value: op.value, createRevision: makeRevision(0), modRevision: revision, version: 0, lease: null }] : [],
  );
}

/** An event in the controller's own name. */
export function ownEvent(
  view: ClusterView | null,
  at: ClusterEvent['atWallMs'],
  level: ClusterEvent['level'],
  rule: string,
  text: string,
): ClusterEvent {
  return { atWallMs: at, level, rule, node: null, term: view?.state.term ?? makeTerm(0), text, detail: {} };
}

/** Deletes the oldest events, terms and finished tasks beyond their bounds, under the election's guard. Answers how many; errors are left to the next time. */
export async function trim(store: Store, keys: ClusterKeys, leadership: Leadership): Promise<number> {
  const doomed: string[] = [];
  for (const [prefix, limit] of [
    [keys.events, MAX_EVENTS],
    [keys.history, MAX_TERMS],
  ] as const) {
    const listed = await store.list(prefix);
    if (listed.ok && listed.value.kvs.length > limit) doomed.push(...listed.value.kvs.slice(0, listed.value.kvs.length - limit).map((kv) => kv.key));
  }
  const tasks = await store.list(keys.tasks);
  if (tasks.ok) {
    const finished = tasks.value.kvs
      .filter((kv) => /"status":"(done|failed|refused|cancelled)"/.test(kv.value))
      .sort((a, b) => a.modRevision - b.modRevision);
    doomed.push(...finished.slice(0, Math.max(0, finished.length - MAX_FINISHED_TASKS)).map((kv) => kv.key));
  }
  const now = doomed.slice(0, DELETES_AT_ONCE);
  if (now.length === 0) return 0;
  const done = await store.txn(
    guards(leadership),
    now.map((key) => ({ kind: 'delete' as const, key })),
  );
  return done.ok && done.value.succeeded ? now.length : 0;
}
