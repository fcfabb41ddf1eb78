/** The arithmetic and the judgements of the write lease. Pure. */
import { type Decoded, decodeShared, object, record, text } from '../../core/decode.ts';
import { type MonoMs, type NodeId, type Term, addMono } from '../../core/ids.ts';
import { term } from '../../core/report.ts';
import { writeLease } from '../../core/state.ts';
import { MOVED_LEASE } from '../../store/move-record.ts';
import type { KeyValue, StoreError } from '../../store/store.ts';

export interface LeaseSettings {
  readonly ttlMs: number;
  readonly renewMs: number;
  /** Covers the worst time to complete a fence. */
  readonly marginMs: number;
}

/**
 * Until when we may accept writes after a confirmation.
 *
 * Invariant: this moment lies before the store can let the lease expire, by at least the margin.
 * Because: the store counts a full TTL from when the request reached it, which is after `sentAt` on our clock.
 * Broken if: `sentAt` is read after the request was sent, or the store granted less than it said (so the TTL it answered is used when it is the shorter one).
 */
export function ownDeadline(options: { readonly sentAt: MonoMs; readonly grantedMs: number; readonly settings: LeaseSettings }): MonoMs {
  return addMono(options.sentAt, Math.min(options.grantedMs, options.settings.ttlMs) - options.settings.marginMs);
}

/**
 * Until when we may accept writes on promises, which may be for longer than the lease's TTL.
 *
 * Invariant: this moment lies before the first of the promisers may vote for another, by at least the margin.
 * Because: each of them counts on its own clock from when the request reached it, which is after `sent` on ours; and a promise that is longer than a TTL is what a
 * member said itself. Broken if: what was asked for is counted where less was promised.
 */
export function promisedDeadline(
  promised: { readonly sent: { readonly mono: MonoMs }; readonly promisedMs: number },
  settings: Pick<LeaseSettings, 'marginMs'>,
): MonoMs {
  return addMono(promised.sent.mono, promised.promisedMs - settings.marginMs);
}

/** What one look at the store says about our lease. */
export type Confirmation =
  | { readonly kind: 'confirmed' }
  /** The store does not have our lease or key, and nobody else's either: it expired, or the store forgot it. */
  | { readonly kind: 'gone' }
  /** Somebody else's, or another term's: definitely lost. */
  | { readonly kind: 'taken'; readonly by: NodeId | null; readonly term: Term | null }
  /** Nothing was learned. */
  | { readonly kind: 'unknown'; readonly why: string };

/** Judges the write-lease key as it was read: `found` is null when there is none. */
export function judgeKey(found: KeyValue | null, own: { readonly value: string; readonly leaseId: string }): Confirmation {
  if (found === null) return { kind: 'gone' };
  if (found.value === own.value && found.lease === own.leaseId) return { kind: 'confirmed' };
  // The store was left for another one, where our lease stands too: this one says nothing any more, neither for us nor against us.
  if (found.value === MOVED_LEASE) return { kind: 'unknown', why: 'the store was moved, and this agent has not heard where' };
  const decoded = decodeShared(writeLease, found.value);
  // The same value under another lease: an earlier or later run of this node; ours by name, but not the one we renew.
  return decoded.ok ? { kind: 'taken', by: decoded.value.holder, term: decoded.value.term } : { kind: 'taken', by: null, term: null };
}

/** A lease that is not found is gone; every other error says nothing about it. */
export function judgeKeepAliveError(error: StoreError): Confirmation {
  return error.kind === 'lease-not-found' ? { kind: 'gone' } : { kind: 'unknown', why: `${error.kind}: ${error.message}` };
}

const stateTerms = object({ term, goals: record(object({ kind: text, term })) });

/** The few facts of `state` that a new claim of the same term rests on; null when the bytes are bad. */
export function readStateTerms(value: string): Decoded<typeof stateTerms> | null {
  const decoded = decodeShared(stateTerms, value);
  return decoded.ok ? decoded.value : null;
}

const HOLDER_GOALS: readonly string[] = ['create', 'adopt', 'primary', 'promote', 'handover'];

/**
 * May this node take the key of `term` again after it vanished from the store?
 *
 * Invariant: a yes, written in one transaction that compares the revision of this state and the absence of the key, makes no second writable node.
 * Because: a new primary needs a higher `state.term` first; while the newest term assigned is still ours and our goal is still to hold it, nobody was given the right to open.
 * Broken if: the controller orders a promotion without raising `state.term`.
 */
export function mayClaimAgain(
  state: { readonly term: Term; readonly goals: Readonly<Record<string, { readonly kind: string; readonly term: Term }>> },
  own: { readonly term: Term; readonly node: NodeId },
): boolean {
  const goal = state.goals[own.node];
  return state.term === own.term && goal !== undefined && goal.term === own.term && HOLDER_GOALS.includes(goal.kind);
}
