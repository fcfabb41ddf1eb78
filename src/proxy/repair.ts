/** Helpers for a client that goes on with a transaction that is lost: its messages are looked at, and go nowhere. */
import { FRONTEND } from '../wire/protocol.ts';
import { type Traffic, createTraffic, walkClient } from './traffic.ts';

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
export function isRollback(bytes: Uint8Array, at: number, end: number): boolean {
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

export function lossText(what: {
  /** The port is one for writes. */
  readonly writes: boolean;
  readonly inTransaction: boolean;
  /** No statement was under way. */
  readonly between: boolean;
  readonly commitSent: boolean;
  readonly why: string;
}): Loss {
  if (!what.writes || (what.inTransaction && (what.between || !what.commitSent)))
    return {
      sqlState: '40001',
      message: 'the transaction was rolled back because its node was lost',
      detail: what.why,
      hint: 'Nothing of it was committed; run it again. The session goes on.',
    };
  return {
    sqlState: '08007',
    message: 'it is not known whether the statement took effect, because its node was lost before it answered',
    detail: what.why,
    hint: 'Look whether it did before you run it again. The session goes on.',
  };
}
