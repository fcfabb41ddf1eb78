/**
 * Settings of the application (names with a dot) that code made: no view of the server lists them, so they can only be asked for by name.
 * The names are looked for in the texts that ran; a call whose name the text does not show leaves a doubt that no question ends.
 */
import { decodeText } from './bytes.ts';

export interface OwnSettings {
  /** In lower case, since PostgreSQL compares them so. */
  readonly names: Set<string>;
  /** A name was put together by code, or there are more than are kept. */
  unknown: boolean;
}

const MAX_NAMES = 200;
/** Others would have to be asked for in the encoding of the session. */
const ASCII = /^[\x20-\x7e]*$/;
/** `set_config(`, with the name when it is a plain literal; `SET name`, with the name when it has a dot; `SET` with a name that code puts there (`'set ' || …`, `%I`). */
const MADE = /\bset_config\s*\(\s*(?:'([^'\\]*)'\s*,)?|\bset\s+(?:session\s+)?(?:([a-z_][\w$]*\.[\w$.]+)|('|[^\s=]*%))/gi;

export function createOwnSettings(): OwnSettings {
  return { names: new Set(), unknown: false };
}

/** Of a text that runs code, or more than one statement. Looks at the whole text. */
export function noteOwnSettings(own: OwnSettings, bytes: Uint8Array, from: number, to: number): void {
  if (own.unknown || !holdsSet(bytes, from, to)) return;
  for (const [, called, set] of decodeText(bytes, from, to).matchAll(MADE)) {
    const name = called ?? set;
    if (name === undefined || own.names.size >= MAX_NAMES || !ASCII.test(name)) own.unknown = true;
    else if (name.includes('.')) own.names.add(name.toLowerCase());
  }
}

/** Most texts end here: to make a string of each would cost more than to classify it. */
function holdsSet(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at + 3 <= to; at++)
    if (((bytes[at] as number) | CASE) === S && ((bytes[at + 1] as number) | CASE) === E && ((bytes[at + 2] as number) | CASE) === T) return true;
  return false;
}

const CASE = 0x20;
const [S, E, T] = [0x73, 0x65, 0x74];

/** RESET ALL and DISCARD ALL take them away. */
export function forgetOwnSettings(own: OwnSettings): void {
  own.names.clear();
  own.unknown = false;
}
