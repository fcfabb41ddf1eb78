/**
 * Finds the error codes in the sources, with the words that stand beside them. A code is a text like `rewind.no-wal`
 * that is the `code` of an object, or the first argument of a helper that makes a failure or a problem.
 */
import { globSync, readFileSync } from 'node:fs';

export interface ErrorCode {
  readonly code: string;
  /** What failed, as a pattern: `…` for values. Empty when the code is only classified there. */
  readonly what: string;
  readonly remedy: string;
  readonly file: string;
}

const CODE = String.raw`'([a-z][a-zA-Z0-9]*(?:-[a-z0-9]+)*\.[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*)'`;
/** `code: 'x.y'` in an object, or `helper('x.y'` where the helper's name says that it makes an error. */
const OBJECT = new RegExp(String.raw`\bcode:\s*${CODE}`, 'g');
const CALL = new RegExp(String.raw`\b(?:\w*[fF]ailure|\w*[fF]ail|\w*Error|\w*[pP]roblem|refus\w*|unreadable|invalid|trouble)\(\s*${CODE}\s*,`, 'g');
const TABLE_ENTRY = new RegExp(String.raw`^\s*${CODE}: (?:usage|refused|unaccepted|\{ status)`, 'gm');
/** Longer than any failure in the sources; a bound for a file whose brackets do not match. */
const MAX_SPAN = 4000;

/** All codes below `src`, sorted; one entry a code, with the first words that stand beside it anywhere. */
export function findErrorCodes(root: string): readonly ErrorCode[] {
  const known = new Map<string, ErrorCode>();
  for (const file of globSync('src/**/*.ts', { cwd: root }).sort()) {
    const source = readFileSync(`${root}/${file}`, 'utf8');
    for (const found of [...fromObjects(source, file), ...fromCalls(source, file), ...fromTables(source, file)]) {
      const first = known.get(found.code) ?? { code: found.code, what: '', remedy: '', file };
      known.set(found.code, { ...first, what: first.what || found.what, remedy: first.remedy || found.remedy });
    }
  }
  return [...known.values()].sort((a, b) => (a.code < b.code ? -1 : 1));
}

function fromObjects(source: string, file: string): readonly ErrorCode[] {
  return [...source.matchAll(OBJECT)].flatMap((match) => {
    const rest = enclosed(source, match.index, '}');
    // A check that found nothing wrong is no error.
    if (/level:\s*'ok'/.test(rest)) return [];
    return { code: match[1] ?? '', what: member(rest, 'what') || member(rest, 'text'), remedy: member(rest, 'remedy'), file };
  });
}

/** Helpers take (code, what, …, remedy[, retryable]) or (code, { what, remedy }). */
function fromCalls(source: string, file: string): readonly ErrorCode[] {
  return [...source.matchAll(CALL)].map((match) => {
    const rest = enclosed(source, match.index + match[0].length, ')');
    const texts = literals(rest);
    const what = member(rest, 'what') || member(rest, 'text') || (texts[0] ?? '');
    const remedy = member(rest, 'remedy') || (texts.length > 1 ? (texts.at(-1) ?? '') : '');
    return { code: match[1] ?? '', what, remedy, file };
  });
}

function fromTables(source: string, file: string): readonly ErrorCode[] {
  return [...source.matchAll(TABLE_ENTRY)].map((match) => ({ code: match[1] ?? '', what: '', remedy: '', file }));
}

/** From `start` to the bracket that closes what `start` lies in; strings are skipped. */
function enclosed(source: string, start: number, close: '}' | ')'): string {
  const open = close === '}' ? '{' : '(';
  let depth = 0;
  for (let i = start; i < Math.min(source.length, start + MAX_SPAN); i++) {
    const char = source.charAt(i);
    if (char === "'" || char === '`' || char === '"') i = endOfLiteral(source, i);
    else if (char === open) depth += 1;
    else if (char === close && --depth < 0) return source.slice(start, i);
  }
  return source.slice(start, start + MAX_SPAN);
}

function endOfLiteral(source: string, start: number): number {
  const quote = source.charAt(start);
  for (let i = start + 1; i < source.length; i++) {
    const char = source.charAt(i);
    if (char === '\\') i += 1;
    else if (char === quote) return i;
  }
  return source.length;
}

/** The first text literal of `name: …`, on one line or the next. */
function member(body: string, name: string): string {
  const match = new RegExp(String.raw`\b${name}:\s*[^'"\`\n]{0,80}?(['"\`])`).exec(body);
  if (match === null) return '';
  const start = match.index + match[0].length - 1;
  return readable(body.slice(start + 1, endOfLiteral(body, start)));
}

function literals(body: string): readonly string[] {
  const found: string[] = [];
  for (let i = 0; i < body.length; i++) {
    const char = body.charAt(i);
    if (char !== "'" && char !== '`' && char !== '"') continue;
    const end = endOfLiteral(body, i);
    found.push(readable(body.slice(i + 1, end)));
    i = end;
  }
  return found;
}

/** Template values become `…`; a table cell holds neither bars nor line ends. */
function readable(text: string): string {
  return text
    .replaceAll(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…')
    .replaceAll(/\\(['"`])/g, '$1')
    .replaceAll('|', '\\|')
    .replaceAll(/\s+/g, ' ')
    .trim();
}
