/**
 * Messages of a server: readers for what a proxy must understand, builders for what it must say itself (to a client, or as the admin database).
 * Readers take the range of the body and return null when it is not what the type says.
 * Source: PostgreSQL manual, "Message Formats".
 */
import { buildMessage, cString, decodeText, encodeText, findZero, int16, int32, joinBytes, readInt16, readInt32 } from './bytes.ts';
import { AUTHENTICATION, BACKEND, TRANSACTION } from './protocol.ts';
import type { CancelKey } from './startup.ts';

export interface AuthenticationRequest {
  /** One of `AUTHENTICATION`, or a code that is not known here. */
  readonly code: number;
  /** What follows the code: salt of MD5, data of SASL. */
  readonly data: Uint8Array;
}

export function readAuthentication(bytes: Uint8Array, at: number, end: number): AuthenticationRequest | null {
  if (end - at < 4) return null;
  return { code: readInt32(bytes, at), data: bytes.slice(at + 4, end) };
}

/** The names of mechanisms in the data of AuthenticationSASL, in the server's order; null when the list has no end. */
export function readSaslMechanisms(data: Uint8Array): readonly string[] | null {
  const names: string[] = [];
  let at = 0;
  while (at < data.length) {
    if (data[at] === 0) return names;
    const zero = findZero(data, at, data.length);
    if (zero === -1) return null;
    names.push(decodeText(data, at, zero));
    at = zero + 1;
  }
  return null;
}

export interface ParameterStatus {
  readonly name: string;
  readonly value: string;
}

export function readParameterStatus(bytes: Uint8Array, at: number, end: number): ParameterStatus | null {
  const nameEnd = findZero(bytes, at, end);
  if (nameEnd === -1) return null;
  const valueEnd = findZero(bytes, nameEnd + 1, end);
  if (valueEnd === -1) return null;
  return { name: decodeText(bytes, at, nameEnd), value: decodeText(bytes, nameEnd + 1, valueEnd) };
}

export function readBackendKey(bytes: Uint8Array, at: number, end: number): CancelKey | null {
  if (end - at <= 4) return null;
  return { processId: readInt32(bytes, at), secret: bytes.slice(at + 4, end) };
}

/** Version and options that the server does not know. */
export function readNegotiation(bytes: Uint8Array, at: number, end: number): { readonly minor: number; readonly unknown: readonly string[] } | null {
  if (end - at < 8) return null;
  const count = readInt32(bytes, at + 4);
  const unknown: string[] = [];
  let from = at + 8;
  for (let i = 0; i < count; i++) {
    const zero = findZero(bytes, from, end);
    if (zero === -1) return null;
    unknown.push(decodeText(bytes, from, zero));
    from = zero + 1;
  }
  return from === end ? { minor: readInt32(bytes, at) & 0xffff, unknown } : null;
}

/** Fields of an ErrorResponse or NoticeResponse by their letter: `S` severity, `V` the same untranslated, `C` SQLSTATE, `M` message, `D` detail, `H` hint. */
export type ErrorFields = ReadonlyMap<string, string>;

/** Null when a field has no end. A missing field is missing in the map. */
export function readErrorFields(bytes: Uint8Array, at: number, end: number): ErrorFields | null {
  const fields = new Map<string, string>();
  let from = at;
  while (from < end && bytes[from] !== 0) {
    const zero = findZero(bytes, from + 1, end);
    if (zero === -1) return null;
    fields.set(String.fromCharCode(bytes[from] as number), decodeText(bytes, from + 1, zero));
    from = zero + 1;
  }
  return from < end ? fields : null;
}

/** True when the SQLSTATE of the ErrorResponse in the range is `code` (five ASCII characters). Allocates nothing. */
export function hasSqlState(bytes: Uint8Array, at: number, end: number, code: string): boolean {
  let from = at;
  while (from < end && bytes[from] !== 0) {
    const zero = findZero(bytes, from + 1, end);
    if (zero === -1) return false;
    if (bytes[from] === 0x43) {
      if (zero - from - 1 !== code.length) return false;
      for (let i = 0; i < code.length; i++) if (bytes[from + 1 + i] !== code.charCodeAt(i)) return false;
      return true;
    }
    from = zero + 1;
  }
  return false;
}

/** The tag of CommandComplete: `INSERT 0 1`, `SELECT 5`, `BEGIN`. */
export function readCommandTag(bytes: Uint8Array, at: number, end: number): string | null {
  const zero = findZero(bytes, at, end);
  return zero === -1 ? null : decodeText(bytes, at, zero);
}

/** The values of a DataRow in the columns' order; null is SQL's NULL. */
export function readDataRow(bytes: Uint8Array, at: number, end: number): readonly (Uint8Array | null)[] | null {
  if (end - at < 2) return null;
  const count = readInt16(bytes, at);
  const values: (Uint8Array | null)[] = [];
  let from = at + 2;
  for (let i = 0; i < count; i++) {
    if (end - from < 4) return null;
    const length = readInt32(bytes, from);
    from += 4;
    if (length === -1) {
      values.push(null);
      continue;
    }
    if (length < 0 || length > end - from) return null;
    values.push(bytes.slice(from, from + length));
    from += length;
  }
  return from === end ? values : null;
}

export function buildAuthentication(code: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return buildMessage(BACKEND.authentication, int32(code), data);
}

export function buildSaslRequest(mechanisms: readonly string[]): Uint8Array {
  return buildAuthentication(AUTHENTICATION.sasl, joinBytes([...mechanisms.map(cString), new Uint8Array(1)]));
}

/** One ParameterStatus each. */
export function buildParameters(parameters: Iterable<readonly [string, string]>): Uint8Array {
  return joinBytes([...parameters].map(([name, value]) => buildParameterStatus(name, value)));
}

export function buildParameterStatus(name: string, value: string): Uint8Array {
  return buildMessage(BACKEND.parameterStatus, cString(name), cString(value));
}

export function buildBackendKey(key: CancelKey): Uint8Array {
  return buildMessage(BACKEND.backendKeyData, int32(key.processId), key.secret);
}

/** The answer to a client that asks for a newer minor version or for `_pq_.` options than this side speaks. */
export function buildNegotiation({ minor, unknown }: { minor: number; unknown: readonly string[] }): Uint8Array {
  return buildMessage(BACKEND.negotiateProtocolVersion, int32((3 << 16) | minor), int32(unknown.length), ...unknown.map(cString));
}

export function buildReady(status: keyof typeof TRANSACTION): Uint8Array {
  return buildMessage(BACKEND.readyForQuery, Uint8Array.of(TRANSACTION[status]));
}

export interface ErrorText {
  readonly severity: 'ERROR' | 'FATAL';
  readonly sqlState: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
}

export function buildError(error: ErrorText): Uint8Array {
  return buildMessage(BACKEND.errorResponse, errorBody(error.severity, error));
}

export function buildNotice(notice: Omit<ErrorText, 'severity'> & { readonly severity: 'WARNING' | 'NOTICE' }): Uint8Array {
  return buildMessage(BACKEND.noticeResponse, errorBody(notice.severity, notice));
}

function errorBody(severity: string, text: Omit<ErrorText, 'severity'>): Uint8Array {
  const fields: (readonly [string, string | undefined])[] = [
    ['S', severity],
    ['V', severity],
    ['C', text.sqlState],
    ['M', text.message],
    ['D', text.detail],
    ['H', text.hint],
  ];
  const parts = fields.flatMap(([letter, value]) => (value === undefined ? [] : [encodeText(letter), cString(value)]));
  return joinBytes([...parts, new Uint8Array(1)]);
}

export function buildCommandComplete(tag: string): Uint8Array {
  return buildMessage(BACKEND.commandComplete, cString(tag));
}

export interface Column {
  readonly name: string;
  /** 25 is text, 20 bigint, 16 boolean. Source: src/include/catalog/pg_type.dat. */
  readonly type: number;
  /** Bytes of a fixed-size type; −1 when it varies. */
  readonly size: number;
}

export function textColumn(name: string): Column {
  return { name, type: 25, size: -1 };
}

/** A description of columns that belong to no table, in text form. */
export function buildRowDescription(columns: readonly Column[]): Uint8Array {
  const fields = columns.map((column) =>
    joinBytes([cString(column.name), int32(0), int16(0), int32(column.type), int16(column.size), int32(-1), int16(0)]),
  );
  return buildMessage(BACKEND.rowDescription, int16(columns.length), ...fields);
}

/** Values in text form, in the columns' order; null is SQL's NULL. */
export function buildDataRow(values: readonly (string | null)[]): Uint8Array {
  const fields = values.map((value) => {
    if (value === null) return int32(-1);
    const text = encodeText(value);
    return joinBytes([int32(text.length), text]);
  });
  return buildMessage(BACKEND.dataRow, int16(values.length), ...fields);
}

/** Messages without a body. */
export const BARE: Readonly<Record<'parseComplete' | 'bindComplete' | 'closeComplete' | 'noData' | 'emptyQueryResponse', Uint8Array>> = {
  parseComplete: buildMessage(BACKEND.parseComplete),
  bindComplete: buildMessage(BACKEND.bindComplete),
  closeComplete: buildMessage(BACKEND.closeComplete),
  noData: buildMessage(BACKEND.noData),
  emptyQueryResponse: buildMessage(BACKEND.emptyQueryResponse),
};
