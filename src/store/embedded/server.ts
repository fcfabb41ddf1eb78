/** Serves the embedded engine over gRPC as etcd's v3 API. `etcdctl` works against it. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import {
  Server,
  type ServerCredentials,
  logVerbosity,
  setLogVerbosity,
  status,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedHandleCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { type Clock, realClock } from '../../base/clock.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import type { Channel } from '../channel.ts';
import type { TlsFiles } from '../pem.ts';
import {
  AlarmResponseSchema,
  Auth,
  AuthStatusResponseSchema,
  Cluster,
  type CompactionRequest,
  CompactionResponseSchema,
  DefragmentResponseSchema,
  type DeleteRangeRequest,
  KV,
  Lease,
  type LeaseGrantRequest,
  LeaseGrantResponseSchema,
  type LeaseKeepAliveRequest,
  type LeaseKeepAliveResponse,
  LeaseKeepAliveResponseSchema,
  LeaseLeasesResponseSchema,
  type LeaseRevokeRequest,
  LeaseRevokeResponseSchema,
  LeaseStatusSchema,
  type LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponseSchema,
  Maintenance,
  MemberListResponseSchema,
  MemberSchema,
  type PutRequest,
  type RangeRequest,
  type ResponseHeader,
  type SnapshotRequest,
  type SnapshotResponse,
  SnapshotResponseSchema,
  StatusResponseSchema,
  type TxnRequest,
  Watch,
  type WatchRequest,
  type WatchResponse,
} from '../proto/gen/rpc_pb.ts';
import { serviceDefinition } from '../proto/services.ts';
import { storeCredentials } from './credentials.ts';
import { DEFAULT_KEPT_REVISIONS, DEFAULT_MAX_BYTES, type Engine, openEngine } from './engine.ts';
import { RpcFault, faults } from './fault.ts';
import { createInProcess } from './in-process.ts';
import { MAX_REQUEST_BYTES, compact, deleteRange, isReadOnly, put, range, txn } from './kv-service.ts';

/** The part behind the plus sign tells pgherd's clients which engine answers. */
export const EMBEDDED_VERSION = '3.4.0+pgherd-embedded';
const SNAPSHOT_CHUNK_BYTES = 64 * 1024;

export interface EmbeddedStoreOptions {
  /** The database file; created with mode 0600. Its directory must exist. */
  readonly file: string;
  /** Port 0: a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly tls: (TlsFiles & { readonly requireClientCert: boolean }) | null;
  readonly clock?: Clock;
  readonly maxBytes?: number;
  readonly keptRevisions?: number;
}

export interface EmbeddedStore {
  readonly port: number;
  /** Decimal text; made once per file. */
  readonly incarnation: string;
  /** To this store from this very process, without its port. */
  readonly openChannel: (url: string) => Channel;
  /** Reads the certificate files again (a renewal); open connections stay. Throws when they cannot be read; the old ones stay in use. */
  reloadTls(): void;
  /** Ends streams and calls, then closes the file. */
  close(): Promise<void>;
}

/** Failures: `store.locked`, `store.open`, `store.listen`. */
export async function startEmbeddedStore(options: EmbeddedStoreOptions): Promise<Result<EmbeddedStore, Failure>> {
  const opened = openEngine({
    file: options.file,
    clock: options.clock ?? realClock,
    maxBytes: options.maxBytes ?? DEFAULT_MAX_BYTES,
    keptRevisions: options.keptRevisions ?? DEFAULT_KEPT_REVISIONS,
  });
  if (!opened.ok) return opened;
  const engine = opened.value;
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES + 512 * 1024,
    'grpc.max_send_message_length': -1,
    // A client whose host vanished is noticed and its watches freed.
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5_000,
  });
  const { host, port } = options.listen;
  const services = { ...kvHandlers(engine), ...leaseHandlers(engine), ...maintenanceHandlers(engine, options.file) };
  const inProcess = createInProcess(services);
  for (const service of [KV, Lease, Watch, Cluster, Maintenance, Auth]) server.addService(serviceDefinition(service), services);
  try {
    const tls = storeCredentials(options.tls);
    const bound = await bind(server, `${host.includes(':') ? `[${host}]` : host}:${port}`, tls.credentials);
    return ok({
      port: bound,
      incarnation: String(engine.db.clusterId),
      openChannel: inProcess.open,
      reloadTls: tls.reload,
      close: async () => {
        inProcess.close();
        await Promise.resolve(server.forceShutdown());
        engine.close();
      },
    });
  } catch (cause) {
    server.forceShutdown();
    engine.close();
    return err(listenFailure(`${host}:${port}`, cause));
  }
}

function bind(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (cause, port) => (cause === null ? resolve(port) : reject(cause)));
  });
}

function listenFailure(address: string, cause: unknown): Failure {
  return {
    code: 'store.listen',
    what: `the embedded store cannot listen on ${address}`,
    cause: cause instanceof Error ? cause.message : String(cause),
    now: 'the embedded store does not start',
    remedy: 'free the port or set another one (store.listen), and check the certificate files',
    retryable: true,
  };
}

type Handlers = Record<string, UntypedHandleCall>;

/** A handler that answers one request, now or later. Faults become their status; anything else is INTERNAL with its text. */
function unary<I>(answer: (request: I) => unknown): UntypedHandleCall {
  return (call: ServerUnaryCall<I, unknown>, callback: sendUnaryData<unknown>): void => {
    const run = async (): Promise<unknown> => answer(call.request);
    run().then(
      (value) => callback(null, value),
      (cause: unknown) => callback(toStatus(cause)),
    );
  };
}

function toStatus(cause: unknown): { code: number; details: string } {
  if (cause instanceof RpcFault) return { code: cause.code, details: cause.message };
  return { code: status.INTERNAL, details: `pgherd: ${cause instanceof Error ? cause.message : String(cause)}` };
}

function kvHandlers({ kv, queue, mvcc, hub }: Engine): Handlers {
  return {
    Range: unary((request: RangeRequest) => range(kv, request)),
    Put: unary((request: PutRequest) => queue.submit(() => put(kv, request))),
    DeleteRange: unary((request: DeleteRangeRequest) => queue.submit(() => deleteRange(kv, request))),
    Txn: unary((request: TxnRequest) => (isReadOnly(request) ? txn(kv, request) : queue.submit(() => txn(kv, request)))),
    Compact: unary(async (request: CompactionRequest) => {
      await queue.submit(() => compact(kv, request));
      return create(CompactionResponseSchema, { header: kv.header(mvcc.revision()) });
    }),
    Watch: (call: ServerDuplexStream<WatchRequest, WatchResponse>): void => {
      const connection = hub.connect({ send: (response) => call.write(response) });
      call.on('data', (request: WatchRequest) => connection.request(request));
      call.on('drain', () => connection.drained());
      call.on('error', () => connection.closed());
      call.on('cancelled', () => connection.closed());
      call.on('close', () => connection.closed());
      call.on('end', () => {
        connection.closed();
        call.end();
      });
    },
  };
}

function leaseHandlers({ kv, leases, mvcc }: Engine): Handlers {
  const header = (): ResponseHeader => kv.header(mvcc.revision());
  return {
    LeaseGrant: unary(async (request: LeaseGrantRequest) => {
      const { id, ttlSeconds } = await leases.grant(request.ID === 0n ? null : String(request.ID), Number(request.TTL));
      return create(LeaseGrantResponseSchema, { header: header(), ID: BigInt(id), TTL: BigInt(ttlSeconds) });
    }),
    LeaseRevoke: unary(async (request: LeaseRevokeRequest) => {
      await leases.revoke(String(request.ID));
      return create(LeaseRevokeResponseSchema, { header: header() });
    }),
    LeaseKeepAlive: (call: ServerDuplexStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>): void => {
      call.on('data', (request: LeaseKeepAliveRequest) => {
        // TTL 0 says that the lease does not exist. *Source:* etcd API reference, LeaseKeepAliveResponse.
        const ttl = leases.keepAlive(String(request.ID)) ?? 0;
        call.write(create(LeaseKeepAliveResponseSchema, { header: header(), ID: request.ID, TTL: BigInt(ttl) }));
      });
      call.on('error', () => call.end());
      call.on('end', () => call.end());
    },
    LeaseTimeToLive: unary((request: LeaseTimeToLiveRequest) => {
      const id = String(request.ID);
      const found = leases.timeToLive(id);
      // TTL −1 says that the lease does not exist. *Source:* etcd API reference, LeaseTimeToLiveResponse.
      if (found === null) return create(LeaseTimeToLiveResponseSchema, { header: header(), ID: request.ID, TTL: -1n });
      const keys = request.keys ? mvcc.keysOfLease(id) : [];
      return create(LeaseTimeToLiveResponseSchema, {
        header: header(),
        ID: request.ID,
        TTL: BigInt(found.remainingSeconds),
        grantedTTL: BigInt(found.grantedSeconds),
        keys,
      });
    }),
    LeaseLeases: unary(() =>
      create(LeaseLeasesResponseSchema, { header: header(), leases: leases.list().map((id) => create(LeaseStatusSchema, { ID: BigInt(id) })) }),
    ),
  };
}

function maintenanceHandlers({ kv, db, mvcc, queue }: Engine, file: string): Handlers {
  const header = (): ResponseHeader => kv.header(mvcc.revision());
  return {
    MemberList: unary(() =>
      create(MemberListResponseSchema, { header: header(), members: [create(MemberSchema, { ID: db.memberId, name: 'embedded' })] }),
    ),
    Alarm: unary(() => create(AlarmResponseSchema, { header: header() })),
    Status: unary(() =>
      create(StatusResponseSchema, {
        header: header(),
        version: EMBEDDED_VERSION,
        dbSize: BigInt(db.fileBytes()),
        dbSizeInUse: BigInt(db.usedBytes()),
        leader: db.memberId,
        raftIndex: BigInt(mvcc.revision()),
        raftTerm: 1n,
        raftAppliedIndex: BigInt(mvcc.revision()),
        errors: kv.full() ? ['database space exceeded'] : [],
      }),
    ),
    Defragment: unary(() => {
      db.sql.exec('VACUUM');
      return create(DefragmentResponseSchema, { header: header() });
    }),
    Snapshot: (call: ServerWritableStream<SnapshotRequest, SnapshotResponse>): void => {
      queue
        .submit(() => null)
        .then(
          () => sendSnapshot(call, header(), db.sql, `${file}.snapshot`),
          (cause: unknown) => call.emit('error', toStatus(cause)),
        );
    },
    AuthStatus: unary(() => create(AuthStatusResponseSchema, { header: header(), enabled: false })),
    Authenticate: unary(() => {
      throw faults.authDisabled();
    }),
  };
}

/** A consistent copy of the SQLite file, then its SHA-256 as etcd does after its own file. The copy lies beside the store for a moment. */
function sendSnapshot(
  call: ServerWritableStream<SnapshotRequest, SnapshotResponse>,
  header: ResponseHeader,
  sql: Engine['db']['sql'],
  copy: string,
): void {
  try {
    if (existsSync(copy)) rmSync(copy);
    sql.prepare('VACUUM INTO ?').run(copy);
    const bytes = readFileSync(copy);
    const all = Buffer.concat([bytes, createHash('sha256').update(bytes).digest()]);
    for (let at = 0; at < all.length; at += SNAPSHOT_CHUNK_BYTES) {
      const blob = all.subarray(at, at + SNAPSHOT_CHUNK_BYTES);
      call.write(create(SnapshotResponseSchema, { header, blob, remainingBytes: BigInt(all.length - at - blob.length) }));
    }
    call.end();
  } catch (cause) {
    call.emit('error', toStatus(cause));
  } finally {
    rmSync(copy, { force: true });
  }
}
