/**
 * Watches of the embedded engine.
 *
 * A watcher is a cursor: `next` is the first revision that it has not been sent. While its stream takes data it follows commits directly; once the
 * stream is full it waits, keeps nothing in memory, and after `drain` reads what it missed from the history. When that was compacted it is cancelled.
 */
import { create } from '@bufbuild/protobuf';
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

export function createWatchHub(mvcc: Mvcc, header: (revision: number) => ResponseHeader): WatchHub {
  const connections = new Set<Connection>();

  const send = (connection: Connection, watcher: Watcher, fields: Partial<WatchResponse>): void => {
    const response = create(WatchResponseSchema, { header: header(mvcc.revision()), watchId: watcher.id });
    if (!connection.stream.send(Object.assign(response, fields))) connection.full = true;
  };

  const sendChanges = (connection: Connection, watcher: Watcher, changes: readonly RevisionChanges[]): void => {
    const events = changes.flatMap((change) => change.rows.filter((row) => wants(watcher, row)).map((row) => toEvent(mvcc, watcher, row)));
    if (events.length > 0) send(connection, watcher, { events });
  };

  /** Sends from the history until the watcher is up to date or the stream is full. */
  const catchUp = (connection: Connection, watcher: Watcher): void => {
    while (!connection.full && watcher.next <= mvcc.revision()) {
      const found = mvcc.changesSince(watcher.next, watcher.range, CHUNK_BYTES);
      if (found === null) {
        connection.watchers.delete(watcher.id);
        send(connection, watcher, { canceled: true, compactRevision: BigInt(mvcc.compactRevision()) });
        return;
      }
      watcher.next = found.next;
      sendChanges(connection, watcher, found.changes);
    }
  };

  /**
   * A progress answer says: everything up to this revision was sent. So it waits until no watcher of the stream is behind.
   * *Source:* etcd 3.4 API, WatchProgressRequest; watch id −1 stands for all watchers of the stream.
   */
  const answerProgress = (connection: Connection): void => {
    if (!connection.progressWanted || connection.full) return;
    for (const watcher of connection.watchers.values()) if (watcher.next <= mvcc.revision()) return;
    connection.progressWanted = false;
    const response = create(WatchResponseSchema, { header: header(mvcc.revision()), watchId: -1n });
    if (!connection.stream.send(response)) connection.full = true;
  };

  const createWatcher = (connection: Connection, request: WatchCreateRequest): void => {
    const id = request.watchId === 0n ? connection.nextId : request.watchId;
    const watcher = toWatcher(request, id, mvcc.revision());
    const reason = refusal(connection, request, id);
    if (reason !== null) {
      send(connection, { ...watcher, id: -1n }, { created: true, canceled: true, cancelReason: reason });
      return;
    }
    if (id >= connection.nextId) connection.nextId = id + 1n;
    connection.watchers.set(id, watcher);
    send(connection, watcher, { created: true });
    catchUp(connection, watcher);
  };

  const request = (connection: Connection, message: WatchRequest): void => {
    const { requestUnion } = message;
    switch (requestUnion.case) {
      case 'createRequest':
        return createWatcher(connection, requestUnion.value);
      case 'cancelRequest': {
        const watcher = connection.watchers.get(requestUnion.value.watchId);
        if (watcher === undefined) return;
        connection.watchers.delete(watcher.id);
        return send(connection, watcher, { canceled: true });
      }
      case 'progressRequest':
        connection.progressWanted = true;
        return answerProgress(connection);
      default:
        return;
    }
  };

  return {
    connect: (stream) => {
      const connection: Connection = { stream, watchers: new Map(), nextId: 0n, full: false, progressWanted: false };
      connections.add(connection);
      return {
        request: (message) => request(connection, message),
        drained: () => {
          connection.full = false;
          for (const watcher of [...connection.watchers.values()]) catchUp(connection, watcher);
          answerProgress(connection);
        },
        closed: () => {
          connections.delete(connection);
          connection.watchers.clear();
        },
      };
    },
    committed: (changes) => {
      const first = changes[0]?.revision ?? 0;
      const last = changes.at(-1)?.revision ?? 0;
      for (const connection of connections) {
        for (const watcher of connection.watchers.values()) {
          if (watcher.next > last || connection.full) continue;
          // A watcher of the future (start revision above the present one) skips what lies before it.
          const wanted = watcher.next > first ? changes.filter((change) => change.revision >= watcher.next) : changes;
          if (watcher.next < first) catchUp(connection, watcher);
          else {
            watcher.next = last + 1;
            sendChanges(connection, watcher, wanted);
          }
        }
        answerProgress(connection);
      }
    },
    watcherCount: () => [...connections].reduce((sum, connection) => sum + connection.watchers.size, 0),
  };
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
