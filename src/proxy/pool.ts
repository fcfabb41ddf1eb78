/**
 * Server connections that the sessions of one user and one database share (poolers' transaction mode), or take over from each other when a client is gone (session mode).
 *
 * A session keeps its connection until another one needs it and there are as many as the pool may have: then the one that has been idle for longest gives its own. So nothing
 * is paid for as long as there are enough, and a session finds its own connection again as a rule.
 *
 * *Invariant:* no session meets on a connection what another one has made there. *Because:* only a session that is idle, outside a transaction and without pins (wire/session-state.ts)
 * gives its connection away; who gets one has it brought to its own state first: by nothing where settings and prepared statements are equal and only reads ran on it,
 * by DISCARD SEQUENCES where more ran (what lastval() says belongs to whoever wrote), else by DISCARD ALL and all of its own.
 * *Broken if:* a session is given away with an answer, a cancel request or a part of a message still on its way.
 */
import { realClock } from '../base/clock.ts';
import { type MonoMs, addMono } from '../core/ids.ts';
import type { PoolRule } from '../core/proxy-config.ts';
import { type Result, err, ok } from '../core/result.ts';
import type { RouteTarget } from '../core/route/decide.ts';
import { joinBytes } from '../wire/bytes.ts';
import { buildQuery } from '../wire/frontend.ts';
import type { Backend } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import type { Pools, PoolsOptions } from './pool-contract.ts';
import { type NotMade, leave, makeState, runOn } from './restore.ts';
import type { Session } from './session.ts';

/** The question is asked while others wait; a server that is busy takes its time, and the session must not be lost over it. */
const ASK_LIMIT_MS = 30_000;
/** After a server refused a connection. */
const NO_OPEN_MS = 1000;

/** A connection that no session has now. */
interface Spare {
  readonly backend: Backend;
  readonly startup: string;
  /** State of the session that had it last, and which one that was; null: it is gone, or everything was discarded. */
  readonly state: string;
  readonly owner: Session | null;
  /** Nothing but reads since its sequences were forgotten. */
  readonly clean: boolean;
  readonly openedAt: MonoMs;
  readonly since: MonoMs;
}

/** What is known of every open connection of a pool, by its stream. */
interface Known {
  readonly pool: Pool;
  readonly startup: string;
  readonly openedAt: MonoMs;
  clean: boolean;
}

interface Pool {
  readonly target: RouteTarget;
  readonly user: string;
  readonly database: string;
  readonly mode: 'session' | 'transaction';
  readonly size: number;
  open: number;
  /** Sessions for which one is being opened, and those for which one that is open is being brought to their state. */
  readonly opening: Set<Session>;
  readonly bringing: Set<Session>;
  /** Connections that were told to close, and still count as open. */
  readonly closing: Set<Backend['stream']>;
  /** The server refused one (its own limit is lower): until then others take turns with what there is. */
  noOpenUntil: MonoMs;
  /** The one that was given back last is at the end. */
  readonly spare: Spare[];
  /** Sessions that have one, and since when each is idle, if it is: the one that has been for longest comes first. */
  readonly attached: Map<Session, MonoMs>;
  /** Who came first is first; since when. Who is logged in comes before `arrivals`. */
  readonly queue: Map<Session, MonoMs>;
  readonly arrivals: Map<Session, MonoMs>;
  /** `serve` is at work; it looks once more. */
  serving: boolean;
  again: boolean;
}

export function createPools(options: PoolsOptions): Pools {
  const clock = options.clock ?? realClock;
  const pools = new Map<string, Pool>();
  const known = new WeakMap<Backend['stream'], Known>();
  const waitsIn = new Map<Session, Pool>();
  const asked = new WeakMap<Session, number>();
  let closed = false;

  const ruleOf = ({ user, database, replication }: Login): PoolRule | null => {
    if (replication) return null;
    const fits = (wanted: string | null, found: string): boolean => wanted === null || wanted === found;
    const rule = options.poolRules.find((one) => fits(one.user, user) && fits(one.database, database));
    return rule === undefined || rule.mode === 'off' ? null : rule;
  };
  const poolOf = (login: Login, target: RouteTarget): Pool | null => {
    const rule = ruleOf(login);
    if (rule === null || rule.mode === 'off') return null;
    const { user, database } = login;
    const key = JSON.stringify([target.node, target.host, target.port, user, database]);
    const found = pools.get(key);
    if (found !== undefined) return found;
    const { mode, size } = rule;
    const made: Pool = {
      ...{ target, user, database, mode, size, open: 0, serving: false, again: false, noOpenUntil: clock.now().mono },
      ...{ opening: new Set<Session>(), bringing: new Set<Session>(), closing: new Set<Backend['stream']>(), spare: [] },
      ...{ attached: new Map<Session, MonoMs>(), queue: new Map<Session, MonoMs>(), arrivals: new Map<Session, MonoMs>() },
    };
    pools.set(key, made);
    return made;
  };

  const close = (pool: Pool, backend: Backend): void => {
    dropSpare(pool, backend.stream);
    pool.closing.add(backend.stream);
    leave(backend);
  };

  const isOld = (openedAt: MonoMs): boolean => clock.now().mono - openedAt > options.lifetimeMs;

  /** It has no session: whatever the server says now ends it. */
  const keep = (pool: Pool, spare: Spare): void => {
    const { backend } = spare;
    if (isOld(spare.openedAt)) {
      close(pool, backend);
      return;
    }
    pool.spare.push(spare);
    backend.stream.listen({ onData: () => close(pool, backend), onDrain: () => undefined, onEnd: () => undefined });
    backend.stream.resume();
  };

  const giveUp = (pool: Pool, session: Session, backend: Backend, owner: Session | null): void => {
    const { clean = false, startup = '', openedAt = clock.now().mono } = known.get(backend.stream) ?? {};
    pool.attached.delete(session);
    if (session.memory.takeCatalogChange()) options.catalog.forget(pool.database);
    const { stateKey, wrote } = session.memory;
    keep(pool, { backend, startup, state: stateKey, owner, clean: clean && !wrote, openedAt, since: clock.now().mono });
  };

  const has = (pool: Pool, session: Session): boolean => {
    const stream = session.backend?.stream;
    return stream !== undefined && known.get(stream)?.pool === pool;
  };

  /** The session that has been idle for longest gives its connection up. False: nobody can. */
  const steal = (pool: Pool): boolean => {
    let doubtful: Session | null = null;
    for (const session of pool.attached.keys()) {
      if (!has(pool, session)) {
        pool.attached.delete(session);
        continue;
      }
      if (!session.isSpare) continue;
      const backend = session.release();
      if (backend !== null) {
        giveUp(pool, session, backend, session);
        return true;
      }
      // Once after each of its statements: an answer that leaves the doubt leaves the connection where it is.
      if (doubtful === null && session.memory.doubtful && asked.get(session) !== session.statements) doubtful = session;
    }
    if (doubtful !== null) {
      asked.set(doubtful, doubtful.statements);
      void doubtful.ask(ASK_LIMIT_MS);
    }
    return false;
  };

  /** Its own one, else one that fits as it is, else the one that was used last. */
  const pick = (pool: Pool, session: Session): Spare | null => {
    const startup = startupOf(session.login);
    const { stateKey } = session.memory;
    let best = -1;
    let worth = 0;
    for (let at = pool.spare.length - 1; at >= 0; at--) {
      const spare = pool.spare[at];
      if (spare === undefined || spare.startup !== startup) continue;
      const same = spare.state === stateKey;
      const rank = same && spare.owner === session ? 4 : same && spare.clean ? 3 : same ? 2 : 1;
      if (rank > worth) [best, worth] = [at, rank];
      if (rank === 4) break;
    }
    return best === -1 ? null : (pool.spare.splice(best, 1)[0] ?? null);
  };

  const hand = (pool: Pool, session: Session, spare: Spare): void => {
    const { memory } = session;
    const { version } = memory;
    const { backend } = spare;
    const { stream } = backend;
    const facts: Known = { pool, startup: spare.startup, openedAt: spare.openedAt, clean: spare.clean };
    known.set(stream, facts);
    memory.wrote = false;
    const fresh = options.catalog.isFresh(pool.database);
    const same = spare.state === memory.stateKey;
    const own = spare.owner === session;
    if (fresh && same && (own || (spare.clean && !session.usesUnnamed))) {
      options.deliver(session, backend, version);
      return;
    }
    pool.bringing.add(session);
    void bring(pool, session, backend, !fresh ? 'unknown' : !same ? 'other' : own ? 'own' : 'same')
      .then((brought) => {
        // From here on it may ask again.
        pool.bringing.delete(session);
        if (brought.ok) {
          facts.clean ||= !(same && own);
          options.deliver(session, { ...backend, parameters: new Map([...backend.parameters, ...brought.value]) }, version);
          return;
        }
        if (brought.error.kind !== 'lost') close(pool, backend);
        if (brought.error.kind === 'state') options.onRefused(session, brought.error.why);
        else if (!session.closed) options.onLost(session);
      })
      .catch((cause: unknown) => {
        pool.bringing.delete(session);
        backend.stream.destroy();
        options.onBroken(session, cause);
      })
      .finally(() => serve(pool));
  };

  /** Gives the connection the session's state, from one that is the session's `own`, the `same`, any `other`, or one in which the catalog must be read first. */
  const bring = async (
    pool: Pool,
    session: Session,
    backend: Backend,
    from: 'own' | 'same' | 'other' | 'unknown',
  ): Promise<Result<ReadonlyMap<string, string>, NotMade>> => {
    const { memory, usesUnnamed: unnamed } = session;
    const { limitMs } = options;
    if (from === 'unknown') {
      // In nobody's state: settings of the session before must not decide what is found.
      const discarded = await runOn(backend, buildQuery('DISCARD ALL'), { cycles: 1, limitMs });
      const lost = { kind: 'lost', why: `${backend.target.node} did not answer` } as const;
      if (discarded === null) return err(lost);
      if (discarded.error !== null) return err({ kind: 'reset', why: discarded.error.message });
      if ((await options.catalog.refresh(pool.database, backend)) === null) return err(lost);
      const made = await makeState(memory, backend, { reset: null, unnamed, limitMs });
      return made.ok ? ok(new Map([...discarded.parameters, ...made.value])) : made;
    }
    if (from === 'other') return makeState(memory, backend, { reset: 'DISCARD ALL', unnamed, limitMs });
    const parts = [buildQuery('DISCARD SEQUENCES'), ...(unnamed ? memory.restoreUnnamed() : [])];
    const answered = await runOn(backend, joinBytes(parts), { cycles: parts.length, limitMs, strict: 1 });
    if (answered === null) return err({ kind: 'lost', why: `${backend.target.node} did not answer` });
    return answered.error === null ? ok(answered.parameters) : err({ kind: 'reset', why: answered.error.message });
  };

  /** Not from within itself: whoever gets a connection may give one up at once, and a thousand who do would be a thousand calls deep. */
  const serve = (pool: Pool): void => {
    if (pool.serving) {
      pool.again = true;
      return;
    }
    pool.serving = true;
    do {
      pool.again = false;
      for (const waiting of [pool.queue, pool.arrivals])
        for (const session of waiting.keys()) {
          if (closed || !options.keeps(pool.target)) break;
          const wants = !session.closed && session.waiting && !pool.opening.has(session) && !pool.bringing.has(session);
          if (wants && !canAttend(pool, session)) break;
          waiting.delete(session);
          if (waitsIn.get(session) === pool) waitsIn.delete(session);
          if (wants) attend(pool, session);
        }
    } while (pool.again);
    pool.serving = false;
  };

  /** Makes room where it can. False: nobody can be served now. */
  const canAttend = (pool: Pool, session: Session): boolean => {
    for (;;) {
      if (hasFitting(pool, session)) return true;
      if (pool.open + pool.opening.size < pool.size && clock.now().mono >= pool.noOpenUntil) return options.mayOpen();
      // Made with another start packet: closed, and opened anew when it is gone.
      const [other] = pool.spare;
      if (pool.closing.size > 0) return false;
      if (other !== undefined) {
        close(pool, other.backend);
        return false;
      }
      if (pool.mode === 'session' || !steal(pool)) return false;
    }
  };

  const hasFitting = (pool: Pool, session: Session): boolean => {
    if (pool.spare.length === 0) return false;
    const startup = startupOf(session.login);
    return pool.spare.some((spare) => spare.startup === startup);
  };

  const attend = (pool: Pool, session: Session): void => {
    const spare = pick(pool, session);
    if (spare !== null) {
      hand(pool, session, spare);
      return;
    }
    pool.opening.add(session);
    options.open(session, pool.target);
  };

  const discard = async (pool: Pool, session: Session, backend: Backend): Promise<void> => {
    const { startup = '', openedAt = clock.now().mono } = known.get(backend.stream) ?? {};
    pool.attached.delete(session);
    const answered = await runOn(backend, buildQuery('DISCARD ALL'), { cycles: 1, limitMs: options.limitMs });
    if (answered === null) return;
    if (answered.error !== null || closed || !options.keeps(pool.target)) {
      close(pool, backend);
      return;
    }
    const parameters = new Map([...backend.parameters, ...answered.parameters]);
    keep(pool, { backend: { ...backend, parameters }, startup, state: '', owner: null, clean: true, openedAt, since: clock.now().mono });
    serve(pool);
  };

  return {
    isUsed: options.poolRules.length > 0,
    has: (login) => ruleOf(login) !== null,
    request: (session, target) => {
      const pool = poolOf(session.login, target);
      if (pool === null || waitsIn.get(session) === pool || pool.opening.has(session) || pool.bringing.has(session)) return;
      (session.welcomed ? pool.queue : pool.arrivals).set(session, clock.now().mono);
      waitsIn.set(session, pool);
      serve(pool);
    },
    noteOpened: (session, backend) => {
      const pool = poolOf(session.login, backend.target);
      if (pool === null) return;
      pool.opening.delete(session);
      pool.open += 1;
      // It may be for later, while the session still works on another one.
      if (session.backend === null) session.memory.wrote = false;
      const { stream } = backend;
      known.set(stream, { pool, startup: startupOf(session.login), openedAt: clock.now().mono, clean: true });
      stream.onClose(() => {
        known.delete(stream);
        dropSpare(pool, stream);
        pool.closing.delete(stream);
        pool.open -= 1;
        // Not in the middle of what its session does about it.
        queueMicrotask(() => serve(pool));
      });
    },
    noteFailed: (session, target, isFull) => {
      const pool = poolOf(session.login, target);
      if (pool?.opening.delete(session) !== true) return;
      if (isFull) pool.noOpenUntil = addMono(clock.now().mono, NO_OPEN_MS);
      queueMicrotask(() => serve(pool));
    },
    noteAsked: (session) => {
      const stream = session.backend?.stream;
      const pool = stream === undefined ? undefined : known.get(stream)?.pool;
      if (pool === undefined || pool.mode === 'session' || pool.queue.size + pool.arrivals.size === 0 || !session.isQuiet) return;
      const backend = session.release();
      if (backend === null) return;
      giveUp(pool, session, backend, session);
      serve(pool);
    },
    noteQuiet: (session) => {
      // After each cycle of each session, also where nobody shares anything.
      if (options.poolRules.length === 0) return;
      const stream = session.backend?.stream;
      const pool = stream === undefined ? undefined : known.get(stream)?.pool;
      if (pool === undefined) return;
      pool.attached.delete(session);
      pool.attached.set(session, clock.now().mono);
      if (pool.queue.size + pool.arrivals.size > 0 && pool.mode === 'transaction') serve(pool);
    },
    forget: (session) => {
      const pool = waitsIn.get(session);
      pool?.queue.delete(session);
      pool?.arrivals.delete(session);
      waitsIn.delete(session);
      if (session.closed) for (const one of pools.values()) one.attached.delete(session);
    },
    take: (session, backend, spare) => {
      const pool = known.get(backend.stream)?.pool;
      if (pool === undefined || closed || !spare || !session.memory.isDiscardable || !options.keeps(pool.target)) return false;
      if (session.memory.pinned() === null) {
        giveUp(pool, session, backend, null);
        serve(pool);
      } else void discard(pool, session, backend);
      return true;
    },
    applyRoute: () => {
      const again: Session[] = [];
      for (const [key, pool] of pools) {
        if (options.keeps(pool.target)) continue;
        for (const { backend } of [...pool.spare]) close(pool, backend);
        for (const waiting of [pool.queue, pool.arrivals]) {
          for (const session of waiting.keys()) {
            waitsIn.delete(session);
            again.push(session);
          }
          waiting.clear();
        }
        if (isEmpty(pool)) pools.delete(key);
      }
      return again;
    },
    pump: () => {
      for (const pool of pools.values()) if (pool.queue.size + pool.arrivals.size > 0) serve(pool);
    },
    sweep: () => {
      const now = clock.now().mono;
      for (const [key, pool] of pools) {
        for (const { backend, openedAt, since } of [...pool.spare]) if (now - since > options.idleMs || isOld(openedAt)) close(pool, backend);
        if (pool.mode === 'transaction')
          for (const [session, since] of pool.attached) {
            const stream = session.backend?.stream;
            const openedAt = stream === undefined ? now : (known.get(stream)?.openedAt ?? now);
            if (session.isSpare && (now - since > options.idleMs || isOld(openedAt)) && session.detach()) pool.attached.delete(session);
          }
        if (isEmpty(pool)) pools.delete(key);
        else serve(pool);
      }
    },
    waiting: () => waitsIn.size,
    load: (login, target) => {
      const pool = poolOf(login, target);
      return pool === null ? 0 : pool.open - pool.spare.length - pool.closing.size + pool.opening.size + pool.queue.size + pool.arrivals.size;
    },
    reason: (session) => {
      const pool = waitsIn.get(session);
      return pool === undefined
        ? null
        : `all ${pool.size} connections that ${pool.user} may have to ${pool.database} on ${pool.target.node} are in use (pooling in proxy.yaml)`;
    },
    facts: () =>
      [...pools.values()].map(({ target, user, database, mode, size, queue, arrivals, opening, open, spare, closing }) => {
        const [first = clock.now().mono] = [...queue.values()];
        const [arrived = first] = [...arrivals.values()];
        return {
          ...{ node: target.node, user, database, mode, size, waiting: queue.size + arrivals.size, opening: opening.size, spare: spare.length },
          lent: open - spare.length - closing.size,
          waitedMs: clock.now().mono - Math.min(first, arrived),
        };
      }),
    clear: () => {
      closed = true;
      for (const pool of pools.values()) for (const { backend } of [...pool.spare]) close(pool, backend);
    },
  };
}

function dropSpare(pool: Pool, stream: Backend['stream']): void {
  const at = pool.spare.findIndex(({ backend }) => backend.stream === stream);
  if (at !== -1) pool.spare.splice(at, 1);
}

function isEmpty(pool: Pool): boolean {
  return pool.open + pool.opening.size + pool.bringing.size + pool.queue.size + pool.arrivals.size === 0;
}

/** Connections with equal ones began alike: settings, options and names of the client's start packet. */
function startupOf(login: Login): string {
  return JSON.stringify([...login.startup.parameters].sort(([a], [b]) => (a < b ? -1 : 1)));
}
