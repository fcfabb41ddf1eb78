/**
 * The client's side of SCRAM-SHA-256, with a password or with keys that a right proof of the same user gave (scram-server.ts).
 * Source: RFC 5802; src/interfaces/libpq/fe-auth-scram.c.
 */
import { decodeBase64, encodeBase64 } from './base64.ts';
import {
  MAX_ITERATIONS,
  type ScramHashes,
  type ScramKeys,
  type ScramSecret,
  attribute,
  deriveKeys,
  equalKeys,
  isNonce,
  latin1,
  latin1Bytes,
  xorKeys,
} from './scram.ts';

/**
 * `bound`: SCRAM-SHA-256-PLUS, with the hash of the server's certificate. `unbound`: TLS, and the server offered no binding, but this side could have.
 * `none`: this side cannot bind, or the connection is not encrypted.
 */
export type ClientChannel = { readonly kind: 'none' } | { readonly kind: 'unbound' } | { readonly kind: 'bound'; readonly endPoint: Uint8Array };

/** What this side logs in with. Keys fit only a server with the same salt and iterations, hence the secret that they came from. */
export type ClientCredentials =
  | { readonly kind: 'password'; readonly password: string }
  | { readonly kind: 'keys'; readonly keys: ScramKeys; readonly secret: Pick<ScramSecret, 'salt' | 'iterations'> };

export interface ClientConversation {
  readonly header: string;
  readonly firstBare: string;
  readonly nonce: string;
  readonly channel: ClientChannel;
}

export type ClientRefusal =
  /** Not what a server says. */
  | { readonly kind: 'malformed'; readonly why: string }
  /** The server stores another secret for the user than the one the keys came from: its password was changed in between. Log in anew. */
  | { readonly kind: 'other-secret'; readonly why: string }
  /** The server said an error, or could not prove that it knows the secret. */
  | { readonly kind: 'refused'; readonly why: string };

/** `nonce`: printable ASCII without commas, random, new for each conversation. `message` is the data of SASLInitialResponse. */
export function beginClient({ nonce, channel }: { nonce: string; channel: ClientChannel }): {
  readonly message: Uint8Array;
  readonly conversation: ClientConversation;
} {
  const header = channel.kind === 'bound' ? 'p=tls-server-end-point,,' : channel.kind === 'unbound' ? 'y,,' : 'n,,';
  // PostgreSQL ignores the name here; libpq sends an empty one too.
  const firstBare = `n=,r=${nonce}`;
  return { message: latin1Bytes(header + firstBare), conversation: { header, firstBare, nonce, channel } };
}

/** Answers the server's first message (data of AuthenticationSASLContinue). `signature` is what the server must prove in its last one. */
export function continueClient(
  hashes: ScramHashes,
  conversation: ClientConversation,
  credentials: ClientCredentials,
  data: Uint8Array,
): { readonly kind: 'continue'; readonly message: Uint8Array; readonly signature: Uint8Array } | ClientRefusal {
  const serverFirst = latin1(data);
  const parts = serverFirst.split(',');
  const nonce = attribute(parts, 0, 'r');
  const salt = decodeBase64(attribute(parts, 1, 's') ?? '');
  const count = attribute(parts, 2, 'i') ?? '';
  if (nonce === null || salt === null || salt.length === 0 || !/^[0-9]{1,8}$/.test(count))
    return { kind: 'malformed', why: 'no nonce, salt and iterations in the first message of the server' };
  if (!nonce.startsWith(conversation.nonce) || nonce.length === conversation.nonce.length || !isNonce(nonce))
    return { kind: 'malformed', why: 'the nonce of the server does not continue the one of this side' };
  const iterations = Number(count);
  if (iterations < 1 || iterations > MAX_ITERATIONS) return { kind: 'malformed', why: `${iterations} iterations` };
  if (credentials.kind === 'keys' && (iterations !== credentials.secret.iterations || !equalKeys(salt, credentials.secret.salt)))
    return { kind: 'other-secret', why: 'salt or iterations are not those of the secret that the keys came from' };
  const keys = credentials.kind === 'keys' ? credentials.keys : deriveKeys(hashes, { password: credentials.password, salt, iterations });
  const endPoint = conversation.channel.kind === 'bound' ? latin1(conversation.channel.endPoint) : '';
  const withoutProof = `c=${encodeBase64(latin1Bytes(conversation.header + endPoint))},r=${nonce}`;
  const signed = latin1Bytes(`${conversation.firstBare},${serverFirst},${withoutProof}`);
  const proof = xorKeys(keys.clientKey, hashes.hmac(hashes.hash(keys.clientKey), signed));
  return { kind: 'continue', message: latin1Bytes(`${withoutProof},p=${encodeBase64(proof)}`), signature: hashes.hmac(keys.serverKey, signed) };
}

/** Checks the server's last message (data of AuthenticationSASLFinal); null when the server has proved that it knows the secret. */
export function finishClient(signature: Uint8Array, data: Uint8Array): ClientRefusal | null {
  const text = latin1(data);
  if (text.startsWith('e=')) return { kind: 'refused', why: `the server says ${text.slice(2)}` };
  const parts = text.split(',');
  const proved = decodeBase64(attribute(parts, 0, 'v') ?? '');
  if (proved === null || proved.length === 0) return { kind: 'malformed', why: 'no signature in the last message of the server' };
  return equalKeys(proved, signature) ? null : { kind: 'refused', why: 'the server does not know the secret of the user' };
}
