/** Sets of names that are asked with bytes: no string is made, nothing is allocated by a question. */
import { encodeText } from './bytes.ts';

export interface NameSet {
  readonly size: number;
  readonly mask: number;
  /** By slot: hash of the name, and where it stands in the pool; `ends` 0 is an empty slot. */
  readonly hashes: Int32Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  readonly pool: Uint8Array;
}

export const HASH_START = 0x811c9dc5 | 0;
const HASH_PRIME = 0x01000193;

/** ASCII lower case by byte: how PostgreSQL folds names that are not quoted, in a multi-byte encoding. Source: downcase_identifier, src/backend/parser/scansup.c. */
export const LOWER: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) => (byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte));

/** FNV-1a, one byte further. */
export function hashByte(hash: number, byte: number): number {
  return Math.imul(hash ^ byte, HASH_PRIME);
}

export function hashBytes(bytes: Uint8Array, from: number, to: number): number {
  let hash = HASH_START;
  for (let i = from; i < to; i++) hash = hashByte(hash, bytes[i] as number);
  return hash;
}

/** Names as the catalog has them (folded already where they were not quoted). Empty names are left out. */
export function buildNameSet(names: Iterable<string>): NameSet {
  const distinct = [...new Set(names)].filter((name) => name !== '').map(encodeText);
  let slots = 8;
  while (slots < distinct.length * 2) slots *= 2;
  const set = {
    size: distinct.length,
    mask: slots - 1,
    hashes: new Int32Array(slots),
    starts: new Int32Array(slots),
    ends: new Int32Array(slots),
    pool: new Uint8Array(distinct.reduce((sum, name) => sum + name.length, 0)),
  };
  let at = 0;
  for (const name of distinct) {
    const hash = hashBytes(name, 0, name.length);
    let slot = hash & set.mask;
    while (set.ends[slot] !== 0) slot = (slot + 1) & set.mask;
    set.pool.set(name, at);
    set.hashes[slot] = hash;
    set.starts[slot] = at;
    at += name.length;
    set.ends[slot] = at;
  }
  return set;
}

/**
 * Whether the set holds the name `bytes[from…to]`, folded to lower case unless it was `quoted`. `hash` is that of the name as it is compared.
 */
export function hasName(set: NameSet, hash: number, bytes: Uint8Array, from: number, to: number, quoted: boolean): boolean {
  if (set.size === 0) return false;
  let slot = hash & set.mask;
  for (;;) {
    const stop = set.ends[slot] as number;
    if (stop === 0) return false;
    if (set.hashes[slot] === hash) {
      const start = set.starts[slot] as number;
      if (stop - start === to - from && samePart(set.pool, start, stop, bytes, from, quoted)) return true;
    }
    slot = (slot + 1) & set.mask;
  }
}

function samePart(pool: Uint8Array, start: number, stop: number, bytes: Uint8Array, from: number, quoted: boolean): boolean {
  for (let i = start, k = from; i < stop; i++, k++) {
    const byte = bytes[k] as number;
    if (pool[i] !== (quoted ? byte : LOWER[byte])) return false;
  }
  return true;
}
