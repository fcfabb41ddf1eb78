/** The story of a run, one line an event, and its hash: two runs of one seed have the same hash, or the simulator lies. */
import type { LogFields, LogLevel, Logger } from '../src/base/log.ts';

export interface Trace {
  /** `who` is a process or a part of the world ('n1/agent', 'fault', 'client'). */
  add(who: string, text: string): void;
  /** The newest lines, oldest first. */
  lines(): readonly string[];
  /** Over all lines of the run, also those that are not kept any more; hexadecimal. */
  hash(): string;
  logger(who: string): Logger;
  readonly verbose: boolean;
}

/** Lines that are kept: some minutes of a busy cluster. */
const KEPT = 4000;

/** `verbose` keeps debug lines and the fields of each line; the hash is of the plain lines in both cases. */
export function createTrace(now: () => number, verbose: boolean): Trace {
  const kept: string[] = [];
  let low = 0x811c9dc5;
  let high = 0x1000193;

  function mix(text: string): void {
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      low = Math.imul(low ^ unit, 0x01000193);
      high = Math.imul(high ^ (unit + (low & 0xff)), 0x85ebca6b);
    }
  }

  function keep(line: string): void {
    if (kept.length >= KEPT) kept.splice(0, KEPT / 2);
    kept.push(line);
  }

  function add(who: string, text: string): void {
    const line = `${seconds(now())} ${who}: ${text}`;
    mix(line);
    keep(line);
  }

  function log(who: string, level: LogLevel, fields: LogFields, message: string): void {
    if (level === 'debug') {
      if (verbose) keep(`${seconds(now())} ${who}: . ${message}${describe(fields)}`);
      return;
    }
    const mark = level === 'info' ? '' : level === 'warn' ? '! ' : '!! ';
    const line = `${seconds(now())} ${who}: ${mark}${message}`;
    mix(line);
    keep(verbose || message.length < 24 ? `${line}${describe(fields)}` : line);
  }

  const logger = (who: string): Logger => ({
    debug: (fields, message) => log(who, 'debug', fields, message),
    info: (fields, message) => log(who, 'info', fields, message),
    warn: (fields, message) => log(who, 'warn', fields, message),
    error: (fields, message) => log(who, 'error', fields, message),
    child: () => logger(who),
    setLevel: () => undefined,
    flush: () => undefined,
  });

  return {
    add,
    lines: () => kept,
    hash: () => `${(high >>> 0).toString(16).padStart(8, '0')}${(low >>> 0).toString(16).padStart(8, '0')}`,
    logger,
    verbose,
  };
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(3).padStart(9);
}

function describe(fields: LogFields): string {
  const parts = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined || name === 'cluster' ? [] : [`${name}=${typeof value === 'string' ? value : plain(value)}`],
  );
  return parts.length === 0 ? '' : ` [${parts.join(' ')}]`;
}

function plain(value: unknown): string {
  if (value instanceof Error) return value.stack ?? value.message;
  return JSON.stringify(value, (_key, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? String(value);
}
