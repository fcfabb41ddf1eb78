/** A typed client of the API: one call a route, expected outcomes as values with the exit class of the command line. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { z } from 'zod';
import { type HttpError, type HttpStream, type HttpTls, openHttpStream, sendHttp } from '../base/http.ts';
import { fingerprintOf, parseFingerprint } from '../base/tls.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type ApiFailure, exitOf, isRetryable, makeApiFailure } from './errors.ts';
import { API_PREFIX, type Answer, type BodyIn, type ParamsIn, ROUTES, type RouteContract, type RouteName } from './routes.ts';
import { caAnswer, errorBody } from './schema.ts';
import { parseSse } from './sse.ts';

export interface ApiClientOptions {
  /** `https://host:8433`; a path is refused. */
  readonly server: string;
  /** Null: only public routes. */
  readonly token: string | null;
  /** PEM of the authority. Null: by `fingerprint`, or, without one, the system's authorities. */
  readonly ca?: string | null;
  /** SHA-256 of the authority's certificate: it is fetched, compared, and then used. */
  readonly fingerprint?: string | null;
  /** PEM, for routes that an agent calls in its own name. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string };
  /** For one request; default 10 s. Streams: to their beginning. */
  readonly timeoutMs?: number;
}

type Untyped = Readonly<Record<string, string | number | boolean | undefined>>;
/** `params` where the path has some, `body` where the route takes one. */
export type CallInput<R extends RouteName> = {
  readonly query?: Untyped;
  readonly ifMatch?: number;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
} & (string extends keyof ParamsIn<R> ? { readonly params?: undefined } : { readonly params: ParamsIn<R> }) &
  (undefined extends BodyIn<R> ? { readonly body?: undefined } : { readonly body: BodyIn<R> });

export interface StreamItem<T> {
  readonly id: string | null;
  readonly event: string;
  readonly data: T;
}

export interface ApiClient {
  readonly server: string;
  call<R extends RouteName>(
    route: R,
    ...input: Record<never, never> extends CallInput<R> ? [input?: CallInput<R>] : [input: CallInput<R>]
  ): Promise<Result<Answer<R>, ApiFailure>>;
  /** Server-sent events of `events` or `task`. Ends when the server ends it; an error is the last item. Breaking out of the loop closes it. */
  follow(
    route: 'events' | 'task',
    input: { readonly params: Record<string, string>; readonly query?: Untyped; readonly signal?: AbortSignal },
  ): AsyncIterable<Result<StreamItem<unknown>, ApiFailure>>;
  /** `storeBackup`: the bytes as a stream, which the caller reads or closes. */
  download(
    route: 'storeBackup',
    options?: { readonly signal?: AbortSignal },
  ): Promise<Result<{ readonly stream: IncomingMessage; close(): void }, ApiFailure>>;
  upload(route: 'storeRestore', data: Uint8Array, query?: Untyped): Promise<Result<Answer<'storeRestore'>, ApiFailure>>;
  /** The authority in use; fetched and compared first when the client was made with a fingerprint. Null: the system's. */
  authority(): Promise<Result<string | null, ApiFailure>>;
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** A dry run or a backup's head may have to ask every agent. */
const STREAM_HEAD_MS = 15_000;
/** Backups are a few MiB; a slow link still gets them up in this time. */
const UPLOAD_TIMEOUT_MS = 120_000;

interface Wire {
  readonly options: ApiClientOptions;
  readonly authority: () => Promise<Result<string | null, ApiFailure>>;
}

/** Makes no connection yet. */
export function createApiClient(options: ApiClientOptions): ApiClient {
  let known: string | null = options.ca ?? null;
  const authority = async (): Promise<Result<string | null, ApiFailure>> => {
    if (known !== null || options.fingerprint === undefined || options.fingerprint === null) return ok(known);
    const fetched = await fetchAuthority({
      server: options.server,
      fingerprint: options.fingerprint,
      timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    });
    if (fetched.ok) known = fetched.value;
    return fetched;
  };
  const wire: Wire = { options, authority };
  return {
    server: options.server,
    authority,
    call: (route, ...input) => callRoute(wire, route, (input[0] ?? {}) as LooseInput),
    follow: (route, input) => followRoute(wire, route, input),
    download: (route, input) => downloadRoute(wire, route, input?.signal),
    upload: (route, data, query) => callRoute(wire, route, { ...(query === undefined ? {} : { query }), bytes: data, timeoutMs: UPLOAD_TIMEOUT_MS }),
  };
}

/** An id that makes a repeated `createTask` harmless. */
export function newRequestId(): string {
  return randomBytes(12)
    .toString('base64url')
    .replaceAll(/[^A-Za-z0-9]/g, 'x');
}

/**
 * Invariant: nothing secret is sent on the unverified connection, and its answer is used only when its fingerprint is the one given.
 * Because: `GET /ca` has no headers of ours, and the certificate's own bytes are hashed here.
 * Broken if: the fingerprint that the server *says* were compared.
 */
export async function fetchAuthority(options: {
  readonly server: string;
  readonly fingerprint: string;
  readonly timeoutMs: number;
}): Promise<Result<string, ApiFailure>> {
  const wanted = parseFingerprint(options.fingerprint);
  if (wanted === null) {
    return err(
      makeApiFailure('join.fingerprint', {
        what: `"${options.fingerprint}" is no fingerprint`,
        remedy: 'Give the SHA-256 fingerprint of the server’s authority: 64 hexadecimal digits.',
      }),
    );
  }
  const sent = await sendHttp({
    url: `${trimSlash(options.server)}${API_PREFIX}/ca`,
    timeoutMs: options.timeoutMs,
    maxBytes: 65_536,
    tls: { ca: null, unverified: true },
  });
  if (!sent.ok) return err(transportFailure(options.server, sent.error));
  const answer = caAnswer.safeParse(parseJson(sent.value.body));
  const found = answer.success ? fingerprintOf(answer.data.ca) : null;
  if (!answer.success || found === null) return err(badAnswer(options.server, 'it sent no certificate of an authority'));
  if (found !== wanted) {
    return err(
      makeApiFailure('join.fingerprint', {
        what: `the server at ${options.server} is not the one that the fingerprint names`,
        cause: `expected ${wanted}, found ${found}`,
        now: 'Nothing was sent to it.',
        remedy: 'Check the address. If the server was set up anew, get a new fingerprint or join token there; otherwise somebody may be in between.',
      }),
    );
  }
  return ok(answer.data.ca);
}

interface LooseInput {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Untyped;
  readonly body?: unknown;
  readonly bytes?: Uint8Array;
  readonly ifMatch?: number;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

async function callRoute<R extends RouteName>(wire: Wire, name: R, input: LooseInput): Promise<Result<Answer<R>, ApiFailure>> {
  const route: RouteContract = ROUTES[name];
  const tls = await tlsOf(wire);
  if (!tls.ok) return tls;
  const body = input.bytes ?? (input.body === undefined ? undefined : JSON.stringify(input.body));
  const sent = await sendHttp({
    url: buildUrl(wire.options.server, route.path, input),
    method: route.method,
    headers: {
      ...authorization(wire.options.token),
      accept: 'application/json',
      ...(body === undefined ? {} : { 'content-type': input.bytes === undefined ? 'application/json' : 'application/octet-stream' }),
      ...(input.ifMatch === undefined ? {} : { 'if-match': `"${input.ifMatch}"` }),
    },
    ...(body === undefined ? {} : { body }),
    tls: tls.value,
    timeoutMs: input.timeoutMs ?? wire.options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    ...(input.signal === undefined ? {} : { signal: input.signal }),
  });
  if (!sent.ok) return err(transportFailure(wire.options.server, sent.error, route.method !== 'GET'));
  const json = parseJson(sent.value.body);
  if (sent.value.status >= 400) return err(refusal(wire.options.server, sent.value.status, json));
  const answer = (route.answer as z.ZodType<Answer<R>>).safeParse(json);
  if (answer.success) return ok(answer.data);
  const [issue] = answer.error.issues;
  return err(
    badAnswer(wire.options.server, `${route.method} ${route.path}: ${issue === undefined ? '' : `${issue.path.join('.')}: ${issue.message}`}`),
  );
}

async function* followRoute(
  wire: Wire,
  name: 'events' | 'task',
  input: { readonly params: Record<string, string>; readonly query?: Untyped; readonly signal?: AbortSignal },
): AsyncGenerator<Result<StreamItem<unknown>, ApiFailure>> {
  const opened = await openStream(wire, ROUTES[name].path, input, 'text/event-stream');
  if (!opened.ok) {
    yield opened;
    return;
  }
  try {
    for await (const item of parseSse(opened.value.stream)) yield ok({ id: item.id, event: item.event, data: parseJson(Buffer.from(item.data)) });
  } catch (cause) {
    if (input.signal?.aborted === true) return;
    const message = cause instanceof Error ? cause.message : String(cause);
    yield err(transportFailure(wire.options.server, { kind: 'lost', message }));
  } finally {
    opened.value.close();
  }
}

async function downloadRoute(wire: Wire, name: 'storeBackup', signal: AbortSignal | undefined): Promise<Result<HttpStream, ApiFailure>> {
  return await openStream(wire, ROUTES[name].path, signal === undefined ? {} : { signal }, 'application/octet-stream');
}

async function openStream(wire: Wire, path: string, input: LooseInput, accept: string): Promise<Result<HttpStream, ApiFailure>> {
  const tls = await tlsOf(wire);
  if (!tls.ok) return tls;
  const opened = await openHttpStream({
    url: buildUrl(wire.options.server, path, input),
    headers: { ...authorization(wire.options.token), accept },
    tls: tls.value,
    timeoutMs: wire.options.timeoutMs ?? STREAM_HEAD_MS,
    ...(input.signal === undefined ? {} : { signal: input.signal }),
  });
  if (!opened.ok) return err(transportFailure(wire.options.server, opened.error));
  if (opened.value.status < 400) return opened;
  const chunks: Buffer[] = [];
  for await (const chunk of opened.value.stream) chunks.push(chunk as Buffer);
  return err(refusal(wire.options.server, opened.value.status, parseJson(Buffer.concat(chunks))));
}

async function tlsOf(wire: Wire): Promise<Result<HttpTls, ApiFailure>> {
  if (!/^https:\/\/[^/]+\/?$/.test(wire.options.server)) {
    const what = `"${wire.options.server}" is not the address of a server`;
    return err({
      ...makeApiFailure('server.unreachable', { what, remedy: 'Give it as https://HOST:PORT with --server or PGHERD_SERVER.' }),
      exit: 2,
      retryable: false,
    });
  }
  const ca = await wire.authority();
  return ca.ok ? ok({ ca: ca.value, expect: 'server', ...wire.options.clientCertificate }) : ca;
}

function buildUrl(server: string, path: string, input: LooseInput): string {
  const filled = path.replace(/:([a-z]+)/g, (_all, key: string) => encodeURIComponent(input.params?.[key] ?? ''));
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(input.query ?? {})) if (value !== undefined) query.set(key, String(value));
  const text = query.toString();
  return `${trimSlash(server)}${API_PREFIX}${filled}${text === '' ? '' : `?${text}`}`;
}

function authorization(token: string | null): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

function trimSlash(text: string): string {
  return text.replace(/\/+$/, '');
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch {
    // Not JSON: the schema that is applied next says so with the route's name.
    return undefined;
  }
}

function refusal(server: string, status: number, json: unknown): ApiFailure {
  const body = errorBody.safeParse(json);
  if (!body.success)
    return {
      ...badAnswer(server, `HTTP status ${status} without an error that pgherd would send; is there something else at this address?`),
      status,
    };
  const { code, what, cause, now, remedy, problems } = body.data.error;
  return { code, what, cause, now, remedy, problems: problems ?? [], retryable: isRetryable(code), exit: exitOf(code, status), status };
}

function badAnswer(server: string, cause: string): ApiFailure {
  return makeApiFailure('server.answer', {
    what: `the answer of ${server} is not understood`,
    cause,
    now: 'What was asked for may have been done.',
    remedy: 'Compare `pgherd version` here and there.',
  });
}

function transportFailure(server: string, error: HttpError, changes = false): ApiFailure {
  if (error.kind === 'certificate') {
    return makeApiFailure('server.certificate', {
      what: `the certificate of ${server} is not accepted`,
      cause: error.message,
      now: 'Nothing was sent to it.',
      remedy:
        'Give the authority’s certificate with --ca-file (on the server: DATA_DIRECTORY/ca/ca.crt), and use a name or address for which the certificate was made (`names` in server.yaml).',
    });
  }
  const open = changes && (error.kind === 'lost' || error.kind === 'timeout');
  return makeApiFailure('server.unreachable', {
    what: `can not connect to the pgherd server at ${server}`,
    cause: error.message,
    now: open ? 'The request may have been carried out.' : 'Nothing was changed. The clusters go on without the server.',
    remedy: open ? 'Look with `pgherd task list` before you ask again.' : 'Check the address, and that `pgherd server` runs there.',
  });
}
