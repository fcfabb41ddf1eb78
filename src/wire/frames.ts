/**
 * Walks over the messages of one direction of a connection: type and length of each, over any borders of chunks, without a copy.
 * The bytes themselves are forwarded as they came; this only says where messages begin and end.
 */

/** What a step of the walk found. */
export const FRAME = {
  /** The chunk is used up inside a message, or between two. */
  more: 0,
  /** A message ended at `at`. */
  end: 1,
  /** The length is impossible, or the type is not allowed: where the next message begins cannot be known any more. */
  bad: 2,
} as const;

export interface FrameWalker {
  /** Bytes of the header that have been read: 0 between messages, 1…4 in the header, 5 in the body. */
  have: number;
  /** Type byte of the message; valid when `have` > 0, and after `FRAME.end`. */
  type: number;
  /** The length field, which counts itself and the body; complete when `have` is 5, and after `FRAME.end`. */
  length: number;
  /** Bytes of the body still to come. */
  left: number;
  /** First byte of the body, −1 when there is none (yet): the status of ReadyForQuery, the kind of Describe and Close. */
  first: number;
  /** Offset in the present chunk: the next byte that is not read yet. */
  at: number;
  /** Offset in the present chunk of the message's type byte; −1 when it came in an earlier chunk. */
  startAt: number;
  /** Offset in the present chunk of the message's body; −1 when a part of the body came in an earlier chunk, or its header is not complete. */
  bodyAt: number;
}

/** A walker that stands before the first message. Messages without a type byte (the first packet of a client) are read by startup.ts. */
export function createFrameWalker(): FrameWalker {
  return { have: 0, type: 0, length: 0, left: 0, first: -1, at: 0, startAt: -1, bodyAt: -1 };
}

/** Call before the first step in each chunk; `at` is the offset of its first byte. */
export function beginChunk(walker: FrameWalker, at: number): void {
  walker.at = at;
  walker.startAt = -1;
  walker.bodyAt = -1;
}

/**
 * Goes on in the present chunk, to the end of the message or of the chunk (`end`: the offset behind its last byte).
 * Returns one of `FRAME`. After `FRAME.end` the body stands at `bodyAt`…`at` if `bodyAt` ≥ 0. After `FRAME.bad` the connection must end;
 * `type` and `length` say why. `limits` has the largest length field by type, 0 for types that may not come (protocol.ts).
 */
export function stepFrame(walker: FrameWalker, bytes: Uint8Array, end: number, limits: Int32Array): number {
  let at = walker.at;
  if (walker.have < 5) {
    if (walker.have === 0) {
      if (at >= end) return FRAME.more;
      if (isWhole(walker, bytes, end, limits)) return FRAME.end;
      walker.startAt = at;
      walker.bodyAt = -1;
      walker.first = -1;
      walker.length = 0;
    }
    at = readHeader(walker, bytes, at, end);
    walker.at = at;
    if (walker.have < 5) return walker.have > 0 && limits[walker.type] === 0 ? FRAME.bad : FRAME.more;
    // A type that is not allowed has the limit 0, which is below every length.
    if (walker.length < 4 || walker.length > (limits[walker.type] as number)) return FRAME.bad;
    walker.left = walker.length - 4;
    walker.bodyAt = at;
  }
  if (walker.left > 0) {
    const here = end - at;
    if (here <= 0) {
      walker.at = at;
      return FRAME.more;
    }
    if (walker.first === -1) walker.first = bytes[at] as number;
    if (here < walker.left) {
      walker.left -= here;
      walker.at = end;
      return FRAME.more;
    }
    at += walker.left;
    walker.left = 0;
  }
  walker.at = at;
  walker.have = 0;
  return FRAME.end;
}

/** The way of almost all messages: header and body stand in the chunk, and the length is a possible one. Then the step is done. */
function isWhole(walker: FrameWalker, bytes: Uint8Array, end: number, limits: Int32Array): boolean {
  const { at } = walker;
  if (end - at < 5) return false;
  const type = bytes[at] as number;
  // A length with its highest bit set is negative here.
  const length = ((bytes[at + 1] as number) << 24) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
  if (length < 4 || length > end - at - 1 || length > (limits[type] as number)) return false;
  walker.type = type;
  walker.length = length;
  walker.first = length > 4 ? (bytes[at + 5] as number) : -1;
  walker.startAt = at;
  walker.bodyAt = at + 5;
  walker.at = at + length + 1;
  return true;
}

/**
 * Passes over whole messages of the two types, as many as stand next in the chunk: rows and copied data, of which nothing but their end is wanted. Nothing happens
 * inside a message, or where one of another type, an impossible one or an incomplete one begins.
 */
export function passFrames(walker: FrameWalker, bytes: Uint8Array, end: number, one: number, other: number): void {
  if (walker.have !== 0) return;
  let { at } = walker;
  while (end - at >= 5 && (bytes[at] === one || bytes[at] === other)) {
    const length =
      ((bytes[at + 1] as number) << 24) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 8) | (bytes[at + 4] as number);
    // A length with its highest bit set is negative here.
    if (length < 4 || length > end - at - 1) break;
    at += length + 1;
  }
  walker.at = at;
}

/** The rare case of a header that is cut by the border of a chunk. */
function readHeader(walker: FrameWalker, bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (walker.have < 5 && at < end) {
    const byte = bytes[at++] as number;
    if (walker.have === 0) walker.type = byte;
    else walker.length = ((walker.length << 8) | byte) >>> 0;
    walker.have++;
  }
  return at;
}
