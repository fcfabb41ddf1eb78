/** Files of lines `name = value`, as repmgr.conf and clup.conf are: comments from `#`, values bare or in single or double quotes. */
import type { Result } from '../result.ts';
import { type ImportError, type SourceText, importError } from './imported.ts';

export interface Entry {
  readonly value: string;
  /** Counts from 1. */
  readonly line: number;
}

/** A configuration larger than this is a mistake. */
const MAX_LINES = 10_000;

/**
 * The last line of a name counts, as in both programs. Names are as written. Section heads (`[clup]`) are passed over. Errors: a line that is no `name = value`,
 * a quote that does not end. Source: repmgr documentation, configuration file; a quote within a quoted value is doubled.
 */
export function parseKeyValues(source: SourceText): Result<ReadonlyMap<string, Entry>, ImportError> {
  const lines = source.text.split(/\r?\n/);
  if (lines.length > MAX_LINES) return importError(source, 0, `more than ${MAX_LINES} lines`);
  const found = new Map<string, Entry>();
  for (const [index, raw] of lines.entries()) {
    const text = raw.trim();
    const line = index + 1;
    if (text === '' || text.startsWith('#') || text.startsWith(';') || /^\[[^\]]*\]$/.test(text)) continue;
    const match = /^([A-Za-z_][\w.-]*)\s*=\s*(.*)$/.exec(text);
    if (match === null) return importError(source, line, `expected "name = value", found "${text.slice(0, 60)}"`);
    const value = readValue(match[2] ?? '');
    if (value === null) return importError(source, line, `the quoted value of ${match[1]} does not end, or something follows it`);
    found.set(match[1] ?? '', { value, line });
  }
  return { ok: true, value: found };
}

/** Null when a quote does not end, or other text than a comment follows it. */
function readValue(text: string): string | null {
  const quote = text.charAt(0);
  if (quote !== "'" && quote !== '"') return text.replace(/\s+#.*$/, '').trim();
  let value = '';
  for (let at = 1; at < text.length; at++) {
    if (text.charAt(at) !== quote) value += text.charAt(at);
    else if (text.charAt(at + 1) === quote) value += text.charAt(++at);
    else return /^\s*(#.*)?$/.test(text.slice(at + 1)) ? value : null;
  }
  return null;
}

/** Words of a libpq connection string, `host=n1 port=5432 user='a b'`. Null when it is none. Source: PostgreSQL manual 34.1.1.1. */
export function parseConnection(text: string): ReadonlyMap<string, string> | null {
  const words = new Map<string, string>();
  const pattern = /\s*([a-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))/gy;
  let at = 0;
  while (at < text.trimEnd().length) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return null;
    words.set(match[1] ?? '', (match[2] ?? match[3] ?? '').replaceAll(/\\(.)/g, '$1'));
    at = pattern.lastIndex;
  }
  return words;
}
