/** A byte stream on a raw handle: one read buffer of its own, one write request that is used again. */
import { type ByteStream, LINGER_MS, type StreamEvents } from './stream.ts';
import { type RawBinding, type RawHandle, type RawWrite, UV_EOF } from './raw-handle.ts';

/** An idle session holds two of these. Most statements and answers fit. */
const SMALL_BYTES = 2048;
/** Reads that fill the buffer make it grow up to here: large results then need a thirtieth of the reads. */
const LARGE_BYTES = 65_536;
/** So many reads in a row that a small buffer would have held, and it shrinks again. */
const CALM_READS = 256;

const NOTHING = new Uint8Array(0);

function ignoreRead(): undefined {
  return undefined;
}

/**
 * Invariant: bytes that the kernel has not taken are not overwritten.
 * Because: the reader's buffer is its own, and the caller pauses the reader until `onDrain` when `write` returned false.
 * Broken if: two handles shared a read buffer; the kernel refers to it until the write request completes.
 */
export class RawStream implements ByteStream {
  readonly remote: string;
  readonly #handle: RawHandle;
  readonly #binding: RawBinding;
  #events: StreamEvents | null = null;
  #buffer: Uint8Array;
  #calm = 0;
  #write: RawWrite;
  /** The last part that was written, and of which bytes. */
  #whole: Uint8Array = NOTHING;
  #part: Uint8Array = NOTHING;
  #pending = 0;
  #reading = false;
  #state: 'open' | 'ending' | 'closed' = 'open';
  #timer: NodeJS.Timeout | null = null;
  #onClose: (() => void) | null = null;

  constructor(handle: RawHandle, binding: RawBinding, remote: string) {
    this.#handle = handle;
    this.#binding = binding;
    this.remote = remote;
    this.#buffer = new Uint8Array(SMALL_BYTES);
    this.#write = this.#newWrite();
    handle.useUserBuffer(this.#buffer);
    handle.onread = () => this.#onRead();
  }

  listen(events: StreamEvents): void {
    this.#events = events;
  }

  onClose(callback: () => void): void {
    this.#onClose = callback;
  }

  write(bytes: Uint8Array, length = bytes.length): boolean {
    if (this.#state !== 'open') return true;
    const request = this.#write;
    const part = length === bytes.length ? bytes : this.#partOf(bytes, length);
    const failed = this.#handle.writeBuffer(request, part);
    if (failed !== 0) {
      // Not inside the caller's step: it would find its session ended in the middle of it.
      process.nextTick(() => this.#finish(`write failed (${failed})`));
      return true;
    }
    if (this.#binding.state[this.#binding.wasAsync] === 0) return true;
    request.buffer = part;
    this.#pending += 1;
    this.#write = this.#newWrite();
    return false;
  }

  /** The beginning of the bytes. Messages of one kind are often of one length, and come in the same buffer: a view costs as much as walking over them. */
  #partOf(bytes: Uint8Array, length: number): Uint8Array {
    if (bytes !== this.#whole || length !== this.#part.length) {
      this.#whole = bytes;
      this.#part = new Uint8Array(bytes.buffer, bytes.byteOffset, length);
    }
    return this.#part;
  }

  pause(): void {
    if (!this.#reading || this.#state === 'closed') return;
    this.#reading = false;
    this.#handle.readStop();
  }

  resume(): void {
    if (this.#reading || this.#state === 'closed') return;
    this.#reading = true;
    this.#handle.readStart();
  }

  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    const request = this.#binding.newShutdown();
    request.oncomplete = () => undefined;
    if (this.#handle.shutdown(request) !== 0) {
      this.destroy();
      return;
    }
    this.resume();
    this.#timer = setTimeout(() => this.destroy(), LINGER_MS);
  }

  destroy(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#events = null;
    this.#handle.onread = ignoreRead;
    this.#handle.close();
    this.#onClose?.();
  }

  #newWrite(): RawWrite {
    const request = this.#binding.newWrite();
    request.oncomplete = (status) => {
      request.buffer = null;
      this.#pending -= 1;
      if (this.#state === 'closed') return;
      if (status < 0) this.#finish(`write failed (${status})`);
      else if (this.#pending === 0) this.#events?.onDrain();
    };
    return request;
  }

  /** The return value is the buffer of the next read. */
  #onRead(): Uint8Array | undefined {
    const length = this.#binding.state[this.#binding.readResult] ?? 0;
    if (length === 0) return undefined;
    if (length < 0) {
      this.#finish(length === UV_EOF ? null : `read failed (${length})`);
      return undefined;
    }
    if (this.#state !== 'open') return undefined;
    const bytes = this.#buffer;
    this.#events?.onData(bytes, length);
    if (length === bytes.length && length < LARGE_BYTES) return this.#resize(Math.min(LARGE_BYTES, length * 8));
    if (bytes.length === SMALL_BYTES) return undefined;
    this.#calm = length <= SMALL_BYTES ? this.#calm + 1 : 0;
    return this.#calm < CALM_READS ? undefined : this.#resize(SMALL_BYTES);
  }

  /** The old buffer may be with the kernel still; it is left to it. */
  #resize(size: number): Uint8Array | undefined {
    if (this.#handleClosed()) return undefined;
    this.#calm = 0;
    this.#buffer = new Uint8Array(size);
    return this.#buffer;
  }

  #handleClosed(): boolean {
    return this.#state === 'closed';
  }

  #finish(why: string | null): void {
    const events = this.#events;
    const tell = this.#state === 'open';
    this.destroy();
    if (tell) events?.onEnd(why);
  }
}
