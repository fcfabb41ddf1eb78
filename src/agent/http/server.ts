/**
 * The agent's HTTP API: health URLs for load balancers without a client certificate, /v1/* for members with one.
 * node:https alone: an agent stays small. Handshakes, headers, requests and connections are bounded; a silent client blocks nobody (Z75).
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Server, createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { localZoneMinutes, monoMs, wallMs } from '../../base/clock.ts';
import { type Decoder, decodeJson, encodeJson, formatDecodeError, integer, nullable, object, record, text, withDefault } from '../../core/decode.ts';
import type { PromiseAnswer, PromiseRequest, PromiseReturn } from '../../core/node/promises.ts';
import { term } from '../../core/report.ts';
import { type Failure, type Result, describeFailure } from '../../core/result.ts';
import { nodeId } from '../../core/spec.ts';
import type { ParameterCheck } from '../postgres/check-parameters.ts';
import type { Workload } from '../postgres/workload.ts';
import type { NodeLogSource } from '../read-log.ts';
import { answerHealth, answerRoute } from './health.ts';
import type { AgentStatus } from './status.ts';

export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface AgentHttpOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** Null: plain HTTP, for tests of single parts on loopback; /v1/* is refused then. */
  readonly tls: TlsFiles | null;
  readonly getStatus: () => AgentStatus;
  readonly onPromise: (request: PromiseRequest) => Promise<PromiseAnswer>;
  readonly onPromiseReturn: (given: PromiseReturn) => void;
  /** The last lines, newest last. */
  readonly readLog: (source: NodeLogSource, lines: number) => Promise<readonly string[]>;
  /** Transactions, slots and archiving of the running server; absent: there is no PostgreSQL here. */
  readonly readWorkload?: () => Promise<Result<Workload, Failure>>;
  /** Which of these PostgreSQL refuses, or why it could not be asked; absent: there is no PostgreSQL here. */
  readonly checkParameters?: ParameterCheck['check'];
  /** Prometheus text. */
  readonly metrics?: () => Promise<string> | string;
  /** A request broke; the client got 500. */
  readonly onError?: (cause: unknown) => void;
}

export interface AgentHttp {
  readonly port: number;
  /** Reads the certificate files again (renewal). Throws when they are not usable; the old ones stay. */
  reloadTls(): void;
  close(): Promise<void>;
}

const MAX_BODY = 16_384;
const MAX_CONNECTIONS = 512;
const HANDSHAKE_MS = 3000;
const REQUEST_MS = 5000;
const KEEP_ALIVE_MS = 15_000;
const MAX_LOG_LINES = 2000;

/** Without `longMs`: from an agent of an older version. */
const promiseRequest = object({
  cluster: text,
  incarnation: text,
  term,
  from: nodeId,
  hold: text,
  electorateRevision: integer,
  ttlMs: integer,
  longMs: withDefault(nullable(integer), null),
});
const promiseReturn = object({ cluster: text, term, from: nodeId, hold: text });
const POSTED = new Set(['/v1/promise', '/v1/promise/return', '/v1/check-parameters']);
const parametersRequest = object({ parameters: record(text) });

/** Rejects with Node's error when the port is taken or a certificate cannot be read. */
export async function startAgentHttp(options: AgentHttpOptions): Promise<AgentHttp> {
  const sockets = new Set<Socket>();
  const handler = (request: IncomingMessage, response: ServerResponse): void => {
    route(options, request, response).catch((cause: unknown) => {
      options.onError?.(cause);
      send(response, 500, { error: 'internal error' });
    });
  };
  const server: Server | import('node:http').Server =
    options.tls === null
      ? (await import('node:http')).createServer(handler)
      : createServer(
          { ...readTls(options.tls), requestCert: true, rejectUnauthorized: false, handshakeTimeout: HANDSHAKE_MS, minVersion: 'TLSv1.2' },
          handler,
        );
  server.maxConnections = MAX_CONNECTIONS;
  server.headersTimeout = REQUEST_MS;
  server.requestTimeout = REQUEST_MS;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  // A broken handshake is the client's affair.
  server.on('tlsClientError', (_cause: Error, socket: TLSSocket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.listen.port, options.listen.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    reloadTls: () => {
      if (options.tls !== null && 'setSecureContext' in server) server.setSecureContext(readTls(options.tls));
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function route(options: AgentHttpOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://agent');
  const path = url.pathname.length > 1 ? url.pathname.replace(/\/+$/, '') : url.pathname;
  if (path.startsWith('/v1/')) return routeMembers(options, request, response, path, url.searchParams);
  if (request.method !== 'GET' && request.method !== 'HEAD' && request.method !== 'OPTIONS')
    return send(response, 405, { error: 'GET, HEAD or OPTIONS' });
  if (path === '/metrics') {
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
    response.end(request.method === 'GET' ? await (options.metrics?.() ?? '') : undefined);
    return;
  }
  const health = answerHealth(path, url.searchParams, options.getStatus(), monoMs());
  if (health === null) return send(response, 404, { error: `no such path: ${path}` });
  send(response, health.code, request.method === 'GET' ? health.body : null);
}

async function routeMembers(
  options: AgentHttpOptions,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  query: URLSearchParams,
): Promise<void> {
  if ((request.socket as Partial<TLSSocket>).authorized !== true)
    return send(response, 401, { error: 'a client certificate of this installation is required' });
  const status = options.getStatus();
  const wanted = POSTED.has(path) ? 'POST' : 'GET';
  if (request.method !== wanted) return send(response, 405, { error: wanted });
  switch (path) {
    case '/v1/alive':
      return send(response, 200, {
        cluster: status.cluster,
        node: status.node,
        version: status.version,
        role: status.role,
        term: status.term,
        open: status.open,
      });
    case '/v1/route':
      return send(response, 200, answerRoute(status, monoMs()));
    case '/v1/log': {
      const lines = Number(query.get('lines') ?? 200);
      const source = query.get('source') ?? 'postgres';
      if (!Number.isInteger(lines) || lines < 1 || (source !== 'postgres' && source !== 'agent' && source !== 'guard'))
        return send(response, 400, { error: 'lines=1…2000, source=postgres|agent|guard' });
      return send(response, 200, {
        source,
        zoneMinutes: localZoneMinutes(wallMs()),
        lines: await options.readLog(source, Math.min(lines, MAX_LOG_LINES)),
      });
    }
    case '/v1/promise': {
      const asked = await readAs(promiseRequest, request, response);
      if (asked !== null) send(response, 200, await options.onPromise({ ...asked, longMs: asked.longMs ?? asked.ttlMs }));
      return;
    }
    case '/v1/promise/return': {
      const given = await readAs(promiseReturn, request, response);
      if (given === null) return;
      options.onPromiseReturn(given);
      return send(response, 200, {});
    }
    case '/v1/workload': {
      const found = await options.readWorkload?.();
      if (found === undefined || !found.ok)
        return send(response, 503, { error: found === undefined ? 'no PostgreSQL here' : describeFailure(found.error) });
      return send(response, 200, found.value);
    }
    case '/v1/check-parameters': {
      const asked = await readAs(parametersRequest, request, response);
      if (asked === null) return;
      const checked = await options.checkParameters?.(asked.parameters);
      if (checked === undefined || !checked.ok) return send(response, 503, { error: checked?.error ?? 'no PostgreSQL here' });
      return send(response, 200, { refused: checked.value });
    }
    default:
      return send(response, 404, { error: `no such path: ${path}` });
  }
}

/** Null when it is too long or not what is expected; the client has been told. */
async function readAs<T>(decoder: Decoder<T>, request: IncomingMessage, response: ServerResponse): Promise<T | null> {
  const body = await readBody(request);
  const decoded = body === null ? null : decodeJson(decoder, body);
  if (decoded?.ok === true) return decoded.value;
  if (decoded === null) send(response, 413, { error: `more than ${MAX_BODY} bytes` });
  else send(response, 400, { error: formatDecodeError(decoded.error) });
  return null;
}

/** Null when it is too long. */
async function readBody(request: IncomingMessage): Promise<string | null> {
  let body = '';
  request.setEncoding('utf8');
  for await (const chunk of request) {
    body += chunk;
    if (body.length > MAX_BODY) return null;
  }
  return body;
}

function send(response: ServerResponse, code: number, body: unknown): void {
  if (response.headersSent || response.destroyed) return;
  const payload = body === null ? '' : `${encodeJson(body)}\n`;
  response.writeHead(code, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload), 'cache-control': 'no-store' });
  response.end(payload);
}

function readTls(files: TlsFiles): { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer } {
  return { ca: readFileSync(files.ca), cert: readFileSync(files.cert), key: readFileSync(files.key) };
}
