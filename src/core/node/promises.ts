/**
 * Promises and votes: how a primary goes on without the store, and why no other primary can be opened meanwhile.
 *
 * A *promise* says "until `untilMono` on my own clock I vote for nobody but `to`". A *vote* for a term ends every promise to lower terms for good.
 *
 * Invariant: while a primary lives on F promises, no promotion can collect P votes.
 * Because: F + P > M (votesNeeded), so that each set of P voters holds a promiser, and a promiser does not vote before its promise ran out on its own
 *   clock, which started later than the primary's own count (from before the request was sent, minus the margin).
 * Broken if: a promiser forgets its promise in a restart (then it waits the longest TTL out), or counts on another host's clock.
 *
 * How long a promise lasts: the lease's TTL, from a member that has the store. One that is without it too promises for as long as the primary has been without it,
 * up to `LONGEST_PROMISE_MS` (`longPromiseMs`): nobody can be elected without the store anyway, and a primary that every member supports must not fall for a host that
 * stands still for three seconds. The price is a failover that comes late after the store's return, by no more than the outage lasted.
 *
 * A *hold* is one stretch in which a node holds the write lease without a break. Promises are given to a hold, and who ends its hold takes them back.
 */
import { type MonoMs, type NodeId, type Term, addMono, makeTerm } from '../ids.ts';
import { votesNeeded } from '../state.ts';

export interface PromiseRequest {
  readonly cluster: string;
  readonly incarnation: string;
  readonly term: Term;
  /** The primary that asks. */
  readonly from: NodeId;
  /** Names the hold that the promise is for; never used again for another one. */
  readonly hold: string;
  /** Revision of the electorate that the primary counts with. */
  readonly electorateRevision: number;
  readonly ttlMs: number;
  /** For how long a member that does not reach the store either is asked to promise; not less than `ttlMs`. */
  readonly longMs: number;
}

export type PromiseRefusal =
  | 'other-cluster'
  | 'other-store'
  | 'newer-term'
  | 'not-open'
  | 'voted'
  | 'promoting'
  | 'promised-to-other'
  | 'newer-electorate'
  | 'not-a-member'
  | 'not-stored'
  | 'bad-request';

export type PromiseAnswer =
  /** `ttlMs`: for how long from when the request came. Null: for the request's, from an agent of an older version. */
  | { readonly kind: 'promised'; readonly node: NodeId; readonly term: Term; readonly ttlMs: number | null }
  | { readonly kind: 'refused'; readonly node: NodeId; readonly term: Term; readonly why: PromiseRefusal };

/** The promises to a hold that has ended are needed no more. */
export interface PromiseReturn {
  readonly cluster: string;
  readonly term: Term;
  readonly from: NodeId;
  readonly hold: string;
}

export interface OpenPromise {
  readonly term: Term;
  readonly to: NodeId;
  /** The hold that asked last. */
  readonly hold: string;
  /** The latest end of all that was promised `to` in this term, whichever hold asked. */
  readonly until: MonoMs;
  /** The latest end of what other holds than that were promised; null: nothing was. */
  readonly othersUntil: MonoMs | null;
}

/** What a member remembers of its votes and promises. */
export interface Ballot {
  /** Highest term voted for; 0 when none. */
  readonly votedTerm: Term;
  readonly promise: OpenPromise | null;
  /** After a restart: promises of the former run may still stand until then. Null: none can. */
  readonly waitUntil: MonoMs | null;
}

export const EMPTY_BALLOT: Ballot = { votedTerm: makeTerm(0), promise: null, waitUntil: null };

/** What the member knows besides its ballot. */
export interface MemberFacts {
  readonly cluster: string;
  readonly node: NodeId;
  /** Store incarnation that this member knows; null before it saw one. */
  readonly incarnation: string | null;
  /** Newest term this member saw in the state; 0 when none. */
  readonly knownTerm: Term;
  /** The newest term that was opened, and by whom, as the state says; null when this member knows no opened term. */
  readonly opened: { readonly term: Term; readonly primary: NodeId } | null;
  readonly electorateRevision: number;
  readonly electorate: readonly NodeId[];
  /** When the store last confirmed what this member knows of it; null: never. */
  readonly storeHeardAt: MonoMs | null;
  /** A promote order is being carried out here. */
  readonly promoting: boolean;
}

/** Decides over a request for a promise. The ballot returned is to be kept (and made durable) before the answer is sent. */
export function mayPromise(
  ballot: Ballot,
  facts: MemberFacts,
  request: PromiseRequest,
  now: MonoMs,
): { readonly answer: PromiseAnswer; readonly ballot: Ballot } {
  const why = refusal(ballot, facts, request, now);
  if (why !== null) return { answer: { kind: 'refused', node: facts.node, term: maxTerm(facts.knownTerm, ballot.votedTerm), why }, ballot };
  const ttlMs = hasStore(facts, request, now) ? request.ttlMs : request.longMs;
  const until = addMono(now, ttlMs);
  // What a lower term was promised ended when this one was opened.
  const open = ballot.promise?.term === request.term ? ballot.promise : null;
  const others = open === null || open.hold === request.hold ? (open?.othersUntil ?? null) : open.until;
  const kept = open !== null && open.until > until ? open.until : until;
  return {
    answer: { kind: 'promised', node: facts.node, term: request.term, ttlMs },
    ballot: { ...ballot, promise: { term: request.term, to: request.from, hold: request.hold, until: kept, othersUntil: others } },
  };
}

/** A member that has the store may have to vote soon: it binds itself for no longer than a lease does. */
function hasStore(facts: MemberFacts, request: PromiseRequest, now: MonoMs): boolean {
  return facts.storeHeardAt !== null && now - facts.storeHeardAt <= request.ttlMs;
}

/** Ten seconds of a host that stands still are an outage anyhow. */
export const LONGEST_PROMISE_MS = 10_000;

/** For how long a primary that has been without the store for `awayMs` asks a member that is without it too to promise. */
export function longPromiseMs(awayMs: number, ttlMs: number): number {
  return Math.floor(Math.max(ttlMs, Math.min(awayMs, LONGEST_PROMISE_MS)));
}

function refusal(ballot: Ballot, facts: MemberFacts, request: PromiseRequest, now: MonoMs): PromiseRefusal | null {
  if (request.cluster !== facts.cluster) return 'other-cluster';
  if (facts.incarnation !== null && request.incarnation !== facts.incarnation) return 'other-store';
  // A member that voted for the request's own term did so for the candidate that now asks as the primary of that term, or for one that
  // never opened it; only a higher vote binds against it.
  if (ballot.votedTerm > request.term) return 'voted';
  if (facts.knownTerm > request.term) return 'newer-term';
  // Invariant: a promise is given only to the primary of the newest opened term, never to a candidate and never for a term that is only asserted.
  // Because: a candidate that lost the store after its claim can open nothing; promises to it would only hold the next attempt up, and one for a
  // term beyond the state would keep this member from promising to the true primary and from voting. A member that was cut off before the last
  // opening cannot tell the two apart, and refuses: one promise less, never one too many. Broken if: `opened` is taken from an attempt.
  if (facts.opened === null || facts.opened.term !== request.term || facts.opened.primary !== request.from) return 'not-open';
  if (facts.promoting && request.from !== facts.node) return 'promoting';
  if (facts.electorateRevision > request.electorateRevision) return 'newer-electorate';
  if (!facts.electorate.includes(facts.node)) return 'not-a-member';
  const open = ballot.promise;
  if (open !== null && open.until > now) {
    if (open.term > request.term) return 'newer-term';
    if (open.to !== request.from) return 'promised-to-other';
  }
  return null;
}

/** No hold has this name: what is promised to it is given back by nobody. */
const NO_HOLD = '';

/**
 * The ballot once the primary gave back what its hold was promised; unchanged when the hold that asked last is not the one that is named.
 *
 * *Invariant:* no primary counts on a promise that this ends. *Because:* it is given back after the hold ended, answers that come later extend nothing, the
 * next hold of the same node has another name, and what another hold was promised meanwhile goes on standing.
 * *Broken if:* term and node alone are compared (a primary that was restarted in place has both again), or if a request of an old hold, which was on its
 * way for long, takes the place of the promise to the new one.
 */
export function takeBack(ballot: Ballot, cluster: string, given: PromiseReturn): Ballot {
  const open = ballot.promise;
  if (open === null || given.cluster !== cluster || given.hold === NO_HOLD) return ballot;
  if (open.term !== given.term || open.to !== given.from || open.hold !== given.hold) return ballot;
  const { othersUntil } = open;
  return { ...ballot, promise: othersUntil === null ? null : { ...open, hold: NO_HOLD, until: othersUntil, othersUntil: null } };
}

export type VoteDecision =
  | { readonly kind: 'granted'; readonly ballot: Ballot }
  /** A promise to another still stands, or one may have been given before this process started. */
  | { readonly kind: 'wait'; readonly until: MonoMs; readonly why: string }
  | { readonly kind: 'refused'; readonly why: string };

/** Decides over a vote for `term`. A repeated vote for the same term is granted again. The ballot is to be durable before the vote is reported. */
export function mayVote(ballot: Ballot, term: Term, now: MonoMs): VoteDecision {
  if (term < ballot.votedTerm) return { kind: 'refused', why: `voted for term ${ballot.votedTerm} already` };
  if (term === ballot.votedTerm) return { kind: 'granted', ballot };
  const open = ballot.promise;
  if (open !== null && open.until > now && open.term < term) {
    return { kind: 'wait', until: open.until, why: `promised the primary of term ${open.term} (${open.to}) not to vote` };
  }
  if (open !== null && open.until > now && open.term > term)
    return { kind: 'refused', why: `promised the primary of term ${open.term} (${open.to})` };
  if (ballot.waitUntil !== null && ballot.waitUntil > now) {
    return { kind: 'wait', until: ballot.waitUntil, why: 'a promise given before the restart may still stand' };
  }
  return { kind: 'granted', ballot: { votedTerm: term, promise: null, waitUntil: null } };
}

/**
 * The ballot after a restart of the member's agent.
 * `record` is what the former run made durable: null when it never promised (it writes before its first promise).
 * The wait ends with the promise itself, and at the latest one TTL after this start, because every promise was given before it.
 */
export function ballotAfterRestart(
  record: {
    readonly votedTerm: Term;
    readonly promise: (Omit<OpenPromise, 'hold' | 'othersUntil'> & { readonly bootId: string; readonly ttlMs: number }) | null;
  } | null,
  options: { readonly bootId: string; readonly startedAt: MonoMs },
): Ballot {
  if (record === null) return EMPTY_BALLOT;
  const promise = record.promise;
  if (promise === null) return { votedTerm: record.votedTerm, promise: null, waitUntil: null };
  const latest = addMono(options.startedAt, promise.ttlMs);
  // Times of another boot are not comparable with ours.
  const waitUntil = promise.bootId === options.bootId && promise.until < latest ? promise.until : latest;
  return { votedTerm: record.votedTerm, promise: null, waitUntil };
}

export interface PromiseCount {
  readonly needed: number;
  readonly have: readonly NodeId[];
  readonly enough: boolean;
  /** For how long all of `needed` members promised: the best that the answers give. 0 while there are not enough. */
  readonly ttlMs: number;
  /** Who refused because of something newer: the primary must not go on asking. */
  readonly superseded: { readonly node: NodeId; readonly term: Term; readonly why: PromiseRefusal } | null;
}

/** Counts answers of distinct members of the electorate for `term`; answers of strangers, repeats and other terms do not count. */
export function countPromises(
  electorate: readonly NodeId[],
  asked: Pick<PromiseRequest, 'term' | 'ttlMs'>,
  answers: readonly PromiseAnswer[],
): PromiseCount {
  const members = new Set(electorate);
  const { term } = asked;
  const have = new Map<NodeId, number>();
  let superseded: PromiseCount['superseded'] = null;
  for (const answer of answers) {
    if (!members.has(answer.node)) continue;
    if (answer.kind === 'promised') {
      if (answer.term === term) have.set(answer.node, answer.ttlMs ?? asked.ttlMs);
    } else if (answer.term > term && (answer.why === 'newer-term' || answer.why === 'voted')) {
      superseded = { node: answer.node, term: answer.term, why: answer.why };
    }
  }
  const needed = votesNeeded(members.size).promises;
  const enough = members.size > 0 && have.size >= needed;
  const longestFirst = [...have.values()].sort((a, b) => b - a);
  return { needed, have: [...have.keys()].sort(), enough, ttlMs: enough ? (longestFirst[needed - 1] ?? 0) : 0, superseded };
}

function maxTerm(a: Term, b: Term): Term {
  return a > b ? a : b;
}
