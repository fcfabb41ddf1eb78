/**
 * Decoders for stored and received JSON: bad bytes become a value that says what is wrong and where, never a crash.
 * Encoding is generic: `encodeJson` writes each Lsn (the only bigint) in PostgreSQL's text form.
 */
import { type Lsn, formatLsn, parseLsn } from './lsn.ts';
import type { Result } from './result.ts';

export interface DecodeError {
  /** Path below the root, e.g. `nodes[2].port`; empty for the root itself. */
  readonly path: string;
  readonly message: string;
}

/** `path` is where `input` stands; those inside of it are decoded at '' and their errors put below it (`within`), so that what is right builds no paths. */
export type Decoder<T> = (input: unknown, path: string) => Result<T, DecodeError>;
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

const fail = (path: string, message: string): { readonly ok: false; readonly error: DecodeError } => ({
  ok: false,
  error: { path, message },
});

/** The failure of what stands at `part` (`.key` or `[index]`) of `path`. */
function within(path: string, part: string, { error }: { readonly error: DecodeError }): { readonly ok: false; readonly error: DecodeError } {
  const below = error.path === '' || error.path.startsWith('[') ? error.path : `.${error.path}`;
  const whole = `${path}${part}${below}`;
  return fail(whole.startsWith('.') ? whole.slice(1) : whole, error.message);
}

function kindOf(input: unknown): string {
  if (input === null) return 'null';
  return Array.isArray(input) ? 'a list' : typeof input === 'object' ? 'an object' : `${typeof input} ${JSON.stringify(input)}`;
}

export const text: Decoder<string> = (input, path) =>
  typeof input === 'string' ? { ok: true, value: input } : fail(path, `expected text, found ${kindOf(input)}`);

export const bool: Decoder<boolean> = (input, path) =>
  typeof input === 'boolean' ? { ok: true, value: input } : fail(path, `expected true or false, found ${kindOf(input)}`);

/** A finite number within the bounds, both inclusive. */
export function number(options: { min?: number; max?: number; integer?: boolean } = {}): Decoder<number> {
  return (input, path) => {
    if (typeof input !== 'number' || !Number.isFinite(input)) return fail(path, `expected a number, found ${kindOf(input)}`);
    if (options.integer === true && !Number.isInteger(input)) return fail(path, `expected a whole number, found ${input}`);
    if (options.min !== undefined && input < options.min) return fail(path, `${input} is below the minimum ${options.min}`);
    if (options.max !== undefined && input > options.max) return fail(path, `${input} is above the maximum ${options.max}`);
    return { ok: true, value: input };
  };
}

export const integer: Decoder<number> = number({ integer: true });

/** PostgreSQL's text form, `0/3000060`. */
export const lsn: Decoder<Lsn> = (input, path) => {
  const value = typeof input === 'string' ? parseLsn(input) : null;
  return value === null ? fail(path, `expected an LSN like 0/3000060, found ${kindOf(input)}`) : { ok: true, value };
};

export function oneOf<const T extends readonly string[]>(...values: T): Decoder<T[number]> {
  return (input, path) =>
    typeof input === 'string' && values.includes(input)
      ? { ok: true, value: input }
      : fail(path, `expected one of ${values.join(', ')}, found ${kindOf(input)}`);
}

export function nullable<T>(inner: Decoder<T>): Decoder<T | null> {
  return (input, path) => (input === null ? { ok: true, value: null } : inner(input, path));
}

/** Absent (undefined) becomes `value`; everything else must decode. */
export function withDefault<T>(inner: Decoder<T>, value: T): Decoder<T> {
  return (input, path) => (input === undefined ? { ok: true, value } : inner(input, path));
}

export function list<T>(inner: Decoder<T>): Decoder<readonly T[]> {
  return (input, path) => {
    if (!Array.isArray(input)) return fail(path, `expected a list, found ${kindOf(input)}`);
    const out: T[] = [];
    for (let index = 0; index < input.length; index++) {
      const result = inner(input[index], '');
      if (!result.ok) return within(path, `[${index}]`, result);
      out.push(result.value);
    }
    return { ok: true, value: out };
  };
}

/** An object used as a map; keys come back in the order in which they were written. */
export function record<T>(inner: Decoder<T>): Decoder<Readonly<Record<string, T>>> {
  return (input, path) => {
    if (!isObject(input)) return fail(path, `expected an object, found ${kindOf(input)}`);
    const out: Record<string, T> = {};
    for (const [key, item] of Object.entries(input)) {
      const result = inner(item, '');
      if (!result.ok) return within(path, `.${key}`, result);
      out[key] = result.value;
    }
    return { ok: true, value: out };
  };
}

type Fields = Readonly<Record<string, Decoder<unknown>>>;
type ObjectOf<F extends Fields> = { readonly [K in keyof F]: Decoded<F[K]> };

/** Unknown keys are dropped (`lenient`: stored data of a newer version) or refused with the nearest known key (`strict`: people's files). */
export function object<const F extends Fields>(fields: F, unknownKeys: 'lenient' | 'strict' = 'lenient'): Decoder<ObjectOf<F>> {
  const entries = Object.entries(fields);
  return (input, path) => {
    if (!isObject(input)) return fail(path, `expected an object, found ${kindOf(input)}`);
    if (unknownKeys === 'strict') {
      for (const key of Object.keys(input)) {
        if (!(key in fields)) return fail(join(path, key), `unknown key${suggestion(key, Object.keys(fields))}`);
      }
    }
    const out: Record<string, unknown> = {};
    for (const [key, decoder] of entries) {
      const result = decoder(input[key], '');
      if (!result.ok) return input[key] === undefined ? fail(join(path, key), 'is missing') : within(path, `.${key}`, result);
      out[key] = result.value;
    }
    return { ok: true, value: out as ObjectOf<F> };
  };
}

/** A union discriminated on `kind`. */
export function union<const C extends Readonly<Record<string, Decoder<unknown>>>>(cases: C): Decoder<Decoded<C[keyof C]>> {
  return (input, path) => {
    if (!isObject(input)) return fail(path, `expected an object, found ${kindOf(input)}`);
    const kind = input['kind'];
    const decoder = typeof kind === 'string' && Object.hasOwn(cases, kind) ? cases[kind] : undefined;
    if (decoder === undefined) return fail(join(path, 'kind'), `expected one of ${Object.keys(cases).join(', ')}, found ${kindOf(kind)}`);
    return decoder(input, path) as Result<Decoded<C[keyof C]>, DecodeError>;
  };
}

export function literal<const T extends string | number>(value: T): Decoder<T> {
  return (input, path) => (input === value ? { ok: true, value } : fail(path, `expected ${JSON.stringify(value)}, found ${kindOf(input)}`));
}

/** Changes the type of a decoded value; `to` returns null to refuse it. */
export function refine<A, B>(inner: Decoder<A>, to: (value: A) => B | null, expected: string): Decoder<B> {
  return (input, path) => {
    const first = inner(input, path);
    if (!first.ok) return first;
    const value = to(first.value);
    return value === null ? fail(path, `expected ${expected}, found ${kindOf(input)}`) : { ok: true, value };
  };
}

/** Addresses of a store, at least one: `https://host:port`, IPv6 in brackets. */
export const storeEndpoints: Decoder<readonly string[]> = refine(
  list(text),
  (urls) => (urls.length > 0 && urls.every((url) => /^https?:\/\/(\[[0-9A-Fa-f:.]+\]|[^\s/:@]+):\d{1,5}\/?$/.test(url)) ? urls : null),
  'one address or more like https://host:2379',
);

/** Parses JSON text and decodes it; a syntax error is a DecodeError too. */
export function decodeJson<T>(decoder: Decoder<T>, json: string): Result<T, DecodeError> {
  let input: unknown;
  try {
    input = JSON.parse(json);
  } catch (cause) {
    return fail('', `not JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  return decoder(input, '');
}

const SHARED_TEXTS = 32;
const shared = new WeakMap<Decoder<unknown>, Map<string, Result<unknown, DecodeError>>>();

/**
 * Like `decodeJson`; the same text gives the same value again, for as long as it is among the last of this decoder. For what several parts of a process read
 * of the store: each change comes to all of them. Not for secrets, which would be kept.
 */
export function decodeShared<T>(decoder: Decoder<T>, json: string): Result<T, DecodeError> {
  let texts = shared.get(decoder);
  if (texts === undefined) {
    texts = new Map();
    shared.set(decoder, texts);
  }
  const known = texts.get(json);
  if (known !== undefined) return known as Result<T, DecodeError>;
  const result = decodeJson(decoder, json);
  if (texts.size >= SHARED_TEXTS) texts.delete(texts.keys().next().value as string);
  texts.set(json, result);
  return result;
}

/** JSON text in which each Lsn stands in PostgreSQL's text form. */
export function encodeJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? formatLsn(item as Lsn) : item), indent);
}

export function formatDecodeError(error: DecodeError): string {
  return error.path === '' ? error.message : `${error.path}: ${error.message}`;
}

function isObject(input: unknown): input is Record<string, unknown> {
  return typeof input === 'object' && input !== null && !Array.isArray(input);
}

/** `key` inside of what stands at `path`. */
export function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

/** ` (did you mean "x"?)` for the nearest known word within an edit distance of 3; empty when none is near. */
export function suggestion(word: string, known: readonly string[]): string {
  let best: string | null = null;
  let bestDistance = 4;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best === null ? '' : ` (did you mean "${best}"?)`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
