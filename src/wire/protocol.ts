/**
 * The numbers of the PostgreSQL frontend/backend protocol, version 3.
 * Source: PostgreSQL manual, "Frontend/Backend Protocol" (chapter 55); src/include/libpq/protocol.h, pqcomm.h, libpq.h.
 */

/** Types of messages that a client sends, as their byte. */
export const FRONTEND = {
  bind: 0x42, // B
  close: 0x43, // C
  describe: 0x44, // D
  execute: 0x45, // E
  functionCall: 0x46, // F
  flush: 0x48, // H
  parse: 0x50, // P
  query: 0x51, // Q
  sync: 0x53, // S
  terminate: 0x58, // X
  copyDone: 0x63, // c
  copyData: 0x64, // d
  copyFail: 0x66, // f
  /** A password, or a message of SASL or GSSAPI: which of them is known only from the request that came before. */
  password: 0x70, // p
} as const;

/** Types of messages that a server sends, as their byte. */
export const BACKEND = {
  parseComplete: 0x31, // 1
  bindComplete: 0x32, // 2
  closeComplete: 0x33, // 3
  notificationResponse: 0x41, // A
  commandComplete: 0x43, // C
  dataRow: 0x44, // D
  errorResponse: 0x45, // E
  copyInResponse: 0x47, // G
  copyOutResponse: 0x48, // H
  emptyQueryResponse: 0x49, // I
  backendKeyData: 0x4b, // K
  noticeResponse: 0x4e, // N
  authentication: 0x52, // R
  parameterStatus: 0x53, // S
  rowDescription: 0x54, // T
  functionCallResponse: 0x56, // V
  copyBothResponse: 0x57, // W
  readyForQuery: 0x5a, // Z
  copyDone: 0x63, // c
  copyData: 0x64, // d
  noData: 0x6e, // n
  portalSuspended: 0x73, // s
  parameterDescription: 0x74, // t
  negotiateProtocolVersion: 0x76, // v
} as const;

/** Status byte of ReadyForQuery. */
export const TRANSACTION = {
  idle: 0x49, // I
  open: 0x54, // T
  failed: 0x45, // E
} as const;

/** Code of an Authentication message, its first four bytes. */
export const AUTHENTICATION = {
  ok: 0,
  kerberosV5: 2,
  cleartextPassword: 3,
  md5Password: 5,
  gss: 7,
  gssContinue: 8,
  sspi: 9,
  sasl: 10,
  saslContinue: 11,
  saslFinal: 12,
} as const;

/** The code in the place of the protocol's version, first packet of a connection. */
export const STARTUP_CODE = {
  cancel: 80877102,
  ssl: 80877103,
  gssEncryption: 80877104,
} as const;

/** First packet of a connection, its length field included. Source: MAX_STARTUP_PACKET_LENGTH, src/include/libpq/pqcomm.h. */
export const MAX_STARTUP_BYTES = 10_000;
/** Messages that can only be short. Source: PQ_SMALL_MESSAGE_LIMIT, src/include/libpq/libpq.h. */
export const MAX_SMALL_BYTES = 10_000;
/** Any message. Source: PQ_LARGE_MESSAGE_LIMIT = MaxAllocSize − 1, src/include/libpq/libpq.h. */
export const MAX_LARGE_BYTES = 0x3ffffffe;
/** A password or token. Source: PG_MAX_AUTH_TOKEN_LENGTH, src/include/libpq/auth.h. */
export const MAX_PASSWORD_BYTES = 65_535;

const { bind, close, copyData, copyDone, copyFail, describe, execute, flush, functionCall, parse, query, sync, terminate } = FRONTEND;

/**
 * The largest length field of a client's message by type; 0 is a type that no client may send after it has logged in.
 * The numbers are the server's own (SocketBackend in src/backend/tcop/postgres.c), so that no message is refused here that a server would take.
 */
export const FRONTEND_LIMITS: Int32Array = makeLimits([
  [[query, functionCall, bind, parse, copyData], MAX_LARGE_BYTES],
  [[terminate, close, describe, execute, flush, sync, copyDone, copyFail], MAX_SMALL_BYTES],
]);

/** The same before the client has logged in: answers to the server's authentication requests, nothing else. */
export const LOGIN_LIMITS: Int32Array = makeLimits([
  [[FRONTEND.password], MAX_PASSWORD_BYTES],
  [[terminate], MAX_SMALL_BYTES],
]);

/**
 * The same for messages of a server. A postmaster that cannot fork answers with `E` and plain text, without a length: such text is
 * above the limit, since printable ASCII starts at 0x20 and the words begin with a lower-case letter.
 * Source: report_fork_failure_to_client, src/backend/postmaster/postmaster.c.
 */
export const BACKEND_LIMITS: Int32Array = makeLimits([[Object.values(BACKEND), MAX_LARGE_BYTES]]);

function makeLimits(rows: readonly (readonly [readonly number[], number])[]): Int32Array {
  const limits = new Int32Array(256);
  for (const [types, limit] of rows) for (const type of types) limits[type] = limit;
  return limits;
}
