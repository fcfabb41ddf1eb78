/**
 * The watches of one client. As in src/store/watch.ts: resumed elsewhere from the last revision delivered; confirmed about every second;
 * left after 2.5 s without a confirmation, over after 6 s, or when history was compacted, or the store is another one.
 * One timer looks after all watches of a client; a confirmation is judged at once instead of being asked for, so that quiet time costs little.
 */
import { type Now, makeMonoMs, type Revision } from '../../../src/core/ids.ts';
import type { WatchBatch, WatchHandlers, Watcher } from '../../../src/store/store.ts';
import type { Scope, Timer } from '../../clock.ts';
import type { Network } from '../../network.ts';
import type { Random } from '../../random.ts';
import type { ClientConnection, Link } from './connection.ts';
import type { ServerWatch, StoreService } from './service.ts';

const CONFIRM_EVERY_MS = 1000;
const RETRY_MS = 100;
const STALE_MS = 2500;
const LOST_MS = 6000;
/** A confirmation counts from when its read was sent: one way to the store and back, at most. */
const ROUND_TRIP_MS = 1;

export interface WatchSet {
  watch(prefix: string, after: Revision, handlers: WatchHandlers): Watcher;
  close(): void;
}

export interface WatchParts {
  readonly service: StoreService;
  readonly connection: ClientConnection;
  readonly network: Network;
  readonly host: string;
  readonly scope: Scope;
  readonly now: () => Now;
  readonly random: Random;
}

interface Session {
  readonly prefix: string;
  readonly handlers: WatchHandlers;
  last: number;
  /** What was delivered last; null: nothing yet. */
  lastEvent: WatchBatch['events'][number] | null;
  /** Delivered by the server, not yet here. */
  coming: WatchBatch[];
  server: ServerWatch | null;
  link: Link | null;
  /** The server has the watch: events flow. */
  attached: boolean;
  confirmedAt: number;
  freshAt: number;
  over: boolean;
}

export function createWatchSet({ service, connection, network, host, scope, now, random }: WatchParts): WatchSet {
  const sessions = new Set<Session>();
  let timer: Timer | null = null;
  let timerAt = Number.POSITIVE_INFINITY;

  function end(session: Session, reason: 'compacted' | 'lost', message: string): void {
    if (session.over) return;
    leave(session);
    session.over = true;
    sessions.delete(session);
    session.handlers.onEnd(reason, message);
  }

  function leave(session: Session): void {
    if (session.server !== null) service.detach(session.server);
    session.link?.onBroken.delete(brokenOf(session));
    session.server = null;
    session.link = null;
    session.attached = false;
    session.coming = [];
  }

  const broken = new WeakMap<Session, () => void>();
  function brokenOf(session: Session): () => void {
    let call = broken.get(session);
    if (call === undefined) {
      call = () => {
        leave(session);
        lookSoon(RETRY_MS / 2);
      };
      broken.set(session, call);
    }
    return call;
  }

  /** Events arrive in the order of their revisions; what is on its way may come together. */
  function push(session: Session, server: ServerWatch, link: Link, batch: WatchBatch): void {
    if (!scope.alive()) {
      // Its kernel has said goodbye for it.
      service.detach(server);
      return;
    }
    session.coming.push(batch);
    if (session.coming.length > 1) return;
    const send = (): void =>
      link.down.send(() =>
        scope.deliver(() => {
          if (session.server !== server || session.over) return;
          const due = session.coming;
          session.coming = [];
          for (const one of joined(due)) {
            session.last = one.revision;
            session.lastEvent = one.events[one.events.length - 1] ?? null;
            session.handlers.onBatch(one);
            if (session.over) return;
          }
        }),
      );
    const delayMs = service.watchDelayMs();
    if (delayMs > 0) scope.after(delayMs * random.next(), send);
    else send();
  }

  function joined(due: WatchBatch[]): readonly WatchBatch[] {
    const last = due[due.length - 1];
    if (due.length < 2 || last === undefined || random.chance(0.5)) return due;
    return [{ revision: last.revision, events: due.flatMap((batch) => batch.events) }];
  }

  function attach(session: Session): void {
    const foreign = connection.foreign();
    if (foreign !== null) {
      end(session, 'lost', foreign);
      return;
    }
    const link = connection.link();
    if (link === null) {
      connection.leave(connection.current());
      return;
    }
    const server: ServerWatch = {
      prefix: session.prefix,
      member: link.member,
      last: session.last,
      push: (batch) => push(session, server, link, batch),
      refuse: (compacted) =>
        link.down.send(() =>
          scope.deliver(() => {
            if (session.server === server && !session.over) end(session, 'compacted', `revision ${session.last + 1} was compacted at ${compacted}`);
          }),
        ),
    };
    session.server = server;
    session.link = link;
    link.onBroken.add(brokenOf(session));
    link.up.send(() => {
      if (session.server !== server || session.over) return;
      const incarnation = service.incarnation();
      const setBack = wasSetBack(session);
      const refused = service.attach(server);
      link.down.send(() =>
        scope.deliver(() => {
          if (session.server !== server || session.over) return;
          const other = connection.check(incarnation);
          if (other !== null) end(session, 'lost', other);
          else if (setBack) end(session, 'lost', `the data of the store was set back: it has not what was delivered at revision ${session.last}`);
          else if (refused !== null) end(session, 'compacted', `revision ${session.last + 1} was compacted at ${refused.revision}`);
          else {
            session.attached = true;
            lookSoon(ROUND_TRIP_MS);
          }
        }),
      );
    });
  }

  /** The first look of a watch on a new connection: is what was delivered last still there? */
  function wasSetBack({ last, lastEvent }: Session): boolean {
    const keyspace = service.keyspace();
    if (keyspace.revision() < last) return true;
    // Null: compacted, which ends the watch by itself.
    const there = lastEvent === null ? null : keyspace.since(last - 1);
    return lastEvent !== null && there !== null && there[0]?.events.includes(lastEvent) !== true;
  }

  function lookSoon(ms: number): void {
    const at = scope.now() + ms;
    if (at >= timerAt) return;
    timer?.cancel();
    timerAt = at;
    timer = scope.at(at, look);
  }

  function look(): void {
    timerAt = Number.POSITIVE_INFINITY;
    let nextMs = CONFIRM_EVERY_MS;
    for (const session of [...sessions]) if (!lookAt(session)) nextMs = RETRY_MS;
    if (sessions.size > 0) lookSoon(nextMs);
  }

  /** True when it was confirmed. */
  function lookAt(session: Session): boolean {
    const at = scope.now();
    if (session.server === null) {
      if (at - session.confirmedAt > LOST_MS) end(session, 'lost', `not confirmed for ${LOST_MS} ms`);
      else attach(session);
      return false;
    }
    const { member } = session.server;
    const { link } = session;
    // A confirmation is asked for on the connection: a server that was started anew meanwhile answers with a reset.
    const dead = link !== null && service.generation(member) !== link.generation;
    if (dead && network.isConnected(host, member) && service.hostAnswers(member)) connection.reset(link);
    const fresh = !dead && session.attached && session.coming.length === 0 && network.isConnected(host, member) && service.isInSync(member);
    if (fresh) {
      session.freshAt = at;
      session.confirmedAt = at;
      session.handlers.onAlive(makeMonoMs(now().mono - ROUND_TRIP_MS));
      return true;
    }
    if (at - session.freshAt > STALE_MS) {
      leave(session);
      connection.leave(member);
      session.freshAt = at;
    }
    if (at - session.confirmedAt > LOST_MS) end(session, 'lost', `not confirmed for ${LOST_MS} ms`);
    return false;
  }

  return {
    watch: (prefix, after, handlers) => {
      const at = scope.now();
      const session: Session = {
        prefix,
        handlers,
        last: after,
        lastEvent: null,
        coming: [],
        server: null,
        link: null,
        attached: false,
        confirmedAt: at,
        freshAt: at,
        over: false,
      };
      sessions.add(session);
      if (!connection.closed()) attach(session);
      lookSoon(RETRY_MS);
      return {
        close: () => {
          leave(session);
          session.over = true;
          sessions.delete(session);
        },
      };
    },
    close: () => {
      timer?.cancel();
      for (const session of [...sessions]) end(session, 'lost', 'the store client was closed');
    },
  };
}
