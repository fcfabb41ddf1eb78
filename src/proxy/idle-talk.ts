/** What a server may say although nothing was asked. */
import { FRAME, beginChunk, createFrameWalker, stepFrame } from '../wire/frames.ts';
import { BACKEND, BACKEND_LIMITS } from '../wire/protocol.ts';

/** Source: PostgreSQL manual, 55.2.7 "Asynchronous Operations". */
const IDLE_TALK: ReadonlySet<number> = new Set([BACKEND.noticeResponse, BACKEND.parameterStatus, BACKEND.notificationResponse]);

/** Whole messages that end nothing. False for any other, for a part of one, and for what is no message. */
export function isIdleTalk(bytes: Uint8Array, length: number): boolean {
  const walker = createFrameWalker();
  beginChunk(walker, 0);
  while (walker.at < length) if (stepFrame(walker, bytes, length, BACKEND_LIMITS) !== FRAME.end || !IDLE_TALK.has(walker.type)) return false;
  return true;
}
