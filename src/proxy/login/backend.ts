/** A connection to a node, logged in as the client's user with the key that its proof gave. */
import { type Clock, realClock } from '../../base/clock.ts';
import { type MonoMs, addMono } from '../../core/ids.ts';
import { type Result, err, ok } from '../../core/result.ts';
import type { RouteTarget } from '../../core/route/decide.ts';
import { buildError, readAuthentication, readBackendKey, readErrorFields, readParameterStatus, readSaslMechanisms } from '../../wire/backend.ts';
import { buildMessage } from '../../wire/bytes.ts';
import { buildSaslInitialResponse, buildSaslResponse } from '../../wire/frontend.ts';
import { AUTHENTICATION, BACKEND, BACKEND_LIMITS } from '../../wire/protocol.ts';
import { SCRAM } from '../../wire/scram.ts';
import { type ClientConversation, type ClientCredentials, beginClient, continueClient, finishClient } from '../../wire/scram-client.ts';
import { type CancelKey, type Startup, buildCancel, buildSslRequest, buildStartup } from '../../wire/startup.ts';
import { type Io, type Opening, dial } from '../io/door.ts';
import type { ByteStream } from '../io/stream.ts';
import { HASHES, makeNonce } from './hashes.ts';
import { MessageReader } from './message-reader.ts';

export interface Backend {
  readonly target: RouteTarget;
  readonly stream: ByteStream;
  readonly key: CancelKey | null;
  /** What the server reported at the start. */
  readonly parameters: ReadonlyMap<string, string>;
}

export interface BackendFailure {
  /** `unreachable`: no server answered properly. `refused`: it said no; `message` is its own ErrorResponse. `stale`: the user's secret was changed. */
  readonly kind: 'unreachable' | 'refused' | 'stale';
  readonly sqlState: string;
  readonly why: string;
  readonly message: Uint8Array;
}

export interface BackendOptions {
  readonly io: Io;
  /** PEM of the authority for TLS; null: clear text. */
  readonly ca: string | null;
  readonly limitMs: number;
  readonly startup: Startup;
  readonly credentials: ClientCredentials;
  readonly clock?: Clock;
}

/** Never rejects. */
export async function openBackend(target: RouteTarget, options: BackendOptions): Promise<Result<Backend, BackendFailure>> {
  const clock = options.clock ?? realClock;
  const deadline = addMono(clock.now().mono, options.limitMs);
  const dialled = await dial(target, options.limitMs);
  if (!dialled.ok) return err(unreachable(target, dialled.error));
  const opening = dialled.value;
  if (options.ca !== null) {
    const secured = await startTls(opening, options.ca, { clock, deadline });
    if (secured !== null) {
      opening.close();
      return err(unreachable(target, secured));
    }
  }
  opening.write(buildStartup(options.startup));
  const result = await logIn(target, opening, new MessageReader(opening, { clock, deadline }), options);
  if (!result.ok) opening.close();
  return result;
}

function unreachable(target: RouteTarget, why: string): BackendFailure {
  const message = buildError({ severity: 'FATAL', sqlState: '08006', message: `the proxy has no connection to ${target.node}`, detail: why });
  return { kind: 'unreachable', sqlState: '08006', why, message };
}

async function startTls(opening: Opening, ca: string, { clock, deadline }: { clock: Clock; deadline: MonoMs }): Promise<string | null> {
  opening.write(buildSslRequest());
  const left = (): number => Math.max(1, deadline - clock.now().mono);
  const answer = await opening.read(left());
  if (answer === null || answer.length !== 1 || answer[0] !== 0x53)
    return 'the server does not speak TLS, and the proxy is configured to insist on it';
  return (await opening.startTls({ ca, limitMs: left() })) ? null : 'the TLS handshake failed: is its certificate one of this installation?';
}

interface Conversation {
  client: ClientConversation | null;
  signature: Uint8Array | null;
  proved: boolean;
}

async function logIn(
  target: RouteTarget,
  opening: Opening,
  reader: MessageReader,
  options: BackendOptions,
): Promise<Result<Backend, BackendFailure>> {
  const parameters = new Map<string, string>();
  const scram: Conversation = { client: null, signature: null, proved: false };
  let key: CancelKey | null = null;
  for (;;) {
    const message = await reader.next(BACKEND_LIMITS);
    if (message === 'ended') return err(unreachable(target, 'it ended the connection, or was silent for too long, during the login'));
    if (message === 'bad') return err(unreachable(target, 'what answered is no PostgreSQL server, or has no memory for a new process'));
    const { type, body } = message;
    switch (type) {
      case BACKEND.authentication: {
        const failure = answerAuthentication(target, opening, body, scram, options.credentials);
        if (failure !== null) return err(failure);
        break;
      }
      case BACKEND.parameterStatus: {
        const found = readParameterStatus(body, 0, body.length);
        if (found !== null) parameters.set(found.name, found.value);
        break;
      }
      case BACKEND.backendKeyData:
        key = readBackendKey(body, 0, body.length);
        break;
      case BACKEND.errorResponse: {
        const fields = readErrorFields(body, 0, body.length);
        return err({
          kind: 'refused',
          sqlState: fields?.get('C') ?? '',
          why: fields?.get('M') ?? '',
          message: buildMessage(BACKEND.errorResponse, body),
        });
      }
      case BACKEND.readyForQuery: {
        const { stream, rest } = opening.stream(options.io);
        // A server says nothing after ReadyForQuery until it is asked; what is here is its goodbye.
        if (rest !== null || reader.bytes.length > 0) {
          stream.destroy();
          return err(unreachable(target, 'it ended the session at once'));
        }
        return ok({ target, stream, key, parameters });
      }
      default:
    }
  }
}

/** Null: go on. A server that asks for nothing (trust) is fine: the client has proved itself to the proxy. */
function answerAuthentication(
  target: RouteTarget,
  opening: Opening,
  body: Uint8Array,
  scram: Conversation,
  credentials: ClientCredentials,
): BackendFailure | null {
  const request = readAuthentication(body, 0, body.length);
  if (request === null) return unreachable(target, 'its authentication request cannot be read');
  switch (request.code) {
    case AUTHENTICATION.ok:
      return scram.client === null || scram.proved ? null : unreachable(target, 'it accepted the login without proving that it knows the user');
    case AUTHENTICATION.sasl: {
      if (readSaslMechanisms(request.data)?.includes(SCRAM) !== true) return unreachable(target, 'it offers no SCRAM-SHA-256');
      const { message, conversation } = beginClient({ nonce: makeNonce(), channel: { kind: 'none' } });
      scram.client = conversation;
      opening.write(buildSaslInitialResponse(SCRAM, message));
      return null;
    }
    case AUTHENTICATION.saslContinue: {
      if (scram.client === null) return unreachable(target, 'its SCRAM messages are out of order');
      const answer = continueClient(HASHES, scram.client, credentials, request.data);
      if (answer.kind === 'other-secret') return { ...unreachable(target, answer.why), kind: 'stale', sqlState: '28P01' };
      if (answer.kind !== 'continue') return unreachable(target, answer.why);
      scram.signature = answer.signature;
      opening.write(buildSaslResponse(answer.message));
      return null;
    }
    case AUTHENTICATION.saslFinal: {
      const wrong = scram.signature === null ? { why: 'its SCRAM messages are out of order' } : finishClient(scram.signature, request.data);
      if (wrong !== null) return unreachable(target, wrong.why);
      scram.proved = true;
      return null;
    }
    default:
      return unreachable(target, `its pg_hba.conf asks this user for authentication method ${request.code}; the proxy can only do scram-sha-256`);
  }
}

/** Asks the node to cancel what the session does now. False when it may still be on its way: PostgreSQL answers with the end of the connection. Never rejects. */
export async function sendCancel(
  target: RouteTarget,
  key: CancelKey,
  options: { readonly ca: string | null; readonly limitMs: number },
): Promise<boolean> {
  const dialled = await dial(target, options.limitMs);
  if (!dialled.ok) return true;
  const opening = dialled.value;
  if (options.ca !== null) {
    const deadline = addMono(realClock.now().mono, options.limitMs);
    if ((await startTls(opening, options.ca, { clock: realClock, deadline })) !== null) {
      opening.close();
      return true;
    }
  }
  const sentAt = realClock.now().mono;
  opening.write(buildCancel(key));
  await opening.read(options.limitMs);
  opening.close();
  return realClock.now().mono - sentAt < options.limitMs;
}

/** The client's own start packet, in the one protocol version that both sides speak; options of newer versions were declined. */
export function backendStartup(startup: Startup): Startup {
  return { major: 3, minor: 0, parameters: startup.parameters.filter(([name]) => !name.startsWith('_pq_.')) };
}
