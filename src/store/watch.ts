/**
 * A watch that survives its connections.
 *
 * connecting → open → (stream lost, or not confirmed for STALE_MS) → connecting elsewhere, from the revision after the last one delivered.
 * Ends (`onEnd`, once) when that revision was compacted, when nothing was confirmed for LOST_MS, when the store is another one, or when it was set back.
 *
 * Freshness: about every second a linearizable read tells the store's revision R, then the server is asked for progress on the stream. When the stream
 * has shown a revision ≥ R, everything that was answered before the read was sent has been delivered: `onAlive(sentAt)`.
 * A member that is cut off (Z1, Z3) cannot answer the read, or its stream never reaches R; so a watch that only looks alive is left after STALE_MS.
 * Known weakness: etcd before 3.4.25 and 3.5.8 may answer a progress request a moment before events that it has queued for the same stream
 * (*Source:* etcd issue 15220). Resuming therefore counts delivered events only, never progress.
 */
import { create } from '@bufbuild/protobuf';
import { untilTick } from '../base/clock.ts';
import { type MonoMs, addMono, makeRevision, type Revision } from '../core/ids.ts';
import type { Result } from '../core/result.ts';
import type { GrpcStream } from './channel.ts';
import type { Connection, Endpoint } from './connection.ts';
import { prefixRange, readKeyValue } from './mapping.ts';
import type { Event } from './proto/gen/kv_pb.ts';
import { Watch, type WatchRequest, WatchRequestSchema, type WatchResponse } from './proto/gen/rpc_pb.ts';
import { methodOf } from './proto/services.ts';
import type { KeyValue, StoreError, Watcher, WatchBatch, WatchHandlers } from './store.ts';

const CONFIRM_EVERY_MS = 1_000;
/** A stream that was not confirmed for so long is left for another endpoint. Shorter leaves healthy members during a slow fsync; longer delays the view. */
const STALE_MS = 2_500;
/** Not confirmed anywhere for so long: the caller lists again, and knows that it was blind. */
const LOST_MS = 6_000;
/** Distance of repeated progress requests while the member lags behind the read. */
const REPEAT_PROGRESS_MS = 100;

const GIVEN_UP = 'the endpoint is silent while another one answers';

const WATCH = methodOf(Watch.method.watch);

export interface RevisionRead {
  readonly revision: number;
  readonly sentAt: MonoMs;
}

export interface WatchOptions {
  readonly connection: Connection;
  readonly prefix: string;
  readonly after: Revision;
  readonly handlers: WatchHandlers;
  /** A linearizable read of the store's revision, and when it was sent: several watches may share one. */
  readonly readRevision: (deadline: MonoMs) => Promise<Result<RevisionRead, StoreError>>;
  /** What the key held at that revision; `future`: the store has not come so far. An error says nothing (no answer in time, compacted). */
  readonly readAt: (key: string, revision: number, deadline: MonoMs) => Promise<Result<KeyValue | null | 'future', StoreError>>;
}

interface Session {
  readonly options: WatchOptions;
  last: number;
  /** When `last` was delivered, and the event with which; null: nothing was yet. */
  lastAt: MonoMs;
  lastEvent: WatchBatch['events'][number] | null;
  confirmedAt: MonoMs;
  over: boolean;
  readonly abort: AbortController;
}

export function watchPrefix(options: WatchOptions): Watcher {
  const startedAt = options.connection.clock.now().mono;
  const session: Session = {
    options,
    last: options.after,
    lastAt: startedAt,
    lastEvent: null,
    confirmedAt: startedAt,
    over: false,
    abort: new AbortController(),
  };
  void run(session);
  return {
    close: () => {
      session.over = true;
      session.abort.abort();
    },
  };
}

async function run(session: Session): Promise<void> {
  const { connection } = session.options;
  const { clock } = connection;
  let message = 'never connected';
  while (!session.over) {
    if (connection.closed()) return end(session, 'lost', 'the store client was closed');
    const foreign = connection.foreign();
    if (foreign !== null) return end(session, 'lost', foreign);
    if (clock.now().mono - session.confirmedAt > LOST_MS) return end(session, 'lost', `not confirmed for ${LOST_MS} ms: ${message}`);
    const endpoint = connection.current();
    const ready = await connection.prepare(endpoint, addMono(clock.now().mono, connection.tryMs));
    if (session.over) return;
    if (ready.kind === 'answer') message = await follow(session, endpoint);
    else message = ready.kind === 'failed' ? ready.error.details : ready.message;
    if (session.over) return;
    connection.leave(endpoint);
    // Another endpoint answers already: a pause would only make the view older.
    if (endpoint !== connection.current() && message === GIVEN_UP) continue;
    if (/auth|permission/i.test(message)) connection.dropLogin();
    await connection.pause(addMono(clock.now().mono, 1_000));
  }
}

function end(session: Session, reason: 'compacted' | 'lost', message: string): void {
  if (session.over) return;
  session.over = true;
  session.abort.abort();
  session.options.handlers.onEnd(reason, message);
}

/** Follows one stream until it is lost or stale; answers why. */
async function follow(session: Session, endpoint: Endpoint): Promise<string> {
  const { connection, prefix } = session.options;
  const stop = new AbortController();
  const closeBoth = (): void => leave(endpoint.givenUp.signal.aborted ? GIVEN_UP : 'the watch was closed');
  const ending = AbortSignal.any([session.abort.signal, connection.signal, endpoint.givenUp.signal]);
  ending.addEventListener('abort', closeBoth, { once: true });
  let reason = '';
  let seen = 0;
  const leave = (why: string): void => {
    if (stop.signal.aborted) return;
    reason = why;
    stop.abort();
  };
  const stream = connection.stream(endpoint, WATCH, {
    onEnd: (error) => leave(error?.details ?? 'the server ended the stream'),
    onMessage: (response) => {
      if (stop.signal.aborted || session.over) return;
      seen = Math.max(seen, receive(session, response, leave));
    },
  });
  stream.write(
    create(WatchRequestSchema, {
      requestUnion: { case: 'createRequest', value: { ...prefixRange(prefix), startRevision: BigInt(session.last + 1) } },
    }),
  );
  // Beside the stream: one that ends is left at once, whoever answers about history.
  void checkHistory(session, leave);
  await confirmLoop(session, { stream, signal: stop.signal, seen: () => seen, leave });
  ending.removeEventListener('abort', closeBoth);
  stream.cancel();
  return reason;
}

/** Handles one response; answers the revision up to which the stream is known to have delivered everything (0: unknown). */
function receive(session: Session, response: WatchResponse, leave: (why: string) => void): number {
  const { connection, handlers } = session.options;
  const foreign = connection.checkHeader(response.header);
  if (foreign !== null) {
    end(session, 'lost', foreign);
    return 0;
  }
  if (response.canceled) {
    if (response.compactRevision > 0n) end(session, 'compacted', `revision ${session.last + 1} was compacted at ${response.compactRevision}`);
    else leave(`the server cancelled the watch: ${response.cancelReason}`);
    return 0;
  }
  if (response.events.length > 0) {
    const batch = toBatch(response.events);
    session.last = Math.max(session.last, batch.revision);
    session.lastAt = connection.clock.now().mono;
    session.lastEvent = batch.events.at(-1) ?? null;
    handlers.onBatch(batch);
    return session.last;
  }
  return response.created ? 0 : Number(response.header?.revision ?? 0n);
}

function toBatch(events: readonly Event[]): WatchBatch {
  const mapped = events.map((event): WatchBatch['events'][number] => {
    const kv = event.kv;
    if (kv === undefined) throw new Error('a watch event without a key');
    return event.type === 1
      ? { kind: 'delete', key: readKeyValue(kv).key, revision: makeRevision(Number(kv.modRevision)) }
      : { kind: 'put', kv: readKeyValue(kv) };
  });
  return { revision: makeRevision(Number(events.at(-1)?.kv?.modRevision ?? 0n)), events: mapped };
}

interface Followed {
  readonly stream: GrpcStream<WatchRequest>;
  readonly signal: AbortSignal;
  readonly seen: () => number;
  readonly leave: (why: string) => void;
}

/** Confirms freshness until the stream is left; leaves it when it is stale. */
async function confirmLoop(session: Session, { stream, signal, seen, leave }: Followed): Promise<void> {
  const { connection, handlers, readRevision } = session.options;
  const { clock } = connection;
  let freshAt = clock.now().mono;
  const isStale = (): boolean => clock.now().mono - freshAt > STALE_MS;
  while (!signal.aborted) {
    const read = await readRevision(addMono(clock.now().mono, STALE_MS));
    if (read.ok && read.value.sentAt > session.lastAt && read.value.revision < session.last)
      return endSetBack(session, `it is at revision ${read.value.revision} and was at ${session.last}`, leave);
    while (read.ok && !signal.aborted && seen() < read.value.revision && !isStale()) {
      stream.write(create(WatchRequestSchema, { requestUnion: { case: 'progressRequest', value: {} } }));
      await waitUntil(clock, () => seen() >= read.value.revision, REPEAT_PROGRESS_MS, signal);
    }
    if (signal.aborted) return;
    if (read.ok && seen() >= read.value.revision) {
      freshAt = read.value.sentAt;
      session.confirmedAt = freshAt;
      handlers.onAlive(freshAt);
    } else if (isStale()) {
      leave(read.ok ? `the stream stayed behind revision ${read.value.revision}` : read.error.message);
      return;
    }
    await clock.sleep(untilTick(clock.now().mono, CONFIRM_EVERY_MS), signal);
  }
}

/**
 * On a new connection: is what was delivered last still there? Somebody may have put older files of the store in its place (a copy of its directory, an
 * image of its machine).
 *
 * *Invariant:* a watch that is called fresh has delivered everything. *Because:* a store that was set back is behind what was delivered, or has something
 * else at that revision by now: values of reports and states name times. Its stream would say nothing until the revision comes again, and then leave
 * out what came between. *Broken if:* nothing was delivered yet; then the revision alone tells, as long as the store is behind it.
 */
async function checkHistory(session: Session, leave: (why: string) => void): Promise<void> {
  const { lastEvent, last, options } = session;
  if (lastEvent === null) return;
  const key = lastEvent.kind === 'put' ? lastEvent.kv.key : lastEvent.key;
  const read = await options.readAt(key, last, addMono(options.connection.clock.now().mono, STALE_MS));
  if (!read.ok || session.over) return;
  const found = read.value;
  if (found === 'future') return endSetBack(session, `it has no revision ${last} yet`, leave);
  const same = lastEvent.kind === 'put' ? found?.modRevision === lastEvent.kv.modRevision && found.value === lastEvent.kv.value : found === null;
  if (!same) endSetBack(session, `${key} was something else at revision ${last}`, leave);
}

function endSetBack(session: Session, how: string, leave: (why: string) => void): void {
  const text = `the data of the store was set back: ${how}`;
  leave(text);
  end(session, 'lost', text);
}

/** Looks every few milliseconds: an event callback would tie the loop to the stream's life. */
async function waitUntil(clock: Connection['clock'], condition: () => boolean, limitMs: number, signal: AbortSignal): Promise<void> {
  const until = clock.now().mono + limitMs;
  while (!condition() && !signal.aborted && clock.now().mono < until) await clock.sleep(5, signal);
}
