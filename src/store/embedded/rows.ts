/** Rows of `history` as the engine handles them, and etcd's key ranges. */
import { create } from '@bufbuild/protobuf';
import { type KeyValue, KeyValueSchema } from '../proto/gen/kv_pb.ts';

export interface Row {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  /** Decimal text; null when none. */
  readonly lease: string | null;
  readonly deleted: boolean;
}

const NOTHING = new Uint8Array(0);

/** Decodes a row of `SELECT key, value, create_revision, revision, version, lease, deleted`. A zero-length value is stored as NULL. */
export function toRow(raw: Record<string, unknown>): Row {
  return {
    key: raw['key'] as Uint8Array,
    value: (raw['value'] as Uint8Array | null) ?? NOTHING,
    createRevision: Number(raw['create_revision']),
    modRevision: Number(raw['revision']),
    version: Number(raw['version']),
    lease: raw['lease'] === null ? null : String(raw['lease']),
    deleted: raw['deleted'] !== 0,
  };
}

/** A deletion carries only key and revision, as etcd's events do. */
export function toKeyValue(row: Row, keysOnly = false): KeyValue {
  if (row.deleted) return create(KeyValueSchema, { key: row.key, modRevision: BigInt(row.modRevision) });
  return create(KeyValueSchema, {
    key: row.key,
    value: keysOnly ? NOTHING : row.value,
    createRevision: BigInt(row.createRevision),
    modRevision: BigInt(row.modRevision),
    version: BigInt(row.version),
    lease: row.lease === null ? 0n : BigInt(row.lease),
  });
}

export interface KeyRange {
  readonly key: Uint8Array;
  /** Empty: the key alone. One zero byte: everything from `key` on. Else exclusive. *Source:* etcd API reference, RangeRequest.range_end. */
  readonly rangeEnd: Uint8Array;
}

export type RangeShape = 'one' | 'from' | 'between';

export function shapeOf(range: KeyRange): RangeShape {
  if (range.rangeEnd.length === 0) return 'one';
  return range.rangeEnd.length === 1 && range.rangeEnd[0] === 0 ? 'from' : 'between';
}

export function inRange(key: Uint8Array, range: KeyRange): boolean {
  const order = Buffer.compare(key, range.key);
  switch (shapeOf(range)) {
    case 'one':
      return order === 0;
    case 'from':
      return order >= 0;
    default:
      return order >= 0 && Buffer.compare(key, range.rangeEnd) < 0;
  }
}

/** SQL condition over `column`, and its parameters. BLOBs compare bytewise, as etcd's keys do. */
export function rangeCondition(column: string, range: KeyRange): { readonly text: string; readonly values: Uint8Array[] } {
  switch (shapeOf(range)) {
    case 'one':
      return { text: `${column} = ?`, values: [range.key] };
    case 'from':
      return { text: `${column} >= ?`, values: [range.key] };
    default:
      return { text: `${column} >= ? AND ${column} < ?`, values: [range.key, range.rangeEnd] };
  }
}
