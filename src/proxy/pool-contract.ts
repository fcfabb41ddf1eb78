/** What a port and its pools of connections say to each other. */
import type { Clock } from '../base/clock.ts';
import type { PoolRule } from '../core/proxy-config.ts';
import type { RouteTarget } from '../core/route/decide.ts';
import type { Backend } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import type { RulesCache } from './rules.ts';
import type { Session } from './session.ts';

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
  /** A defect of the proxy. */
  readonly onBroken: (session: Session, cause: unknown) => void;
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
  /** There are rules. */
  readonly isUsed: boolean;
  /** Whether sessions of this login share connections. */
  has(login: Login): boolean;
  /** The session wants a connection to this node; it is delivered now, or when one is free. */
  request(session: Session, target: RouteTarget): void;
  noteOpened(session: Session, backend: Backend): void;
  /** None could be opened. `isFull`: the server has too many. */
  noteFailed(session: Session, target: RouteTarget, isFull: boolean): void;
  /** It has a connection, and is idle. */
  noteQuiet(session: Session): void;
  /** The server has said what ties it to its connection; what its client sent meanwhile still waits. */
  noteAsked(session: Session): void;
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
  /** How many connections sessions of this login have to the node, or wait for. */
  load(login: Login, target: RouteTarget): number;
  /** Why the session waits, in words; null: it does not wait here. */
  reason(session: Session): string | null;
  facts(): readonly PoolFacts[];
  clear(): void;
}
