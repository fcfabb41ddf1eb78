/** Live streams: events of a cluster, steps of a task. Bounded in number, in time, and in what waits for a slow reader. */
import type { ServerResponse } from 'node:http';
import { type ClusterId, makeClusterId } from '../core/ids.ts';
import { decodeJson } from '../core/decode.ts';
import { task as taskDecoder } from '../core/state.ts';
import { type Result, err, ok } from '../core/result.ts';
import { clusterKeys } from '../store/keys.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import { formatSse } from '../api/sse.ts';
import type { ServerContext } from './context.ts';
import { toEventRow } from './reads.ts';
import { viewTask } from './tasks.ts';

/** Every open console and `--follow` is one; more is a leak somewhere. */
const MAX_STREAMS = 128;
/** Keeps middle boxes from closing a quiet connection, and finds readers that are gone. */
const HEARTBEAT_MS = 15_000;
/** Readers come back by themselves with the last id they have. */
const MAX_LIFE_MS = 3_600_000;
/** A reader this far behind is cut off, instead of filling our memory. */
const MAX_WAITING_BYTES = 1024 * 1024;
/** Events sent from the past at most. */
const MAX_BACKLOG = 1000;

export interface Streams {
  /** `takeOver` is called only when there is room. `after`: the id of the last event that the reader has; null: only new ones and the last few. */
  events(
    takeOver: () => ServerResponse,
    cluster: string,
    options: { readonly after: string | null; readonly limit: number },
  ): Result<null, ApiFailure>;
  task(takeOver: () => ServerResponse, cluster: ClusterId, id: string): Result<null, ApiFailure>;
  count(): number;
  closeAll(): void;
}

interface Stream {
  send(event: string, id: string | null, data: unknown): void;
  end(): void;
}

export function createStreams(context: ServerContext): Streams {
  const open = new Set<Stream>();

  const start = (response: ServerResponse, onClose: () => void): Stream => {
    const state = { ended: false };
    const end = (): void => {
      if (state.ended) return;
      state.ended = true;
      clearInterval(heartbeat);
      clearTimeout(life);
      open.delete(stream);
      onClose();
      response.end();
    };
    const write = (text: string): void => {
      if (state.ended) return;
      if (response.writableLength > MAX_WAITING_BYTES) {
        response.destroy();
        end();
        return;
      }
      response.write(text);
    };
    const stream: Stream = {
      send: (event, id, data) => write(formatSse({ event, ...(id === null ? {} : { id }), data: JSON.stringify(data) })),
      end,
    };
    const heartbeat = setInterval(() => write(': alive\n\n'), HEARTBEAT_MS);
    const life = setTimeout(end, MAX_LIFE_MS);
    heartbeat.unref();
    life.unref();
    response.on('close', end);
    response.on('error', end);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
    response.flushHeaders();
    open.add(stream);
    return stream;
  };
  const full = (): ApiFailure =>
    makeApiFailure('server.busy', { what: `${MAX_STREAMS} live streams are open already`, remedy: 'Close some consoles, or ask without following.' });

  return {
    events: (takeOver, cluster, { after, limit }) => {
      if (open.size >= MAX_STREAMS) return err(full());
      const prefix = clusterKeys(makeClusterId(cluster)).events;
      let last = after ?? '';
      const pull = (backlog: number): void => {
        const rows = context.cache
          .list(prefix)
          .map(({ kv }) => toEventRow(prefix, kv))
          .filter((row) => row.id > last)
          .slice(-backlog);
        for (const row of rows) stream.send('event', row.id, row);
        last = rows.at(-1)?.id ?? last;
      };
      const unsubscribe = context.cache.subscribe((batch) => {
        if (batch === null || batch.events.some((event) => event.kind === 'put' && event.kv.key.startsWith(prefix))) pull(MAX_BACKLOG);
      });
      const stream = start(takeOver(), () => unsubscribe());
      pull(after === null ? limit : MAX_BACKLOG);
      return ok(null);
    },
    task: (takeOver, cluster, id) => {
      if (open.size >= MAX_STREAMS) return err(full());
      const key = clusterKeys(cluster).task(id);
      let sent = -1;
      /** Sends the task if it changed; ends the stream with the task. */
      const look = (): void => {
        const cached = context.cache.get(key);
        if (cached === null || cached.kv.modRevision === sent) return;
        sent = cached.kv.modRevision;
        const decoded = decodeJson(taskDecoder, cached.kv.value);
        if (!decoded.ok) return;
        const view = viewTask(cluster, decoded.value);
        stream.send('task', String(sent), view);
        if (view.finishedAt === null) return;
        stream.send('end', null, { status: view.status });
        stream.end();
      };
      const unsubscribe = context.cache.subscribe((batch) => {
        if (batch === null || batch.events.some((event) => (event.kind === 'put' ? event.kv.key : event.key) === key)) look();
      });
      const stream = start(takeOver(), () => unsubscribe());
      look();
      return ok(null);
    },
    count: () => open.size,
    closeAll: () => {
      for (const stream of [...open]) stream.end();
    },
  };
}
