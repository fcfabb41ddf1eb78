/**
 * This member's promises: decides with the pure rules, and makes durable what a restart must not forget.
 *
 * A promise is renewed twice a second while the store is lost, and a disk is not written that often: what is written is a horizon ("promises to `to` may stand until then"),
 * some seconds ahead, before the first promise that reaches it is answered. A farther one is written while half of it is still left: a disk that takes seconds
 * for a flush, as that of a busy database does, keeps no answer from a primary which lives on them.
 */
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { type TextStorage, readTextIfThere, writeFileAtomic } from '../../base/files.ts';
import { decodeJson, encodeJson, formatDecodeError, integer, nullable, number, object, refine, text } from '../../core/decode.ts';
import { type MonoMs, type Term, addMono, makeMonoMs } from '../../core/ids.ts';
import {
  type Ballot,
  LONGEST_PROMISE_MS,
  type MemberFacts,
  type OpenPromise,
  type PromiseAnswer,
  type PromiseRequest,
  type PromiseReturn,
  type VoteDecision,
  ballotAfterRestart,
  mayPromise,
  mayVote,
  takeBack,
} from '../../core/node/promises.ts';
import { term } from '../../core/report.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { nodeId } from '../../core/spec.ts';

const mono = refine(number(), (value) => makeMonoMs(value), 'monotonic milliseconds');
const stored = object({
  version: integer,
  promise: nullable(object({ term, to: nodeId, until: mono, bootId: text, ttlMs: integer })),
});

/** How far ahead the horizon is written: one fsync in half of this time, and so long may that take. Longer only costs a vote after a restart, and that wait is bounded by one TTL. */
const HORIZON_MS = 20_000;
/** A primary that asks for longer than any TTL that the spec allows, or than the longest promise, is broken. */
const MAX_TTL_MS = 60_000;

export interface Promiser {
  onPromise(request: PromiseRequest): Promise<PromiseAnswer>;
  /** What is on disk stays: after a restart this member waits longer than it needs to, never shorter. */
  onReturn(given: PromiseReturn): void;
  /** May this member vote for `term` now? `granted` ends the promises to lower terms; the vote itself is made durable by the caller before it is reported. */
  mayVote(term: Term): VoteDecision;
  /** The promise that stands now, for the report; null when none. */
  standing(): Ballot['promise'];
}

/** Promises of that term to that primary may stand until then, and none is for longer than the TTL at a time. */
interface Horizon {
  readonly term: Term;
  readonly to: string;
  readonly until: MonoMs;
  readonly ttlMs: number;
}

/** Writes the record durably (file and directory fsynced) before it resolves. */
export type WriteRecord = (file: string, content: string) => Promise<void>;

export interface PromiserOptions {
  readonly stateDirectory: string;
  /** Default: `promises.json` in the state directory. */
  readonly storage?: TextStorage;
  readonly bootId: string;
  readonly clock: Clock;
  /** Default: writeFileAtomic. */
  readonly writeRecord?: WriteRecord;
  /** `votedTerm` from the agent's durable memory. */
  readonly facts: () => MemberFacts & { readonly votedTerm: Term };
}

/** Errors: `promises.damaged` when the file cannot be read as one; a forgotten promise could lead to a second primary. */
export function openPromiser(options: PromiserOptions): Result<Promiser, Failure> {
  const file = join(options.stateDirectory, 'promises.json');
  const storage = options.storage ?? {
    read: () => readTextIfThere(file),
    write: (text: string) => (options.writeRecord ?? writeFileAtomic)(file, text),
  };
  const former = storage.read();
  const decoded = former === null ? null : decodeJson(stored, former);
  if (decoded !== null && !decoded.ok) return err(damaged(file, formatDecodeError(decoded.error)));
  let ballot = ballotAfterRestart(decoded === null ? null : { votedTerm: options.facts().votedTerm, promise: decoded.value.promise }, {
    bootId: options.bootId,
    startedAt: options.clock.now().mono,
  });
  /** What is on disk covers promises of this term to this primary until then, for a restart too (a TTL is waited out there, not more). */
  let horizon: Horizon | null = null;
  const covers = (promise: Pick<OpenPromise, 'term' | 'to' | 'until'>, ttlMs: number): boolean =>
    horizon !== null && horizon.term === promise.term && horizon.to === promise.to && horizon.until >= promise.until && horizon.ttlMs >= ttlMs;
  const beyond = (promise: Pick<OpenPromise, 'term' | 'to' | 'until'>, ttlMs: number): Horizon => ({
    term: promise.term,
    to: promise.to,
    until: addMono(promise.until, HORIZON_MS),
    // A restart waits for one TTL of the record at most: it must not be shorter than what stands, or is waited for, from an earlier one.
    ttlMs: Math.ceil(Math.max(ttlMs, promise.until - options.clock.now().mono, (ballot.waitUntil ?? 0) - options.clock.now().mono)),
  });
  let turn: Promise<unknown> = Promise.resolve();
  /** A farther horizon of the same promise on its way to the disk; null: none. */
  let ahead: Promise<unknown> | null = null;

  const current = (): Ballot => {
    const { votedTerm } = options.facts();
    return votedTerm > ballot.votedTerm ? { ...ballot, votedTerm } : ballot;
  };

  const decide = async (request: PromiseRequest): Promise<PromiseAnswer> => {
    const facts = options.facts();
    const refuse = (why: 'not-stored' | 'bad-request'): PromiseAnswer => ({ kind: 'refused', node: facts.node, term: facts.knownTerm, why });
    if (request.ttlMs <= 0 || request.longMs < request.ttlMs || request.longMs > MAX_TTL_MS) return refuse('bad-request');
    const wanted = mayPromise(current(), facts, request, options.clock.now().mono).answer;
    const longMs = wanted.kind === 'promised' && wanted.ttlMs !== null ? wanted.ttlMs : request.ttlMs;
    // A restart must wait for as long: until that is written, beside the answers, the promise is for no longer than before.
    const asked = horizon !== null && horizon.ttlMs >= longMs ? request : { ...request, longMs: request.ttlMs };
    const first = mayPromise(current(), facts, asked, options.clock.now().mono);
    const promise = first.ballot.promise;
    if (first.answer.kind === 'refused' || promise === null) return first.answer;
    const ttlMs = first.answer.ttlMs ?? request.ttlMs;
    if (!covers(promise, ttlMs)) await ahead;
    if (!covers(promise, ttlMs)) {
      // Until the write ends nobody knows which of the two is on disk.
      horizon = null;
      const next = beyond(promise, ttlMs);
      if (!(await write(next))) return refuse('not-stored');
      horizon = next;
    }
    // The write took time, and a vote may have been given meanwhile: decide again, with nothing between the decision and its effect.
    const second = mayPromise(current(), options.facts(), asked, options.clock.now().mono);
    if (second.answer.kind === 'refused' || second.ballot.promise === null) return second.answer;
    // A disk that took longer than the horizon is wide: what would be answered now is not on it.
    if (!covers(second.ballot.promise, second.answer.ttlMs ?? request.ttlMs)) return refuse('not-stored');
    ballot = second.ballot;
    lookAhead(second.ballot.promise, longMs > request.ttlMs ? Math.max(longMs, LONGEST_PROMISE_MS) : request.ttlMs);
    return second.answer;
  };

  /**
   * Farther, or of longer promises (the longest at once, which then grow without a flush each).
   *
   * *Invariant:* whatever is on disk at any moment covers `horizon`. *Because:* the other one is of the same promise, and holds all that the present one does; and
   * one write is under way at a time: another promise waits for this one. *Broken if:* a horizon of an older promise comes to the disk after a newer one's.
   */
  const lookAhead = (promise: OpenPromise, ttlMs: number): void => {
    const present = horizon;
    if (present === null || ahead !== null) return;
    if (present.until - promise.until > HORIZON_MS / 2 && present.ttlMs >= ttlMs) return;
    const next = beyond(promise, Math.max(present.ttlMs, ttlMs));
    ahead = write(next)
      .then((written) => {
        if (written) horizon = next;
      })
      // A bug shows again, and is not passed over, when the present horizon is reached.
      .catch(() => undefined)
      .finally(() => {
        ahead = null;
      });
  };

  const write = async (promise: Horizon): Promise<boolean> => {
    try {
      await storage.write(`${encodeJson({ version: 1, promise: { ...promise, bootId: options.bootId } })}\n`);
      return true;
    } catch (cause) {
      // A full or broken disk: no promise is given, and the primary counts without us. Anything else is a bug.
      if (cause instanceof Error && 'code' in cause) return false;
      throw cause;
    }
  };

  return ok({
    onPromise: (request) => {
      const answer = turn.then(() => decide(request));
      turn = answer.catch(() => undefined);
      return answer;
    },
    onReturn: (given) => {
      const end = (): void => {
        ballot = takeBack(ballot, options.facts().cluster, given);
      };
      end();
      // A request of this hold may still wait for the disk.
      void turn.then(end);
    },
    mayVote: (asked) => {
      const decision = mayVote(current(), asked, options.clock.now().mono);
      if (decision.kind === 'granted') ballot = decision.ballot;
      return decision;
    },
    standing: () => (ballot.promise !== null && ballot.promise.until > options.clock.now().mono ? ballot.promise : null),
  });
}

function damaged(file: string, cause: string): Failure {
  return {
    code: 'promises.damaged',
    what: `cannot read ${file}, which holds this node's promise to a primary`,
    cause,
    now: 'the agent does not start: a forgotten promise could open a second primary',
    remedy: `wait ${LONGEST_PROMISE_MS / 1000} s, or one lease TTL where that is longer, move the file away, and start the agent again`,
    retryable: false,
  };
}
