/** Calls to other agents: kept-alive connections, each call within one bounded time, and a connection that was late is not used again. */
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { decodeJson, list, literal, nullable, number, object, oneOf, text, union, bool, integer, withDefault } from '../../core/decode.ts';
import type { Decoder, Decoded } from '../../core/decode.ts';
import type { PromiseAnswer, PromiseRequest, PromiseReturn } from '../../core/node/promises.ts';
import { term } from '../../core/report.ts';
import { nodeId } from '../../core/spec.ts';
import { PROMISE_LIMIT_MS } from '../promises/round.ts';
import type { NodeLogSource } from '../read-log.ts';
import type { TlsFiles } from './server.ts';

export interface AgentEndpoint {
  readonly host: string;
  readonly port: number;
}

const alive = object({ cluster: text, node: nodeId, version: text, role: nullable(oneOf('primary', 'standby')), term, open: bool });
export type AliveAnswer = Decoded<typeof alive>;
const route = object({ cluster: text, node: nodeId, incarnation: nullable(text), term, primary: bool, validMs: number({ min: 0 }) });
export type RouteAnswer = Decoded<typeof route>;
const log = object({ source: text, lines: list(text) });
const nothing = object({});
const refusals = oneOf(
  'other-cluster',
  'other-store',
  'newer-term',
  'voted',
  'promoting',
  'promised-to-other',
  'newer-electorate',
  'not-a-member',
  'not-stored',
  'not-open',
  'bad-request',
);
const promise: Decoder<PromiseAnswer> = union({
  promised: object({ kind: literal('promised'), node: nodeId, term, ttlMs: withDefault(nullable(integer), null) }),
  refused: object({ kind: literal('refused'), node: nodeId, term, why: refusals }),
});

/** Every answer is null when the agent did not answer properly in time. */
export interface AgentClient {
  promise(to: AgentEndpoint, body: PromiseRequest): Promise<PromiseAnswer | null>;
  returnPromise(to: AgentEndpoint, body: PromiseReturn): Promise<Readonly<Record<never, never>> | null>;
  alive(to: AgentEndpoint): Promise<AliveAnswer | null>;
  route(to: AgentEndpoint): Promise<RouteAnswer | null>;
  log(to: AgentEndpoint, options: { readonly source: NodeLogSource; readonly lines: number }): Promise<readonly string[] | null>;
  /** Reads the certificate files again for new connections; calls under way end on the old ones. Throws when they cannot be read. */
  reloadTls(): void;
  close(): void;
}

/** Several rounds must fit into one lease TTL; an agent in one data centre answers in milliseconds. */
const CALL_LIMIT_MS = 400;
const LOG_LIMIT_MS = 5000;
const MAX_ANSWER = 1_048_576;

export function createAgentClient(options: { readonly tls: TlsFiles; readonly limitMs?: number }): AgentClient {
  let agent = openAgent(options.tls);
  const limitMs = options.limitMs ?? CALL_LIMIT_MS;
  const call = async <T>(
    to: AgentEndpoint,
    decoder: Decoder<T>,
    what: { readonly path: string; readonly body?: unknown; readonly limitMs?: number },
  ): Promise<T | null> => {
    const answered = await send(agent, to, { limitMs, ...what });
    if (answered === null) return null;
    const decoded = decodeJson(decoder, answered);
    return decoded.ok ? decoded.value : null;
  };
  return {
    promise: (to, body) => call(to, promise, { path: '/v1/promise', body, limitMs: PROMISE_LIMIT_MS }),
    returnPromise: (to, body) => call(to, nothing, { path: '/v1/promise/return', body }),
    alive: (to) => call(to, alive, { path: '/v1/alive' }),
    route: (to) => call(to, route, { path: '/v1/route' }),
    log: async (to, { source, lines }) =>
      (await call(to, log, { path: `/v1/log?source=${source}&lines=${lines}`, limitMs: LOG_LIMIT_MS }))?.lines ?? null,
    reloadTls: () => {
      const before = agent;
      agent = openAgent(options.tls);
      // After the longest call that may still use it.
      setTimeout(() => before.destroy(), LOG_LIMIT_MS).unref();
    },
    close: () => agent.destroy(),
  };
}

function openAgent(tls: TlsFiles): Agent {
  const files = { ca: readFileSync(tls.ca), cert: readFileSync(tls.cert), key: readFileSync(tls.key) };
  return new Agent({ keepAlive: true, maxSockets: 2, maxFreeSockets: 1, timeout: 30_000, ...files });
}

function send(
  agent: Agent,
  to: AgentEndpoint,
  what: { readonly path: string; readonly body?: unknown; readonly limitMs: number },
): Promise<string | null> {
  return new Promise((resolve) => {
    const payload = what.body === undefined ? null : JSON.stringify(what.body);
    const headers = payload === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
    const sent = request({ agent, host: to.host, port: to.port, path: what.path, method: payload === null ? 'GET' : 'POST', headers }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
        if (body.length > MAX_ANSWER) sent.destroy();
      });
      response.on('end', () => finish(response.statusCode === 200 ? body : null));
      response.on('error', () => finish(null));
    });
    // Destroying the request ends its connection too: a half-open one is not met again.
    const timer = setTimeout(() => {
      sent.destroy();
      finish(null);
    }, what.limitMs);
    const finish = (answer: string | null): void => {
      clearTimeout(timer);
      resolve(answer);
    };
    sent.on('error', () => finish(null));
    sent.on('close', () => finish(null));
    sent.end(payload ?? undefined);
  });
}
