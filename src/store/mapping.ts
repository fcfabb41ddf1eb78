/** Between the store's own types and the protocol's messages. */
import { type MessageInitShape, create } from '@bufbuild/protobuf';
import { makeRevision } from '../core/ids.ts';
import { assertNever } from '../core/result.ts';
import type { KeyValue as ProtoKeyValue } from './proto/gen/kv_pb.ts';
import { type CompareSchema, type RequestOpSchema, type TxnRequest, TxnRequestSchema } from './proto/gen/rpc_pb.ts';
import type { Compare, KeyValue, Op } from './store.ts';

export function toBytes(text: string): Uint8Array {
  return Buffer.from(text, 'utf8');
}

function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** Bytes that are not UTF-8 become replacement characters: foreign data then fails in the decoder of its value. */
export function readKeyValue(kv: ProtoKeyValue): KeyValue {
  return {
    key: toText(kv.key),
    value: toText(kv.value),
    createRevision: makeRevision(Number(kv.createRevision)),
    modRevision: makeRevision(Number(kv.modRevision)),
    version: Number(kv.version),
    lease: kv.lease === 0n ? null : String(kv.lease),
  };
}

/** All keys that begin with `prefix`: the end is the prefix with its last byte raised by one. Empty prefix: every key. *Source:* etcd API reference, RangeRequest.range_end. */
export function prefixRange(prefix: string): { key: Uint8Array; rangeEnd: Uint8Array } {
  const key = toBytes(prefix);
  const end = Uint8Array.from(key);
  for (let i = end.length - 1; i >= 0; i--) {
    const byte = end[i] ?? 0;
    if (byte < 0xff) {
      end[i] = byte + 1;
      return { key, rangeEnd: end.slice(0, i + 1) };
    }
  }
  return { key: key.length === 0 ? new Uint8Array(1) : key, rangeEnd: new Uint8Array(1) };
}

export function isReadOnlyTxn(...branches: readonly (readonly Op[])[]): boolean {
  return branches.flat().every((op) => op.kind === 'get' || op.kind === 'get-prefix');
}

export function buildTxn(compares: readonly Compare[], then: readonly Op[], otherwise: readonly Op[]): TxnRequest {
  return create(TxnRequestSchema, { compare: compares.map(toCompare), success: then.map(toOp), failure: otherwise.map(toOp) });
}

const RESULTS = { '=': 0, '>': 1, '<': 2, '!=': 3 } as const;

function toCompare(compare: Compare): MessageInitShape<typeof CompareSchema> {
  const common = { key: toBytes(compare.key), result: RESULTS[compare.op] };
  switch (compare.target) {
    case 'mod':
      return { ...common, target: 2, targetUnion: { case: 'modRevision', value: BigInt(compare.revision) } };
    case 'create':
      return { ...common, target: 1, targetUnion: { case: 'createRevision', value: BigInt(compare.revision) } };
    case 'value':
      return { ...common, target: 3, targetUnion: { case: 'value', value: toBytes(compare.value) } };
    case 'lease':
      return { ...common, target: 4, targetUnion: { case: 'lease', value: BigInt(compare.lease) } };
    default:
      return assertNever(compare, 'toCompare');
  }
}

function toOp(op: Op): MessageInitShape<typeof RequestOpSchema> {
  switch (op.kind) {
    case 'put':
      return { request: { case: 'requestPut', value: { key: toBytes(op.key), value: toBytes(op.value), lease: BigInt(op.lease ?? 0) } } };
    case 'delete':
      return { request: { case: 'requestDeleteRange', value: { key: toBytes(op.key) } } };
    case 'delete-prefix':
      return { request: { case: 'requestDeleteRange', value: prefixRange(op.prefix) } };
    case 'get':
      return { request: { case: 'requestRange', value: { key: toBytes(op.key) } } };
    case 'get-prefix':
      return { request: { case: 'requestRange', value: prefixRange(op.prefix) } };
    default:
      return assertNever(op, 'toOp');
  }
}
