/**
 * The agent's API: health URLs for load balancers, without a certificate; everything else for members and servers of the same authority only.
 *
 * The handshake runs per connection and is bounded: a client that connects and says nothing costs one socket for two seconds, and blocks nobody (Z75).
 */
import { type Server, createServer } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { encodeJson } from '../../core/decode.ts';
import { type HealthInput, answerHealth } from './health.ts';

export interface AgentHttpOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string };
  readonly health: () => HealthInput;
  /** What `/v1/alive` tells: enough to judge that the agent's loop works. */
  readonly alive: () => unknown;
  readonly route: () => unknown;
  /** Body as parsed JSON; the answer is sent as JSON. Throws nothing. */
  readonly promise: (body: unknown) => Promise<unknown>;
  /** The newest lines of a log, at most `lines`. */
  readonly readLog: (source: 'postgres' | 'agent', lines: number) => Promise<string>;
  /** Prometheus text. */
  readonly metrics: () => string;
}

export interface AgentHttp {
  readonly port: number;
  close(): Promise<void>;
}

const HANDSHAKE_MS = 2000;
const REQUEST_MS = 5000;
const MAX_BODY_BYTES = 65_536;
const MAX_CONNECTIONS = 256;
const MAX_LOG_LINES = 5000;

/** Error `agent.listen` when the address cannot be bound, naming it. */
export function startAgentHttp(options: AgentHttpOptions): Promise<Result<AgentHttp, Failure>> {
  const server = createServer(
    {
      ca: options.tls.ca,
      cert: options.tls.cert,
      key: options.tls.key,
      requestCert: true,
      // Load balancers have no certificate; each request that needs one looks at `authorized`.
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_MS,
      minVersion: 'TLSv1.2',
    },
    (request, response) => {
      handle(options, request, response).catch((cause: unknown) => answer(response, 500, { error: String(cause) }));
    },
  );
  server.requestTimeout = REQUEST_MS;
  server.headersTimeout = REQUEST_MS;
  server.keepAliveTimeout = 30_000;
  server.maxConnections = MAX_CONNECTIONS;
  // A broken handshake ends that connection only.
  server.on('tlsClientError', (_cause, socket) => socket.destroy());
  return listen(server, options.listen);
}

function listen(server: Server, at: AgentHttpOptions['listen']): Promise<Result<AgentHttp, Failure>> {
  return new Promise((resolve) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const inUse = cause.code === 'EADDRINUSE';
      resolve(
        err({
          code: 'agent.listen',
          what: `the agent cannot listen on ${at.host}:${at.port}`,
          cause: inUse ? 'the address is in use' : cause.message,
          now: 'the agent does not start',
          remedy: inUse ? 'another agent or program has this port: stop it, or change `listen` in agent.yaml' : 'check `listen` in agent.yaml',
          retryable: false,
        }),
      );
    });
    server.listen(at.port, at.host, () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : at.port;
      const close = (): Promise<void> =>
        new Promise((done) => {
          server.close(() => done());
          server.closeAllConnections();
        });
      resolve(ok({ port, close }));
    });
  });
}

async function handle(options: AgentHttpOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'https://agent');
  const method = request.method ?? 'GET';
  if (!url.pathname.startsWith('/v1/')) {
    if (method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS') return answer(response, 405, { error: 'only GET, HEAD and OPTIONS' });
    if (url.pathname === '/metrics') return answerText(response, 200, options.metrics());
    const health = answerHealth(url.pathname, url.searchParams, options.health());
    return answer(response, health.status, { status: health.why });
  }
  if (!(request.socket as TLSSocket).authorized) {
    return answer(response, 401, { error: 'a certificate of the cluster’s authority is needed' });
  }
  return handleMember(options, url, method, request, response);
}

async function handleMember(options: AgentHttpOptions, url: URL, method: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const route = `${method} ${url.pathname}`;
  switch (route) {
    case 'GET /v1/alive':
      return answer(response, 200, options.alive());
    case 'GET /v1/route':
      return answer(response, 200, options.route());
    case 'GET /v1/log': {
      const lines = Math.min(MAX_LOG_LINES, Math.max(1, Number(url.searchParams.get('lines') ?? 200) || 200));
      const source = url.searchParams.get('source') === 'agent' ? 'agent' : 'postgres';
      return answerText(response, 200, await options.readLog(source, lines));
    }
    case 'POST /v1/promise': {
      const body = await readBody(request);
      return body === null ? answer(response, 413, { error: 'body too large or not JSON' }) : answer(response, 200, await options.promise(body.value));
    }
    default:
      return answer(response, 404, { error: `no such path: ${route}` });
  }
}

async function readBody(request: IncomingMessage): Promise<{ readonly value: unknown } | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return null;
    chunks.push(chunk);
  }
  try {
    return { value: JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown };
  } catch (cause) {
    // Anything else than a syntax error is a defect here.
    if (cause instanceof SyntaxError) return null;
    throw cause;
  }
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  const text = `${encodeJson(body)}\n`;
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(text), 'cache-control': 'no-store' });
  response.end(text);
}

function answerText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': Buffer.byteLength(text), 'cache-control': 'no-store' });
  response.end(text);
}
