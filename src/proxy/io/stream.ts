/** One connection's bytes, with the kernel as the only queue: what it does not take at once stops the source. */

export interface StreamEvents {
  /** `bytes[0…length)`, never a Buffer (whose `slice` is no copy), belongs to the stream: it is valid during the call only, or until `onDrain` of the stream that it was written to without success. */
  onData(bytes: Uint8Array, length: number): void;
  /** Everything that was written is with the kernel now. Called only after a `write` that returned false. */
  onDrain(): void;
  /** The other side ended (null) or the connection broke (why). Called once, and nothing after it; never after `destroy`. */
  onEnd(why: string | null): void;
}

export interface ByteStream {
  /** Who is told; nothing is read before `resume`. */
  listen(events: StreamEvents): void;
  /**
   * Of `bytes` the first `length` (default: all). True: the kernel has all of it. False: `bytes` must stay untouched until `onDrain`. Nothing happens after
   * the end.
   */
  write(bytes: Uint8Array, length?: number): boolean;
  pause(): void;
  resume(): void;
  /** Sends what is queued, then a FIN, waits for the other side's end (bounded), and closes. What comes meanwhile is thrown away. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
  /** Called once when it is closed here, whoever ended it. One callback; a second one takes its place. */
  onClose(callback: () => void): void;
  readonly remote: string;
}

/** Between our FIN and the close, for a peer that does not answer it. Closing with unread bytes would send a reset, which takes our last message away. */
export const LINGER_MS = 1000;
