/**
 * The first packet of a client: what it wants, before messages have a type byte.
 * Source: PostgreSQL manual, "Message Formats" (StartupMessage, SSLRequest, GSSENCRequest, CancelRequest); ProcessStartupPacket in
 * src/backend/tcop/backend_startup.c (postmaster.c before 17).
 */
import { cString, decodeText, findZero, int32, joinBytes, readInt32, writeInt32 } from './bytes.ts';
import { MAX_STARTUP_BYTES, STARTUP_CODE } from './protocol.ts';

export type StartupPacket =
  /** `bytes` is what the packet needs in all; it is at most MAX_STARTUP_BYTES. */
  | { readonly kind: 'more'; readonly bytes: number }
  /** The client asks for TLS; the answer is one byte, `S` or `N`, and then another first packet comes. */
  | { readonly kind: 'ssl'; readonly bytes: number }
  | { readonly kind: 'gss-encryption'; readonly bytes: number }
  | { readonly kind: 'cancel'; readonly bytes: number; readonly key: CancelKey }
  | { readonly kind: 'startup'; readonly bytes: number; readonly startup: Startup }
  | { readonly kind: 'bad'; readonly why: string };

/** What a server gave to a session so that another connection can cancel its statement. */
export interface CancelKey {
  readonly processId: number;
  /** 4 bytes in protocol 3.0, up to 256 in 3.2. */
  readonly secret: Uint8Array;
}

export interface Startup {
  readonly major: number;
  readonly minor: number;
  /** In the client's order; names can repeat, and then a server takes the last. */
  readonly parameters: readonly (readonly [name: string, value: string])[];
}

const MAX_SECRET_BYTES = 256;

/**
 * Reads the packet that begins at `at`; `end` is the offset behind the last byte that has arrived. `bytes` of the answer is the packet's length: what
 * stands behind it belongs to the next message. After `ssl` such a rest must close the connection: it was sent in clear text before the
 * handshake, by whom is unknown (CVE-2021-23214). A TLS ClientHello without a request (`sslnegotiation=direct`) is `bad`.
 */
export function readStartup(bytes: Uint8Array, at: number, end: number): StartupPacket {
  if (end - at < 4) {
    // What no packet can begin with is refused at once: a client that speaks another protocol may wait for an answer for ever.
    if (end > at && bytes[at] !== 0) return { kind: 'bad', why: 'the first bytes are no length of a PostgreSQL start packet' };
    return { kind: 'more', bytes: 8 };
  }
  const length = readInt32(bytes, at);
  if (length < 8 || length > MAX_STARTUP_BYTES)
    return { kind: 'bad', why: `the length ${length} of the start packet is not between 8 and ${MAX_STARTUP_BYTES}` };
  if (end - at < 8) return { kind: 'more', bytes: length };
  const code = readInt32(bytes, at + 4);
  if (code === STARTUP_CODE.ssl || code === STARTUP_CODE.gssEncryption) {
    if (length !== 8) return { kind: 'bad', why: `a request for encryption has 8 bytes, not ${length}` };
    return { kind: code === STARTUP_CODE.ssl ? 'ssl' : 'gss-encryption', bytes: 8 };
  }
  if (end - at < length) return { kind: 'more', bytes: length };
  if (code === STARTUP_CODE.cancel) return readCancel(bytes, at, length);
  const major = code >>> 16;
  if (major !== 3) return { kind: 'bad', why: `protocol version ${major}.${code & 0xffff} is not supported, only 3` };
  const parameters = readParameters(bytes, at + 8, at + length);
  if (parameters === null) return { kind: 'bad', why: 'the parameters of the start packet are cut off' };
  return { kind: 'startup', bytes: length, startup: { major, minor: code & 0xffff, parameters } };
}

function readCancel(bytes: Uint8Array, at: number, length: number): StartupPacket {
  if (length <= 12 || length > 12 + MAX_SECRET_BYTES) return { kind: 'bad', why: `a cancel request of ${length} bytes` };
  return { kind: 'cancel', bytes: length, key: { processId: readInt32(bytes, at + 8), secret: bytes.slice(at + 12, at + length) } };
}

/** Null when a string has no end, or the list has none, or something stands behind its end. */
function readParameters(bytes: Uint8Array, from: number, end: number): readonly (readonly [string, string])[] | null {
  const parameters: (readonly [string, string])[] = [];
  let at = from;
  while (at < end) {
    if (bytes[at] === 0) return at + 1 === end ? parameters : null;
    const nameEnd = findZero(bytes, at, end);
    if (nameEnd === -1) return null;
    const valueEnd = findZero(bytes, nameEnd + 1, end);
    if (valueEnd === -1) return null;
    parameters.push([decodeText(bytes, at, nameEnd), decodeText(bytes, nameEnd + 1, valueEnd)]);
    at = valueEnd + 1;
  }
  return null;
}

/** The last value of the name; null when it is not there. */
export function findParameter(startup: Startup, name: string): string | null {
  for (let i = startup.parameters.length - 1; i >= 0; i--) if (startup.parameters[i]?.[0] === name) return startup.parameters[i]?.[1] ?? null;
  return null;
}

/** The database that the client means: without the parameter it is the user's name. Null when there is no user, which a server refuses. */
export function findDatabase(startup: Startup): string | null {
  const user = findParameter(startup, 'user');
  if (user === null || user === '') return null;
  const database = findParameter(startup, 'database');
  return database === null || database === '' ? user : database;
}

/** What `replication` asks for: walsenders speak the same protocol, but their statements are no SQL. A value that is none counts as `yes`. */
export function isReplication(startup: Startup): boolean {
  const value = findParameter(startup, 'replication')?.toLowerCase();
  return value !== undefined && value !== '' && !['false', 'off', 'no', '0', 'f', 'n'].includes(value);
}

export function buildStartup(startup: Startup): Uint8Array {
  const pairs = startup.parameters.flatMap(([name, value]) => [cString(name), cString(value)]);
  return withLength([int32((startup.major << 16) | startup.minor), ...pairs, new Uint8Array(1)]);
}

export function buildCancel(key: CancelKey): Uint8Array {
  return withLength([int32(STARTUP_CODE.cancel), int32(key.processId), key.secret]);
}

export function buildSslRequest(): Uint8Array {
  return withLength([int32(STARTUP_CODE.ssl)]);
}

function withLength(parts: readonly Uint8Array[]): Uint8Array {
  const out = joinBytes([new Uint8Array(4), ...parts]);
  writeInt32(out, 0, out.length);
  return out;
}
