/** One round of asking the electorate for promises, all members at once; and giving them back. */
import type { NodeId, Term } from '../../core/ids.ts';
import { type PromiseAnswer, type PromiseCount, type PromiseRequest, type PromiseReturn, countPromises } from '../../core/node/promises.ts';

/** Several rounds fit into one TTL; and a member that has to make a new connection on a busy host takes half a second: shorter rounds would each end before it. */
export const PROMISE_LIMIT_MS = 600;

export interface RoundOptions {
  readonly node: NodeId;
  readonly cluster: string;
  readonly incarnation: string;
  readonly electorate: { readonly revision: number; readonly members: readonly NodeId[] };
  readonly term: Term;
  readonly hold: string;
  readonly ttlMs: number;
  readonly longMs: number;
  /** This node's own promise, by its own promiser. Null: not in time. */
  readonly own: (request: PromiseRequest) => Promise<PromiseAnswer | null>;
  /** Null: no answer in time. Bounded by itself (PROMISE_LIMIT_MS). */
  readonly ask: (node: NodeId, request: PromiseRequest) => Promise<PromiseAnswer | null>;
}

/** Resolves as soon as there are enough, or when everybody answered or was late. An answer in another member's name does not count. */
export async function askForPromises(options: RoundOptions): Promise<PromiseCount> {
  const request: PromiseRequest = {
    cluster: options.cluster,
    incarnation: options.incarnation,
    term: options.term,
    from: options.node,
    hold: options.hold,
    electorateRevision: options.electorate.revision,
    ttlMs: options.ttlMs,
    longMs: options.longMs,
  };
  const answers: PromiseAnswer[] = [];
  const { members } = options.electorate;
  return new Promise((resolve) => {
    let open = members.length;
    const take = (from: NodeId, answer: PromiseAnswer | null): void => {
      open -= 1;
      if (answer !== null && answer.node === from) answers.push(answer);
      const count = countPromises(members, options, answers);
      if (count.enough || open === 0) resolve(count);
    };
    if (open === 0) resolve(countPromises(members, options, answers));
    for (const member of members) {
      const asked = member === options.node ? options.own(request) : options.ask(member, request);
      asked.then(
        (answer) => take(member, answer),
        () => take(member, null),
      );
    }
  });
}

export interface ReturnOptions {
  readonly node: NodeId;
  readonly members: readonly NodeId[];
  readonly given: PromiseReturn;
  readonly own: (given: PromiseReturn) => void;
  /** Bounded by itself; a member that is not reached waits until its promise runs out. */
  readonly tell: (node: NodeId, given: PromiseReturn) => Promise<void>;
}

/** Tells each member once that nobody counts on its promise any more. Only called after the hold ended. Never rejects. */
export async function returnPromises(options: ReturnOptions): Promise<void> {
  options.own(options.given);
  const others = options.members.filter((member) => member !== options.node);
  await Promise.allSettled(others.map((member) => options.tell(member, options.given)));
}
