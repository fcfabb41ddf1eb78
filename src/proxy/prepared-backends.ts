/**
 * Connections to the next primary that wait for their sessions. They are begun while the old primary writes its checkpoint, so that little is left to do
 * while clients wait; those of sessions that come later are added under the hold.
 */
import type { RouteTarget } from '../core/route/decide.ts';
import type { Backend } from './login/backend.ts';
import type { Session } from './session.ts';

/** Made before the hold: a node forks for each of them, and sessions that do nothing can wait for theirs. */
const MOST_AHEAD = 64;
/** At once: the primary that is about to stop may share its processors with the next one. */
const AT_ONCE = 4;

interface Kept {
  readonly backend: Backend;
  /** `memory.version` that it was made with. */
  readonly version: number;
}

export interface PreparedBackends {
  /** Connections for these sessions, busy ones first. A session that has one, or waits for one, gets no second. */
  begin(sessions: Iterable<Session>, target: RouteTarget): void;
  /** There is one that has the session's state, or it is being made. */
  awaits(session: Session): boolean;
  /** From here on it belongs to this list; it is closed when the session has one already. `version`: of the session's memory, before the connection was made. */
  keep(session: Session, backend: Backend, version: number): void;
  drop(session: Session): void;
  /** Empties the list. Those that lack something of their session are closed, and stand here as null. */
  takeAll(): readonly (readonly [Session, Backend | null])[];
  clear(): void;
}

export function createPreparedBackends(options: {
  /** Logged in, with the session's state; null when that failed. Never rejects. */
  readonly open: (session: Session, target: RouteTarget) => Promise<Backend | null>;
  /** It is still the one to prepare for. Asked before each. */
  readonly fits: (target: RouteTarget) => boolean;
  /** It was made; who gets it is the port's to say. `version`: of the session's memory before. */
  readonly onMade: (session: Session, backend: Backend, version: number) => void;
  /** The session has none, and may want one: making it failed, or it broke. */
  readonly onMissing: (session: Session) => void;
}): PreparedBackends {
  const all = new Map<Session, Kept>();
  const making = new Set<Session>();
  let queue: Session[] = [];

  const make = async (session: Session, target: RouteTarget): Promise<void> => {
    const { version } = session.memory;
    const backend = await options.open(session, target);
    making.delete(session);
    if (backend !== null) options.onMade(session, backend, version);
    else if (!session.closed) options.onMissing(session);
  };
  const keep = (session: Session, backend: Backend, version: number): void => {
    if (all.has(session)) {
      backend.stream.destroy();
      return;
    }
    all.set(session, { backend, version });
    backend.stream.listen({
      onData: () => undefined,
      onDrain: () => undefined,
      onEnd: () => {
        if (all.get(session)?.backend !== backend) return;
        all.delete(session);
        options.onMissing(session);
      },
    });
    backend.stream.resume();
  };
  const drop = (session: Session): void => {
    all.get(session)?.backend.stream.destroy();
    all.delete(session);
  };
  const work = async (target: RouteTarget): Promise<void> => {
    while (options.fits(target)) {
      const session = queue.shift();
      if (session === undefined) return;
      if (session.closed || all.has(session) || making.has(session)) continue;
      making.add(session);
      await make(session, target);
    }
  };
  return {
    begin: (sessions, target) => {
      const wanted = [...sessions].filter((session) => session.backend !== null && !session.login.replication && session.memory.pinned() === null);
      queue = wanted.sort((a, b) => Number(a.idle) - Number(b.idle)).slice(0, MOST_AHEAD);
      for (let worker = 0; worker < AT_ONCE; worker++) void work(target);
    },
    awaits: (session) => {
      const kept = all.get(session);
      if (kept !== undefined && kept.version !== session.memory.version) drop(session);
      return all.has(session) || making.has(session);
    },
    keep,
    drop,
    takeAll: () => {
      queue = [];
      const taken = [...all];
      all.clear();
      return taken.map(([session, { backend, version }]) => {
        if (version === session.memory.version) return [session, backend] as const;
        backend.stream.destroy();
        return [session, null] as const;
      });
    },
    clear: () => {
      queue = [];
      for (const session of [...all.keys()]) drop(session);
    },
  };
}
