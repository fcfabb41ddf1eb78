/** One gRPC channel to one endpoint: how it is opened, when it is ready, one call on it. */
import { isIP } from 'node:net';
import { type PeerCertificate, checkServerIdentity } from 'node:tls';
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { type ChannelCredentials, Client, type Metadata, type ServiceError, connectivityState, credentials, status } from '@grpc/grpc-js';
import type { Clock } from '../base/clock.ts';
import type { RpcError } from './classify.ts';
import { type TlsFiles, readPem } from './pem.ts';
import type { Method } from './proto/services.ts';

export type Attempt<O> =
  | { readonly kind: 'answer'; readonly value: O }
  /** `sent`: the request may have reached the server. */
  | { readonly kind: 'failed'; readonly error: RpcError; readonly sent: boolean }
  | { readonly kind: 'foreign'; readonly message: string };

/** Throws when the URL is none or a PEM file cannot be read: mistakes of configuration, found at start. */
export function openClient(url: string, tls: TlsFiles | null): Client {
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
export async function waitReady(client: Client, limitMs: number, clock: Clock): Promise<number | null> {
  const channel = client.getChannel();
  const until = clock.now().mono + limitMs;
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) return null;
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) return status.UNAVAILABLE;
    const leftMs = until - clock.now().mono;
    if (leftMs <= 0) return status.DEADLINE_EXCEEDED;
    const watched = await new Promise<boolean>((resolve) => {
      try {
        channel.watchConnectivityState(state, clock.now().wall + Math.max(1, leftMs), () => resolve(true));
      } catch {
        // It throws for a channel that was closed since the look, and only then. Source: grpc-js, internal-channel.ts, watchConnectivityState.
        resolve(false);
      }
    });
    if (!watched) return status.UNAVAILABLE;
  }
}

export interface UnaryCall<I extends DescMessage, O extends DescMessage> {
  readonly client: Client;
  readonly url: string;
  readonly method: Method<I, O>;
  readonly request: MessageShape<I>;
  readonly metadata: Metadata;
  readonly limitMs: number;
  readonly clock: Clock;
  /** Ends the call early: its endpoint was given up. What was sent is as unclear as after its limit. */
  readonly signal: AbortSignal;
}

export function unaryCall<I extends DescMessage, O extends DescMessage>({
  client,
  url,
  method,
  request,
  metadata,
  limitMs,
  clock,
  signal,
}: UnaryCall<I, O>): Promise<Attempt<MessageShape<O>>> {
  if (limitMs <= 0)
    return Promise.resolve({ kind: 'failed', sent: false, error: { code: status.DEADLINE_EXCEEDED, details: `no time left for ${url}` } });
  return new Promise((resolve) => {
    const done = (cause: ServiceError | null, value?: MessageShape<O>): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
      if (cause === null && value !== undefined) resolve({ kind: 'answer', value });
      else
        resolve({
          kind: 'failed',
          sent: true,
          error: { code: cause?.code ?? status.UNKNOWN, details: `${cause?.details ?? 'no answer'} (${url})` },
        });
    };
    // gRPC's deadline tells the server when to give up; it is wall time, so a second, monotonic limit stands behind it.
    const deadline = clock.now().wall + limitMs;
    const call = client.makeUnaryRequest(method.path, method.serialize, method.deserialize, request, metadata, { deadline }, done);
    const giveUp = (): void => call.cancel();
    const timer = setTimeout(giveUp, limitMs + 20);
    signal.addEventListener('abort', giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}
