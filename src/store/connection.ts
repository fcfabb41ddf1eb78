/**
 * Connections to the store's endpoints: one is in use at a time; a failing one is left for the next inside the caller's deadline.
 *
 * gRPC's own balancing and retries are off. A call is sent only on a connection that is ready and whose cluster id was checked, so that
 * "never sent" and "maybe applied" stay apart.
 */
import { isIP } from 'node:net';
import { type PeerCertificate, checkServerIdentity } from 'node:tls';
import { type DescMessage, type MessageShape, create } from '@bufbuild/protobuf';
import {
  type ChannelCredentials,
  Client,
  Metadata,
  connectivityState,
  credentials,
  logVerbosity,
  setLogVerbosity,
  type ClientDuplexStream,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import type { Clock } from '../base/clock.ts';
import { type MonoMs, addMono } from '../core/ids.ts';
import { type RpcError, classify } from './classify.ts';
import { type TlsFiles, readPem } from './pem.ts';
import { Auth, AuthenticateRequestSchema, Maintenance, type ResponseHeader, type StatusResponse, StatusRequestSchema } from './proto/gen/rpc_pb.ts';
import { type Method, methodOf } from './proto/services.ts';

/** Limit of one try at one endpoint: a stuck member costs this much once. Shorter fails healthy members on slow disks; longer eats the lease. */
export const TRY_MS = 800;
/** Wait before the same endpoints are tried again when all refused. */
const PAUSE_MS = 50;
/** Limit of asking a failed connection why; it answers at once. */
const EXPLAIN_MS = 50;
/** After so many tries in a row without any answer the connection itself is suspect (half open after a power loss) and made anew. */
const SILENT_TRIES = 2;

export interface ConnectionOptions {
  /** `https://host:port` or `http://host:port`; at least one. */
  readonly endpoints: readonly string[];
  readonly tls: TlsFiles | null;
  readonly username?: string;
  readonly password?: string;
  readonly clock: Clock;
}

export type Attempt<O> =
  | { readonly kind: 'answer'; readonly value: O }
  /** `sent`: the request may have reached the server. */
  | { readonly kind: 'failed'; readonly error: RpcError; readonly sent: boolean }
  | { readonly kind: 'foreign'; readonly message: string };

/** What a loop over endpoints needs to know of one of them. */
export interface Endpoint {
  readonly url: string;
  client: Client;
  /** The cluster id of this connection was checked. */
  verified: boolean;
  silentTries: number;
}

export interface Connection {
  readonly clock: Clock;
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
  ): ClientDuplexStream<MessageShape<I>, MessageShape<O>>;
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

export function openConnection(options: ConnectionOptions): Connection {
  const { clock } = options;
  // gRPC's own lines on standard error have no structure, and every failure comes back as a value.
  setLogVerbosity(logVerbosity.NONE);
  const endpoints = options.endpoints.map((url): Endpoint => ({ url, client: openClient(url, options.tls), verified: false, silentTries: 0 }));
  if (endpoints.length === 0) throw new Error('the store needs at least one endpoint');
  let index = 0;
  let incarnation: string | null = null;
  let foreign: string | null = null;
  let token: string | null = null;
  let closed = false;
  const abort = new AbortController();

  const checkHeader = (header: ResponseHeader | undefined): string | null => {
    if (foreign !== null) return foreign;
    const id = String(header?.clusterId ?? 0n);
    if (incarnation === null) incarnation = id;
    else if (incarnation !== id)
      foreign = `the store answers as incarnation ${id}, this process knows incarnation ${incarnation}: it is not the same store`;
    return foreign;
  };

  const metadata = (): Metadata => {
    const out = new Metadata();
    // A member without a leader answers at once instead of hanging. *Source:* etcd 3.4, rpctypes MetadataHasLeader.
    out.set('hasleader', 'true');
    if (token !== null) out.set('token', token);
    return out;
  };

  const rawCall = <I extends DescMessage, O extends DescMessage>(
    endpoint: Endpoint,
    method: Method<I, O>,
    request: MessageShape<I>,
    deadline: MonoMs,
  ): Promise<Attempt<MessageShape<O>>> =>
    unaryCall({ endpoint, method, request, metadata: metadata(), limitMs: Math.min(TRY_MS, deadline - clock.now().mono), clock });

  const settle = <O>(endpoint: Endpoint, attempt: Attempt<O>): Attempt<O> => {
    const silent = attempt.kind === 'failed' && attempt.error.code === status.DEADLINE_EXCEEDED;
    endpoint.silentTries = silent ? endpoint.silentTries + 1 : 0;
    if (endpoint.silentTries >= SILENT_TRIES && !closed) renew(endpoint);
    return attempt;
  };
  const renew = (endpoint: Endpoint): void => {
    endpoint.client.close();
    endpoint.client = openClient(endpoint.url, options.tls);
    endpoint.verified = false;
    endpoint.silentTries = 0;
  };

  /** The state of a channel has no text; a call on a failed channel fails at once and has one. */
  const explain = async (endpoint: Endpoint, problem: number): Promise<string> => {
    if (problem === status.DEADLINE_EXCEEDED) return `no connection to ${endpoint.url} in time`;
    const attempt = await rawCall(endpoint, STATUS, create(StatusRequestSchema), addMono(clock.now().mono, EXPLAIN_MS));
    return attempt.kind === 'failed' ? attempt.error.details : `no connection to ${endpoint.url}`;
  };

  const authenticate = async (endpoint: Endpoint, deadline: MonoMs): Promise<Attempt<null>> => {
    if (options.username === undefined) return { kind: 'answer', value: null };
    const request = create(AuthenticateRequestSchema, { name: options.username, password: options.password ?? '' });
    token = null;
    const answer = await rawCall(endpoint, AUTHENTICATE, request, deadline);
    if (answer.kind !== 'answer') return answer;
    token = answer.value.token;
    return { kind: 'answer', value: null };
  };

  const prepare = async (endpoint: Endpoint, deadline: MonoMs): Promise<Attempt<null>> => {
    const { client } = endpoint;
    const problem = await waitReady(client, Math.min(TRY_MS, deadline - clock.now().mono), clock);
    if (problem !== null)
      return settle(endpoint, { kind: 'failed', sent: false, error: { code: problem, details: await explain(endpoint, problem) } });
    if (endpoint.verified && endpoint.client === client) return { kind: 'answer', value: null };
    const answer = settle(endpoint, await rawCall(endpoint, STATUS, create(StatusRequestSchema), deadline));
    if (answer.kind !== 'answer') return answer.kind === 'failed' ? { ...answer, sent: false } : answer;
    const refusal = checkHeader((answer.value as StatusResponse).header);
    if (refusal !== null) return { kind: 'foreign', message: refusal };
    if (token === null) {
      const login = await authenticate(endpoint, deadline);
      if (login.kind !== 'answer') return login.kind === 'failed' ? { ...login, sent: false } : login;
    }
    endpoint.verified = true;
    watchLoss(endpoint, client);
    return { kind: 'answer', value: null };
  };

  return {
    clock,
    current: () => endpoints[index] as Endpoint,
    leave: (endpoint) => {
      if (endpoints[index] === endpoint) index = (index + 1) % endpoints.length;
    },
    prepare,
    call: async (endpoint, method, request, deadline) => {
      const ready = await prepare(endpoint, deadline);
      if (ready.kind !== 'answer') return ready;
      const answer = settle(endpoint, await rawCall(endpoint, method, request, deadline));
      if (answer.kind === 'answer') {
        const refusal = checkHeader((answer.value as { header?: ResponseHeader }).header);
        return refusal === null ? answer : { kind: 'foreign', message: refusal };
      }
      if (answer.kind === 'failed' && options.username !== undefined && classify(answer.error) === 'reauthenticate') {
        // The first try was refused before it was looked at, so this is no second sending of a write.
        const login = await authenticate(endpoint, deadline);
        if (login.kind === 'answer') return settle(endpoint, await rawCall(endpoint, method, request, deadline));
      }
      return answer;
    },
    stream: (endpoint, method) => endpoint.client.makeBidiStreamRequest(method.path, method.serialize, method.deserialize, metadata()),
    checkHeader,
    dropLogin: () => {
      token = null;
      if (options.username !== undefined) for (const endpoint of endpoints) endpoint.verified = false;
    },
    foreign: () => foreign,
    incarnation: () => incarnation,
    pause: (deadline) => clock.sleep(Math.min(PAUSE_MS, deadline - clock.now().mono), abort.signal),
    closed: () => closed,
    signal: abort.signal,
    close: () => {
      closed = true;
      abort.abort();
      for (const endpoint of endpoints) endpoint.client.close();
    },
  };
}

/** Throws when the URL is none or a PEM file cannot be read: mistakes of configuration, found at start. */
function openClient(url: string, tls: TlsFiles | null): Client {
  const parsed = new URL(url.includes('://') ? url : `http://${url}`);
  return new Client(`${parsed.hostname}:${parsed.port === '' ? '2379' : parsed.port}`, channelCredentials(parsed, tls), {
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.min_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 300,
    // etcd ends connections that ping more often than every 5 s. *Source:* etcd 3.4, --grpc-keepalive-min-time.
    'grpc.keepalive_time_ms': 6_000,
    'grpc.keepalive_timeout_ms': 2_000,
    'grpc.enable_retries': 0,
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_receive_message_length': 64 * 1024 * 1024,
    'grpc.max_send_message_length': -1,
    ...(parsed.protocol === 'https:' && addressOf(parsed) !== null ? { 'grpc.ssl_target_name_override': SERVER_NAME_OF_ADDRESSES } : {}),
  });
}

/** Sent as server name to an endpoint that is an address: RFC 6066 allows no address there, and Node warns. The certificate is checked against the address. */
const SERVER_NAME_OF_ADDRESSES = 'pgherd-store.invalid';

function addressOf(url: URL): string | null {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return isIP(host) === 0 ? null : host;
}

function channelCredentials(url: URL, tls: TlsFiles | null): ChannelCredentials {
  if (url.protocol !== 'https:') return credentials.createInsecure();
  const address = addressOf(url);
  const verify =
    address === null ? {} : { checkServerIdentity: (_name: string, certificate: PeerCertificate) => checkServerIdentity(address, certificate) };
  if (tls === null) return credentials.createSsl(null, null, null, verify);
  return credentials.createSsl(readPem(tls.ca), readPem(tls.key), readPem(tls.cert), verify);
}

/** Null when the connection is ready; else the gRPC code: UNAVAILABLE (refused, at once) or DEADLINE_EXCEEDED. */
async function waitReady(client: Client, limitMs: number, clock: Clock): Promise<number | null> {
  const channel = client.getChannel();
  const until = clock.now().mono + limitMs;
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) return null;
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) return status.UNAVAILABLE;
    const leftMs = until - clock.now().mono;
    if (leftMs <= 0) return status.DEADLINE_EXCEEDED;
    await new Promise<void>((resolve) => {
      channel.watchConnectivityState(state, clock.now().wall + Math.max(1, leftMs), () => resolve());
    });
  }
}

/** A connection that was lost may come back to another store on the same address: it is verified again before its next use. */
function watchLoss(endpoint: Endpoint, client: Client): void {
  client.getChannel().watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () => {
    if (endpoint.client === client) endpoint.verified = false;
  });
}

interface UnaryCall<I extends DescMessage, O extends DescMessage> {
  readonly endpoint: Endpoint;
  readonly method: Method<I, O>;
  readonly request: MessageShape<I>;
  readonly metadata: Metadata;
  readonly limitMs: number;
  readonly clock: Clock;
}

function unaryCall<I extends DescMessage, O extends DescMessage>({
  endpoint,
  method,
  request,
  metadata,
  limitMs,
  clock,
}: UnaryCall<I, O>): Promise<Attempt<MessageShape<O>>> {
  if (limitMs <= 0)
    return Promise.resolve({ kind: 'failed', sent: false, error: { code: status.DEADLINE_EXCEEDED, details: `no time left for ${endpoint.url}` } });
  return new Promise((resolve) => {
    const done = (cause: ServiceError | null, value?: MessageShape<O>): void => {
      clearTimeout(timer);
      if (cause === null && value !== undefined) resolve({ kind: 'answer', value });
      else
        resolve({
          kind: 'failed',
          sent: true,
          error: { code: cause?.code ?? status.UNKNOWN, details: `${cause?.details ?? 'no answer'} (${endpoint.url})` },
        });
    };
    // gRPC's deadline tells the server when to give up; it is wall time, so a second, monotonic limit stands behind it.
    const deadline = clock.now().wall + limitMs;
    const call = endpoint.client.makeUnaryRequest(method.path, method.serialize, method.deserialize, request, metadata, { deadline }, done);
    const timer = setTimeout(() => call.cancel(), limitMs + 20);
  });
}
