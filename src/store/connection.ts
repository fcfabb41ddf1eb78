/**
 * Connections to the store's endpoints: one is in use at a time; a failing one is left for the next inside the caller's deadline.
 *
 * gRPC's own balancing and retries are off. A call is sent only on a connection that is ready and whose cluster id was checked, so that
 * "never sent" and "maybe applied" stay apart.
 */
import { readFileSync } from 'node:fs';
import { type DescMessage, type MessageShape, create } from '@bufbuild/protobuf';
import type { Clock } from '../base/clock.ts';
import { type MonoMs, makeMonoMs } from '../core/ids.ts';
import { type Attempt, type Channel, type GrpcStream, type Metadata, type StreamHandlers, openChannel } from './channel.ts';
import { classify } from './classify.ts';
import { status } from './grpc-status.ts';
import { foreignMessage } from './foreign.ts';
import { watchEndpoints } from './endpoint-watch.ts';
import type { TlsFiles } from './pem.ts';
import { Auth, AuthenticateRequestSchema, Maintenance, type ResponseHeader, StatusRequestSchema } from './proto/gen/rpc_pb.ts';
import { type Method, methodOf } from './proto/services.ts';

/** Limit of one try at one endpoint: a stuck member costs this much once. Shorter fails healthy members on slow disks; longer eats the lease. */
const TRY_MS = 800;
/** Wait before the same endpoints are tried again when all refused. */
const PAUSE_MS = 50;
/** After so many tries in a row without any answer the connection itself is suspect (half open after a power loss) and made anew. */
const SILENT_TRIES = 2;
/** After so many refused connections in a row the certificate files are read again: they may have been renewed. About a second's worth. */
const REFUSED_TRIES = 20;
/** And no sooner again: a store that is away for hours refuses dozens of calls a second. */
const REFUSED_EVERY_MS = 5000;

/** A file is read at each login, so that a changed password is found without a restart. */
export type Password = string | { readonly file: string };

export interface ConnectionOptions {
  /** `https://host:port` or `http://host:port`; at least one. */
  readonly endpoints: readonly string[];
  readonly tls: TlsFiles | null;
  readonly username?: string;
  readonly password?: Password;
  readonly clock: Clock;
  /** Limit of one try. Default: TRY_MS; tests of what a store promises wait longer than a busy machine takes. */
  readonly tryMs?: number;
  /** Default: HTTP/2 to the endpoint. The server reaches the store that it serves itself without a socket. */
  readonly openChannel?: typeof openChannel;
}

/** What a loop over endpoints needs to know of one of them. */
export interface Endpoint {
  readonly url: string;
  channel: Channel;
  /** The cluster id of this connection was checked. */
  verified: boolean;
  silentTries: number;
  refusedTries: number;
  /** When the connection was made anew last. */
  renewedAt: MonoMs;
  /** Aborted, and made anew, when the endpoint is given up because it is silent while another one answers. */
  givenUp: AbortController;
}

export interface Connection {
  readonly clock: Clock;
  /** Limit of one try at one endpoint. */
  readonly tryMs: number;
  current(): Endpoint;
  /** Leaves `endpoint` for the next one, unless somebody did already. */
  leave(endpoint: Endpoint): void;
  /** Ready and verified within `deadline`; else why not. */
  prepare(endpoint: Endpoint, deadline: MonoMs): Promise<Attempt<null>>;
  /** One try at `endpoint`. */
  call<I extends DescMessage, O extends DescMessage>(
    endpoint: Endpoint,
    method: Method<I, O>,
    request: MessageShape<I>,
    deadline: MonoMs,
  ): Promise<Attempt<MessageShape<O>>>;
  /** Opens a stream on a prepared endpoint. */
  stream<I extends DescMessage, O extends DescMessage>(
    endpoint: Endpoint,
    method: Method<I, O>,
    handlers: StreamHandlers<MessageShape<O>>,
  ): GrpcStream<MessageShape<I>>;
  /** Null when the header belongs to the store that was seen first; else the sticky refusal. */
  checkHeader(header: ResponseHeader | undefined): string | null;
  /** The next use of any endpoint logs in again: a stream was refused, perhaps for an expired token. */
  dropLogin(): void;
  foreign(): string | null;
  incarnation(): string | null;
  pause(deadline: MonoMs): Promise<void>;
  closed(): boolean;
  /** Aborted by close(). */
  readonly signal: AbortSignal;
  close(): void;
}

const STATUS = methodOf(Maintenance.method.status);
const AUTHENTICATE = methodOf(Auth.method.authenticate);
/** A member to which many come at once checks their passwords one after the other, with a tenth of a second of processor time each. */
const LOGIN_MS = 5000;
/** A reason of our own: without one, each answered wait would build an error with its stack. */
const ANSWERED = Symbol('answered');
const DONE: Attempt<null> = { kind: 'answer', value: null };

interface State {
  readonly options: ConnectionOptions;
  readonly clock: Clock;
  readonly tryMs: number;
  readonly endpoints: readonly Endpoint[];
  index: number;
  incarnation: string | null;
  foreign: string | null;
  token: string | null;
  /** The newest token that a stream was refused with; null: none was. */
  refused: string | null;
  /** Under way. */
  readonly logins: Map<Endpoint, Promise<Attempt<null>>>;
  readonly abort: AbortController;
}

/** Throws without endpoints, for one that is no URL, and for PEM files that cannot be read: mistakes of configuration, found at start. */
export function openConnection(options: ConnectionOptions): Connection {
  if (options.endpoints.length === 0) throw new Error('the store needs at least one endpoint');
  const { clock } = options;
  const endpoints = options.endpoints.map(
    (url): Endpoint => ({
      url,
      channel: channelTo(url, options),
      verified: false,
      silentTries: 0,
      refusedTries: 0,
      renewedAt: makeMonoMs(-Infinity),
      givenUp: new AbortController(),
    }),
  );
  const state: State = {
    options,
    clock,
    tryMs: options.tryMs ?? TRY_MS,
    endpoints,
    index: 0,
    incarnation: null,
    foreign: null,
    token: null,
    refused: null,
    logins: new Map(),
    abort: new AbortController(),
  };
  watchEndpoints({
    endpoints,
    clock,
    signal: state.abort.signal,
    current: () => endpoints[state.index] as Endpoint,
    ask: async ({ channel }, limitMs, signal) => {
      const until = clock.now().mono + limitMs;
      // Endpoints that are not in use have no connection yet.
      if ((await channel.ready(limitMs)) !== null) return false;
      const left = until - clock.now().mono;
      const answer = await channel.unary({
        method: STATUS,
        request: create(StatusRequestSchema),
        metadata: metadataOf(state),
        limitMs: left,
        signal,
      });
      return answer.kind === 'answer';
    },
    moveTo: (endpoint) => {
      const left = endpoints[state.index];
      state.index = endpoints.indexOf(endpoint);
      left?.givenUp.abort();
      if (left !== undefined) left.givenUp = new AbortController();
    },
  });
  return {
    clock,
    tryMs: state.tryMs,
    current: () => endpoints[state.index] as Endpoint,
    leave: (endpoint) => {
      if (endpoints[state.index] === endpoint) state.index = (state.index + 1) % endpoints.length;
    },
    prepare: (endpoint, deadline) => prepare(state, endpoint, deadline),
    call: (endpoint, method, request, deadline) => call(state, endpoint, { method, request, deadline }),
    stream: (endpoint, method, handlers) => endpoint.channel.stream(method, metadataOf(state), handlers),
    checkHeader: (header) => checkHeader(state, header),
    dropLogin: () => {
      state.refused = state.token;
      if (options.username !== undefined) for (const endpoint of endpoints) endpoint.verified = false;
    },
    foreign: () => state.foreign,
    incarnation: () => state.incarnation,
    pause: (deadline) => clock.sleep(Math.min(PAUSE_MS, deadline - clock.now().mono), state.abort.signal),
    closed: () => state.abort.signal.aborted,
    signal: state.abort.signal,
    close: () => {
      state.abort.abort();
      for (const endpoint of endpoints) endpoint.channel.close();
    },
  };
}

function checkHeader(state: State, header: ResponseHeader | undefined): string | null {
  if (state.foreign !== null) return state.foreign;
  const id = String(header?.clusterId ?? 0n);
  if (state.incarnation === null) state.incarnation = id;
  else if (state.incarnation !== id) {
    state.foreign = foreignMessage({ seen: id, known: state.incarnation });
  }
  return state.foreign;
}

function metadataOf({ token }: Pick<State, 'token'>): Metadata {
  // A member without a leader answers at once instead of hanging. *Source:* etcd 3.4, rpctypes MetadataHasLeader.
  return token === null ? { hasleader: 'true' } : { hasleader: 'true', token };
}

interface Call<I extends DescMessage, O extends DescMessage> {
  readonly method: Method<I, O>;
  readonly request: MessageShape<I>;
  readonly deadline: MonoMs;
}

/** Sends without looking at the connection. */
function send<I extends DescMessage, O extends DescMessage>(state: State, endpoint: Endpoint, order: Call<I, O>): Promise<Attempt<MessageShape<O>>> {
  const { method, request, deadline } = order;
  const limitMs = Math.min(state.tryMs, deadline - state.clock.now().mono);
  return endpoint.channel.unary({ method, request, metadata: metadataOf(state), limitMs, signal: endpoint.givenUp.signal });
}

/** One try on a prepared connection; a login that ran out is renewed once (Z6). */
async function call<I extends DescMessage, O extends DescMessage>(
  state: State,
  endpoint: Endpoint,
  order: Call<I, O>,
): Promise<Attempt<MessageShape<O>>> {
  const ready = await prepare(state, endpoint, order.deadline);
  if (ready.kind !== 'answer') return ready;
  const used = state.token;
  let answer = count(state, endpoint, await send(state, endpoint, order));
  if (answer.kind === 'failed' && state.options.username !== undefined && classify(answer.error) === 'reauthenticate') {
    // The first try was refused before it was looked at, so this is no second sending of a write.
    const login = await authenticate(state, endpoint, { deadline: order.deadline, refused: used });
    if (login.kind === 'answer') answer = count(state, endpoint, await send(state, endpoint, order));
  }
  if (answer.kind !== 'answer') return answer;
  const refusal = checkHeader(state, (answer.value as { header?: ResponseHeader }).header);
  return refusal === null ? answer : { kind: 'foreign', message: refusal };
}

async function prepare(state: State, endpoint: Endpoint, deadline: MonoMs): Promise<Attempt<null>> {
  const { channel } = endpoint;
  const problem = await channel.ready(Math.min(state.tryMs, deadline - state.clock.now().mono));
  if (problem !== null) return count(state, endpoint, { kind: 'failed', sent: false, error: problem });
  if (endpoint.verified && endpoint.channel === channel) return DONE;
  const answer = count(state, endpoint, await send(state, endpoint, { method: STATUS, request: create(StatusRequestSchema), deadline }));
  if (answer.kind !== 'answer') return answer.kind === 'failed' ? { ...answer, sent: false } : answer;
  const refusal = checkHeader(state, answer.value.header);
  if (refusal !== null) return { kind: 'foreign', message: refusal };
  if (state.token === state.refused) {
    const login = await authenticate(state, endpoint, { deadline, refused: state.refused });
    if (login.kind !== 'answer') return login.kind === 'failed' ? { ...login, sent: false } : login;
  }
  // Another call may have found the connection silent and made it anew meanwhile.
  if (endpoint.channel !== channel)
    return { kind: 'failed', sent: false, error: { code: status.UNAVAILABLE, details: `the connection to ${endpoint.url} was made anew` } };
  endpoint.verified = true;
  // A connection that was lost may come back to another store on the same address: it is verified again before its next use.
  channel.onceLost(() => {
    if (endpoint.channel === channel) endpoint.verified = false;
  });
  return DONE;
}

/**
 * Sees to a token that is not the one that was refused.
 *
 * *Invariant:* at most one login at an endpoint is under way, and the present token stays until the next one is there. *Because:* a member that was started
 * again knows no token, so every call at it is refused at the same moment, and it checks a password with a tenth of a second of processor time: a login for each call
 * keeps it from its elections, and each election makes tokens unknown again. *Broken if:* a call goes without a token meanwhile, which is refused as nobody's.
 */
async function authenticate(
  state: State,
  endpoint: Endpoint,
  { deadline, refused }: { readonly deadline: MonoMs; readonly refused: string | null },
): Promise<Attempt<null>> {
  if (state.token !== null && state.token !== refused) return DONE;
  let login = state.logins.get(endpoint);
  if (login === undefined) {
    login = logIn(state, endpoint).finally(() => state.logins.delete(endpoint));
    state.logins.set(endpoint, login);
  }
  const waiting = new AbortController();
  const late = state.clock.sleep(Math.min(state.tryMs, deadline - state.clock.now().mono), waiting.signal).then(
    (): Attempt<null> => ({
      kind: 'failed',
      sent: false,
      error: { code: status.DEADLINE_EXCEEDED, details: `the login at ${endpoint.url} is still under way` },
    }),
  );
  const first = await Promise.race([login, late]);
  waiting.abort(ANSWERED);
  return first;
}

/** Goes on when the calls that waited for it have given up, and the endpoint with them: a login that is begun anew each time waits behind its own forerunners. */
async function logIn(state: State, endpoint: Endpoint): Promise<Attempt<null>> {
  const { username, password } = state.options;
  if (username === undefined) return DONE;
  let secret: string;
  try {
    secret = typeof password === 'object' ? readFileSync(password.file, 'utf8').trim() : (password ?? '');
  } catch (cause) {
    const details = `the password of ${username} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`;
    return { kind: 'failed', sent: false, error: { code: status.UNAUTHENTICATED, details } };
  }
  const request = create(AuthenticateRequestSchema, { name: username, password: secret });
  const answer = await endpoint.channel.unary({
    method: AUTHENTICATE,
    request,
    // With a token that the member does not know, a login is refused for that, or waits until the store has come to the revision in the token's name: nobody would
    // get in again after every member was started anew. *Source:* etcd 3.4, etcdserver/v3_server.go, processInternalRaftRequestOnce; auth/simple_token.go.
    metadata: metadataOf({ token: null }),
    limitMs: LOGIN_MS,
    // Also for an endpoint that was left: its token is every member's.
    signal: state.abort.signal,
  });
  if (answer.kind !== 'answer') return answer;
  state.token = answer.value.token;
  return DONE;
}

/** Counts failures in a row, and makes the connection anew when they say that the old one is of no use any more. */
function count<O>(state: State, endpoint: Endpoint, attempt: Attempt<O>): Attempt<O> {
  const code = attempt.kind === 'failed' ? attempt.error.code : status.OK;
  endpoint.silentTries = code === status.DEADLINE_EXCEEDED ? endpoint.silentTries + 1 : 0;
  endpoint.refusedTries = code === status.UNAVAILABLE ? endpoint.refusedTries + 1 : 0;
  const isRefused = endpoint.refusedTries >= REFUSED_TRIES && state.clock.now().mono - endpoint.renewedAt >= REFUSED_EVERY_MS;
  if (endpoint.silentTries >= SILENT_TRIES || isRefused) renew(state, endpoint);
  return attempt;
}

function channelTo(url: string, { openChannel: open = openChannel, tls, clock }: ConnectionOptions): Channel {
  return open(url, tls, clock);
}

function renew(state: State, endpoint: Endpoint): void {
  endpoint.silentTries = 0;
  endpoint.refusedTries = 0;
  endpoint.renewedAt = state.clock.now().mono;
  if (state.abort.signal.aborted) return;
  let channel: Channel;
  try {
    channel = channelTo(endpoint.url, state.options);
  } catch {
    // The certificate files are just being replaced: the old connection stays, and the next failures lead here again.
    return;
  }
  const former = endpoint.channel;
  const login = state.logins.get(endpoint);
  // Members that check many passwords are silent for that long; what they are busy with must not be lost with the connection, or they never get done.
  if (login === undefined) former.close();
  else void login.finally(() => former.close());
  endpoint.channel = channel;
  endpoint.verified = false;
}
