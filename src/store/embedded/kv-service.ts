/** etcd's KV requests over the MVCC engine: defaults, limits, sorting, transactions. Pure request → response; the commit queue runs the writing ones. */
import { create } from '@bufbuild/protobuf';
import {
  type Compare,
  type CompactionRequest,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  DeleteRangeResponseSchema,
  type PutRequest,
  type PutResponse,
  PutResponseSchema,
  type RangeRequest,
  type RangeResponse,
  RangeResponseSchema,
  type RequestOp,
  type ResponseHeader,
  type ResponseOp,
  ResponseOpSchema,
  type TxnRequest,
  type TxnResponse,
  TxnResponseSchema,
} from '../proto/gen/rpc_pb.ts';
import { faults } from './fault.ts';
import type { Mvcc, Writer } from './mvcc.ts';
import { type KeyRange, type Row, inRange, toKeyValue } from './rows.ts';

/** etcd's own defaults, so that a cluster can move between the engines. *Source:* etcd 3.4, `--max-request-bytes`, `--max-txn-ops`. */
export const MAX_REQUEST_BYTES = 1.5 * 1024 * 1024;
export const MAX_TXN_OPS = 128;

export interface KvContext {
  readonly mvcc: Mvcc;
  readonly header: (revision: number) => ResponseHeader;
  /** True: puts are refused (the file is at its limit), deletes and compaction are not. */
  readonly full: () => boolean;
}

/** Throws faults: `compacted`, `future`, `emptyKey`. */
export function range(context: KvContext, request: RangeRequest): RangeResponse {
  requireKey(request.key);
  const { mvcc } = context;
  const at = Number(request.revision);
  const response = create(RangeResponseSchema, { header: context.header(mvcc.revision()) });
  if (request.countOnly) {
    response.count = BigInt(mvcc.count(request, at));
    return response;
  }
  const limit = Number(request.limit);
  const plain = request.sortTarget === 0 && request.sortOrder !== 2 && !hasRevisionFilter(request);
  if (plain && limit > 0) {
    response.kvs = mvcc.range(request, at, limit).map((row) => toKeyValue(row, request.keysOnly));
    response.count = BigInt(mvcc.count(request, at));
    response.more = response.count > BigInt(response.kvs.length);
    return response;
  }
  const all = mvcc.range(request, at, 0);
  const chosen = sortRows(
    all.filter((row) => passes(row, request)),
    request,
  );
  const cut = limit > 0 ? chosen.slice(0, limit) : chosen;
  response.kvs = cut.map((row) => toKeyValue(row, request.keysOnly));
  response.count = BigInt(all.length);
  response.more = cut.length < chosen.length;
  return response;
}

/** Runs inside the commit queue. */
export function put(context: KvContext, request: PutRequest): PutResponse {
  return context.mvcc.transaction((writer) => applyPut(context, writer, request));
}

/** Runs inside the commit queue. */
export function deleteRange(context: KvContext, request: DeleteRangeRequest): DeleteRangeResponse {
  requireKey(request.key);
  const response = context.mvcc.transaction((writer) => applyDelete(context, writer, request));
  response.header = context.header(context.mvcc.revision());
  return response;
}

/** Runs inside the commit queue. Compares and writes at one revision; duplicate keys and nesting are refused before anything is applied. */
export function txn(context: KvContext, request: TxnRequest): TxnResponse {
  checkTxn(request);
  const response = context.mvcc.transaction((writer) => {
    const succeeded = request.compare.every((compare) => judge(context.mvcc, compare));
    const responses = (succeeded ? request.success : request.failure).map((op) => applyOp(context, writer, op));
    return create(TxnResponseSchema, { succeeded, responses });
  });
  response.header = context.header(context.mvcc.revision());
  return response;
}

export function compact(context: KvContext, request: CompactionRequest): void {
  context.mvcc.compact(Number(request.revision));
}

/** True when the transaction, whichever branch it takes, writes nothing. */
export function isReadOnly(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].every((op) => op.request.case === 'requestRange');
}

function applyOp(context: KvContext, writer: Writer, op: RequestOp): ResponseOp {
  const { request } = op;
  switch (request.case) {
    case 'requestPut':
      return create(ResponseOpSchema, { response: { case: 'responsePut', value: applyPut(context, writer, request.value) } });
    case 'requestDeleteRange':
      return create(ResponseOpSchema, { response: { case: 'responseDeleteRange', value: applyDelete(context, writer, request.value) } });
    case 'requestRange': {
      const value = range(context, request.value);
      value.header = context.header(writer.wrote() ? writer.revision : context.mvcc.revision());
      return create(ResponseOpSchema, { response: { case: 'responseRange', value } });
    }
    default:
      throw faults.nestedTxn();
  }
}

function applyPut(context: KvContext, writer: Writer, request: PutRequest): PutResponse {
  requireKey(request.key);
  if (request.key.length + request.value.length > MAX_REQUEST_BYTES) throw faults.tooLarge();
  if (request.ignoreValue && request.value.length > 0) throw faults.valueProvided();
  if (request.ignoreLease && request.lease !== 0n) throw faults.leaseProvided();
  if (context.full()) throw faults.noSpace();
  let { value } = request;
  let lease = request.lease === 0n ? null : String(request.lease);
  if (request.ignoreValue || request.ignoreLease) {
    const before = context.mvcc.range(one(request.key), 0, 1)[0];
    if (before === undefined) throw faults.keyNotFound();
    if (request.ignoreValue) value = before.value;
    if (request.ignoreLease) lease = before.lease;
  }
  const previous = writer.put(request.key, value, lease);
  const response = create(PutResponseSchema, { header: context.header(writer.revision) });
  if (request.prevKv && previous !== null) response.prevKv = toKeyValue(previous);
  return response;
}

function applyDelete(context: KvContext, writer: Writer, request: DeleteRangeRequest): DeleteRangeResponse {
  requireKey(request.key);
  const gone = writer.delete(request);
  return create(DeleteRangeResponseSchema, {
    header: context.header(writer.wrote() ? writer.revision : context.mvcc.revision()),
    deleted: BigInt(gone.length),
    prevKvs: request.prevKv ? gone.map((row) => toKeyValue(row)) : [],
  });
}

/** All keys of the range must pass; a missing key fails every compare of a value, `!=` too, and otherwise counts as revision, version and lease 0. *Source:* etcd 3.4, mvcc applyCompare. */
function judge(mvcc: Mvcc, compare: Compare): boolean {
  const rows = mvcc.range(compare, 0, 0);
  if (rows.length === 0) return judgeRow(null, compare);
  return rows.every((row) => judgeRow(row, compare));
}

function judgeRow(row: Row | null, compare: Compare): boolean {
  const { targetUnion } = compare;
  const number = (actual: number | string | null | undefined, wanted: unknown): number => {
    const left = BigInt(actual ?? 0);
    const right = typeof wanted === 'bigint' ? wanted : 0n;
    return left < right ? -1 : left > right ? 1 : 0;
  };
  switch (compare.target) {
    case 0:
      return holds(compare.result, number(row?.version, targetUnion.value));
    case 1:
      return holds(compare.result, number(row?.createRevision, targetUnion.value));
    case 2:
      return holds(compare.result, number(row?.modRevision, targetUnion.value));
    case 3:
      return row !== null && holds(compare.result, Buffer.compare(row.value, targetUnion.case === 'value' ? targetUnion.value : new Uint8Array(0)));
    case 4:
      return holds(compare.result, number(row?.lease, targetUnion.value));
    default:
      return false;
  }
}

function holds(result: number, order: number): boolean {
  switch (result) {
    case 0:
      return order === 0;
    case 1:
      return order > 0;
    case 2:
      return order < 0;
    case 3:
      return order !== 0;
    default:
      return false;
  }
}

function checkTxn(request: TxnRequest): void {
  if (request.compare.length > MAX_TXN_OPS || request.success.length > MAX_TXN_OPS || request.failure.length > MAX_TXN_OPS) throw faults.tooManyOps();
  for (const compare of request.compare) requireKey(compare.key);
  for (const branch of [request.success, request.failure]) {
    const puts = new Map<string, Uint8Array>();
    const deletes: KeyRange[] = [];
    let bytes = 0;
    for (const { request: op } of branch) {
      if (op.case === 'requestTxn' || op.case === undefined) throw faults.nestedTxn();
      if (op.case === 'requestDeleteRange') deletes.push(op.value);
      if (op.case !== 'requestPut') continue;
      const name = Buffer.from(op.value.key).toString('latin1');
      if (puts.has(name)) throw faults.duplicateKey();
      puts.set(name, op.value.key);
      bytes += op.value.key.length + op.value.value.length;
      if (bytes > MAX_REQUEST_BYTES) throw faults.tooLarge();
    }
    for (const key of puts.values()) if (deletes.some((doomed) => inRange(key, doomed))) throw faults.duplicateKey();
  }
}

function sortRows(rows: Row[], request: RangeRequest): Row[] {
  if (request.sortTarget === 0 && request.sortOrder !== 2) return rows;
  const by: ((a: Row, b: Row) => number)[] = [
    (a, b) => Buffer.compare(a.key, b.key),
    (a, b) => a.version - b.version,
    (a, b) => a.createRevision - b.createRevision,
    (a, b) => a.modRevision - b.modRevision,
    (a, b) => Buffer.compare(a.value, b.value),
  ];
  const order = by[request.sortTarget];
  if (order === undefined) return rows;
  return rows.toSorted((a, b) => (request.sortOrder === 2 ? order(b, a) : order(a, b)));
}

function hasRevisionFilter(request: RangeRequest): boolean {
  return request.minModRevision !== 0n || request.maxModRevision !== 0n || request.minCreateRevision !== 0n || request.maxCreateRevision !== 0n;
}

function passes(row: Row, request: RangeRequest): boolean {
  const within = (value: number, min: bigint, max: bigint): boolean => (min === 0n || BigInt(value) >= min) && (max === 0n || BigInt(value) <= max);
  return (
    within(row.modRevision, request.minModRevision, request.maxModRevision) &&
    within(row.createRevision, request.minCreateRevision, request.maxCreateRevision)
  );
}

function requireKey(key: Uint8Array): void {
  if (key.length === 0) throw faults.emptyKey();
}

function one(key: Uint8Array): KeyRange {
  return { key, rangeEnd: new Uint8Array(0) };
}
