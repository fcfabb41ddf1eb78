/** Bounded HTTP(S) requests: one deadline for everything, a limit for the answer's size, no redirects, no proxy, no decompression. */
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { PeerCertificate } from 'node:tls';
import { checkServerIdentity as checkNames } from 'node:tls';
import { type Result, err, ok } from '../core/result.ts';
import { MIN_TLS_VERSION } from './tls.ts';

export interface HttpTls {
  /** PEM; null: the system's authorities. */
  readonly ca: string | null;
  readonly cert?: string;
  readonly key?: string;
  /** Which of our roles must be at the other end, when its certificate is one of ours. */
  readonly expect?: 'server' | 'agent';
  /** Only to fetch what is then checked by a fingerprint: nothing secret may be sent on such a connection. */
  readonly unverified?: boolean;
}

export interface HttpRequest {
  readonly url: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  readonly tls?: HttpTls;
  /** From the call to the last byte (for a stream: to its head). */
  readonly timeoutMs: number;
  /** Default 16 MiB. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  /** Keeps connections open between calls; see createHttpAgent. */
  readonly agent?: Agent;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface HttpStream {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly stream: IncomingMessage;
  close(): void;
}

export interface HttpError {
  /** `unreachable`: nothing answered. `certificate`: somebody answered whom we do not trust. `lost`: the connection broke after the request was sent, so that it may have been carried out. */
  readonly kind: 'unreachable' | 'certificate' | 'timeout' | 'lost' | 'too-large' | 'aborted';
  readonly message: string;
}

const DEFAULT_MAX_BYTES = 16 * 1024 * 1024;

/** For many calls to the same few hosts. The caller destroys it. */
export function createHttpAgent(options: { readonly maxSockets?: number } = {}): Agent {
  return new Agent({ keepAlive: true, maxSockets: options.maxSockets ?? 4, maxFreeSockets: 2, timeout: 30_000 });
}

/** Sends, and collects the whole answer. Every status is an answer, also 500. */
export async function sendHttp(options: HttpRequest): Promise<Result<HttpAnswer, HttpError>> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const opened = await openHttp(options, deadline);
  if (!opened.ok) return opened;
  const { stream, status, headers } = opened.value;
  const max = options.maxBytes ?? DEFAULT_MAX_BYTES;
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of stream) {
      size += (chunk as Buffer).length;
      if (size > max) return err({ kind: 'too-large', message: `the answer is larger than ${max} bytes` });
      chunks.push(chunk as Buffer);
    }
  } catch (cause) {
    return err(classify(cause, true, deadline, options));
  } finally {
    if (!stream.complete) stream.destroy();
  }
  return ok({ status, headers, body: Buffer.concat(chunks) });
}

/** Sends, and gives the answer's body as a stream; `timeoutMs` counts to its head only. The caller closes it. */
export async function openHttpStream(options: HttpRequest): Promise<Result<HttpStream, HttpError>> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), options.timeoutMs);
  const opened = await openHttp(options, limit.signal);
  clearTimeout(timer);
  return opened;
}

function openHttp(options: HttpRequest, deadline: AbortSignal): Promise<Result<HttpStream, HttpError>> {
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  return new Promise((resolve) => {
    let sent = false;
    let request: ClientRequest;
    try {
      request = makeRequest(options, signal);
    } catch (cause) {
      resolve(err({ kind: 'unreachable', message: cause instanceof Error ? cause.message : String(cause) }));
      return;
    }
    request.on('error', (cause) => resolve(err(classify(cause, sent, deadline, options))));
    request.on('finish', () => {
      sent = true;
    });
    request.on('response', (stream) => {
      const headers: Record<string, string> = {};
      for (const [name, value] of Object.entries(stream.headers))
        if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value;
      // An error of the body is the reader's; without a reader it must not crash the process.
      stream.on('error', () => stream.destroy());
      resolve(ok({ status: stream.statusCode ?? 0, headers, stream, close: () => request.destroy() }));
    });
    request.end(options.body);
  });
}

function makeRequest(options: HttpRequest, signal: AbortSignal): ClientRequest {
  const url = new URL(options.url);
  const length = options.body === undefined ? {} : { 'content-length': String(Buffer.byteLength(options.body)) };
  const common = { method: options.method ?? 'GET', headers: { ...length, ...options.headers }, signal };
  if (url.protocol === 'http:') return httpRequest(url, common);
  if (url.protocol !== 'https:') throw new Error(`expected an https:// address, found ${options.url}`);
  const tls = options.tls;
  return httpsRequest(url, {
    ...common,
    ...(options.agent === undefined ? { agent: false } : { agent: options.agent }),
    minVersion: MIN_TLS_VERSION,
    ...(tls?.ca === undefined || tls.ca === null ? {} : { ca: tls.ca }),
    ...(tls?.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls?.key === undefined ? {} : { key: tls.key }),
    rejectUnauthorized: tls?.unverified !== true,
    checkServerIdentity: (host, certificate) => checkNames(host, certificate) ?? checkRole(certificate, tls?.expect),
  });
}

/**
 * Invariant: an agent cannot pose as the server, though one authority signed both.
 * Because: the authority writes the role into the subject, and takes nothing of it from a request.
 * Broken if: only the host name is compared; on shared hosts and loopback both have the same one.
 */
function checkRole(certificate: PeerCertificate, expect: 'server' | 'agent' | undefined): Error | undefined {
  if (expect === undefined || certificate.subject.O !== 'pgherd' || certificate.subject.OU === expect) return undefined;
  return Object.assign(new Error(`the certificate is one of a pgherd ${String(certificate.subject.OU)}, not of a ${expect}`), {
    code: 'ERR_TLS_ROLE',
  });
}

function classify(cause: unknown, sent: boolean, deadline: AbortSignal, options: HttpRequest): HttpError {
  if (options.signal?.aborted === true) return { kind: 'aborted', message: 'given up by the caller' };
  if (deadline.aborted) return { kind: 'timeout', message: `no complete answer within ${options.timeoutMs} ms` };
  const message = cause instanceof Error ? cause.message || String(errorCode(cause)) : String(cause);
  const code = cause instanceof Error ? errorCode(cause) : null;
  if (code !== null && /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|EPROTO)/.test(code))
    return { kind: 'certificate', message };
  const refused = code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || code === 'ETIMEDOUT';
  return { kind: sent && !refused ? 'lost' : 'unreachable', message };
}

/** Several addresses tried in vain arrive as one AggregateError; its first cause tells the reason. */
function errorCode(cause: Error): string | null {
  if ('code' in cause && typeof cause.code === 'string') return cause.code;
  const [first] = cause instanceof AggregateError ? (cause.errors as unknown[]) : [];
  return first instanceof Error && first !== cause ? errorCode(first) : null;
}
