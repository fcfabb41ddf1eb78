/**
 * Structured logs: one event per change, JSON lines on standard error, readable lines on a terminal.
 * Levels: error = a person must act; warn = degraded, we act; info = state changed; debug = inputs.
 */
import { stripVTControlCharacters, styleText } from 'node:util';
import { type DestinationStream, pino } from 'pino';
import { type Lsn, formatLsn } from '../core/lsn.ts';
import { formatWall, wallMs } from './clock.ts';
import type { RecentLines } from './recent-lines.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[];

/** Any field may be logged; these have one meaning everywhere. */
export interface LogFields {
  readonly cluster?: string | undefined;
  readonly node?: string | undefined;
  readonly term?: number | undefined;
  /** Id of the rule that decided. */
  readonly rule?: string | undefined;
  readonly [field: string]: unknown;
}

export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A logger whose lines all carry `fields`. */
  child(fields: LogFields): Logger;
  /** Takes effect for this logger and for children made later. */
  setLevel(level: LogLevel): void;
  /** Writes what is still in memory; blocks, so only for the last moments of a process. */
  flush(): void;
}

/** Where lines go; `flushSync` where lines may wait in memory. */
export interface LogStream {
  write(line: string): void;
  flushSync?(): void;
}

/**
 * Lines that wait for a stuck reader are kept up to this many bytes, then dropped.
 * 1 MiB is about 5,000 lines: too small loses the story of a busy minute, too large costs memory on a database host.
 * Losing a line is better than blocking a loop that renews a lease (Z22).
 */
const BUFFER_BYTES = 1024 * 1024;
const DROP_NOTE_INTERVAL_MS = 10_000;

export interface LoggerOptions {
  /** `server`, `agent`, `guard`, … */
  readonly role: string;
  readonly level?: LogLevel;
  /** Standard error unless told. */
  readonly stream?: LogStream;
  readonly pretty?: boolean;
  readonly fields?: LogFields;
  /** Keeps the newest lines, as JSON and with secrets masked. */
  readonly recent?: RecentLines;
}

/** Never throws because of a field: circular values, bigints and errors all become text. Secrets are masked (see maskSecrets). */
export function createLogger(options: LoggerOptions): Logger {
  const stream = options.stream ?? standardError();
  const pretty = options.pretty ?? (options.stream === undefined && process.stderr.isTTY === true);
  const colour = pretty && options.stream === undefined && process.stderr.hasColors?.() === true && process.env['NO_COLOR'] === undefined;
  const destination: DestinationStream = {
    write: (line) => {
      const safe = maskSecrets(line);
      options.recent?.add(safe.trimEnd());
      stream.write(pretty ? formatPretty(safe, colour) : safe);
    },
  };
  const root = pino(
    {
      level: options.level ?? 'info',
      base: { role: options.role, pid: process.pid, ...toPlainFields(options.fields ?? {}) },
      messageKey: 'message',
      timestamp: () => `,"time":"${formatWall(wallMs())}"`,
      formatters: { level: (label) => ({ level: label }), log: toPlainFields },
    },
    destination,
  );
  return wrap(root, () => stream.flushSync?.());
}

/** A logger that keeps nothing: for tests and one-shot commands. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
  setLevel: () => {},
  flush: () => {},
};

interface PinoLike {
  level: string;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): PinoLike;
}

function wrap(inner: PinoLike, flush: () => void): Logger {
  return {
    debug: (fields, message) => inner.debug(fields, message),
    info: (fields, message) => inner.info(fields, message),
    warn: (fields, message) => inner.warn(fields, message),
    error: (fields, message) => inner.error(fields, message),
    child: (fields) => wrap(inner.child(toPlainFields(fields)), flush),
    setLevel: (level) => {
      inner.level = level;
    },
    flush,
  };
}

/**
 * Standard error, written from the thread pool and bounded: a reader that stopped reading costs lines, never time (Z22).
 * How many lines were lost is said as soon as a line gets through again.
 */
function standardError(): LogStream {
  const sink = pino.destination({ fd: 2, sync: false, maxLength: BUFFER_BYTES });
  let dropped = 0;
  let notedAt = 0;
  sink.on('drop', () => {
    dropped += 1;
  });
  // A closed pipe (the terminal is gone) must not end a role that holds a lease.
  sink.on('error', () => {
    dropped += 1;
  });
  return {
    write: (line) => {
      sink.write(line);
      if (dropped > 0 && wallMs() - notedAt > DROP_NOTE_INTERVAL_MS) {
        notedAt = wallMs();
        const lost = dropped;
        dropped = 0;
        sink.write(
          `{"level":"warn","time":"${formatWall(wallMs())}","pid":${process.pid},"lines":${lost},"message":"log lines were dropped: the reader of standard error is too slow"}\n`,
        );
      }
    },
    flushSync: () => {
      try {
        sink.flushSync();
      } catch (cause) {
        // The log itself cannot be written (the reader is gone): nobody is left to tell it to.
        dropped += cause === undefined ? 0 : 1;
      }
    },
  };
}

const MASK = '***';
const SECRET_KEY = '(?:password|passwd|secret|token|passphrase|authorization|privateKey|private_key)';
/** `"password":"…"`, at any depth of a JSON line, also in JSON that stands inside a JSON string. */
const JSON_MEMBER = new RegExp(String.raw`(\\*"[A-Za-z_]*${SECRET_KEY}\\*"\s*:\s*\\*")((?:(?!\\*").|\\\\.)+?)(\\*")`, 'gi');
/** `password=…` of connection strings and command lines; quoted values may hold blanks. */
const ASSIGNMENT = new RegExp(String.raw`(\b[A-Za-z_-]*${SECRET_KEY}\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'"&,;\\]+)`, 'gi');
/** `ALTER ROLE … PASSWORD '…'` */
const SQL_PASSWORD = /(\bPASSWORD\s+)('(?:[^'\\]|''|\\.)*')/gi;
/** `postgres://user:…@host` */
const URI_PASSWORD = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/"]*:)([^\s@/"]+)(@)/gi;
/** Tokens of the HTTP API, wherever they stand. */
const API_TOKEN = /\bpgh_[A-Za-z0-9_-]{8,}/g;
const BEARER = /\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}/gi;
const PEM = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g;

/** `text` with passwords, tokens and private keys replaced by `***`; for log lines, command lines and error texts. */
export function maskSecrets(text: string): string {
  return text
    .replace(PEM, MASK)
    .replace(JSON_MEMBER, `$1${MASK}$3`)
    .replace(ASSIGNMENT, `$1${MASK}`)
    .replace(SQL_PASSWORD, `$1${MASK}`)
    .replace(URI_PASSWORD, `$1${MASK}$3`)
    .replace(BEARER, `$1${MASK}`)
    .replace(API_TOKEN, MASK);
}

/** Deeper values are cut: a log line is bounded. */
const MAX_DEPTH = 6;
const MAX_TEXT = 16 * 1024;
const MAX_ITEMS = 100;

function toPlainFields(fields: object): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) out[key] = toPlain(value, MAX_DEPTH);
  return out;
}

function toPlain(value: unknown, depth: number): unknown {
  if (typeof value === 'bigint') return formatLsn(value as Lsn);
  if (typeof value === 'string') return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}… (${value.length} characters)` : value;
  if (value === null || typeof value !== 'object') return value;
  if (depth === 0) return '…';
  if (value instanceof Error) {
    const code = 'code' in value ? value.code : undefined;
    return { type: value.name, message: value.message, code, stack: value.stack };
  }
  if (Array.isArray(value)) return value.slice(0, MAX_ITEMS).map((item) => toPlain(item, depth - 1));
  if (value instanceof Map || value instanceof Set) return toPlain([...value], depth - 1);
  const out: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value).slice(0, MAX_ITEMS)) out[key] = toPlain(item, depth - 1);
  return out;
}

const LEVEL_STYLE = {
  debug: ['dim', 'debug'],
  info: ['green', 'info '],
  warn: ['yellow', 'warn '],
  error: ['red', 'error'],
} as const satisfies Record<LogLevel, readonly [string, string]>;
const HEAD_FIELDS = ['cluster', 'node', 'term', 'rule'];
const HIDDEN_FIELDS = new Set(['level', 'time', 'message', 'role', 'pid', ...HEAD_FIELDS]);

/** One JSON line for a person's eyes; a line that is not JSON stays as it is. */
export function formatPretty(line: string, colour: boolean): string {
  const entry = parseEntry(line);
  if (entry === null) return line;
  const level = LOG_LEVELS.find((known) => known === entry['level']) ?? 'info';
  const [style, label] = LEVEL_STYLE[level];
  const paint = (name: 'dim' | 'green' | 'yellow' | 'red' | 'bold', text: string): string =>
    colour ? styleText(name, text, { validateStream: false }) : text;
  const time = String(entry['time'] ?? '').slice(11, 23);
  const head = HEAD_FIELDS.filter((field) => entry[field] !== undefined).map((field) =>
    field === 'term' ? `term ${show(entry[field])}` : show(entry[field]),
  );
  const rest = Object.entries(entry).filter(([field, value]) => !HIDDEN_FIELDS.has(field) && value !== undefined);
  // Values come from servers and files: control sequences in them must not reach the terminal.
  const tail = rest.map(([field, value]) => `${field}=${stripVTControlCharacters(show(value))}`).join(' ');
  const message = stripVTControlCharacters(String(entry['message'] ?? ''));
  const parts = [
    paint('dim', time),
    paint(style, label),
    show(entry['role']),
    head.length > 0 ? `[${head.join(' ')}]` : '',
    paint('bold', message),
    paint('dim', tail),
  ];
  return `${parts.filter((part) => part !== '').join(' ')}\n`;
}

function show(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

function parseEntry(line: string): Record<string, unknown> | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (cause) {
    // Not ours: a line of a library or of a child process. Shown as it is.
    return cause instanceof SyntaxError ? null : { message: line };
  }
  return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? { ...parsed } : null;
}
