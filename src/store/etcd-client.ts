/** The store's client over etcd's v3 protocol; the embedded engine and etcd look the same to it. The promises are those of `store.ts`. */
import { randomBytes } from 'node:crypto';
import { type DescMessage, type MessageShape, create } from '@bufbuild/protobuf';
import { type Clock, realClock } from '../base/clock.ts';
import { type MonoMs, addMono, makeRevision } from '../core/ids.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type Outcome, type RpcError, classify } from './classify.ts';
import { type Connection, type ConnectionOptions, type Password, openConnection } from './connection.ts';
import { keepAliveOnce } from './keep-alive.ts';
import { buildTxn, isReadOnlyTxn, prefixRange, readKeyValue, toBytes } from './mapping.ts';
import type { TlsFiles } from './pem.ts';
import {
  Cluster,
  KV,
  Lease,
  LeaseGrantRequestSchema,
  LeaseRevokeRequestSchema,
  LeaseTimeToLiveRequestSchema,
  Maintenance,
  MemberListRequestSchema,
  RangeRequestSchema,
  StatusRequestSchema,
} from './proto/gen/rpc_pb.ts';
import { type Method, methodOf } from './proto/services.ts';
import type { CallOptions, Store, StoreError, TxnResult } from './store.ts';
import { type WatchOptions, watchPrefix } from './watch.ts';

export interface OpenStoreOptions {
  /** `https://host:port` (or `http://…` without TLS); tried in this order, one at a time. */
  readonly endpoints: readonly string[];
  /** Each PEM text or a file's path; null only with `http://` endpoints. */
  readonly tls: TlsFiles | null;
  readonly clock?: Clock;
  readonly username?: string;
  readonly password?: Password;
  /** Limit of a call without a deadline of its own. Default: CALL_MS. */
  readonly callMs?: number;
  /** Limit of one try at one endpoint. Default: TRY_MS of the connection. */
  readonly tryMs?: number;
  /** Default: HTTP/2 to the endpoints. */
  readonly openChannel?: NonNullable<ConnectionOptions['openChannel']>;
}

/** Default of `CallOptions.deadline`. */
const CALL_MS = 2_000;
/** A read of the revision that was sent no longer ago is shared: freshness is dated back by that much at most. */
const SHARED_READ_MS = 50;

const RANGE = methodOf(KV.method.range);
const TXN = methodOf(KV.method.txn);
const GRANT = methodOf(Lease.method.leaseGrant);
const REVOKE = methodOf(Lease.method.leaseRevoke);
const TIME_TO_LIVE = methodOf(Lease.method.leaseTimeToLive);
const STATUS = methodOf(Maintenance.method.status);
const MEMBERS = methodOf(Cluster.method.memberList);

/** Does not wait for a connection: the first call does. Throws only for endpoints that are no URLs and PEM files that cannot be read. */
export function openStore(options: OpenStoreOptions): Store {
  const clock = options.clock ?? realClock;
  const connection = openConnection({ ...options, clock });
  const deadlineOf = (call: CallOptions | undefined): MonoMs => call?.deadline ?? addMono(clock.now().mono, options.callMs ?? CALL_MS);
  let reading: { readonly sentAt: MonoMs; readonly answer: ReturnType<WatchOptions['readRevision']> } | null = null;

  /** The watches of a client look at the same ticks: one read serves them all. Which prefix is counted does not matter, the revision is the store's. */
  const readRevision = (prefix: string, deadline: MonoMs): ReturnType<WatchOptions['readRevision']> => {
    const sentAt = clock.now().mono;
    if (reading !== null && sentAt - reading.sentAt < SHARED_READ_MS) return reading.answer;
    const request = create(RangeRequestSchema, { ...prefixRange(prefix), countOnly: true });
    const answer = sendRequest(connection, RANGE, request, { deadline, repeat: 'read' }).then((read) =>
      read.ok ? ok({ revision: Number(read.value.header?.revision ?? 0n), sentAt }) : read,
    );
    reading = { sentAt, answer };
    return answer;
  };

  return {
    status: (call) => readStatus(connection, deadlineOf(call)),
    get: async (key, call) => {
      const request = create(RangeRequestSchema, { key: toBytes(key) });
      const answer = await sendRequest(connection, RANGE, request, { deadline: deadlineOf(call), repeat: 'read' });
      if (!answer.ok) return answer;
      const kv = answer.value.kvs[0];
      return ok(kv === undefined ? null : readKeyValue(kv));
    },
    list: async (prefix, call) => {
      const request = create(RangeRequestSchema, { ...prefixRange(prefix), limit: BigInt(call?.limit ?? 0) });
      const answer = await sendRequest(connection, RANGE, request, { deadline: deadlineOf(call), repeat: 'read' });
      if (!answer.ok) return answer;
      const { header, kvs } = answer.value;
      return ok({ revision: makeRevision(Number(header?.revision ?? 0n)), incarnation: String(header?.clusterId ?? 0n), kvs: kvs.map(readKeyValue) });
    },
    txn: async (compares, then, otherwise = [], call) => {
      const repeat = isReadOnlyTxn(then, otherwise) ? 'read' : 'never';
      const answer = await sendRequest(connection, TXN, buildTxn(compares, then, otherwise), { deadline: deadlineOf(call), repeat });
      if (!answer.ok) return answer;
      const reads: TxnResult['reads'][number][] = [];
      for (const { response } of answer.value.responses) if (response.case === 'responseRange') reads.push(response.value.kvs.map(readKeyValue));
      return ok({ succeeded: answer.value.succeeded, revision: makeRevision(Number(answer.value.header?.revision ?? 0n)), reads });
    },
    grantLease: (ttlMs, call) => grant(connection, ttlMs, deadlineOf(call), call?.id),
    keepAlive: (lease, call) => keepAliveOnce(connection, lease, deadlineOf(call)),
    revokeLease: (lease, call) => revoke(connection, lease, deadlineOf(call)),
    watch: (prefix, after, handlers) =>
      watchPrefix({
        connection,
        prefix,
        after,
        handlers,
        readRevision: (deadline) => readRevision(prefix, deadline),
        readAt: (key, revision, deadline) => readAt(connection, { key, revision, deadline }),
      }),
    close: () => connection.close(),
  };
}

interface RequestOptions {
  readonly deadline: MonoMs;
  /**
   * `read`: may be sent any number of times, and a failure is `unavailable`. `idempotent`: may be repeated too, but a failure after it was sent is `unknown`.
   * `never`: once it may have reached a server, its outcome is `unknown`; it is never sent twice.
   */
  readonly repeat: 'read' | 'idempotent' | 'never';
}

async function sendRequest<I extends DescMessage, O extends DescMessage>(
  connection: Connection,
  method: Method<I, O>,
  message: MessageShape<I>,
  options: RequestOptions,
): Promise<Result<MessageShape<O>, StoreError>> {
  const answer = await requestOutcome(connection, method, message, options);
  if (answer.kind === 'answer') return ok(answer.value);
  return err(answer.error);
}

type RequestOutcome<O> =
  | { readonly kind: 'answer'; readonly value: O }
  | { readonly kind: 'error'; readonly error: StoreError; readonly outcome: Outcome | null; readonly repeated: boolean };

/** The loop over endpoints until an answer, a refusal, an unknown outcome that must not be repeated, or the deadline. */
async function requestOutcome<I extends DescMessage, O extends DescMessage>(
  connection: Connection,
  method: Method<I, O>,
  message: MessageShape<I>,
  { deadline, repeat }: RequestOptions,
): Promise<RequestOutcome<MessageShape<O>>> {
  let maybeApplied = false;
  let last: RpcError = { code: 0, details: 'no time was left to try' };
  const failed = (error: StoreError, outcome: Outcome | null = null): RequestOutcome<MessageShape<O>> => ({
    kind: 'error',
    error,
    outcome,
    repeated: maybeApplied,
  });
  const refusal = connection.foreign();
  if (refusal !== null) return failed({ kind: 'refused', message: refusal });
  for (;;) {
    if (connection.closed()) return failed({ kind: maybeApplied ? 'unknown' : 'unavailable', message: 'the store client was closed' });
    if (connection.clock.now().mono >= deadline) break;
    const endpoint = connection.current();
    const attempt = await connection.call(endpoint, method, message, deadline);
    if (attempt.kind === 'answer') return attempt;
    if (attempt.kind === 'foreign') return failed({ kind: 'refused', message: attempt.message });
    const outcome = attempt.sent ? classify(attempt.error) : notSentOutcome(attempt.error);
    last = attempt.error;
    if (outcome !== 'not-applied' && outcome !== 'unclear') return failed(toStoreError(outcome, attempt.error), outcome);
    connection.leave(endpoint);
    if (outcome === 'unclear' && attempt.sent && repeat !== 'read') maybeApplied = true;
    if (maybeApplied && repeat === 'never') return failed({ kind: 'unknown', message: last.details });
    // A refused connection answers at once: without a pause this loop would spin.
    await connection.pause(deadline);
  }
  return failed({ kind: maybeApplied ? 'unknown' : 'unavailable', message: `no answer within the limit: ${last.details}` });
}

/** Nothing was sent, so whatever failed cannot have been applied; but a refusal (bad login) stays one. */
function notSentOutcome(error: RpcError): Outcome {
  const outcome = classify(error);
  return outcome === 'unclear' ? 'not-applied' : outcome;
}

function toStoreError(outcome: Exclude<Outcome, 'not-applied' | 'unclear'>, { details }: RpcError): StoreError {
  switch (outcome) {
    case 'lease-not-found':
      return { kind: 'lease-not-found', message: details };
    case 'compacted':
      return { kind: 'compacted', message: details, compactRevision: makeRevision(0) };
    default:
      return { kind: 'refused', message: details };
  }
}

/** *Source:* etcd 3.4, rpctypes ErrGRPCFutureRev: "etcdserver: mvcc: required revision is a future revision". */
async function readAt(
  connection: Connection,
  { key, revision, deadline }: { readonly key: string; readonly revision: number; readonly deadline: MonoMs },
): ReturnType<WatchOptions['readAt']> {
  const request = create(RangeRequestSchema, { key: toBytes(key), revision: BigInt(revision) });
  const answer = await sendRequest(connection, RANGE, request, { deadline, repeat: 'read' });
  if (!answer.ok) return answer.error.message.includes('future revision') ? ok('future') : answer;
  const kv = answer.value.kvs[0];
  return ok(kv === undefined ? null : readKeyValue(kv));
}

async function readStatus(connection: Connection, deadline: MonoMs): ReturnType<Store['status']> {
  const answer = await sendRequest(connection, STATUS, create(StatusRequestSchema), { deadline, repeat: 'read' });
  if (!answer.ok) return answer;
  const members = await sendRequest(connection, MEMBERS, create(MemberListRequestSchema), { deadline, repeat: 'read' });
  if (!members.ok) return members;
  const { version, header, dbSize } = answer.value;
  return ok({
    engine: version.includes('pgherd') ? ('embedded' as const) : ('etcd' as const),
    version,
    incarnation: String(header?.clusterId ?? 0n),
    revision: makeRevision(Number(header?.revision ?? 0n)),
    dbSizeBytes: Number(dbSize),
    endpoint: connection.current().url,
    members: members.value.members.length,
  });
}

/** The id is chosen here, so that a grant whose answer was lost can be repeated without leaving a second lease behind. */
async function grant(connection: Connection, ttlMs: number, deadline: MonoMs, wanted?: string): ReturnType<Store['grantLease']> {
  const id = wanted !== undefined ? BigInt(wanted) : (randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn) | 1n;
  const request = create(LeaseGrantRequestSchema, { ID: id, TTL: BigInt(Math.ceil(ttlMs / 1000)) });
  const answer = await requestOutcome(connection, GRANT, request, { deadline, repeat: 'idempotent' });
  if (answer.kind === 'answer') return ok({ id: String(id), ttlMs: Number(answer.value.TTL) * 1000 });
  // Only this call knows the id: an existing lease of that id was granted by its own earlier try.
  if (answer.outcome !== 'lease-exists' || !answer.repeated) return err(answer.error);
  const found = await sendRequest(connection, TIME_TO_LIVE, create(LeaseTimeToLiveRequestSchema, { ID: id }), { deadline, repeat: 'read' });
  return found.ok ? ok({ id: String(id), ttlMs: Number(found.value.grantedTTL) * 1000 }) : found;
}

/** A lease that is gone at a repeated try was revoked by the earlier one, or expired meanwhile: both are what was wanted. */
async function revoke(connection: Connection, lease: string, deadline: MonoMs): ReturnType<Store['revokeLease']> {
  const request = create(LeaseRevokeRequestSchema, { ID: BigInt(lease) });
  const answer = await requestOutcome(connection, REVOKE, request, { deadline, repeat: 'idempotent' });
  if (answer.kind === 'answer' || (answer.outcome === 'lease-not-found' && answer.repeated)) return ok(null);
  return err(answer.error);
}
