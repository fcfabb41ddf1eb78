/** The side of a port that its sessions see. */
import type { Logger } from '../base/log.ts';
import type { Term } from '../core/ids.ts';
import type { RouteTarget } from '../core/route/decide.ts';
import type { Backend } from './login/backend.ts';
import type { Session } from './session.ts';
import type { Positions } from './positions.ts';

/** Cycles that a node has answered. */
export interface Served {
  count: number;
}

/** What a session needs of its port. */
export interface SessionHost {
  readonly log: Logger;
  /** New transactions wait now. */
  readonly holding: () => boolean;
  /** Why nobody can be attached now, in words; null: nothing speaks against it. */
  readonly closedBecause: () => string | null;
  /** Writes may have happened on this port: an answer that was lost is an unknown outcome. */
  readonly writes: boolean;
  /** By the present route it may get what this port carries. */
  readonly serves: (target: RouteTarget) => boolean;
  /** Asks for a node; `adopt` or `refuse` is called later, unless the session was closed. */
  readonly attach: (session: Session) => void;
  /** The session was attached and busy, and is idle now (or gone). */
  readonly onQuiet: (session: Session) => void;
  readonly onClosed: (session: Session) => void;
  /** The node has said what the session made there; the client's messages still wait. */
  readonly onAsked: (session: Session) => void;
  /** The session ends. `spare`: nothing of it is under way on the connection. */
  readonly giveBack: (session: Session, backend: Backend, spare: boolean) => void;
  /** Counts the cycles that the node answers. */
  readonly servedBy: (node: string) => Served;
  /** Of the split port; null on the others. */
  readonly readers: ReaderHost | null;
}

/** Where a session of the split port gets its connection to a standby. */
export interface ReaderHost {
  readonly positions: Positions;
  /** Newest term that the proxy knows a primary of. */
  term(): Term;
  /** Null: there is none now. Logged in as the session's user, with its state made again. Never rejects. */
  open(session: Session): Promise<Backend | null>;
  /** Makes the session's state anew on the connection. False: it broke, or the state could not be made. */
  renew(session: Session, backend: Backend): Promise<boolean>;
  /** It serves reads by the present route. */
  serves(backend: Backend): boolean;
  onRead(served: 'standby' | 'primary'): void;
}
