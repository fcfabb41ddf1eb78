/**
 * Messages of a client. The readers of the hot path give offsets, not strings: they take the range of the body and fill a struct that the
 * caller keeps. They return false when the body is not what the type says; the server then answers with an error (08P01), so the message can be passed on.
 * Source: PostgreSQL manual, "Message Formats".
 */
import { buildMessage, cString, encodeText, findZero, int16, int32, joinBytes, readInt32 } from './bytes.ts';
import { FRONTEND } from './protocol.ts';

/** Offsets of up to two texts in a body, without their zero bytes. */
export interface Texts {
  firstAt: number;
  firstEnd: number;
  secondAt: number;
  secondEnd: number;
}

export function createTexts(): Texts {
  return { firstAt: 0, firstEnd: 0, secondAt: 0, secondEnd: 0 };
}

/** Query: first = the statements. */
export function readQuery(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  return readOne(bytes, at, end, into) && into.firstEnd + 1 === end;
}

/** Parse: first = name of the prepared statement (empty: the unnamed one), second = the statement. */
export function readParse(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  return readTwo(bytes, at, end, into);
}

/** Bind: first = portal, second = prepared statement. The parameters behind them are not looked at: a body that is cut behind the two names is read too. */
export function readBind(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  return readTwo(bytes, at, end, into);
}

/** Execute: first = portal. */
export function readExecute(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  return readOne(bytes, at, end, into) && into.firstEnd + 5 === end;
}

/** What a Describe or Close is about. */
export const ABOUT = { statement: 0x53, portal: 0x50 } as const;

/** Describe and Close: first = the name; the byte before it, at `at`, says of what (`ABOUT`). */
export function readAbout(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  const what = bytes[at];
  if (at >= end || (what !== ABOUT.statement && what !== ABOUT.portal)) return false;
  return readOne(bytes, at + 1, end, into) && into.firstEnd + 1 === end;
}

function readOne(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  const zero = findZero(bytes, at, end);
  if (zero === -1) return false;
  into.firstAt = at;
  into.firstEnd = zero;
  into.secondAt = zero + 1;
  into.secondEnd = zero + 1;
  return true;
}

function readTwo(bytes: Uint8Array, at: number, end: number, into: Texts): boolean {
  if (!readOne(bytes, at, end, into)) return false;
  const zero = findZero(bytes, into.secondAt, end);
  if (zero === -1) return false;
  into.secondEnd = zero;
  return true;
}

export interface SaslInitialResponse {
  readonly mechanism: string;
  /** Null when the client sent none, which is not the same as an empty one. */
  readonly data: Uint8Array | null;
}

/** Null when the body is no such message. */
export function readSaslInitialResponse(bytes: Uint8Array, at: number, end: number): SaslInitialResponse | null {
  const zero = findZero(bytes, at, end);
  if (zero === -1 || end - zero < 5) return null;
  const length = readInt32(bytes, zero + 1);
  const from = zero + 5;
  // Names of mechanisms are ASCII (RFC 4422 §3.1).
  let mechanism = '';
  for (let i = at; i < zero; i++) mechanism += String.fromCharCode(bytes[i] as number);
  if (length === -1) return from === end ? { mechanism, data: null } : null;
  if (length < 0 || from + length !== end) return null;
  return { mechanism, data: bytes.slice(from, end) };
}

export function buildQuery(text: string): Uint8Array {
  return buildMessage(FRONTEND.query, cString(text));
}

export function buildParse({ name, text, parameterTypes = [] }: { name: string; text: string; parameterTypes?: readonly number[] }): Uint8Array {
  return buildMessage(FRONTEND.parse, cString(name), cString(text), int16(parameterTypes.length), ...parameterTypes.map(int32));
}

/** Parameters and results in text form; null is SQL's NULL. */
export function buildBind({
  portal,
  statement,
  parameters = [],
}: {
  portal: string;
  statement: string;
  parameters?: readonly (string | null)[];
}): Uint8Array {
  const values = parameters.map((value) => {
    if (value === null) return int32(-1);
    const text = encodeText(value);
    return joinBytes([int32(text.length), text]);
  });
  return buildMessage(FRONTEND.bind, cString(portal), cString(statement), int16(0), int16(parameters.length), ...values, int16(0));
}

export function buildDescribe(what: keyof typeof ABOUT, name: string): Uint8Array {
  return buildMessage(FRONTEND.describe, Uint8Array.of(ABOUT[what]), cString(name));
}

export function buildClose(what: keyof typeof ABOUT, name: string): Uint8Array {
  return buildMessage(FRONTEND.close, Uint8Array.of(ABOUT[what]), cString(name));
}

/** `maxRows` 0 is no limit. */
export function buildExecute(portal: string, maxRows = 0): Uint8Array {
  return buildMessage(FRONTEND.execute, cString(portal), int32(maxRows));
}

export function buildSync(): Uint8Array {
  return buildMessage(FRONTEND.sync);
}

export function buildFlush(): Uint8Array {
  return buildMessage(FRONTEND.flush);
}

export function buildTerminate(): Uint8Array {
  return buildMessage(FRONTEND.terminate);
}

export function buildCopyFail(reason: string): Uint8Array {
  return buildMessage(FRONTEND.copyFail, cString(reason));
}

export function buildPassword(password: string): Uint8Array {
  return buildMessage(FRONTEND.password, cString(password));
}

export function buildSaslInitialResponse(mechanism: string, data: Uint8Array): Uint8Array {
  return buildMessage(FRONTEND.password, cString(mechanism), int32(data.length), data);
}

export function buildSaslResponse(data: Uint8Array): Uint8Array {
  return buildMessage(FRONTEND.password, data);
}
