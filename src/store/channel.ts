/**
 * One gRPC channel to one endpoint: an HTTP/2 connection, made when it is needed, and the calls on it.
 *
 * idle → connecting → ready → idle (lost), or closed for good. A connection counts as ready when the server has sent its settings: a process that is
 * stopped accepts connections too. After a failure the next try waits, and calls meanwhile fail at once with its cause.
 *
 * Written on Node's HTTP/2 and not on a gRPC library, because agents make calls all day on hosts that are somebody else's
 * (`docs/decisions/0020-own-grpc-client.md`).
 */
import { type ClientHttp2Session, type ClientHttp2Stream, type SecureClientSessionOptions, connect, constants } from 'node:http2';
import { isIP } from 'node:net';
import { type PeerCertificate, checkServerIdentity, createSecureContext } from 'node:tls';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import type { Clock } from '../base/clock.ts';
import type { MonoMs } from '../core/ids.ts';
import type { RpcError } from './classify.ts';
import { type FrameReader, createFrameReader, frame, statusOf, statusOfEnd, statusOfHttp } from './grpc-frames.ts';
import { status } from './grpc-status.ts';
import { type TlsFiles, readPem } from './pem.ts';
import type { Method } from './proto/services.ts';
import { onSilence } from './silence.ts';

export type Attempt<O> =
  | { readonly kind: 'answer'; readonly value: O }
  /** `sent`: the request may have reached the server. */
  | { readonly kind: 'failed'; readonly error: RpcError; readonly sent: boolean }
  | { readonly kind: 'foreign'; readonly message: string };

/** Sent with a call; names in lower case. */
export type Metadata = Readonly<Record<string, string>>;

export interface StreamHandlers<O> {
  readonly onMessage: (message: O) => void;
  /** Once, unless it was cancelled before. Null: the server ended the stream without a fault. */
  readonly onEnd: (error: RpcError | null) => void;
}

export interface GrpcStream<I> {
  /** Does nothing after the end. */
  write(message: I): void;
  /** No handler is called any more. */
  cancel(): void;
}

export interface Channel {
  readonly url: string;
  /** Null when the connection is ready; else UNAVAILABLE (refused, at once, or soon after a failure) or DEADLINE_EXCEEDED, with the cause. */
  ready(limitMs: number): Promise<RpcError | null>;
  /** Calls back once when the connection that is ready now is lost; at once when none is. */
  onceLost(callback: () => void): void;
  /** One call on a ready connection; `signal` gives it up. Never rejects. */
  unary<I extends DescMessage, O extends DescMessage>(options: UnaryCall<I, O>): Promise<Attempt<MessageShape<O>>>;
  /** A stream on a ready connection; without one it ends, soon after the call. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    metadata: Metadata,
    handlers: StreamHandlers<MessageShape<O>>,
  ): GrpcStream<MessageShape<I>>;
  /** Ends everything; no connection is made any more. */
  close(): void;
}

export interface UnaryCall<I extends DescMessage, O extends DescMessage> {
  readonly method: Method<I, O>;
  readonly request: MessageShape<I>;
  readonly metadata: Metadata;
  readonly limitMs: number;
  readonly signal?: AbortSignal;
}

const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 300;
/** etcd ends connections that ping more often than every 5 s. *Source:* etcd 3.4, --grpc-keepalive-min-time. */
const PING_EVERY_MS = 6000;
const PING_LIMIT_MS = 2000;
/** Of a stream and of the connection: a long list arrives without waiting for window updates at each 64 KiB. */
const WINDOW_BYTES = 1024 * 1024;
/** Sent as server name to an endpoint that is an address: RFC 6066 allows no address there, and Node warns. The certificate is checked against the address. */
const SERVER_NAME_OF_ADDRESSES = 'pgherd-store.invalid';

/** Throws when the URL is none or a PEM file cannot be read: mistakes of configuration, found at start. */
export function openChannel(url: string, tls: TlsFiles | null, clock: Clock): Channel {
  const parsed = new URL(url.includes('://') ? url : `http://${url}`);
  const origin = `${parsed.protocol}//${parsed.hostname}:${parsed.port === '' ? '2379' : parsed.port}`;
  const options = connectOptions(parsed, tls);
  let link: Link | null = null;
  let isReady = false;
  let closed = false;
  let failures = 0;
  let notBefore = 0 as MonoMs;
  let lastCause: Error | null = null;
  let waiting: (() => void)[] = [];
  let lost: (() => void)[] = [];

  const tellWaiting = (): void => {
    const told = waiting;
    waiting = [];
    for (const one of told) one();
  };

  function open(): void {
    const made = connect(origin, options);
    const own: Link = { session: made, active: 0 };
    link = own;
    let pinging: NodeJS.Timeout | null = null;
    const end = (cause: Error | null): void => {
      if (pinging !== null) clearInterval(pinging);
      pinging = null;
      if (link !== own) return;
      link = null;
      lastCause = cause ?? lastCause;
      if (!isReady) {
        notBefore = (clock.now().mono + Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** failures)) as MonoMs;
        failures += 1;
      }
      isReady = false;
      const told = lost;
      lost = [];
      for (const one of told) one();
      tellWaiting();
    };
    made.once('remoteSettings', () => {
      if (link !== own) return;
      made.setLocalWindowSize(WINDOW_BYTES);
      isReady = true;
      failures = 0;
      pinging = setInterval(() => ping(own), PING_EVERY_MS);
      tellWaiting();
    });
    made.on('error', (cause: Error) => {
      lastCause = cause;
    });
    // No new call may go to a server that says good-bye; those under way may still be answered.
    made.once('goaway', () => {
      end(new Error('the server is going away'));
      made.close();
    });
    made.once('close', () => end(lastCause ?? new Error('the connection was closed')));
  }

  const failed = (): RpcError => ({
    code: status.UNAVAILABLE,
    details: `No connection established. Last error: ${lastCause === null ? 'none' : lastCause.message}`,
  });

  const channel: Channel = {
    url,
    ready: async (limitMs) => {
      const until = clock.now().mono + limitMs;
      for (;;) {
        if (closed) return { code: status.UNAVAILABLE, details: 'No connection established. The channel is closed' };
        if (isReady) return null;
        const now = clock.now().mono;
        if (link === null && now < notBefore) return failed();
        if (now >= until) return { code: status.DEADLINE_EXCEEDED, details: `no connection to ${url} in time` };
        if (link === null) open();
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, until - now);
          waiting.push(() => {
            clearTimeout(timer);
            resolve();
          });
        });
      }
    },
    onceLost: (callback) => {
      if (isReady) lost.push(callback);
      else callback();
    },
    unary: ({ method, request, metadata, limitMs, signal }) => {
      if (limitMs <= 0) return Promise.resolve(notSent({ code: status.DEADLINE_EXCEEDED, details: `no time left for ${url}` }));
      return new Promise((resolve) => {
        let answer: Buffer | null = null;
        const done = (error: RpcError | null): void => {
          endWait();
          signal?.removeEventListener('abort', give);
          if (error === null && answer !== null) resolve(read(method, answer, url));
          else resolve({ kind: 'failed', sent: true, error: withUrl(error ?? { code: status.INTERNAL, details: 'no message in the answer' }, url) });
        };
        const call = begin(
          isReady ? link : null,
          { path: method.path, metadata, limitMs },
          { onMessage: (message) => (answer = message), onEnd: done },
        );
        if (call === null) return resolve(notSent(failed()));
        const give = (): void => {
          call.cancel();
          done({ code: status.CANCELLED, details: 'given up' });
        };
        const endWait = onSilence(limitMs, () => {
          call.cancel();
          done({ code: status.DEADLINE_EXCEEDED, details: `no answer within ${Math.round(limitMs)} ms` });
        });
        signal?.addEventListener('abort', give, { once: true });
        if (signal?.aborted === true) return give();
        call.end(frame(method.serialize(request)));
      });
    },
    stream: (method, metadata, handlers) => {
      let over = false;
      const end = (error: RpcError | null): void => {
        if (over) return;
        over = true;
        handlers.onEnd(error === null ? null : withUrl(error, url));
      };
      const onMessage = (message: Buffer): void => {
        if (!over) handlers.onMessage(method.deserialize(message));
      };
      const call = begin(isReady ? link : null, { path: method.path, metadata, limitMs: null }, { onMessage, onEnd: end });
      if (call === null) queueMicrotask(() => end(failed()));
      return {
        write: (message) => {
          if (!over) call?.write(frame(method.serialize(message)));
        },
        cancel: () => {
          over = true;
          call?.cancel();
        },
      };
    },
    close: () => {
      closed = true;
      link?.session.destroy();
      tellWaiting();
    },
  };
  return channel;
}

function read<I extends DescMessage, O extends DescMessage>(method: Method<I, O>, answer: Buffer, url: string): Attempt<MessageShape<O>> {
  try {
    return { kind: 'answer', value: method.deserialize(answer) };
  } catch (cause) {
    return { kind: 'failed', sent: true, error: { code: status.INTERNAL, details: `an answer that cannot be read: ${String(cause)} (${url})` } };
  }
}

function notSent(error: RpcError): { readonly kind: 'failed'; readonly error: RpcError; readonly sent: false } {
  return { kind: 'failed', sent: false, error };
}

/** The fault with the endpoint that it is of. */
export function withUrl(error: RpcError, url: string): RpcError {
  return { code: error.code, details: `${error.details === '' ? 'no answer' : error.details} (${url})` };
}

/**
 * Notices a connection that is half open (its host lost power) while somebody waits on it; etcd ends connections that ping without a stream.
 * *Source:* grpc-go, keepalive.EnforcementPolicy, PermitWithoutStream.
 */
function ping({ session, active }: Link): void {
  if (active === 0 || session.destroyed || session.closed) return;
  const limit = setTimeout(() => session.destroy(new Error('the server does not answer pings')), PING_LIMIT_MS);
  const sent = session.ping(() => clearTimeout(limit));
  if (!sent) clearTimeout(limit);
}

interface Link {
  readonly session: ClientHttp2Session;
  /** Calls under way. */
  active: number;
}

interface Call {
  write(bytes: Buffer): void;
  end(bytes: Buffer): void;
  cancel(): void;
}

interface CallHandlers {
  readonly onMessage: (message: Buffer) => void;
  /** Once, after the last message; never after `cancel`. Null: status OK. */
  readonly onEnd: (error: RpcError | null) => void;
}

/** Null: there is no connection to send it on, and nothing was sent. */
function begin(
  link: Link | null,
  order: { readonly path: string; readonly metadata: Metadata; readonly limitMs: number | null },
  handlers: CallHandlers,
): Call | null {
  if (link === null || link.session.destroyed || link.session.closed) return null;
  let stream: ClientHttp2Stream;
  try {
    stream = link.session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: order.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      // Tells the server when to give up; our own limit stands beside it.
      ...(order.limitMs === null ? {} : { 'grpc-timeout': `${Math.max(1, Math.round(order.limitMs))}m` }),
      ...order.metadata,
    });
  } catch {
    // The connection is closing, or has no stream left: the caller goes on as without a connection.
    return null;
  }
  link.active += 1;
  stream.once('close', () => (link.active -= 1));
  listen(stream, handlers);
  return {
    write: (bytes) => void (stream.writable && stream.write(bytes)),
    end: (bytes) => void (stream.writable && stream.end(bytes)),
    cancel: () => {
      cancelled.add(stream);
      stream.close(constants.NGHTTP2_CANCEL);
    },
  };
}

/** Nothing of a call that was cancelled is told any more. */
const cancelled = new WeakSet<ClientHttp2Stream>();

/** The end is told when the status and all messages are here; the stream's own `close` comes later, or instead. */
function listen(stream: ClientHttp2Stream, handlers: CallHandlers): void {
  let ending: RpcError | null = null;
  let cause: Error | null = null;
  let isOver = false;
  const reader: FrameReader = createFrameReader((message) => {
    if (!cancelled.has(stream)) handlers.onMessage(message);
  });
  const over = (error: RpcError): void => {
    if (isOver) return;
    isOver = true;
    if (!cancelled.has(stream)) handlers.onEnd(error.code === status.OK ? null : error);
  };
  stream.on('response', (headers) => {
    ending = statusOfHttp(headers) ?? statusOf(headers);
  });
  stream.on('trailers', (headers) => {
    ending ??= statusOf(headers);
  });
  stream.on('data', (chunk: Buffer) => {
    const fault = reader.push(chunk);
    if (fault === null || isOver) return;
    over({ code: status.INTERNAL, details: fault });
    stream.close(constants.NGHTTP2_CANCEL);
  });
  // Trailers come before the end of the readable side: all data was read by then.
  stream.on('end', () => {
    if (ending !== null) over(ending);
  });
  stream.on('error', (error: Error) => {
    cause = error;
  });
  stream.on('close', () => {
    const isDropped = stream.session === undefined || stream.session.destroyed;
    over(ending ?? statusOfEnd(stream.rstCode, cause ?? (isDropped ? new Error('the connection was dropped') : null)));
  });
}

function connectOptions(url: URL, tls: TlsFiles | null): SecureClientSessionOptions {
  const base: SecureClientSessionOptions = { settings: { enablePush: false, initialWindowSize: WINDOW_BYTES } };
  if (url.protocol !== 'https:') return base;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const address = isIP(host) === 0 ? null : host;
  const named: SecureClientSessionOptions =
    address === null
      ? {}
      : {
          servername: SERVER_NAME_OF_ADDRESSES,
          checkServerIdentity: (_name: string, certificate: PeerCertificate) => checkServerIdentity(address, certificate),
        };
  if (tls === null) return { ...base, ...named };
  // Made once: for each try to connect anew, three a second while the store is away, Node would parse the files and keep some hundred KiB until the next full collection.
  const secureContext = createSecureContext({ ca: readPem(tls.ca), key: readPem(tls.key), cert: readPem(tls.cert) });
  return { ...base, ...named, secureContext };
}
