/** The HTTP API: every route of the contract with its handler, access check, bounds, audit and OpenAPI description. */
import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { createJsonSchemaTransform, jsonSchemaTransformObject, validatorCompiler } from 'fastify-type-provider-zod';
import { TLSSocket } from 'node:tls';
import { z } from 'zod';
import { HANDSHAKE_LIMIT_MS, MIN_TLS_VERSION } from '../base/tls.ts';
import { encodeJson } from '../core/decode.ts';
import type { Result } from '../core/result.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import { API_PREFIX, ROUTES, type RouteContract, type RouteName } from '../api/routes.ts';
import { errorBody } from '../api/schema.ts';
import type { Caller, ServerContext } from './context.ts';
import { HANDLERS } from './handlers.ts';
import { asFailure, sendFailure } from './http-errors.ts';
import { type FailureLimit, createFailureLimit } from './limits.ts';
import { createMetrics } from './metrics.ts';
import { type Streams, createStreams } from './streams.ts';
import { findTaskCluster } from './tasks.ts';
import { allows } from './users.ts';

/** A spec with hundreds of nodes and settings is some 100 KiB. */
const BODY_LIMIT = 1024 * 1024;
/** A backup of the largest embedded store (256 MiB) as JSON lines would not fit; one of any real installation does. */
const UPLOAD_LIMIT = 128 * 1024 * 1024;
/** From the first byte to the last of one request; a slow sender gives its socket back. */
const REQUEST_LIMIT_MS = 30_000;
const MAX_CONNECTIONS = 1024;

interface RequestState {
  caller: Caller;
  /** For the audit log. */
  result: string;
}

export interface App {
  readonly fastify: FastifyInstance;
  readonly streams: Streams;
  /** Ends live streams, answers what is running, then closes. */
  close(): Promise<void>;
}

export async function buildApp(context: ServerContext): Promise<App> {
  const fastify = makeFastify(context);
  const streams = createStreams(context);
  const states = new WeakMap<FastifyRequest, RequestState>();
  const limit = createFailureLimit(context.clock);

  fastify.setValidatorCompiler(validatorCompiler);
  fastify.setSerializerCompiler(
    ({ schema, url }) =>
      (data) =>
        serialize(context, schema as unknown as z.ZodType, url, data),
  );
  fastify.addContentTypeParser('application/octet-stream', { parseAs: 'buffer', bodyLimit: UPLOAD_LIMIT }, (_request, body, done) =>
    done(null, body),
  );
  fastify.setErrorHandler((error, request, reply) => {
    const failure = asFailure(error, context.log);
    const state = states.get(request);
    if (state !== undefined) state.result = failure.code;
    return sendFailure(reply, failure);
  });
  fastify.setNotFoundHandler((request, reply) =>
    sendFailure(
      reply,
      makeApiFailure('request.unknown-route', {
        what: `there is no ${request.method} ${request.url.split('?')[0] ?? ''}`,
        remedy: `See ${API_PREFIX}/openapi.json.`,
      }),
    ),
  );
  await fastify.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'pgherd', version: 'v1', description: 'Manager of PostgreSQL clusters. Names of fields stay; new ones may appear.' },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
    },
    transform: createJsonSchemaTransform({ skipList: [] }),
    transformObject: jsonSchemaTransformObject,
  });
  for (const name of Object.keys(ROUTES) as RouteName[]) registerRoute({ context, fastify, streams, states, limit }, name);
  registerPlain({ context, fastify, streams, states, limit });
  await fastify.ready();
  return {
    fastify,
    streams,
    close: async () => {
      streams.closeAll();
      await fastify.close();
    },
  };
}

interface Wiring {
  readonly context: ServerContext;
  readonly fastify: FastifyInstance;
  readonly streams: Streams;
  readonly states: WeakMap<FastifyRequest, RequestState>;
  readonly limit: FailureLimit;
}

function makeFastify(context: ServerContext): FastifyInstance {
  const { ca, cert, key } = context.authority.server();
  const fastify = Fastify({
    logger: false,
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_LIMIT_MS,
    // The default of Node; requests are short, streams write heartbeats.
    keepAliveTimeout: 5000,
    routerOptions: { maxParamLength: 128 },
    forceCloseConnections: true,
    https: {
      ca,
      cert: `${cert}${ca}`,
      key,
      minVersion: MIN_TLS_VERSION,
      handshakeTimeout: HANDSHAKE_LIMIT_MS,
      // Agents show their certificate to renew it; people have tokens.
      requestCert: true,
      rejectUnauthorized: false,
    },
  }) as unknown as FastifyInstance;
  fastify.server.maxConnections = MAX_CONNECTIONS;
  fastify.addHook('onSend', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff').header('cache-control', 'no-store').header('strict-transport-security', 'max-age=31536000');
  });
  return fastify;
}

function registerRoute(wiring: Wiring, name: RouteName): void {
  const { context, fastify, states } = wiring;
  const route: RouteContract = ROUTES[name];
  const label = `${route.method} ${route.path}`;
  fastify.route({
    method: route.method,
    url: `${API_PREFIX}${route.path}`,
    ...(route.upload === true ? { bodyLimit: UPLOAD_LIMIT } : {}),
    schema: describeRoute(name, route),
    onRequest: async (request, reply) => {
      states.set(request, { caller: anonymous(request), result: 'ok' });
      const denied = await authenticate(wiring, request, route);
      if (denied === null) return;
      setResult(states, request, denied.code);
      await sendFailure(reply, denied);
    },
    handler: async (request, reply) => {
      const answered = await answer(wiring, name, request, reply);
      if (answered === null) return reply;
      if (!answered.ok) {
        setResult(states, request, answered.error.code);
        if (answered.error.code.startsWith('join.token')) wiring.limit.failed(request.ip);
        return await sendFailure(reply, answered.error);
      }
      if (route.form === 'bytes') return await reply.type('application/octet-stream').send(answered.value);
      return await reply.send(answered.value);
    },
    onResponse: async (request, reply) => {
      const state = states.get(request);
      if (state === undefined || (route.method === 'GET' && reply.statusCode !== 401 && reply.statusCode !== 403 && name !== 'storeBackup')) return;
      context.audit.write({
        who: state.caller.name,
        role: state.caller.role,
        address: request.ip,
        route: label,
        target: request.url.split('?')[0] ?? '',
        detail: auditDetail(request.body),
        status: reply.statusCode,
        result: state.result,
      });
    },
  });
}

function describeRoute(name: RouteName, route: RouteContract): Record<string, unknown> {
  const hasBody = route.method !== 'GET' && route.upload !== true && !route.body.safeParse(undefined).success;
  const empty = (schema: z.ZodType): boolean => schema instanceof z.ZodObject && Object.keys(schema.shape).length === 0;
  return {
    operationId: name,
    summary: route.summary,
    tags: [route.path.split('/')[1] ?? ''],
    description: route.access === 'public' || route.access === 'token' ? 'No token needed.' : `Needs the role ${route.access}.`,
    ...(route.access === 'public' || route.access === 'token' ? {} : { security: [{ token: [] }] }),
    ...(empty(route.params) ? {} : { params: route.params }),
    querystring: route.query,
    ...(hasBody ? { body: route.body } : {}),
    ...(route.upload === true ? { consumes: ['application/octet-stream'] } : {}),
    response: route.form === 'bytes' ? { '4xx': errorBody, '5xx': errorBody } : { 200: route.answer, '4xx': errorBody, '5xx': errorBody },
  };
}

/** Null when a stream has taken over the connection. */
async function answer(wiring: Wiring, name: RouteName, request: FastifyRequest, reply: FastifyReply): Promise<Result<unknown, ApiFailure> | null> {
  const { context, states } = wiring;
  const state = states.get(request);
  const input = {
    params: request.params,
    query: request.query,
    body: request.body,
    caller: state?.caller ?? anonymous(request),
    ifMatch: readIfMatch(request),
  };
  // One table holds handlers of many types; the contract of each route was applied to the input by its schema.
  const handler = HANDLERS[name] as unknown as (
    context: ServerContext,
    request: unknown,
  ) => Promise<Result<unknown, ApiFailure>> | Result<unknown, ApiFailure>;
  const answered = await handler(context, input);
  const wantsStream = ROUTES[name].form === 'json+sse' && (request.headers.accept ?? '').includes('text/event-stream');
  if (!wantsStream || !answered.ok) return answered;
  const started = await startStream(wiring, name, request, reply);
  if (!started.ok) return started;
  return null;
}

async function startStream(
  { context, streams }: Wiring,
  name: RouteName,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<Result<null, ApiFailure>> {
  const { cluster, id } = request.params as { cluster?: string; id?: string };
  const lastId = request.headers['last-event-id'];
  if (name === 'events' && cluster !== undefined) {
    const { after, limit } = request.query as { after?: string; limit: number };
    const from = typeof lastId === 'string' && lastId !== '' ? lastId : (after ?? null);
    return streams.events(() => takeOver(reply), cluster, { after: from, limit });
  }
  const found = await findTaskCluster(context, id ?? '');
  return found.ok ? streams.task(() => takeOver(reply), found.value, id ?? '') : found;
}

function takeOver(reply: FastifyReply): FastifyReply['raw'] {
  reply.hijack();
  return reply.raw;
}

async function authenticate({ context, states, limit }: Wiring, request: FastifyRequest, route: RouteContract): Promise<ApiFailure | null> {
  if (route.access === 'public') return null;
  const header = request.headers.authorization;
  const token = header !== undefined && /^Bearer \S+$/i.test(header) ? header.slice('Bearer '.length) : null;
  // Whoever is known goes on: somebody else's guesses from the same address must not lock people out in an outage.
  let user = token === null ? null : context.users.recall(token);
  const waitMs = user === null ? limit.waitMs(request.ip) : 0;
  if (waitMs > 0) {
    return makeApiFailure('auth.rate-limited', {
      what: 'too many wrong tokens from this address',
      cause: `tokens are looked at again in ${Math.ceil(waitMs / 1000)} s`,
      remedy: 'Check the token, then try again later.',
    });
  }
  if (header === undefined) {
    return route.access === 'token'
      ? null
      : makeApiFailure('auth.missing', {
          what: 'a token is needed',
          remedy: 'Give it with --token-file or PGHERD_TOKEN; an admin makes one with `pgherd user add`.',
        });
  }
  user ??= token === null ? null : await context.users.verify(token);
  if (user === null) {
    limit.failed(request.ip);
    return makeApiFailure('auth.invalid', {
      what: 'the token is not accepted',
      cause: 'it is unknown, or was removed',
      remedy: 'Ask an admin for a new one.',
    });
  }
  const state = states.get(request);
  if (state !== undefined) state.caller = { ...state.caller, name: user.name, role: user.role };
  if (route.access === 'token' || allows(user.role, route.access)) return null;
  return makeApiFailure('auth.forbidden', {
    what: `"${user.name}" is ${user.role}; this needs ${route.access}`,
    remedy: 'Ask somebody with that role.',
  });
}

function anonymous(request: FastifyRequest): Caller {
  return { name: '-', role: null, address: request.ip, socket: request.raw.socket instanceof TLSSocket ? request.raw.socket : null };
}

function setResult(states: WeakMap<FastifyRequest, RequestState>, request: FastifyRequest, code: string): void {
  const state = states.get(request);
  if (state !== undefined) state.result = code;
}

/** `"12"` or `12`; null without the header or when it is no revision (then a PUT is refused as if it were missing). */
function readIfMatch(request: FastifyRequest): number | null {
  const match = /^"?(\d{1,15})"?$/.exec(request.headers['if-match'] ?? '');
  return match === null ? null : Number(match[1]);
}

/** The command and its reason; never a body, which may hold tokens, requests for certificates, or a whole spec. */
function auditDetail(body: unknown): string {
  if (typeof body !== 'object' || body === null) return '';
  const { request, reason, cluster, node, name, role } = body as Record<string, unknown>;
  const parts = { request, reason, cluster, node, name, role };
  const said = Object.entries(parts).filter(([, value]) => value !== undefined && value !== '');
  return said.length === 0 ? '' : JSON.stringify(Object.fromEntries(said)).slice(0, 1000);
}

/**
 * An answer that does not fit its own schema is sent as it is, and logged as the defect that it is: `show` must not fail at 3 am
 * because of a field.
 */
function serialize(context: ServerContext, schema: z.ZodType, url: string, data: unknown): string {
  const checked = schema.safeParse(data);
  if (checked.success) return encodeJson(checked.data);
  const [issue] = checked.error.issues;
  context.log.error({ url, path: issue?.path.join('.'), why: issue?.message }, 'an answer does not fit its schema');
  return encodeJson(data);
}

/** Health, metrics and the description itself. */
function registerPlain({ context, fastify, streams, states, limit }: Wiring): void {
  const hidden = { schema: { hide: true } } as const;
  const metrics = createMetrics(context, streams.count);
  fastify.get('/livez', hidden, async (_request, reply) => await reply.type('text/plain').send('ok\n'));
  fastify.get('/readyz', hidden, async (_request, reply) => {
    const age = context.cache.ageMs();
    const ready = age !== null && age < 5000;
    return await reply
      .code(ready ? 200 : 503)
      .type('text/plain')
      .send(ready ? 'ok\n' : 'the store does not answer\n');
  });
  fastify.get(
    `${API_PREFIX}/openapi.json`,
    hidden,
    async (_request, reply) => await reply.type('application/json').send(JSON.stringify(fastify.swagger())),
  );
  fastify.get('/metrics', hidden, async (request, reply) => {
    states.set(request, { caller: anonymous(request), result: 'ok' });
    const denied = await authenticate({ context, fastify, streams, states, limit }, request, { ...ROUTES.show });
    if (denied !== null) return await sendFailure(reply, denied);
    return await reply.type(metrics.contentType).send(await metrics.render());
  });
}
