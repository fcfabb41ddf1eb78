/** Looks ahead in what a client sent: which bytes belong to one node. Nothing is counted or remembered here. */
import { FRAME, type FrameWalker, beginChunk, createFrameWalker, stepFrame } from '../wire/frames.ts';
import { type Texts, createTexts, readAbout, readBind, readExecute, readParse, readQuery } from '../wire/frontend.ts';
import { FRONTEND, FRONTEND_LIMITS } from '../wire/protocol.ts';
import { type SessionMemory, showsToken } from './memory.ts';

export interface NextCycle {
  /** Offset behind the bytes that go together. */
  end: number;
  /** A standby may run them: exactly one cycle, complete. Else they are for the primary. */
  read: boolean;
  /** They use the unnamed statement that an earlier cycle prepared. */
  usesUnnamed: boolean;
  /** They prepare the unnamed statement. */
  parsesUnnamed: boolean;
  /** They show the session's token, which must be known by then. For the primary. */
  showsToken: boolean;
}

/** The unnamed statement that was prepared before may be used: what comes next begins with neither a Query nor a Parse of it, which would take its place. */
export function mayUseUnnamed([type, , , , , name]: Uint8Array): boolean {
  return type !== FRONTEND.query && !(type === FRONTEND.parse && name === 0);
}

const walker: FrameWalker = createFrameWalker();
const texts: Texts = createTexts();

interface Cycle {
  read: boolean;
  messages: number;
  parsed: boolean;
  bound: boolean;
  usesUnnamed: boolean;
  showsToken: boolean;
}

/**
 * The first cycle, when it is complete and only reads; else everything up to the next such cycle. What is not complete is for the primary: whether it only
 * reads is not known yet, and its first bytes must not wait for it.
 */
export function nextCycle(bytes: Uint8Array, length: number, memory: SessionMemory, into: NextCycle): void {
  walker.have = 0;
  beginChunk(walker, 0);
  into.end = 0;
  into.read = false;
  into.usesUnnamed = false;
  into.parsesUnnamed = false;
  into.showsToken = false;
  while (into.end < length) {
    const cycle: Cycle = { read: true, messages: 0, parsed: false, bound: false, usesUnnamed: false, showsToken: false };
    const complete = readCycle(bytes, length, memory, cycle);
    if (complete && (cycle.read || cycle.showsToken)) {
      if (into.end > 0) return;
      into.read = !cycle.showsToken;
      into.showsToken = cycle.showsToken;
      into.usesUnnamed = cycle.showsToken && cycle.usesUnnamed;
      into.end = walker.at;
      into.parsesUnnamed = cycle.parsed;
      return;
    }
    into.usesUnnamed ||= cycle.usesUnnamed && !into.parsesUnnamed;
    into.parsesUnnamed ||= cycle.parsed;
    into.end = complete ? walker.at : length;
  }
}

/** False: the chunk ends first, or is no protocol. */
function readCycle(bytes: Uint8Array, length: number, memory: SessionMemory, cycle: Cycle): boolean {
  for (;;) {
    if (stepFrame(walker, bytes, length, FRONTEND_LIMITS) !== FRAME.end) return false;
    const { type, bodyAt: at, at: end } = walker;
    cycle.messages += 1;
    switch (type) {
      case FRONTEND.query:
        cycle.read = cycle.messages === 1 && readQuery(bytes, at, end, texts);
        if (!cycle.read) return true;
        cycle.showsToken = showsToken(bytes, texts.firstAt, texts.firstEnd);
        cycle.read = memory.onlyReads(bytes, texts.firstAt, texts.firstEnd);
        return true;
      case FRONTEND.sync:
        // A statement that is only prepared is executed by a later cycle, which must find it.
        if (!cycle.bound) cycle.read = false;
        return true;
      case FRONTEND.parse:
        readParseInto(bytes, at, end, memory, cycle);
        break;
      case FRONTEND.bind:
        readBindInto(bytes, at, end, memory, cycle);
        break;
      case FRONTEND.execute:
        if (!readExecute(bytes, at, end, texts) || texts.firstEnd > texts.firstAt || !cycle.bound) cycle.read = false;
        break;
      case FRONTEND.describe:
        readDescribeInto(bytes, at, end, memory, cycle);
        break;
      case FRONTEND.terminate:
      case FRONTEND.functionCall:
        cycle.read = false;
        return true;
      default:
        cycle.read = false;
    }
  }
}

function readParseInto(bytes: Uint8Array, at: number, end: number, memory: SessionMemory, cycle: Cycle): void {
  const readable = readParse(bytes, at, end, texts);
  const named = readable && texts.firstEnd > texts.firstAt;
  if (readable && showsToken(bytes, texts.secondAt, texts.secondEnd)) cycle.showsToken = true;
  if (!named) cycle.parsed = true;
  if (!readable || named || !memory.onlyReads(bytes, texts.secondAt, texts.secondEnd)) cycle.read = false;
}

function readBindInto(bytes: Uint8Array, at: number, end: number, memory: SessionMemory, cycle: Cycle): void {
  cycle.bound = true;
  if (!readBind(bytes, at, end, texts) || texts.firstEnd > texts.firstAt) cycle.read = false;
  else useStatement(bytes, texts.secondAt, texts.secondEnd, memory, cycle);
}

function readDescribeInto(bytes: Uint8Array, at: number, end: number, memory: SessionMemory, cycle: Cycle): void {
  if (!readAbout(bytes, at, end, texts)) cycle.read = false;
  else if (bytes[at] === 0x53) useStatement(bytes, texts.firstAt, texts.firstEnd, memory, cycle);
  else if (texts.firstEnd > texts.firstAt || !cycle.bound) cycle.read = false;
}

function useStatement(bytes: Uint8Array, from: number, to: number, memory: SessionMemory, cycle: Cycle): void {
  if (memory.isTokenStatement(bytes, from, to)) cycle.showsToken = true;
  if (to > from) {
    if (!memory.isReadStatement(bytes, from, to)) cycle.read = false;
  } else if (!cycle.parsed) {
    cycle.usesUnnamed = true;
    cycle.read = false;
  }
}
