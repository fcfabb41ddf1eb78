/**
 * Collects a message that came in several chunks, up to a limit, so that it can be read in one piece.
 * One gather is reused for all messages of a connection. It grows only as bytes really arrive: a length field alone reserves nothing.
 */
export interface Gather {
  bytes: Uint8Array;
  /** Bytes that are filled. */
  length: number;
  readonly limit: number;
}

/** Nothing is reserved before the first byte. `limit` in bytes. */
export function createGather(limit: number): Gather {
  return { bytes: EMPTY, length: 0, limit };
}

const EMPTY = new Uint8Array(0);
const SMALLEST_BYTES = 512;
/** A gather that grew larger than this gives its memory back when it is cleared: a session that once sent a large text stays small. */
const KEEP_BYTES = 16_384;

/** Appends `chunk[from…to]`; returns how many of these bytes were taken: fewer than offered only when the limit is reached. */
export function appendGather(gather: Gather, chunk: Uint8Array, from: number, to: number): number {
  const take = Math.min(to - from, gather.limit - gather.length);
  if (take <= 0) return 0;
  const needed = gather.length + take;
  if (needed > gather.bytes.length) {
    const grown = new Uint8Array(Math.min(gather.limit, Math.max(SMALLEST_BYTES, needed, gather.bytes.length * 2)));
    grown.set(gather.bytes.subarray(0, gather.length));
    gather.bytes = grown;
  }
  gather.bytes.set(chunk.subarray(from, from + take), gather.length);
  gather.length = needed;
  return take;
}

export function clearGather(gather: Gather): void {
  gather.length = 0;
  if (gather.bytes.length > KEEP_BYTES) gather.bytes = EMPTY;
}
