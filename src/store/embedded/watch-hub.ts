/**
 * Watches of the embedded engine.
 *
 * A watcher is a cursor: `next` is the first revision that it has not been sent. While its stream takes data it follows commits directly; once the
 * stream is full it waits, keeps nothing in memory, and after `drain` reads what it missed from the history. When that was compacted it is cancelled.
 */
import { type MessageInitShape, create } from '@bufbuild/protobuf';
import { EventSchema } from '../proto/gen/kv_pb.ts';
import { type WatchCreateRequest, type WatchRequest, type WatchResponse, WatchResponseSchema, type ResponseHeader } from '../proto/gen/rpc_pb.ts';
import type { Mvcc, RevisionChanges } from './mvcc.ts';
import { type KeyRange, type Row, inRange, toKeyValue } from './rows.ts';

/** History is sent in pieces of about this size. */
const CHUNK_BYTES = 1024 * 1024;
const MAX_WATCHERS_PER_STREAM = 1000;

/** What a stream must offer; grpc-js's duplex call does. */
export interface WatchStream {
  /** False: full; the hub waits for `drained`. */
  send(response: WatchResponse): boolean;
}

interface Watcher {
  readonly id: bigint;
  readonly range: KeyRange;
  readonly prevKv: boolean;
  readonly noPut: boolean;
  readonly noDelete: boolean;
  next: number;
}

interface Connection {
  readonly stream: WatchStream;
  readonly watchers: Map<bigint, Watcher>;
  nextId: bigint;
  full: boolean;
  /** Progress was asked for while a watcher was behind. */
  progressWanted: boolean;
}

export interface WatchHub {
  /** Answers the handlers of the stream's life. */
  connect(stream: WatchStream): { request(request: WatchRequest): void; drained(): void; closed(): void };
  committed(changes: readonly RevisionChanges[]): void;
  watcherCount(): number;
}

interface Hub {
  readonly mvcc: Mvcc;
  readonly header: (revision: number) => ResponseHeader;
}

export function createWatchHub(mvcc: Mvcc, header: (revision: number) => ResponseHeader): WatchHub {
  const hub: Hub = { mvcc, header };
  const connections = new Set<Connection>();
  return {
    connect: (stream) => {
      const connection: Connection = { stream, watchers: new Map(), nextId: 0n, full: false, progressWanted: false };
      connections.add(connection);
      return {
        request: (message) => handle(hub, connection, message),
        drained: () => {
          connection.full = false;
          for (const watcher of [...connection.watchers.values()]) catchUp(hub, connection, watcher);
          answerProgress(hub, connection);
        },
        closed: () => {
          connections.delete(connection);
          connection.watchers.clear();
        },
      };
    },
    committed: (changes) => {
      for (const connection of connections) {
        for (const watcher of connection.watchers.values()) follow(hub, connection, { watcher, changes });
        answerProgress(hub, connection);
      }
    },
    watcherCount: () => [...connections].reduce((sum, connection) => sum + connection.watchers.size, 0),
  };
}

function handle(hub: Hub, connection: Connection, message: WatchRequest): void {
  const { requestUnion } = message;
  switch (requestUnion.case) {
    case 'createRequest':
      createWatcher(hub, connection, requestUnion.value);
      break;
    case 'cancelRequest': {
      const watcher = connection.watchers.get(requestUnion.value.watchId);
      if (watcher === undefined) break;
      connection.watchers.delete(watcher.id);
      send(hub, connection, { watchId: watcher.id, canceled: true });
      break;
    }
    case 'progressRequest':
      connection.progressWanted = true;
      answerProgress(hub, connection);
      break;
    default:
  }
}

function createWatcher(hub: Hub, connection: Connection, request: WatchCreateRequest): void {
  const id = request.watchId === 0n ? connection.nextId : request.watchId;
  const reason = refusal(connection, request, id);
  if (reason !== null) {
    send(hub, connection, { watchId: -1n, created: true, canceled: true, cancelReason: reason });
    return;
  }
  const watcher = toWatcher(request, id, hub.mvcc.revision());
  if (id >= connection.nextId) connection.nextId = id + 1n;
  connection.watchers.set(id, watcher);
  send(hub, connection, { watchId: id, created: true });
  catchUp(hub, connection, watcher);
}

/** Hands a commit to one watcher: directly when it is up to date, by way of the history when it is behind. */
function follow(hub: Hub, connection: Connection, { watcher, changes }: { watcher: Watcher; changes: readonly RevisionChanges[] }): void {
  const first = changes[0]?.revision ?? 0;
  const last = changes.at(-1)?.revision ?? 0;
  if (watcher.next > last || connection.full) return;
  if (watcher.next < first) {
    catchUp(hub, connection, watcher);
    return;
  }
  // A watcher of the future (start revision above the present one) skips what lies before it.
  const wanted = watcher.next > first ? changes.filter((change) => change.revision >= watcher.next) : changes;
  watcher.next = last + 1;
  sendChanges(hub, connection, { watcher, changes: wanted });
}

/** Sends from the history until the watcher is up to date or the stream is full. */
function catchUp(hub: Hub, connection: Connection, watcher: Watcher): void {
  const { mvcc } = hub;
  while (!connection.full && watcher.next <= mvcc.revision()) {
    const found = mvcc.changesSince(watcher.next, watcher.range, CHUNK_BYTES);
    if (found === null) {
      connection.watchers.delete(watcher.id);
      send(hub, connection, { watchId: watcher.id, canceled: true, compactRevision: BigInt(mvcc.compactRevision()) });
      return;
    }
    watcher.next = found.next;
    sendChanges(hub, connection, { watcher, changes: found.changes });
  }
}

/**
 * A progress answer says: everything up to this revision was sent. So it waits until no watcher of the stream is behind.
 * *Source:* etcd 3.4 API, WatchProgressRequest; watch id −1 stands for all watchers of the stream.
 */
function answerProgress(hub: Hub, connection: Connection): void {
  if (!connection.progressWanted || connection.full) return;
  for (const watcher of connection.watchers.values()) if (watcher.next <= hub.mvcc.revision()) return;
  connection.progressWanted = false;
  send(hub, connection, { watchId: -1n });
}

function sendChanges(hub: Hub, connection: Connection, { watcher, changes }: { watcher: Watcher; changes: readonly RevisionChanges[] }): void {
  const events = changes.flatMap((change) => change.rows.filter((row) => wants(watcher, row)).map((row) => toEvent(hub.mvcc, watcher, row)));
  if (events.length > 0) send(hub, connection, { watchId: watcher.id, events });
}

function send(hub: Hub, connection: Connection, fields: MessageInitShape<typeof WatchResponseSchema>): void {
  const response = create(WatchResponseSchema, fields);
  response.header = hub.header(hub.mvcc.revision());
  if (!connection.stream.send(response)) connection.full = true;
}

function toWatcher(request: WatchCreateRequest, id: bigint, revision: number): Watcher {
  return {
    id,
    range: { key: request.key, rangeEnd: request.rangeEnd },
    prevKv: request.prevKv,
    noPut: request.filters.includes(0),
    noDelete: request.filters.includes(1),
    next: request.startRevision === 0n ? revision + 1 : Number(request.startRevision),
  };
}

function refusal(connection: Connection, request: WatchCreateRequest, id: bigint): string | null {
  if (connection.watchers.has(id)) return 'pgherd: this watch id is in use on this stream';
  if (connection.watchers.size >= MAX_WATCHERS_PER_STREAM) return 'pgherd: too many watches on this stream';
  return request.startRevision < 0n ? 'etcdserver: start revision is negative' : null;
}

function wants(watcher: Watcher, row: Row): boolean {
  if (row.deleted ? watcher.noDelete : watcher.noPut) return false;
  return inRange(row.key, watcher.range);
}

function toEvent(mvcc: Mvcc, watcher: Watcher, row: Row): ReturnType<typeof create<typeof EventSchema>> {
  const event = create(EventSchema, { type: row.deleted ? 1 : 0, kv: toKeyValue(row) });
  const previous = watcher.prevKv ? mvcc.before(row.key, row.modRevision) : null;
  if (previous !== null) event.prevKv = toKeyValue(previous);
  return event;
}
