/**
 * The server's side of SCRAM-SHA-256: a proxy checks its clients with the secret that PostgreSQL stores, and recovers from a right proof the key
 * with which it can log in, as that user, to every server that stores the same secret. Physical standbys do, so no password is kept anywhere.
 *
 * *Invariant:* keys come out of `finishServer` only for a client that knows the password (or the key) of the secret.
 * *Because:* StoredKey is the hash of ClientKey; the proof is ClientKey XOR a signature over both nonces, made with StoredKey.
 * *Broken if:* the nonce of this side repeats: a recorded proof would be valid again. The caller takes 18 random bytes for each conversation.
 *
 * Source: RFC 5802; src/backend/libpq/auth-scram.c.
 */
import { decodeBase64, encodeBase64 } from './base64.ts';
import {
  SCRAM,
  SCRAM_PLUS,
  type ScramHashes,
  type ScramKeys,
  type ScramSecret,
  attribute,
  equalKeys,
  isNonce,
  latin1,
  latin1Bytes,
  xorKeys,
} from './scram.ts';

/** What this side can prove about its own channel: the hash of its certificate (RFC 5929 §4.1), or that there is none. */
export type ServerChannel = { readonly kind: 'plain' } | { readonly kind: 'tls'; readonly endPoint: Uint8Array } | { readonly kind: 'tls-unbound' };

export interface ServerConversation {
  readonly secret: ScramSecret;
  readonly clientFirstBare: string;
  readonly serverFirst: string;
  readonly nonce: string;
  /** What the client must repeat in its last message: its header and the channel's data, in base64. */
  readonly binding: string;
}

/** `why` is for the log; a client that could not prove itself is told only that the authentication failed (28P01), a broken message is 08P01. */
export type ScramRefusal = { readonly kind: 'malformed' | 'refused'; readonly why: string };

/** The mechanisms to offer, the strongest first. */
export function offeredMechanisms(channel: ServerChannel): readonly string[] {
  return channel.kind === 'tls' ? [SCRAM_PLUS, SCRAM] : [SCRAM];
}

/** Reads the client's first message. `nonce`: printable ASCII without commas, new for each conversation. */
export function beginServer(options: {
  readonly secret: ScramSecret;
  readonly channel: ServerChannel;
  readonly mechanism: string;
  readonly data: Uint8Array;
  readonly nonce: string;
}): { readonly kind: 'continue'; readonly answer: Uint8Array; readonly conversation: ServerConversation } | ScramRefusal {
  const { secret, channel, mechanism, nonce } = options;
  if (!offeredMechanisms(channel).includes(mechanism)) return malformed('a mechanism that was not offered');
  const text = latin1(options.data);
  const match = /^(n|y|p=[A-Za-z0-9.-]+),([^,]*),(.*)$/s.exec(text);
  if (match === null) return malformed('no header in the first message');
  const [, flag = '', authorization = '', bare = ''] = match;
  if (authorization !== '') return malformed('an authorization identity, which is not supported');
  const binding = readBinding({ flag, mechanism, channel });
  if (typeof binding !== 'string') return binding;
  const parts = bare.split(',');
  // The name here is ignored: the one of the start packet counts. `m=` would be an extension that must be understood.
  const clientNonce = attribute(parts, 1, 'r');
  if (attribute(parts, 0, 'n') === null || clientNonce === null || !isNonce(clientNonce)) return malformed('no name and nonce in the first message');
  const whole = clientNonce + nonce;
  const serverFirst = `r=${whole},s=${encodeBase64(secret.salt)},i=${secret.iterations}`;
  return { kind: 'continue', answer: latin1Bytes(serverFirst), conversation: { secret, clientFirstBare: bare, serverFirst, nonce: whole, binding } };
}

function readBinding({ flag, mechanism, channel }: { flag: string; mechanism: string; channel: ServerChannel }): string | ScramRefusal {
  if (flag.startsWith('p=')) {
    if (mechanism !== SCRAM_PLUS || channel.kind !== 'tls') return malformed('channel binding without its mechanism');
    if (flag !== 'p=tls-server-end-point') return malformed(`the channel binding type ${flag.slice(2)}`);
    return encodeBase64(latin1Bytes(`${flag},,${latin1(channel.endPoint)}`));
  }
  if (mechanism === SCRAM_PLUS) return malformed('a mechanism with channel binding, without one');
  // The client can bind and believes that this side cannot: somebody between took the offer out.
  if (flag === 'y' && channel.kind === 'tls') return { kind: 'refused', why: 'the client was not offered channel binding, but this side offered it' };
  return encodeBase64(latin1Bytes(`${flag},,`));
}

/**
 * Checks the client's last message. `answer` is the data of AuthenticationSASLFinal. Wrong password and unknown user are both `refused`.
 */
export function finishServer(
  hashes: ScramHashes,
  conversation: ServerConversation,
  data: Uint8Array,
): { readonly kind: 'proved'; readonly answer: Uint8Array; readonly keys: ScramKeys } | ScramRefusal {
  const text = latin1(data);
  const proofAt = text.lastIndexOf(',p=');
  if (proofAt === -1) return malformed('no proof in the last message');
  const withoutProof = text.slice(0, proofAt);
  const parts = withoutProof.split(',');
  const proof = decodeBase64(text.slice(proofAt + 3));
  if (proof === null || proof.length !== 32) return malformed('a proof that is not 32 bytes in base64');
  if (attribute(parts, 0, 'c') !== conversation.binding) return { kind: 'refused', why: 'the channel binding does not match' };
  if (attribute(parts, 1, 'r') !== conversation.nonce) return malformed('a nonce that is not the one of this conversation');
  const { secret } = conversation;
  const signed = latin1Bytes(`${conversation.clientFirstBare},${conversation.serverFirst},${withoutProof}`);
  const clientKey = xorKeys(proof, hashes.hmac(secret.storedKey, signed));
  if (!equalKeys(hashes.hash(clientKey), secret.storedKey)) return { kind: 'refused', why: 'the proof does not fit the stored secret' };
  const signature = hashes.hmac(secret.serverKey, signed);
  return { kind: 'proved', answer: latin1Bytes(`v=${encodeBase64(signature)}`), keys: { clientKey, serverKey: secret.serverKey } };
}

function malformed(why: string): ScramRefusal {
  return { kind: 'malformed', why };
}
