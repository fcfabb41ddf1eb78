/** A map with names in bytes as keys: a look-up makes no string. */
import { sameBytes } from './bytes.ts';
import { hashBytes } from './names.ts';

interface Entry<T> {
  readonly key: Uint8Array;
  value: T;
  next: Entry<T> | null;
}

export interface ByteMap<T> {
  readonly buckets: Map<number, Entry<T>>;
  size: number;
}

export function createByteMap<T>(): ByteMap<T> {
  return { buckets: new Map(), size: 0 };
}

/** Null when the map does not hold the key `bytes[from…to]`. */
export function getBytes<T>(map: ByteMap<T>, bytes: Uint8Array, from: number, to: number): T | null {
  if (map.size === 0) return null;
  for (let entry = map.buckets.get(hashBytes(bytes, from, to)) ?? null; entry !== null; entry = entry.next)
    if (sameBytes(entry.key, 0, entry.key.length, bytes, from, to)) return entry.value;
  return null;
}

/** Keeps `key` itself, which must not change any more. */
export function setBytes<T>(map: ByteMap<T>, key: Uint8Array, value: T): void {
  const hash = hashBytes(key, 0, key.length);
  const first = map.buckets.get(hash) ?? null;
  for (let entry = first; entry !== null; entry = entry.next) {
    if (sameBytes(entry.key, 0, entry.key.length, key, 0, key.length)) {
      entry.value = value;
      return;
    }
  }
  map.buckets.set(hash, { key, value, next: first });
  map.size++;
}

/** False when there was none. */
export function deleteBytes<T>(map: ByteMap<T>, key: Uint8Array): boolean {
  const hash = hashBytes(key, 0, key.length);
  let before: Entry<T> | null = null;
  for (let entry = map.buckets.get(hash) ?? null; entry !== null; before = entry, entry = entry.next) {
    if (!sameBytes(entry.key, 0, entry.key.length, key, 0, key.length)) continue;
    if (before !== null) before.next = entry.next;
    else if (entry.next === null) map.buckets.delete(hash);
    else map.buckets.set(hash, entry.next);
    map.size--;
    return true;
  }
  return false;
}

export function clearBytes<T>(map: ByteMap<T>): void {
  map.buckets.clear();
  map.size = 0;
}

/** Calls `visit` for each value, in no order that matters. */
export function eachBytes<T>(map: ByteMap<T>, visit: (value: T) => void): void {
  for (const first of map.buckets.values()) for (let entry: Entry<T> | null = first; entry !== null; entry = entry.next) visit(entry.value);
}
