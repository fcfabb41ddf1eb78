/**
 * SCRAM-SHA-256, what both sides share: keys, the stored secret, signatures. The sides themselves: scram-server.ts, scram-client.ts.
 * Hash functions are given by the caller, so that this stays pure.
 * Source: RFC 5802, RFC 7677; src/common/scram-common.c of PostgreSQL.
 */
import { decodeBase64, encodeBase64 } from './base64.ts';
import { encodeText } from './bytes.ts';

/** SHA-256 and HMAC-SHA-256, 32 bytes each; PBKDF2 with HMAC-SHA-256 to 32 bytes. */
export interface ScramHashes {
  readonly hash: (data: Uint8Array) => Uint8Array;
  readonly hmac: (key: Uint8Array, data: Uint8Array) => Uint8Array;
  readonly pbkdf2: (password: Uint8Array, salt: Uint8Array, iterations: number) => Uint8Array;
}

export const SCRAM = 'SCRAM-SHA-256';
export const SCRAM_PLUS = 'SCRAM-SHA-256-PLUS';
export const KEY_BYTES = 32;
/** More than any real setting: a server, or one who plays its part, must not be able to make this side compute for minutes. */
export const MAX_ITERATIONS = 10_000_000;

/** What a server stores instead of a password: enough to check a proof, not to make one. */
export interface ScramSecret {
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly storedKey: Uint8Array;
  readonly serverKey: Uint8Array;
}

/** What a client needs to log in wherever the same secret is stored: as good as the password there. Never log it. */
export interface ScramKeys {
  readonly clientKey: Uint8Array;
  readonly serverKey: Uint8Array;
}

const SECRET = /^SCRAM-SHA-256\$([0-9]{1,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)$/;

/**
 * Reads `rolpassword` of pg_authid; null when it is no SCRAM secret (MD5, none, broken).
 * Source: parse_scram_secret, src/backend/libpq/auth-scram.c.
 */
export function parseScramSecret(text: string): ScramSecret | null {
  const match = SECRET.exec(text);
  if (match === null) return null;
  const iterations = Number(match[1]);
  const salt = decodeBase64(match[2] ?? '');
  const storedKey = decodeBase64(match[3] ?? '');
  const serverKey = decodeBase64(match[4] ?? '');
  if (salt === null || storedKey === null || serverKey === null) return null;
  if (iterations < 1 || iterations > MAX_ITERATIONS || storedKey.length !== KEY_BYTES || serverKey.length !== KEY_BYTES) return null;
  return { iterations, salt, storedKey, serverKey };
}

export function formatScramSecret(secret: ScramSecret): string {
  return `${SCRAM}$${secret.iterations}:${encodeBase64(secret.salt)}$${encodeBase64(secret.storedKey)}:${encodeBase64(secret.serverKey)}`;
}

/** The keys of a password, with the salt and iterations of the server that is asked. Costs as much time as the iterations say. */
export function deriveKeys(
  hashes: ScramHashes,
  { password, salt, iterations }: { password: string; salt: Uint8Array; iterations: number },
): ScramKeys {
  const salted = hashes.pbkdf2(encodeText(preparePassword(password)), salt, iterations);
  return { clientKey: hashes.hmac(salted, encodeText('Client Key')), serverKey: hashes.hmac(salted, encodeText('Server Key')) };
}

/** The secret that a server would store for a password. */
export function makeScramSecret(
  hashes: ScramHashes,
  { password, salt, iterations }: { password: string; salt: Uint8Array; iterations: number },
): ScramSecret {
  const { clientKey, serverKey } = deriveKeys(hashes, { password, salt, iterations });
  return { iterations, salt, storedKey: hashes.hash(clientKey), serverKey };
}

/**
 * A secret that no password fits, for a user who does not exist or has no SCRAM secret: the conversation looks like any other, and the salt is the same
 * each time, so that a client cannot learn which users exist. `nonce` is random and stays the same for the life of the cluster or the proxy.
 * Source: mock_scram_secret, src/backend/libpq/auth-scram.c.
 */
export function makeMockSecret(hashes: ScramHashes, { user, nonce }: { user: string; nonce: Uint8Array }): ScramSecret {
  const name = encodeText(user);
  const seed = new Uint8Array(name.length + nonce.length);
  seed.set(name);
  seed.set(nonce, name.length);
  const impossible = new Uint8Array(KEY_BYTES);
  return { iterations: 4096, salt: hashes.hash(seed).slice(0, 16), storedKey: impossible, serverKey: impossible };
}

/**
 * SASLprep (RFC 4013) as PostgreSQL applies it: a password that may not be prepared is used as it is. Passwords of ASCII stay what they are. Of the
 * reasons not to prepare, unassigned code points of Unicode 3.2 and the mixing of directions are not checked.
 * Source: pg_saslprep, src/common/saslprep.c.
 */
function preparePassword(password: string): string {
  let ascii = true;
  for (let i = 0; i < password.length; i++) if (password.charCodeAt(i) > 0x7f) ascii = false;
  if (ascii) return password;
  const prepared = password.replace(NON_ASCII_SPACE, ' ').replace(MAPPED_TO_NOTHING, '').normalize('NFKC');
  return PROHIBITED.test(prepared) ? password : prepared;
}

/** RFC 3454 tables C.1.2, B.1, and C.2.1–C.9 as far as they are properties of a single character. */
const NON_ASCII_SPACE = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;
const MAPPED_TO_NOTHING = /\u00ad|\u034f|\u1806|\u180b|\u180c|\u180d|\u200c|\u200d|\u2060|[\ufe00-\ufe0f]|\ufeff/gu;
const PROHIBITED =
  /[\p{Cc}\p{Co}\p{Cs}\p{Noncharacter_Code_Point}\u06dd\u070f\u180e\u2028\u2029\u2061-\u2063\u206a-\u206f\ufff9-\ufffd\u{1d173}-\u{1d17a}\u2ff0-\u2ffb\u200e\u200f\u202a-\u202e\u{e0001}\u{e0020}-\u{e007f}]|\u0340|\u0341/u;

export function xorKeys(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(KEY_BYTES);
  for (let i = 0; i < KEY_BYTES; i++) out[i] = (a[i] as number) ^ (b[i] as number);
  return out;
}

/** Takes the same time wherever the first difference is. */
export function equalKeys(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= (a[i] as number) ^ (b[i] as number);
  return difference === 0;
}

/** The text in the bytes, one character a byte: messages of SCRAM are ASCII but for names, which are not used. */
export function latin1(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

export function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Printable ASCII but the comma. Source: RFC 5802 §7, `printable`. */
export function isNonce(text: string): boolean {
  return /^[\x21-\x2b\x2d-\x7e]+$/.test(text);
}

/** The value of the attribute at the given place of the list; null when another one stands there. */
export function attribute(parts: readonly string[], index: number, name: string): string | null {
  const part = parts[index];
  return part?.startsWith(`${name}=`) === true ? part.slice(2) : null;
}
