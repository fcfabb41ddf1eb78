/**
 * The client's side of a new session: first packet, TLS, SCRAM. The proxy checks the proof with the secret that PostgreSQL stores and keeps the key that
 * comes out of it, so that it can log in as that user to any node of the cluster: no passwords are kept anywhere.
 */
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import { type Clock, realClock } from '../../base/clock.ts';
import { addMono } from '../../core/ids.ts';
import { buildAuthentication, buildError, buildNegotiation, buildSaslRequest } from '../../wire/backend.ts';
import { readSaslInitialResponse } from '../../wire/frontend.ts';
import { AUTHENTICATION, FRONTEND, LOGIN_LIMITS, MAX_STARTUP_BYTES } from '../../wire/protocol.ts';
import { type ScramKeys, type ScramSecret, makeMockSecret } from '../../wire/scram.ts';
import { type ServerChannel, beginServer, finishServer, offeredMechanisms } from '../../wire/scram-server.ts';
import { type CancelKey, type Startup, findDatabase, findParameter, isReplication, readStartup } from '../../wire/startup.ts';
import type { Io, Opening } from '../io/door.ts';
import type { ByteStream } from '../io/stream.ts';
import { HASHES, makeNonce } from './hashes.ts';
import { MessageReader } from './message-reader.ts';

/** Who is at the other end, proved. `keys` are as good as the password: never logged. */
export interface Login {
  readonly user: string;
  readonly database: string;
  readonly startup: Startup;
  readonly replication: boolean;
  readonly keys: ScramKeys;
  readonly secret: ScramSecret;
  readonly encrypted: boolean;
}

export type ClientArrival =
  | { readonly kind: 'session'; readonly login: Login; readonly stream: ByteStream; readonly rest: Buffer | null }
  | { readonly kind: 'cancel'; readonly key: CancelKey }
  /** Told to the client as far as it can be told; the connection is closed. */
  | { readonly kind: 'refused'; readonly sqlState: string; readonly why: string };

export interface ClientTls {
  readonly mode: 'prefer' | 'require';
  readonly context: SecureContext;
  /** Hash of the certificate as channel binding wants it; null: it cannot be bound. */
  readonly endPoint: Uint8Array | null;
}

export interface LoginOptions {
  readonly io: Io;
  readonly tls: ClientTls | null;
  readonly limitMs: number;
  /** Null: no such user, or none who may log in with a password here. `unknown`: nobody could be asked. */
  readonly findSecret: (user: string, fresh: boolean) => Promise<ScramSecret | null | 'unknown'>;
  readonly clock?: Clock;
}

/** For users who do not exist: the same invented salt each time, so that nobody learns who exists. */
const MOCK_NONCE = randomBytes(32);

/** Never rejects. The opening is closed unless the result is a session, or a cancel request, whose sender waits for the end of the connection. */
export async function receiveClient(opening: Opening, options: LoginOptions): Promise<ClientArrival> {
  const clock = options.clock ?? realClock;
  const deadline = addMono(clock.now().mono, options.limitMs);
  let reader = new MessageReader(opening, { clock, deadline });
  let channel: ServerChannel = { kind: 'plain' };
  for (let requests = 0; requests < MAX_REQUESTS; requests++) {
    const packet = await readPacket(reader);
    if (packet.kind === 'bad') return refuse(opening, '08P01', packet.why);
    if (packet.kind === 'more') return refuse(opening, '08006', 'the client ended before it said what it wants');
    reader.take(packet.bytes);
    if (packet.kind === 'gss-encryption') {
      opening.write(NO);
      continue;
    }
    if (packet.kind === 'ssl') {
      // Bytes that were sent in clear text before the handshake could be anybody's (CVE-2021-23214).
      if (reader.bytes.length > 0) return refuse(opening, '08P01', 'clear text before the TLS handshake');
      if (options.tls === null || channel.kind !== 'plain') {
        opening.write(NO);
        continue;
      }
      opening.write(YES);
      if (!(await opening.acceptTls(options.tls.context, Math.max(1, deadline - clock.now().mono))))
        return { kind: 'refused', sqlState: '08006', why: 'TLS handshake failed' };
      channel = options.tls.endPoint === null ? { kind: 'tls-unbound' } : { kind: 'tls', endPoint: options.tls.endPoint };
      reader = new MessageReader(opening, { clock, deadline });
      continue;
    }
    if (packet.kind === 'cancel') return { kind: 'cancel', key: packet.key };
    if (options.tls?.mode === 'require' && channel.kind === 'plain') return refuse(opening, '28000', 'this port wants TLS');
    return authenticate(opening, reader, { ...options, startup: packet.startup, channel });
  }
  return refuse(opening, '08P01', 'too many requests for encryption');
}

const YES = Buffer.from('S');
const NO = Buffer.from('N');
/** libpq asks for GSS, then for TLS, then says what it wants. */
const MAX_REQUESTS = 4;

async function readPacket(reader: MessageReader): Promise<ReturnType<typeof readStartup>> {
  for (;;) {
    const packet = readStartup(reader.bytes, 0, reader.bytes.length);
    if (packet.kind !== 'more') return packet;
    if (!(await reader.fill(Math.min(MAX_STARTUP_BYTES, Math.max(reader.bytes.length + 1, packet.bytes))))) return packet;
  }
}

function refuse(opening: Opening, sqlState: string, why: string): ClientArrival {
  opening.close(buildError({ severity: 'FATAL', sqlState, message: why }));
  return { kind: 'refused', sqlState, why };
}

interface Asked extends LoginOptions {
  readonly startup: Startup;
  readonly channel: ServerChannel;
}

async function authenticate(opening: Opening, reader: MessageReader, options: Asked): Promise<ClientArrival> {
  const { startup, channel } = options;
  const user = findParameter(startup, 'user');
  const database = findDatabase(startup);
  if (user === null || user === '' || database === null) return refuse(opening, '28000', 'no user name in the start packet');
  const unknown = startup.parameters.map(([name]) => name).filter((name) => name.startsWith('_pq_.'));
  if (startup.minor > 0 || unknown.length > 0) opening.write(buildNegotiation({ minor: 0, unknown }));
  const found = await options.findSecret(user, false);
  if (found === 'unknown') return refuse(opening, '57P03', `no node could be asked for the login secret of "${user}"; try again`);
  const secret = found ?? makeMockSecret(HASHES, { user, nonce: MOCK_NONCE });
  opening.write(buildSaslRequest(offeredMechanisms(channel)));
  const first = await reader.next(LOGIN_LIMITS);
  if (first === 'ended') return closed(opening);
  const initial = first === 'bad' || first.type !== FRONTEND.password ? null : readSaslInitialResponse(first.body, 0, first.body.length);
  if (initial === null) return refuse(opening, '08P01', 'expected an answer to the request for SCRAM-SHA-256');
  const begun = beginServer({ secret, channel, mechanism: initial.mechanism, data: initial.data ?? new Uint8Array(0), nonce: makeNonce() });
  if (begun.kind !== 'continue') return refuse(opening, begun.kind === 'malformed' ? '08P01' : '28000', begun.why);
  opening.write(buildAuthentication(AUTHENTICATION.saslContinue, begun.answer));
  const last = await reader.next(LOGIN_LIMITS);
  if (last === 'ended') return closed(opening);
  if (last === 'bad' || last.type !== FRONTEND.password) return refuse(opening, '08P01', 'expected the proof of SCRAM-SHA-256');
  const proved = finishServer(HASHES, begun.conversation, last.body);
  if (proved.kind !== 'proved') {
    // The password may have been changed since the secret was read: the next attempt finds the new one.
    if (found !== null) await options.findSecret(user, true);
    return proved.kind === 'malformed'
      ? refuse(opening, '08P01', proved.why)
      : refuse(opening, '28P01', `password authentication failed for user "${user}"`);
  }
  opening.write(Buffer.concat([buildAuthentication(AUTHENTICATION.saslFinal, proved.answer), buildAuthentication(AUTHENTICATION.ok)]));
  const early = reader.bytes.length > 0 ? Buffer.from(reader.bytes) : null;
  const { stream, rest } = opening.stream(options.io);
  const login: Login = {
    user,
    database,
    startup,
    replication: isReplication(startup),
    keys: proved.keys,
    secret,
    encrypted: channel.kind !== 'plain',
  };
  return { kind: 'session', login, stream, rest: early === null ? rest : rest === null ? early : Buffer.concat([early, rest]) };
}

function closed(opening: Opening): ClientArrival {
  opening.close();
  return { kind: 'refused', sqlState: '08006', why: 'the client ended, or was silent for too long, while it logged in' };
}

/**
 * Hash of the certificate for the channel binding `tls-server-end-point`: with the hash of its signature, but SHA-256 instead of MD5 and SHA-1.
 * Null for signatures without one hash (Ed25519). *Source:* RFC 5929 §4.1; pgtls_get_peer_certificate_hash in libpq.
 */
export function endPointHash(pem: string): Uint8Array | null {
  const certificate = new X509Certificate(pem);
  const algorithm = (certificate as X509Certificate & { readonly signatureAlgorithm?: string }).signatureAlgorithm?.toLowerCase() ?? '';
  const hash = /sha-?512/.test(algorithm)
    ? 'sha512'
    : /sha-?384/.test(algorithm)
      ? 'sha384'
      : /sha-?(256|1|224)|md5/.test(algorithm)
        ? 'sha256'
        : null;
  return hash === null ? null : createHash(hash).update(certificate.raw).digest();
}
