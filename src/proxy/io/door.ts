/** Doors for connections: listening, dialling, and TLS over what was opened. The way to read and write is chosen once, by the self-test. */
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net';
import { type SecureContext, TLSSocket, connect as connectTls } from 'node:tls';
import { type Result, err, ok } from '../../core/result.ts';
import { type RawBinding, takeHandle } from './raw-handle.ts';
import { RawStream } from './raw-stream.ts';
import { SocketStream } from './socket-stream.ts';
import type { ByteStream } from './stream.ts';

/** How bytes are moved: null is the public interface. */
export type Io = RawBinding | null;

/** A connection before it is known whether TLS will be spoken on it. */
export class Opening {
  #socket: Socket;
  readonly remote: string;

  constructor(socket: Socket, remote: string) {
    this.#socket = socket;
    this.remote = remote;
    // Nobody reads yet: an error here is found by the next step.
    socket.on('error', ignore);
  }

  /** The next bytes, at most what the kernel has now; null: ended, or nothing came in time. */
  read(limitMs: number): Promise<Buffer | null> {
    const socket = this.#socket;
    return new Promise((resolve) => {
      const done = (bytes: Buffer | null): void => {
        clearTimeout(timer);
        socket.off('data', done);
        socket.off('end', ended);
        socket.off('close', ended);
        socket.pause();
        resolve(bytes);
      };
      const ended = (): void => done(null);
      const timer = setTimeout(ended, limitMs);
      if (socket.destroyed) return ended();
      socket.on('data', done);
      socket.on('end', ended);
      socket.on('close', ended);
      socket.resume();
    });
  }

  write(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(Buffer.from(bytes));
  }

  /** Says a last word and closes. */
  close(lastWord?: Uint8Array): void {
    if (lastWord === undefined || this.#socket.destroyed) this.#socket.destroy();
    else new SocketStream(this.#socket, this.remote).endWith(lastWord);
  }

  get closed(): boolean {
    return this.#socket.destroyed;
  }

  /** TLS as the server; false when the handshake failed or took too long (a silent client gives its socket back). */
  acceptTls(context: SecureContext, limitMs: number): Promise<boolean> {
    const secure = new TLSSocket(this.#socket, { isServer: true, secureContext: context });
    return this.#shake(secure, 'secure', limitMs);
  }

  /** TLS as the client: the chain is verified against `ca`; names are not compared, since nodes are known by addresses that change. */
  startTls(options: { readonly ca: string; readonly limitMs: number }): Promise<boolean> {
    const secure = connectTls({ socket: this.#socket, ca: options.ca, minVersion: 'TLSv1.2', checkServerIdentity: () => undefined });
    return this.#shake(secure, 'secureConnect', options.limitMs);
  }

  /** From here on the stream owns the connection. `rest`: bytes that came already and that the stream will not tell; null: none. */
  stream(io: Io): { readonly stream: ByteStream; readonly rest: Buffer | null } {
    const socket = this.#socket;
    if (socket instanceof TLSSocket || io === null) return { stream: new SocketStream(socket, this.remote), rest: null };
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const handle = takeHandle(socket);
    if (handle === null) return { stream: new SocketStream(socket, this.remote), rest: null };
    handle.readStop();
    const rest: unknown = socket.read();
    return { stream: new RawStream(handle, io, this.remote), rest: Buffer.isBuffer(rest) && rest.length > 0 ? rest : null };
  }

  #shake(secure: TLSSocket, event: 'secure' | 'secureConnect', limitMs: number): Promise<boolean> {
    this.#socket = secure;
    return new Promise((resolve) => {
      const done = (good: boolean): void => {
        clearTimeout(timer);
        secure.off(event, shaken);
        secure.off('error', failed);
        secure.off('close', failed);
        secure.on('error', ignore);
        secure.pause();
        if (!good) secure.destroy();
        resolve(good);
      };
      const shaken = (): void => done(true);
      const failed = (): void => done(false);
      const timer = setTimeout(failed, limitMs);
      secure.on(event, shaken);
      secure.on('error', failed);
      secure.on('close', failed);
    });
  }
}

/** A peer that vanished without a word is noticed by the kernel after some of these. */
const KEEP_ALIVE_MS = 5000;

function ignore(): void {
  // Said by the step that finds the connection closed.
}

export interface Listener {
  readonly port: number;
  /** No new connections; those that are open go on. */
  close(): void;
}

/** Rejects with Node's error when the address cannot be used. */
export function listen(options: { readonly host: string; readonly port: number; readonly onOpen: (opening: Opening) => void }): Promise<Listener> {
  const server: Server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) =>
    options.onOpen(new Opening(socket, `${socket.remoteAddress ?? ''}:${socket.remotePort ?? 0}`)),
  );
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port, backlog: BACKLOG }, () => {
      server.off('error', reject);
      // Running out of descriptors makes single accepts fail; the listener goes on.
      server.on('error', ignore);
      resolve({
        port: (server.address() as AddressInfo).port,
        // Not waited for: the server counts sockets whose handles were taken out as open for ever.
        close: () => void server.close(),
      });
    });
  });
}

/** Clients of a restarted application come all at once. */
const BACKLOG = 1024;

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** The error is one line for people. */
export function dial(to: Endpoint, limitMs: number): Promise<Result<Opening, string>> {
  return new Promise((resolve) => {
    const socket = connect({ host: to.host, port: to.port, noDelay: true });
    socket.pause();
    const done = (result: Result<Opening, string>): void => {
      clearTimeout(timer);
      socket.off('error', failed);
      resolve(result);
    };
    const failed = (cause: Error): void => {
      socket.destroy();
      done(err(cause.message || String((cause as NodeJS.ErrnoException).code)));
    };
    const timer = setTimeout(() => failed(new Error(`no connection to ${to.host}:${to.port} within ${limitMs} ms`)), limitMs);
    socket.on('error', failed);
    socket.once('connect', () => done(ok(new Opening(socket, `${to.host}:${to.port}`))));
  });
}
