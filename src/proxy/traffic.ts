/**
 * What a session's two directions tell about its state, from message headers alone: is a statement under way, is a transaction open, may
 * what comes next wait. Pure bookkeeping on bytes; nothing is copied.
 *
 * A *cycle* is what a server ends with ReadyForQuery: one Query, one FunctionCall, or everything up to a Sync.
 */
import { hasSqlState, readErrorFields } from '../wire/backend.ts';
import { FRAME, type FrameWalker, beginChunk, createFrameWalker, passFrames, stepFrame } from '../wire/frames.ts';
import { type Gather, appendGather, clearGather, createGather } from '../wire/gather.ts';
import { BACKEND, BACKEND_LIMITS, FRONTEND, FRONTEND_LIMITS, TRANSACTION } from '../wire/protocol.ts';

export interface Traffic {
  readonly client: FrameWalker;
  readonly server: FrameWalker;
  /** A short message of the server that comes in several chunks. */
  readonly short: Gather;
  /** Cycles that were sent to the server whole, and not answered by ReadyForQuery. */
  cycles: number;
  /** Kinds of the cycles that are under way, oldest in the lowest bit: 1 is ended by a Sync. Exact for up to 31 of them. */
  kinds: number;
  /** Messages of the extended protocol went out without their Sync. */
  batchOpen: boolean;
  /** The server reads CopyData. */
  copyIn: boolean;
  /** Status of the last ReadyForQuery. */
  status: number;
  /** The client said goodbye. */
  terminated: boolean;
  /** A Sync came while the server read CopyData: if it fails the COPY, it answers that Sync too, and one answer more than was asked for is on its way. */
  stray: boolean;
  /** More than 31 cycles were under way when a COPY began: nothing about this session is certain any more. */
  uncertain: boolean;
}

/** Of command tags and parameters. */
const MAX_SHORT = 4096;

export function createTraffic(): Traffic {
  return {
    client: createFrameWalker(),
    server: createFrameWalker(),
    short: createGather(MAX_SHORT),
    cycles: 0,
    kinds: 0,
    batchOpen: false,
    copyIn: false,
    status: TRANSACTION.idle,
    terminated: false,
    stray: false,
    uncertain: false,
  };
}

/** Nothing is under way, in either direction, and no transaction is open. */
export function isIdle(traffic: Traffic): boolean {
  return isBetween(traffic) && traffic.status === TRANSACTION.idle && !traffic.uncertain;
}

/** Nothing is under way; a transaction may be open. */
export function isBetween(traffic: Traffic): boolean {
  return traffic.cycles === 0 && !traffic.batchOpen && !traffic.copyIn && traffic.client.have === 0 && traffic.server.have === 0;
}

/** What the client sends next would begin a new transaction, or it is not known yet whether it would: it can wait. */
export function mayWait(traffic: Traffic): boolean {
  return traffic.client.have === 0 && !traffic.batchOpen && !traffic.copyIn && (traffic.cycles > 0 || traffic.status === TRANSACTION.idle);
}

/** Called for each complete message; `bodyAt` is −1 when it was too long to be kept in one piece. */
export type OnMessage = (type: number, bytes: Uint8Array, bodyAt: number, end: number) => void;

export interface ClientWalk {
  /** Stop where the rest can wait. */
  hold: boolean;
  readonly onMessage: OnMessage;
  /** Collects messages with a statement or a name that come in several chunks; null: those get `bodyAt` −1. */
  readonly gather: Gather | null;
}

/**
 * Counts what the client sends. Returns the offset up to which the bytes may go to the server: all of them, or (`hold`) up to the point
 * from which on the rest can wait. −1: not the protocol.
 */
export function walkClient(traffic: Traffic, bytes: Uint8Array, length: number, options: ClientWalk): number {
  const walker = traffic.client;
  const { gather } = options;
  beginChunk(walker, 0);
  for (;;) {
    if (options.hold && mayWait(traffic)) return walker.at;
    const step = stepFrame(walker, bytes, length, FRONTEND_LIMITS);
    if (step === FRAME.more) {
      if (gather !== null && walker.have === 5 && isKept(walker.type)) appendGather(gather, bytes, Math.max(0, walker.bodyAt), length);
      return length;
    }
    if (step === FRAME.bad) return -1;
    if (walker.bodyAt >= 0 || gather === null || !isKept(walker.type)) options.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
    else {
      appendGather(gather, bytes, 0, walker.at);
      options.onMessage(walker.type, gather.bytes, gather.length === walker.length - 4 ? 0 : -1, gather.length);
      clearGather(gather);
    }
    countClient(traffic, walker.type);
    if (walker.type === FRONTEND.copyData) passFrames(walker, bytes, length, FRONTEND.copyData, FRONTEND.copyData);
    if (traffic.terminated) return walker.at;
  }
}

/** Messages whose text or names matter to those who look at statements: all but those of a COPY. */
function isKept(type: number): boolean {
  return type !== FRONTEND.copyData && type !== FRONTEND.copyFail;
}

function countClient(traffic: Traffic, type: number): void {
  switch (type) {
    case FRONTEND.query:
    case FRONTEND.functionCall:
      addCycle(traffic, 0);
      return;
    case FRONTEND.sync:
      // A server that reads CopyData ignores Sync. Source: PostgreSQL manual 55.2.6; CopyGetData, src/backend/commands/copyfromparse.c.
      if (traffic.copyIn) {
        traffic.stray = true;
        return;
      }
      traffic.batchOpen = false;
      addCycle(traffic, 1);
      return;
    case FRONTEND.copyDone:
    case FRONTEND.copyFail:
      traffic.copyIn = false;
      return;
    case FRONTEND.copyData:
      return;
    case FRONTEND.terminate:
      traffic.terminated = true;
      return;
    default:
      traffic.batchOpen = true;
  }
}

function addCycle(traffic: Traffic, kind: number): void {
  if (traffic.cycles < 31) traffic.kinds |= kind << traffic.cycles;
  traffic.cycles += 1;
}

function endCycle(traffic: Traffic): void {
  if (traffic.cycles > 31) traffic.kinds = 0;
  else traffic.kinds >>>= 1;
  traffic.cycles -= 1;
}

export interface ServerFindings {
  /** An error came although nothing was asked, or one that says that the server stops: its goodbye. Offset of its first byte; −1: none (its type byte is in this chunk unless 0). */
  goodbyeAt: number;
  /** A cycle ended in this chunk. */
  ready: boolean;
}

export interface ServerEvents {
  /** Everything but rows, copied data and ReadyForQuery; `bodyAt` is −1 when a part of it came in an earlier chunk. */
  readonly onMessage: OnMessage;
  /** A cycle ended with this transaction status. */
  readonly onReady: (status: number) => void;
}

/**
 * Counts what the server sends. False: not the protocol. `findings` is filled for this chunk. After a goodbye nothing is counted.
 * Rows pass without a call of `events`.
 */
export function walkServer(traffic: Traffic, bytes: Uint8Array, length: number, findings: ServerFindings, events: ServerEvents): boolean {
  const walker = traffic.server;
  beginChunk(walker, 0);
  findings.goodbyeAt = -1;
  findings.ready = false;
  for (;;) {
    const step = stepFrame(walker, bytes, length, BACKEND_LIMITS);
    if (step === FRAME.more) {
      if (walker.have === 5 && isShort(walker.type)) appendGather(traffic.short, bytes, Math.max(0, walker.bodyAt), length);
      return true;
    }
    if (step === FRAME.bad) return false;
    switch (walker.type) {
      case BACKEND.dataRow:
      case BACKEND.copyData:
        passFrames(walker, bytes, length, BACKEND.dataRow, BACKEND.copyData);
        continue;
      case BACKEND.readyForQuery:
        if (traffic.cycles > 0) endCycle(traffic);
        traffic.copyIn = false;
        traffic.status = walker.first;
        findings.ready = true;
        events.onReady(traffic.status);
        continue;
      case BACKEND.copyInResponse:
      case BACKEND.copyBothResponse:
        beginCopyIn(traffic);
        events.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
        continue;
      case BACKEND.errorResponse:
        if ((traffic.cycles === 0 && !traffic.batchOpen && !traffic.copyIn) || isShutdown(bytes, walker)) {
          findings.goodbyeAt = Math.max(0, walker.startAt);
          events.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
          return true;
        }
        traffic.copyIn = false;
        events.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
        continue;
      case BACKEND.commandComplete:
      case BACKEND.parameterStatus:
        if (walker.bodyAt < 0) {
          onShort(traffic, bytes, events);
          continue;
        }
        events.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
        continue;
      default:
        events.onMessage(walker.type, bytes, walker.bodyAt, walker.at);
    }
  }
}

function isShort(type: number): boolean {
  return type === BACKEND.commandComplete || type === BACKEND.parameterStatus;
}

/** The rest of a short message came. */
function onShort(traffic: Traffic, bytes: Uint8Array, events: ServerEvents): void {
  const { server, short } = traffic;
  appendGather(short, bytes, 0, server.at);
  events.onMessage(server.type, short.bytes, short.length === server.length - 4 ? 0 : -1, short.length);
  clearGather(short);
}

/** Its last word, where `walker` stands. `isStop`: it stops, or starts; the session can go on elsewhere. */
export function readGoodbye(bytes: Uint8Array, walker: FrameWalker): { readonly isStop: boolean; readonly text: string } {
  const fields = walker.bodyAt < 0 ? null : readErrorFields(bytes, walker.bodyAt, walker.at);
  const isStop = ['57P01', '57P02', '57P03'].includes(fields?.get('C') ?? '');
  return { isStop, text: fields?.get('M') ?? 'the server ended the session' };
}

/** The server ends the session: stopped by an administrator, or after a crash of another process. Source: PostgreSQL manual, appendix A, class 57. */
function isShutdown(bytes: Uint8Array, walker: FrameWalker): boolean {
  if (walker.bodyAt < 0) return false;
  return hasSqlState(bytes, walker.bodyAt, walker.at, '57P01') || hasSqlState(bytes, walker.bodyAt, walker.at, '57P02');
}

/** In the extended protocol the Sync that is on its way already is thrown away by the server, and the client sends another one after the data. */
function beginCopyIn(traffic: Traffic): void {
  traffic.copyIn = true;
  if (traffic.cycles === 0) return;
  if (traffic.cycles > 31) {
    traffic.uncertain = true;
    return;
  }
  if ((traffic.kinds & 1) === 0) return;
  endCycle(traffic);
  traffic.batchOpen = true;
}
