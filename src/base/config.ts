/**
 * Configuration files of people: YAML, strict, each error with its line. A file is read once at start and again on
 * SIGHUP; it is never watched (a watch misses atomic replaces).
 */
import { readFileSync, statSync } from 'node:fs';
import { LineCounter, type Node, type ParsedNode, isMap, isPair, isScalar, isSeq, parse, parseDocument } from 'yaml';
import type { DecodeError, Decoder } from '../core/decode.ts';
import { type Failure, type Result, err } from '../core/result.ts';

export interface LoadConfigOptions<T> {
  readonly file: string;
  /** Built with core/decode.ts, objects `strict`, so that a misspelt key is refused with the nearest known one. */
  readonly decoder: Decoder<T>;
  /** `process.env` unless told. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /**
   * Variables that begin with it override the file: PREFIX + path in upper case, `_` between words, `__` between levels:
   * with `PGHERD_AGENT_`, `PGHERD_AGENT_LISTEN__PORT=8500` sets `listen.port`. No override where it is absent.
   */
  readonly envPrefix?: string;
}

/** A configuration larger than this is a mistake (a wrong path), and would only cost memory. */
const MAX_BYTES = 1024 * 1024;

/**
 * Reads, overrides and decodes. Failures (all exit code 2): `config.unreadable` (missing, no right, too large),
 * `config.syntax` (not YAML), `config.invalid` (YAML, but not this decoder's). An empty file is an empty object.
 */
export function loadConfig<T>(options: LoadConfigOptions<T>): Result<T, Failure> {
  let text: string;
  try {
    const { size } = statSync(options.file);
    if (size > MAX_BYTES) return err(unreadable(options.file, `it has ${size} bytes; the limit is ${MAX_BYTES}`));
    text = readFileSync(options.file, 'utf8');
  } catch (cause) {
    return err(unreadable(options.file, cause instanceof Error ? cause.message : String(cause)));
  }
  return checkConfigText({ ...options, text });
}

/** As loadConfig for a text that is at hand; `file` only names it in errors. */
export function checkConfigText<T>(options: LoadConfigOptions<T> & { readonly text: string }): Result<T, Failure> {
  const lines = new LineCounter();
  const document = parseDocument(options.text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const [syntax] = document.errors;
  if (syntax !== undefined) return err(badSyntax(place(options.file, lines, syntax.pos[0]), syntax.message));

  let input: unknown;
  try {
    // The library refuses more than 100 uses of aliases: a small file cannot become a huge object.
    input = document.toJS() ?? {};
  } catch (cause) {
    return err(badSyntax(options.file, cause instanceof Error ? cause.message : String(cause)));
  }
  const overrides = options.envPrefix === undefined ? [] : findOverrides(options.env ?? process.env, options.envPrefix);
  for (const override of overrides) input = setPath(input, override.path, override.value);

  let result = options.decoder(input, '');
  if (!result.ok) {
    // `PGHERD_AGENT_NODE=17` reads as a number, but the name wants text: only the decoder knows which was meant.
    const failed = result.error.path;
    const asText = overrides.find((override) => override.path.join('.') === failed && typeof override.value !== 'string');
    if (asText !== undefined) result = options.decoder(setPath(input, asText.path, asText.text), '');
  }
  if (result.ok) return result;

  const failedPath = result.error.path;
  const fromEnv = overrides.find((override) => failedPath === override.path.join('.') || failedPath.startsWith(`${override.path.join('.')}.`));
  const where =
    fromEnv === undefined ? place(options.file, lines, offsetOf(document.contents, result.error)) : `environment variable ${fromEnv.name}`;
  return err(invalid(where, result.error));
}

export interface LocatedText {
  /** An empty text is an empty object. */
  readonly value: unknown;
  /** The line of a path as decoders name it (`nodes[2].port`), or of the nearest container that is there; counts from 1. */
  readonly locate: (path: string) => number;
}

/** YAML, and with it JSON, whose lines can be asked for afterwards. Failure: `config.syntax`. */
export function parseLocated(file: string, text: string): Result<LocatedText, Failure> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const [syntax] = document.errors;
  if (syntax !== undefined) return err(badSyntax(place(file, lines, syntax.pos[0]), syntax.message));
  try {
    const value: unknown = document.toJS() ?? {};
    return { ok: true, value: { value, locate: (path) => Math.max(1, lines.linePos(offsetOf(document.contents, { path, message: '' }) ?? 0).line) } };
  } catch (cause) {
    return err(badSyntax(file, cause instanceof Error ? cause.message : String(cause)));
  }
}

interface Override {
  readonly name: string;
  readonly path: readonly string[];
  readonly value: unknown;
  readonly text: string;
}

/** Sorted by name, so that the outcome does not depend on the order of the environment. */
function findOverrides(env: Readonly<Record<string, string | undefined>>, prefix: string): readonly Override[] {
  const found: Override[] = [];
  for (const name of Object.keys(env).sort()) {
    const text = env[name];
    if (text === undefined || !name.startsWith(prefix) || name.length === prefix.length) continue;
    const path = name.slice(prefix.length).split('__').map(toCamelCase);
    found.push({ name, path, value: parseValue(text), text });
  }
  return found;
}

/** Numbers, booleans, null and `[a, b]` read as in the file; what is not YAML is text. */
function parseValue(text: string): unknown {
  try {
    return parse(text) as unknown;
  } catch (cause) {
    // A password-like text with `:` or `*` is no YAML, and was not meant to be.
    return cause instanceof Error ? text : null;
  }
}

function toCamelCase(words: string): string {
  return words.toLowerCase().replace(/_([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase());
}

function setPath(input: unknown, path: readonly string[], value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  const base = typeof input === 'object' && input !== null && !Array.isArray(input) ? input : {};
  const inner: unknown = Object.hasOwn(base, key) ? (base as Record<string, unknown>)[key] : undefined;
  return { ...base, [key]: setPath(inner, rest, value) };
}

/**
 * Where the error stands in the text: the key of an unknown or wrong member, else the nearest container that is there.
 * Null when the document is empty.
 */
function offsetOf(root: ParsedNode | null, error: DecodeError): number | null {
  let node: Node | null = root;
  let rest = error.path;
  let offset = root?.range?.[0] ?? null;
  while (rest !== '' && node !== null) {
    const step = isMap(node) ? stepIntoMap(node.items, rest) : isSeq(node) ? stepIntoList(node.items, rest) : null;
    if (step === null) return offset;
    offset = step.offset ?? offset;
    node = step.node;
    rest = step.rest;
  }
  return offset;
}

interface Step {
  readonly node: Node | null;
  readonly offset: number | null;
  readonly rest: string;
}

/** Keys may hold dots (`postgres.parameters.pg_stat_statements.max`), so the longest key that fits is taken. */
function stepIntoMap(items: readonly unknown[], path: string): Step | null {
  let best: Step | null = null;
  let bestLength = -1;
  for (const item of items) {
    if (!isPair(item) || !isScalar(item.key)) continue;
    const key = String(item.key.value);
    const after = path.charAt(key.length);
    if (!path.startsWith(key) || key.length <= bestLength || (after !== '' && after !== '.' && after !== '[')) continue;
    bestLength = key.length;
    best = { node: asNode(item.value), offset: item.key.range?.[0] ?? null, rest: path.slice(key.length).replace(/^\./, '') };
  }
  return best;
}

function stepIntoList(items: readonly unknown[], path: string): Step | null {
  const match = /^\[(\d+)\]\.?/.exec(path);
  if (match === null) return null;
  const node = asNode(items[Number(match[1])]);
  return { node, offset: node?.range?.[0] ?? null, rest: path.slice(match[0].length) };
}

function asNode(value: unknown): Node | null {
  return isMap(value) || isSeq(value) || isScalar(value) ? value : null;
}

/** `FILE:LINE:COLUMN`, both counted from 1, as compilers and editors write it. */
function place(file: string, lines: LineCounter, offset: number | null): string {
  if (offset === null) return file;
  const { line, col } = lines.linePos(offset);
  return line === 0 ? file : `${file}:${line}:${col}`;
}

function unreadable(file: string, cause: string): Failure {
  return {
    code: 'config.unreadable',
    what: `configuration ${file} cannot be read`,
    cause,
    now: 'nothing was started',
    remedy: 'name the right file with --config FILE, and see that this user may read it',
    retryable: false,
  };
}

function badSyntax(where: string, cause: string): Failure {
  return {
    code: 'config.syntax',
    what: `${where}: not YAML`,
    cause,
    now: 'nothing was started or changed',
    remedy: 'correct the line, then check it with `pgherd config check FILE`',
    retryable: false,
  };
}

function invalid(where: string, error: DecodeError): Failure {
  return {
    code: 'config.invalid',
    what: error.path === '' ? where : `${where}: ${error.path}`,
    cause: error.message,
    now: 'nothing was started or changed',
    remedy: 'correct the value, then check it with `pgherd config check FILE`',
    retryable: false,
  };
}
