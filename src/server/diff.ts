/** What changes between two JSON values, one line a leaf: paths as the errors of the spec write them. Pure. */
import type { DiffLine } from '../api/schema.ts';

/** Empty when both are equal. List entries with an `id` are matched by it (`nodes[n2].port`), others by position. Absent is null. */
export function diffJson(from: unknown, to: unknown, path = ''): readonly DiffLine[] {
  if (isObject(from) && isObject(to)) {
    const keys = [...new Set([...Object.keys(from), ...Object.keys(to)])];
    return keys.flatMap((key) => diffJson(from[key] ?? null, to[key] ?? null, path === '' ? key : `${path}.${key}`));
  }
  if (Array.isArray(from) && Array.isArray(to)) {
    const left = byIdentity(from);
    const right = byIdentity(to);
    const names = [...new Set([...left.keys(), ...right.keys()])];
    return names.flatMap((name) => diffJson(left.get(name) ?? null, right.get(name) ?? null, `${path}[${name}]`));
  }
  return JSON.stringify(from ?? null) === JSON.stringify(to ?? null) ? [] : [{ path, from: from ?? null, to: to ?? null }];
}

function byIdentity(items: readonly unknown[]): Map<string, unknown> {
  return new Map(items.map((item, index) => [isObject(item) && typeof item['id'] === 'string' ? item['id'] : String(index), item]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
