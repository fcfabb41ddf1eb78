/** A byte stream on Node's public sockets: for TLS, and where raw handles are not usable. */
import type { Socket } from 'node:net';
import { type ByteStream, LINGER_MS, type StreamEvents } from './stream.ts';

export class SocketStream implements ByteStream {
  readonly remote: string;
  readonly #socket: Socket;
  #events: StreamEvents | null = null;
  #state: 'open' | 'ending' | 'closed' = 'open';
  #timer: NodeJS.Timeout | null = null;
  #onClose: (() => void) | null = null;

  /** The socket is paused, connected, and (TLS) has shaken hands. */
  constructor(socket: Socket, remote: string) {
    this.#socket = socket;
    this.remote = remote;
    socket.on('data', (chunk: Buffer) => {
      // A plain Uint8Array: `slice` of a Buffer would not copy.
      if (this.#state === 'open') this.#events?.onData(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length), chunk.length);
    });
    socket.pause();
    socket.on('drain', () => {
      if (this.#state === 'open') this.#events?.onDrain();
    });
    socket.on('end', () => this.#finish(null));
    socket.on('error', (cause) => this.#finish(cause.message));
    socket.on('close', () => this.#finish(null));
  }

  listen(events: StreamEvents): void {
    this.#events = events;
  }

  onClose(callback: () => void): void {
    this.#onClose = callback;
  }

  /** Copies: the socket may keep the bytes although it has room, and the reader's buffer is used again. */
  write(bytes: Uint8Array, length = bytes.length): boolean {
    if (this.#state !== 'open') return true;
    return this.#socket.write(Buffer.from(bytes.subarray(0, length)));
  }

  pause(): void {
    if (this.#state === 'open') this.#socket.pause();
  }

  resume(): void {
    if (this.#state === 'open') this.#socket.resume();
  }

  /** A last word before the end. */
  endWith(bytes: Uint8Array): void {
    this.write(bytes);
    this.end();
  }

  end(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    this.#socket.end();
    this.#socket.resume();
    this.#timer = setTimeout(() => this.destroy(), LINGER_MS);
  }

  destroy(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#events = null;
    this.#socket.destroy();
    this.#onClose?.();
  }

  #finish(why: string | null): void {
    const events = this.#events;
    const tell = this.#state === 'open';
    this.destroy();
    if (tell) events?.onEnd(why);
  }
}
