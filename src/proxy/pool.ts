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
import { type Clock, realClock } from '../base/clock.ts';
import type { MonoMs } from '../core/ids.ts';
import type { PoolRule } from '../core/proxy-config.ts';
import type { RouteTarget } from '../core/route/decide.ts';
import { joinBytes } from '../wire/bytes.ts';
import { buildQuery } from '../wire/frontend.ts';
import type { Backend } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import { leave, runOn } from './restore.ts';
import type { RulesCache } from './rules.ts';
import type { Session } from './session.ts';

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
  /** Sessions for which one is being opened. */
  readonly opening: Set<Session>;
  /** The one that was given back last is at the end. */
  readonly spare: Spare[];
  /** Sessions that have one, and since when each is idle, if it is: the one that has been for longest comes first. */
  readonly attached: Map<Session, MonoMs>;
  /** Who came first is first; since when. */
  readonly queue: Map<Session, MonoMs>;
}

export interface PoolsOptions {
  /** The first that fits counts; none: no pool. */
  readonly poolRules: readonly PoolRule[];
  /** What is known of each database's functions: it decides what ties a session to its connection. */
  readonly catalog: RulesCache;
  readonly idleMs: number;
  readonly lifetimeMs: number;
  readonly limitMs: number;
  /** One more may be opened now. */
  readonly mayOpen: () => boolean;
  /** Opens a connection for the session and delivers it; `noteOpened` or `noteFailed` is called in between. Never rejects. */
  readonly open: (session: Session, target: RouteTarget) => void;
  /** Sessions may have connections to this node by the present route. */
  readonly keeps: (target: RouteTarget) => boolean;
  /** `version`: of the session's memory when its state was made on the connection. */
  readonly deliver: (session: Session, backend: Backend, version: number) => void;
  /** The session's state could not be made again. */
  readonly onRefused: (session: Session, why: string) => void;
  /** The session waits for a node again: its connection broke before it had it. */
  readonly onLost: (session: Session) => void;
  readonly clock?: Clock;
}

/** What SHOW POOLS tells of one. */
export interface PoolFacts {
  readonly node: string;
  readonly user: string;
  readonly database: string;
  readonly mode: 'session' | 'transaction';
  readonly size: number;
  readonly waiting: number;
  readonly opening: number;
  /** Connections that sessions have. */
  readonly lent: number;
  readonly spare: number;
  /** Of who has waited for longest; 0: nobody waits. */
  readonly waitedMs: number;
}

export interface Pools {
  /** Whether sessions of this login share connections. */
  has(login: Login): boolean;
  /** The session wants a connection to this node; it is delivered now, or when one is free. */
  request(session: Session, target: RouteTarget): void;
  noteOpened(session: Session, backend: Backend): void;
  noteFailed(session: Session): void;
  /** It has a connection, and is idle. */
  noteQuiet(session: Session): void;
  /** It neither waits nor has one any more. */
  forget(session: Session): void;
  /** Of a session that ends: true when the pool has taken the connection. `spare`: nothing is under way on it. */
  take(session: Session, backend: Backend, spare: boolean): boolean;
  /** Closes what the route does not name any more. Sessions that waited for such a node: they wait for another one. */
  applyRoute(): readonly Session[];
  /** Serves whoever can be served now. */
  pump(): void;
  /** Closes what nobody has used for long. */
  sweep(): void;
  waiting(): number;
  /** Why the session waits, in words; null: it does not wait here. */
  reason(session: Session): string | null;
  facts(): readonly PoolFacts[];
  clear(): void;
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
      ...{ target, user, database, mode, size, open: 0 },
      ...{ opening: new Set<Session>(), spare: [], attached: new Map<Session, MonoMs>(), queue: new Map<Session, MonoMs>() },
    };
    pools.set(key, made);
    return made;
  };

  /** It has no session: whatever the server says now ends it. */
  const keep = (pool: Pool, spare: Spare): void => {
    const drop = (): void => {
      const at = pool.spare.indexOf(spare);
      if (at !== -1) pool.spare.splice(at, 1);
    };
    pool.spare.push(spare);
    const { stream } = spare.backend;
    stream.listen({
      onData: () => {
        drop();
        leave(spare.backend);
      },
      onDrain: () => undefined,
      onEnd: drop,
    });
    stream.resume();
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
      void doubtful.ask();
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
    const same = spare.state === memory.stateKey;
    const own = spare.owner === session;
    if (options.catalog.isFresh(pool.database) && same && (own || (spare.clean && !session.usesUnnamed))) {
      options.deliver(session, backend, version);
      return;
    }
    pool.opening.add(session);
    void bring(pool, session, backend, same && own ? 'as it is' : same ? 'same state' : 'another state').then((brought) => {
      pool.opening.delete(session);
      if (brought === 'lost') {
        if (!session.closed) options.onLost(session);
      } else if ('error' in brought) {
        leave(backend);
        options.onRefused(session, `the session's state could not be made again on ${backend.target.node}: ${brought.error}`);
      } else {
        facts.clean ||= !own || !same;
        options.deliver(session, { ...backend, parameters: new Map([...backend.parameters, ...brought.parameters]) }, version);
      }
      serve(pool);
    });
  };

  /** Gives the connection the session's state. `lost`: it broke. */
  const bring = async (
    pool: Pool,
    session: Session,
    backend: Backend,
    from: 'as it is' | 'same state' | 'another state',
  ): Promise<'lost' | { readonly error: string } | { readonly parameters: ReadonlyMap<string, string> }> => {
    const { memory } = session;
    if (!options.catalog.isFresh(pool.database) && (await options.catalog.refresh(pool.database, backend)) === null) return 'lost';
    if (from === 'as it is') return { parameters: new Map() };
    const state = from === 'same state' ? memory.restoreUnnamed() : memory.restore(true);
    const parts = [buildQuery(from === 'same state' ? 'DISCARD SEQUENCES' : 'DISCARD ALL'), ...state];
    const answered = await runOn(backend, joinBytes(parts), { cycles: parts.length, limitMs: options.limitMs });
    if (answered === null) return 'lost';
    return answered.error === null ? { parameters: answered.parameters } : { error: answered.error.message };
  };

  const serve = (pool: Pool): void => {
    for (const session of pool.queue.keys()) {
      if (closed) return;
      const served = session.closed || !session.waiting || attend(pool, session);
      if (!served) return;
      pool.queue.delete(session);
      waitsIn.delete(session);
    }
  };

  /** False: nobody can be served now. */
  const attend = (pool: Pool, session: Session): boolean => {
    for (;;) {
      const spare = pick(pool, session);
      if (spare !== null) {
        hand(pool, session, spare);
        return true;
      }
      if (pool.open + pool.opening.size < pool.size) {
        if (!options.mayOpen()) return false;
        pool.opening.add(session);
        options.open(session, pool.target);
        return true;
      }
      // Made with another start packet: closed, and opened anew when it is gone.
      const other = pool.spare.shift();
      if (other !== undefined) {
        leave(other.backend);
        return false;
      }
      if (pool.mode === 'session' || !steal(pool)) return false;
    }
  };

  const discard = async (pool: Pool, session: Session, backend: Backend): Promise<void> => {
    const { startup = '', openedAt = clock.now().mono } = known.get(backend.stream) ?? {};
    pool.attached.delete(session);
    const answered = await runOn(backend, buildQuery('DISCARD ALL'), { cycles: 1, limitMs: options.limitMs });
    if (answered === null) return;
    if (answered.error !== null || closed || !options.keeps(pool.target)) {
      leave(backend);
      return;
    }
    const parameters = new Map([...backend.parameters, ...answered.parameters]);
    keep(pool, { backend: { ...backend, parameters }, startup, state: '', owner: null, clean: true, openedAt, since: clock.now().mono });
    serve(pool);
  };

  return {
    has: (login) => ruleOf(login) !== null,
    request: (session, target) => {
      const pool = poolOf(session.login, target);
      if (pool === null || pool.queue.has(session) || pool.opening.has(session)) return;
      pool.queue.set(session, clock.now().mono);
      waitsIn.set(session, pool);
      serve(pool);
    },
    noteOpened: (session, backend) => {
      const pool = poolOf(session.login, backend.target);
      if (pool === null) return;
      pool.opening.delete(session);
      pool.open += 1;
      session.memory.wrote = false;
      known.set(backend.stream, { pool, startup: startupOf(session.login), openedAt: clock.now().mono, clean: true });
      backend.stream.onClose(() => {
        pool.open -= 1;
        serve(pool);
      });
    },
    noteFailed: (session) => {
      for (const pool of pools.values()) pool.opening.delete(session);
    },
    noteQuiet: (session) => {
      // After each cycle of each session, also where nobody shares anything.
      if (options.poolRules.length === 0) return;
      const stream = session.backend?.stream;
      const pool = stream === undefined ? undefined : known.get(stream)?.pool;
      if (pool === undefined) return;
      pool.attached.delete(session);
      pool.attached.set(session, clock.now().mono);
      if (pool.queue.size > 0 && pool.mode === 'transaction') serve(pool);
    },
    forget: (session) => {
      waitsIn.get(session)?.queue.delete(session);
      waitsIn.delete(session);
      if (session.closed) for (const pool of pools.values()) pool.attached.delete(session);
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
        for (const { backend } of pool.spare.splice(0)) leave(backend);
        for (const session of pool.queue.keys()) {
          waitsIn.delete(session);
          again.push(session);
        }
        pool.queue.clear();
        if (pool.open === 0 && pool.opening.size === 0) pools.delete(key);
      }
      return again;
    },
    pump: () => {
      for (const pool of pools.values()) if (pool.queue.size > 0) serve(pool);
    },
    sweep: () => {
      const now = clock.now().mono;
      const isOld = (openedAt: MonoMs, since: MonoMs): boolean => now - since > options.idleMs || now - openedAt > options.lifetimeMs;
      for (const pool of pools.values()) {
        for (const spare of pool.spare.filter(({ openedAt, since }) => isOld(openedAt, since))) {
          pool.spare.splice(pool.spare.indexOf(spare), 1);
          leave(spare.backend);
        }
        if (pool.mode === 'session') continue;
        for (const [session, since] of pool.attached) {
          const stream = session.backend?.stream;
          const openedAt = stream === undefined ? now : (known.get(stream)?.openedAt ?? now);
          if (session.isSpare && isOld(openedAt, since) && session.detach()) pool.attached.delete(session);
        }
      }
    },
    waiting: () => [...pools.values()].reduce((sum, pool) => sum + pool.queue.size, 0),
    reason: (session) => {
      const pool = waitsIn.get(session);
      return pool === undefined
        ? null
        : `all ${pool.size} connections that ${pool.user} may have to ${pool.database} on ${pool.target.node} are in use (pooling in proxy.yaml)`;
    },
    facts: () =>
      [...pools.values()].map(({ target, user, database, mode, size, queue, opening, open, spare }) => ({
        ...{ node: target.node, user, database, mode, size, waiting: queue.size, opening: opening.size, spare: spare.length },
        lent: open - spare.length,
        waitedMs: queue.size === 0 ? 0 : clock.now().mono - Math.min(...queue.values()),
      })),
    clear: () => {
      closed = true;
      for (const pool of pools.values()) for (const { backend } of pool.spare.splice(0)) leave(backend);
    },
  };
}

/** Connections with equal ones began alike: settings, options and names of the client's start packet. */
function startupOf(login: Login): string {
  return JSON.stringify([...login.startup.parameters].sort(([a], [b]) => (a < b ? -1 : 1)));
}
