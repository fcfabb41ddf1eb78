/** For a client that goes on with a transaction that is lost: its messages are looked at, and go nowhere. */
import { buildCommandComplete, buildError, buildReady } from '../wire/backend.ts';
import { joinBytes } from '../wire/bytes.ts';
import { FRONTEND, TRANSACTION } from '../wire/protocol.ts';
import { type Traffic, createTraffic, isBetween, walkClient } from './traffic.ts';

export interface Repair {
  /** `answer` the next statement with the error; `skip` up to the next Sync; `half`: throw away the rest of the message that was under way. */
  kind: 'none' | 'answer' | 'skip' | 'half';
  /** A message of the client was under way when the node was lost. */
  half: boolean;
  loss: Loss | null;
}

export function createRepair(): Repair {
  return { kind: 'none', half: false, loss: null };
}

/**
 * The node was lost in the state that `traffic` tells, which begins anew. What the client is told now, one error for each thing that it waits for; null: nothing, since it waits for nothing.
 */
export function beginRepair(repair: Repair, traffic: Traffic, loss: Loss): Uint8Array | null {
  const half = traffic.client.have !== 0;
  const between = isBetween(traffic);
  const { cycles, batchOpen, status, client } = traffic;
  repair.loss = loss;
  repair.half = half;
  // Of what is known only the message that is half here still counts.
  Object.assign(traffic, { ...createTraffic(), client });
  if (between) {
    if (status !== TRANSACTION.idle) repair.kind = 'answer';
    return null;
  }
  const error = buildError({ severity: 'ERROR', ...loss });
  const answers = Array.from({ length: cycles }, () => joinBytes([error, buildReady('idle')]));
  if (batchOpen || (half && !isCopy(client.type))) answers.push(error);
  repair.kind = batchOpen ? 'skip' : half ? 'half' : 'none';
  return joinBytes(answers);
}

/**
 * The next message of the client: its statement is answered with the error (a ROLLBACK with what it wants), or messages are thrown away up to the Sync that
 * ends them, as a server would do after an error. Answers are appended to `answered`.
 */
export function takeRepair(
  repair: Repair,
  message: { readonly type: number; readonly bytes: Uint8Array; readonly bodyAt: number; readonly end: number },
  answered: Uint8Array[],
): void {
  const { type, bytes, bodyAt, end } = message;
  if (repair.half) {
    // The message that was under way when the node was lost has its answer already, except for the ReadyForQuery.
    repair.half = false;
    if (isCopy(type)) {
      if (repair.kind === 'half') repair.kind = 'none';
    } else if (type === FRONTEND.query || type === FRONTEND.functionCall || type === FRONTEND.sync) {
      answered.push(buildReady('idle'));
      repair.kind = 'none';
    } else repair.kind = 'skip';
  } else if (isCopy(type)) {
    return;
  } else if (repair.kind === 'skip') {
    if (type !== FRONTEND.sync) return;
    answered.push(buildReady('idle'));
    repair.kind = 'none';
  } else if (type === FRONTEND.sync) {
    answered.push(buildReady('idle'));
  } else if (type === FRONTEND.query && bodyAt >= 0 && isRollback(bytes, bodyAt, end)) {
    answered.push(joinBytes([buildCommandComplete('ROLLBACK'), buildReady('idle')]));
    repair.kind = 'none';
  } else if (type !== FRONTEND.terminate && repair.loss !== null) {
    const whole = type === FRONTEND.query || type === FRONTEND.functionCall;
    answered.push(buildError({ severity: 'ERROR', ...repair.loss }));
    if (whole) answered.push(buildReady('idle'));
    repair.kind = whole ? 'none' : 'skip';
  }
}

/** Walks messages without counting them; stops behind the message after which `done` is true. −1: not the protocol. */
export function walkRepair(
  traffic: Traffic,
  bytes: Uint8Array,
  length: number,
  take: (type: number, bytes: Uint8Array, bodyAt: number, end: number) => void,
  done: () => boolean,
): number {
  let stop = -1;
  const fresh = createTraffic();
  const walking: Traffic = { ...fresh, client: traffic.client };
  const upTo = walkClient(walking, bytes, length, {
    hold: false,
    gather: null,
    onMessage: (type, chunk, bodyAt, end) => {
      if (stop !== -1) return;
      take(type, chunk, bodyAt, end);
      if (done()) stop = end;
    },
  });
  if (upTo === -1) return -1;
  traffic.terminated = walking.terminated && stop === -1;
  if (stop === -1) return length;
  // The rest is walked again by whoever gets it.
  traffic.client.have = 0;
  return stop;
}

/** Messages of a COPY that has ended with an error are thrown away, as a server does. */
export function isCopy(type: number): boolean {
  return type === FRONTEND.copyData || type === FRONTEND.copyDone || type === FRONTEND.copyFail;
}

/** ROLLBACK or ABORT, alone in the text of a Query. */
function isRollback(bytes: Uint8Array, at: number, end: number): boolean {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(end - at, 64)).toString('latin1');
  return /^\s*(rollback|abort)\s*(work|transaction)?\s*;?\s*\0/i.test(head);
}

/** What a client is told whose node was lost. */
export interface Loss {
  readonly sqlState: string;
  readonly message: string;
  readonly detail: string;
  readonly hint: string;
}

/** `unknown`: something may have been committed. */
export function lossText(unknown: boolean, why: string): Loss {
  if (!unknown)
    return {
      sqlState: '40001',
      message: 'the transaction was rolled back because its node was lost',
      detail: why,
      hint: 'Nothing of it was committed; run it again. The session goes on.',
    };
  return {
    sqlState: '08007',
    message: 'it is not known whether the statement took effect, because its node was lost before it answered',
    detail: why,
    hint: 'Look whether it did before you run it again. The session goes on.',
  };
}
