/**
 * Splits the text of statements into tokens, on bytes, as PostgreSQL's own scanner does; allocates nothing.
 *
 * *Invariant:* where this scanner sees the end of a string, a quoted name or a comment, the server sees it too.
 * *Because:* the rules are those of the server's scanner; what it reads differently by version or setting is `TOKEN.bad` here, and a text with a bad token is
 * never classified as a read.
 * *Broken if:* `standardStrings` or `encoding` are not the session's. Both are reported by the server (ParameterStatus).
 *
 * Source: src/backend/parser/scan.l; manual, "Lexical Structure" (4.1).
 */
import { findKeyword } from './keywords.ts';
import { HASH_START, LOWER, hashByte } from './names.ts';

/** Kinds of tokens; a punctuation mark (`( ) [ ] , ; . :`) has its own byte as kind. */
export const TOKEN = {
  end: 0,
  word: 1,
  string: 2,
  number: 3,
  operator: 4,
  parameter: 5,
  /** Not understood, or not the same in every version of PostgreSQL. */
  bad: 6,
  /** `::` */
  cast: 7,
  open: 0x28,
  close: 0x29,
  comma: 0x2c,
  dot: 0x2e,
  semicolon: 0x3b,
} as const;

/** What bytes above 0x7f can be in the client's encoding. */
export const ENCODING = {
  /** Names are compared as bytes. */
  utf8: 0,
  /** Such bytes are parts of characters above ASCII, but not UTF-8: a name with them cannot be compared. */
  aboveAscii: 1,
  /**
   * The second byte of a character can look like an ASCII letter, digit or backslash (SJIS, BIG5, GBK, UHC, GB18030, JOHAB), but not like a quote: a
   * sequence with one is no character, and the server refuses the text. So only where backslashes count such characters are not understood.
   */
  mixed: 2,
} as const;

/** A wish in a comment. */
export const HINT = { none: 0, primary: 1, standby: 2 } as const;

export interface Scanner {
  bytes: Uint8Array;
  at: number;
  end: number;
  /** `standard_conforming_strings`: a backslash in '…' is an ordinary character. */
  standardStrings: boolean;
  encoding: number;
  /** The token: its bytes (of a quoted name: without the quotes). */
  from: number;
  to: number;
  /** Of a word: hash of the name as it is compared, code of the keyword (0: none), whether it was quoted. */
  hash: number;
  keyword: number;
  quoted: boolean;
  /** `HINT`, of the comments so far; the primary wins. */
  hint: number;
}

export function createScanner(): Scanner {
  return { bytes: new Uint8Array(0), at: 0, end: 0, standardStrings: true, encoding: 0, from: 0, to: 0, hash: 0, keyword: 0, quoted: false, hint: 0 };
}

const CLASS = { bad: 0, space: 1, letter: 2, digit: 3, operator: 4, mark: 5, quote: 6, doubleQuote: 7, dollar: 8, high: 9 } as const;
const classes = new Uint8Array(256);
/** 1 for bytes that can go on in a name: letters, digits, `_`, `$`, and everything above ASCII. */
const inName = new Uint8Array(256);

for (const byte of [0x20, 0x09, 0x0a, 0x0d, 0x0c]) classes[byte] = CLASS.space;
for (let byte = 0; byte < 256; byte++) {
  const letter = (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a) || byte === 0x5f;
  const digit = byte >= 0x30 && byte <= 0x39;
  if (letter) classes[byte] = CLASS.letter;
  if (byte >= 0x80) classes[byte] = CLASS.high;
  if (digit) classes[byte] = CLASS.digit;
  if (letter || digit || byte >= 0x80 || byte === 0x24) inName[byte] = 1;
}
for (const mark of '()[],;:.') classes[mark.charCodeAt(0)] = CLASS.mark;
for (const operator of '+-*/<>=~!@#%^&|`?') classes[operator.charCodeAt(0)] = CLASS.operator;
classes[0x27] = CLASS.quote;
classes[0x22] = CLASS.doubleQuote;
classes[0x24] = CLASS.dollar;

/** Reads the next token; blanks and comments are passed over. Returns its kind. */
export function nextToken(s: Scanner): number {
  const { bytes, end } = s;
  for (;;) {
    const at = s.at;
    if (at >= end) {
      s.from = s.to = end;
      return TOKEN.end;
    }
    const byte = bytes[at] as number;
    switch (classes[byte]) {
      case CLASS.space:
        s.at = at + 1;
        continue;
      case CLASS.letter:
      case CLASS.high:
        return readWord(s, at, byte);
      case CLASS.mark:
        return readMark(s, at, byte);
      case CLASS.digit:
        s.from = at;
        s.at = at + 1;
        while (s.at < end && classes[bytes[s.at] as number] === CLASS.digit) s.at++;
        s.to = s.at;
        return TOKEN.number;
      case CLASS.quote:
        return readString(s, at, at + 1, s.standardStrings ? BACKSLASH.ordinary : BACKSLASH.unsure);
      case CLASS.operator:
        if (byte === 0x2d && bytes[at + 1] === 0x2d && at + 1 < end) {
          skipLine(s, at + 2);
          continue;
        }
        if (byte === 0x2f && bytes[at + 1] === 0x2a && at + 1 < end) {
          if (!skipComment(s, at)) return bad(s, at);
          continue;
        }
        return readOperator(s, at);
      case CLASS.doubleQuote:
        return readQuotedName(s, at);
      case CLASS.dollar:
        return readDollar(s, at);
      default:
        return bad(s, at);
    }
  }
}

/** What follows a bad token is not known: the rest is passed over. */
function bad(s: Scanner, at: number): number {
  s.from = at;
  s.to = s.end;
  s.at = s.end;
  return TOKEN.bad;
}

function readWord(s: Scanner, from: number, first: number): number {
  const { bytes, end } = s;
  const next = from + 1 < end ? (bytes[from + 1] as number) : 0;
  if (next === 0x27) {
    const letter = LOWER[first];
    // E'…' has escapes; B'…', X'…' and N'…' end like any other string.
    if (letter === 0x65) return readString(s, from, from + 2, BACKSLASH.escapes);
    if (letter === 0x62 || letter === 0x78) return readString(s, from, from + 2, BACKSLASH.ordinary);
    if (letter === 0x6e) return readString(s, from, from + 2, s.standardStrings ? BACKSLASH.ordinary : BACKSLASH.unsure);
  } else if (next === 0x26 && LOWER[first] === 0x75 && from + 2 < end) {
    // U&'…' is an error when strings are not standard; U&"…" can spell any name by escapes.
    if (bytes[from + 2] === 0x27) return readString(s, from, from + 3, s.standardStrings ? BACKSLASH.ordinary : BACKSLASH.unsure);
    if (bytes[from + 2] === 0x22) return bad(s, from);
  }
  let hash = HASH_START;
  let at = from;
  let high = 0;
  do {
    const byte = bytes[at] as number;
    high |= byte;
    hash = hashByte(hash, LOWER[byte] as number);
    at++;
  } while (at < end && inName[bytes[at] as number] === 1);
  if (high >= 0x80 && s.encoding !== ENCODING.utf8) return bad(s, from);
  s.from = from;
  s.to = at;
  s.at = at;
  s.hash = hash;
  s.quoted = false;
  s.keyword = findKeyword(hash, bytes, from, at);
  return TOKEN.word;
}

function readQuotedName(s: Scanner, from: number): number {
  const { bytes, end } = s;
  let hash = HASH_START;
  let high = 0;
  for (let at = from + 1; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === 0x22) {
      // A doubled quote would have to be taken out before the name can be compared.
      if (at === from + 1 || (at + 1 < end && bytes[at + 1] === 0x22)) return bad(s, from);
      if (high >= 0x80 && s.encoding !== ENCODING.utf8) return bad(s, from);
      s.from = from + 1;
      s.to = at;
      s.at = at + 1;
      s.hash = hash;
      s.quoted = true;
      s.keyword = 0;
      return TOKEN.word;
    }
    high |= byte;
    hash = hashByte(hash, byte);
  }
  return bad(s, from);
}

function readMark(s: Scanner, at: number, byte: number): number {
  s.from = at;
  if (byte === 0x3a && at + 1 < s.end && s.bytes[at + 1] === 0x3a) {
    s.at = s.to = at + 2;
    return TOKEN.cast;
  }
  s.at = s.to = at + 1;
  return byte;
}

/** A run of operator characters; it can hold several operators. It ends where a comment begins. */
function readOperator(s: Scanner, from: number): number {
  const { bytes, end } = s;
  let at = from + 1;
  while (at < end) {
    const byte = bytes[at] as number;
    if (classes[byte] !== CLASS.operator) break;
    const next = at + 1 < end ? bytes[at + 1] : 0;
    if ((byte === 0x2d && next === 0x2d) || (byte === 0x2f && next === 0x2a)) break;
    at++;
  }
  s.from = from;
  s.to = s.at = at;
  return TOKEN.operator;
}

const BACKSLASH = { ordinary: 0, escapes: 1, unsure: 2 } as const;

/** A string whose opening quote ends at `start`. */
function readString(s: Scanner, from: number, start: number, backslash: number): number {
  const { bytes, end } = s;
  let at = start;
  while (at < end) {
    const byte = bytes[at] as number;
    if (byte === 0x27) {
      if (at + 1 < end && bytes[at + 1] === 0x27) {
        at += 2;
        continue;
      }
      at++;
      if (backslash === BACKSLASH.escapes) {
        // The next line can go on with the same string, and there backslashes are escapes too.
        const again = findContinuation(bytes, at, end);
        if (again > 0) {
          at = again;
          continue;
        }
      }
      s.from = from;
      s.to = s.at = at;
      return TOKEN.string;
    }
    if (byte === 0x5c && backslash !== BACKSLASH.ordinary) {
      if (backslash === BACKSLASH.unsure) return bad(s, from);
      at += 2;
      continue;
    }
    if (byte >= 0x80 && backslash === BACKSLASH.escapes && s.encoding === ENCODING.mixed) return bad(s, from);
    at++;
  }
  return bad(s, from);
}

/** Offset behind the quote that continues a string on a later line; 0 when there is none. Source: `quotecontinue` in scan.l. */
function findContinuation(bytes: Uint8Array, from: number, end: number): number {
  let newline = false;
  for (let at = from; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === 0x27) return newline ? at + 1 : 0;
    if (byte === 0x0a || byte === 0x0d) newline = true;
    else if (byte === 0x2d && at + 1 < end && bytes[at + 1] === 0x2d) {
      while (at + 1 < end && bytes[at + 1] !== 0x0a && bytes[at + 1] !== 0x0d) at++;
    } else if (classes[byte] !== CLASS.space && byte !== 0x0b) return 0;
  }
  return 0;
}

/** `$1`, or a string in dollar quotes. */
function readDollar(s: Scanner, from: number): number {
  const { bytes, end } = s;
  let at = from + 1;
  if (at < end && classes[bytes[at] as number] === CLASS.digit) {
    while (at < end && classes[bytes[at] as number] === CLASS.digit) at++;
    s.from = from;
    s.to = s.at = at;
    return TOKEN.parameter;
  }
  // The tag is a name without `$`, and may be empty.
  while (at < end && bytes[at] !== 0x24 && inName[bytes[at] as number] === 1) at++;
  if (at >= end || bytes[at] !== 0x24) return bad(s, from);
  const tagLength = at + 1 - from;
  for (let close = at + 1; close + tagLength <= end; close++) {
    if (bytes[close] !== 0x24) continue;
    let i = 1;
    while (i < tagLength && bytes[close + i] === bytes[from + i]) i++;
    if (i === tagLength) {
      s.from = from;
      s.to = s.at = close + tagLength;
      return TOKEN.string;
    }
  }
  return bad(s, from);
}

function skipLine(s: Scanner, from: number): void {
  const { bytes, end } = s;
  let at = from;
  while (at < end && bytes[at] !== 0x0a && bytes[at] !== 0x0d) at++;
  s.at = at;
}

/** Passes over a comment, which can hold others; false when it has no end. */
function skipComment(s: Scanner, from: number): boolean {
  const { bytes, end } = s;
  let depth = 1;
  let at = from + 2;
  readHint(s, at);
  while (at + 1 < end) {
    const byte = bytes[at];
    const next = bytes[at + 1];
    if (byte === 0x2a && next === 0x2f) {
      at += 2;
      if (--depth === 0) {
        s.at = at;
        return true;
      }
    } else if (byte === 0x2f && next === 0x2a) {
      at += 2;
      depth++;
    } else at++;
  }
  return false;
}

const HINT_HEAD = Uint8Array.from('pgherd:', (c) => c.charCodeAt(0));
const HINTS: readonly (readonly [Uint8Array, number])[] = [
  [Uint8Array.from('primary', (c) => c.charCodeAt(0)), HINT.primary],
  [Uint8Array.from('standby', (c) => c.charCodeAt(0)), HINT.standby],
  [Uint8Array.from('replica', (c) => c.charCodeAt(0)), HINT.standby],
];

function readHint(s: Scanner, from: number): void {
  let at = skipBlanks(s, from);
  if (!startsWith(s, at, HINT_HEAD)) return;
  at = skipBlanks(s, at + HINT_HEAD.length);
  for (const [word, hint] of HINTS) {
    if (!startsWith(s, at, word) || inName[s.bytes[at + word.length] ?? 0] === 1) continue;
    if (s.hint !== HINT.primary) s.hint = hint;
  }
}

function skipBlanks(s: Scanner, from: number): number {
  let at = from;
  while (at < s.end && classes[s.bytes[at] as number] === CLASS.space) at++;
  return at;
}

function startsWith(s: Scanner, at: number, word: Uint8Array): boolean {
  if (at + word.length > s.end) return false;
  for (let i = 0; i < word.length; i++) if (LOWER[s.bytes[at + i] as number] !== word[i]) return false;
  return true;
}
