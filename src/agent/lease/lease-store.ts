/** The store's side of the write lease: each step one transaction, each unknown outcome read back or made harmless. */
import { encodeJson } from '../../core/decode.ts';
import { type MonoMs, type NodeId, type Revision, type Term, makeRevision } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import type { ClusterKeys } from '../../store/keys.ts';
import type { Compare, KeyValue, Store } from '../../store/store.ts';
import { type Confirmation, type LeaseSettings, judgeKeepAliveError, judgeKey, mayClaimAgain, readStateTerms } from './lease-rules.ts';

export interface LeaseStore {
  readonly store: Store;
  readonly keys: Pick<ClusterKeys, 'state' | 'writeLease'>;
  readonly node: NodeId;
  readonly settings: () => LeaseSettings;
}

export interface Granted {
  readonly leaseId: string;
  readonly grantedMs: number;
}

const leaseValue = (term: Term, holder: NodeId): string => encodeJson({ version: 1, term, holder });

/** Keep-alive, and the transaction that alone counts: the key has our value and hangs on our lease. Both sent after the call, both needed. */
export async function confirm(
  at: LeaseStore,
  lease: { readonly term: Term; readonly leaseId: string },
  deadline: MonoMs,
): Promise<{ readonly confirmation: Confirmation; readonly grantedMs: number }> {
  const value = leaseValue(lease.term, at.node);
  const key = at.keys.writeLease;
  const compares: Compare[] = [
    { target: 'value', key, op: '=', value },
    { target: 'lease', key, op: '=', lease: lease.leaseId },
  ];
  const [kept, compared] = await Promise.all([
    at.store.keepAlive(lease.leaseId, { deadline }),
    at.store.txn(compares, [], [{ kind: 'get', key }], { deadline }),
  ]);
  if (!kept.ok) return { confirmation: judgeKeepAliveError(kept.error), grantedMs: 0 };
  if (!compared.ok) return { confirmation: { kind: 'unknown', why: `${compared.error.kind}: ${compared.error.message}` }, grantedMs: 0 };
  if (compared.value.succeeded) return { confirmation: { kind: 'confirmed' }, grantedMs: kept.value.ttlMs };
  const judged = judgeKey(compared.value.reads[0]?.[0] ?? null, { value, leaseId: lease.leaseId });
  // The comparison failed: a key that looks right now was not when it was compared.
  return {
    confirmation: judged.kind === 'confirmed' ? { kind: 'unknown', why: 'the write lease changed while it was compared' } : judged,
    grantedMs: kept.value.ttlMs,
  };
}

/** A lease without a key yet. Null: the store did not grant one. It runs out by itself when it is not used. */
export async function grant(at: LeaseStore, deadline: MonoMs): Promise<Granted | null> {
  const granted = await at.store.grantLease(at.settings().ttlMs, { deadline });
  return granted.ok ? { leaseId: granted.value.id, grantedMs: granted.value.ttlMs } : null;
}

/**
 * Takes the key. Guarded by the revision of `state` that the caller decided upon, and by the key being free, our own of the same or an older term, or
 * anybody's of a term not above `over` (the quorum path, which the same state orders). The older lease is revoked after its key hangs on the new one.
 * `prepared`: a lease that was granted for this ahead of time; without `over` the key is put under it without a look before, since it is free in the
 * normal case, and the comparison tells when it is not.
 */
export async function claim(
  at: LeaseStore,
  options: {
    readonly term: Term;
    readonly stateRevision: Revision;
    readonly deadline: MonoMs;
    readonly over: Term | null;
    readonly prepared: Granted | null;
  },
): Promise<Result<Granted & { readonly fresh: boolean }, Failure>> {
  const { deadline, term, over, prepared } = options;
  const first = prepared === null || over !== null ? null : await claimFree(at, { ...options, prepared });
  if (first !== null) return first.ok ? ok({ ...first.value, fresh: false }) : first;
  const found = await at.store.get(at.keys.writeLease, { deadline });
  if (!found.ok) return err(refused('lease.store', `the write lease of term ${term} was not asked for`, found.error.message, true));
  const held = found.value;
  const judged = held === null ? null : judgeKey(held, { value: leaseValue(term, at.node), leaseId: '' });
  // Invariant: in a store that was left nobody takes a lease. Because: its orders are of before the move, and the next store may have given the right to somebody
  // else since. Broken if: the mark counts as a free key.
  if (judged?.kind === 'unknown') return err(refused('lease.moved', `the write lease of term ${term} was not taken`, judged.why, true));
  const replaceable = judged?.kind === 'taken' && judged.term !== null && over !== null && judged.term <= over && judged.term < term;
  if (judged?.kind === 'taken' && !replaceable && (judged.by !== at.node || judged.term === null || judged.term > term)) {
    const holder = judged.by === null ? 'a value that cannot be read' : `${judged.by} in term ${judged.term}`;
    return err(refused('lease.held-by-other', `the write lease of term ${term} was not taken`, `the store has it for ${holder}`, true));
  }
  const stateIs: Compare = { target: 'mod', key: at.keys.state, op: '=', revision: options.stateRevision };
  const guards = [stateIs, unchanged(at.keys.writeLease, held)];
  const granted = over === null ? null : prepared;
  const result = granted === null ? await put(at, { term, deadline, guards }) : await putUnder(at, { term, deadline, guards, granted });
  if (result.kind === 'granted') {
    const older = held?.lease ?? null;
    if (older !== null && older !== result.leaseId) {
      const revoked = at.store.revokeLease(older, { deadline });
      // The key is ours already; on the quorum path nobody waits for the end of a lease that means nothing any more.
      if (over === null) await revoked;
    }
    return ok({ ...result, fresh: granted === null });
  }
  const [code, cause] = result.kind === 'lost' ? ['lease.raced', 'the state or the write lease changed meanwhile'] : ['lease.store', result.why];
  return err(refused(code, `the write lease of term ${term} was not taken`, cause, true));
}

/** Null: the key is not free, so that the long way decides; the lease was revoked. */
async function claimFree(
  at: LeaseStore,
  options: { readonly term: Term; readonly stateRevision: Revision; readonly deadline: MonoMs; readonly prepared: Granted },
): Promise<Result<Granted, Failure> | null> {
  const { term, deadline, prepared } = options;
  const stateIs: Compare = { target: 'mod', key: at.keys.state, op: '=', revision: options.stateRevision };
  const result = await putUnder(at, { term, deadline, guards: [stateIs, unchanged(at.keys.writeLease, null)], granted: prepared });
  if (result.kind === 'granted') return ok(result);
  if (result.kind === 'lost') return null;
  return err(refused('lease.store', `the write lease of term ${term} was not taken`, result.why, true));
}

/** Takes a key that vanished under us again, in the same term, if the state still wants it. */
export async function claimAgain(
  at: LeaseStore,
  term: Term,
  deadline: MonoMs,
): Promise<
  ({ readonly kind: 'granted' } & Granted) | { readonly kind: 'refused'; readonly why: string } | { readonly kind: 'unknown'; readonly why: string }
> {
  const found = await at.store.get(at.keys.state, { deadline });
  if (!found.ok) return { kind: 'unknown', why: found.error.message };
  if (found.value === null) return { kind: 'unknown', why: 'the store has no state of this cluster' };
  const state = readStateTerms(found.value.value);
  if (state === null) return { kind: 'unknown', why: 'the state cannot be read' };
  // A restored store that has forgotten our term says nothing of who may hold it: until our own deadline the controller can learn the term from us.
  if (state.term < term) return { kind: 'unknown', why: `the state is of the older term ${state.term}: the store was restored` };
  if (!mayClaimAgain(state, { term, node: at.node }))
    return { kind: 'refused', why: `the state is of term ${state.term} and wants ${state.goals[at.node]?.kind ?? 'nothing'} here` };
  const stateIs: Compare = { target: 'mod', key: at.keys.state, op: '=', revision: found.value.modRevision };
  const result = await put(at, { term, deadline, guards: [stateIs, unchanged(at.keys.writeLease, null)] });
  // The state changes with every decision: a lost race is judged anew at the next renewal.
  return result.kind === 'lost' ? { kind: 'unknown', why: 'the state changed meanwhile' } : result;
}

/** Deletes the key if it is still ours and revokes the lease. Either alone is enough; when both are unknown the lease runs out by itself. */
export async function giveBack(
  at: LeaseStore,
  lease: { readonly term: Term; readonly leaseId: string; readonly deadline: MonoMs },
): Promise<Result<null, Failure>> {
  const { deadline } = lease;
  const key = at.keys.writeLease;
  const compares: Compare[] = [
    { target: 'value', key, op: '=', value: leaseValue(lease.term, at.node) },
    { target: 'lease', key, op: '=', lease: lease.leaseId },
  ];
  // At the same time: whoever waits for the key sees it go with the first of the two.
  const [deleted, revoked] = await Promise.all([
    at.store.txn(compares, [{ kind: 'delete', key }], [], { deadline }),
    at.store.revokeLease(lease.leaseId, { deadline }),
  ]);
  if (deleted.ok || revoked.ok || revoked.error.kind === 'lease-not-found') return ok(null);
  return err(refused('lease.not-released', `the write lease of term ${lease.term} may still stand in the store`, revoked.error.message, true));
}

type Put = ({ readonly kind: 'granted' } & Granted) | { readonly kind: 'lost' } | { readonly kind: 'unknown'; readonly why: string };

/**
 * Grants a lease and puts the key under it.
 *
 * Invariant: when this does not answer `granted`, our key does not come to stand later.
 * Because: an unknown outcome is read back, and then the lease is revoked: a put with a revoked lease fails.
 */
async function put(at: LeaseStore, options: { readonly term: Term; readonly deadline: MonoMs; readonly guards: readonly Compare[] }): Promise<Put> {
  const granted = await at.store.grantLease(at.settings().ttlMs, { deadline: options.deadline });
  if (!granted.ok) return { kind: 'unknown', why: granted.error.message };
  return putUnder(at, { ...options, granted: { leaseId: granted.value.id, grantedMs: granted.value.ttlMs } });
}

async function putUnder(
  at: LeaseStore,
  options: { readonly term: Term; readonly deadline: MonoMs; readonly guards: readonly Compare[]; readonly granted: Granted },
): Promise<Put> {
  const { deadline } = options;
  const { leaseId, grantedMs } = options.granted;
  const key = at.keys.writeLease;
  const value = leaseValue(options.term, at.node);
  const written = await at.store.txn(options.guards, [{ kind: 'put', key, value, lease: leaseId }], [], { deadline });
  if (written.ok && written.value.succeeded) return { kind: 'granted', leaseId, grantedMs };
  if (!written.ok && written.error.kind === 'unknown') {
    const back = await at.store.get(key, { deadline });
    if (back.ok && judgeKey(back.value, { value, leaseId }).kind === 'confirmed') return { kind: 'granted', leaseId, grantedMs };
  }
  await at.store.revokeLease(leaseId, { deadline });
  return written.ok ? { kind: 'lost' } : { kind: 'unknown', why: written.error.message };
}

/** Still absent, or still the same version of it. */
function unchanged(key: string, found: KeyValue | null): Compare {
  return found === null
    ? { target: 'create', key, op: '=', revision: makeRevision(0) }
    : { target: 'mod', key, op: '=', revision: found.modRevision };
}

function refused(code: string, what: string, cause: string, retryable: boolean): Failure {
  return {
    code,
    what,
    cause,
    now: 'this node does not accept writes',
    remedy: 'look at `pgherd explain` for who holds the write lease and why',
    retryable,
  };
}
