/**
 * How far the nodes are, asked over the proxy's own connections: one question at a time for each node, whose answer serves everybody who waited for it.
 *
 * Invariant: a session reads on a standby only what contains everything that it wrote or saw before.
 * Because: its token is the primary's insert position, asked after the primary's last answer to it; the standby is used only when it has replayed that far.
 * Broken if: the token were the flushed position: with `synchronous_commit = off` a commit is answered before its record is flushed.
 */
import { realClock } from '../base/clock.ts';
import type { Term } from '../core/ids.ts';
import { type Lsn, parseLsn } from '../core/lsn.ts';
import type { Route, RouteTarget } from '../core/route/decide.ts';
import type { Controls } from './control.ts';

export interface Token {
  readonly term: Term;
  readonly lsn: Lsn;
}

export interface Waiter {
  onToken(token: Token): void;
}

export interface Positions {
  /** Tells the primary's position as it is after this call; never, when it cannot be asked. */
  want(waiter: Waiter): void;
  /** The standby has replayed what the token stands for, as far as is known; if not, it is asked until it has (bounded), for the next time. */
  reached(target: RouteTarget, token: Token): boolean;
  /** A new connection to it was made: it may have been restarted, and be further back than it was. */
  forget(target: RouteTarget): void;
}

/** Between two questions to a standby that is not there yet: most are within a millisecond, and each question costs it a tenth of one. */
const AGAIN_MS = 1;
/** A standby that is further behind is asked again when somebody reads. */
const MOST_QUESTIONS = 20;

interface Replay {
  lsn: Lsn | null;
  wanted: Lsn;
  asking: boolean;
}

export function openPositions(options: { readonly controls: Controls; readonly route: () => Route }): Positions {
  const { controls } = options;
  let waiting: Set<Waiter> = new Set();
  let asking = false;
  const replayed = new Map<string, Replay>();
  let replayTerm: Term | null = null;

  async function ask(): Promise<void> {
    const { writer, term } = options.route();
    if (asking || waiting.size === 0 || writer === null) return;
    asking = true;
    const served = waiting;
    waiting = new Set();
    const answer = await controls.of(writer).ask('select pg_catalog.pg_current_wal_insert_lsn()::text as lsn');
    asking = false;
    const lsn = answer.ok ? parseLsn(String(answer.value[0]?.['lsn'])) : null;
    // Without an answer they have no token, and read on the primary; the next statement there asks again.
    if (lsn !== null && options.route().term === term) for (const waiter of served) waiter.onToken({ term, lsn });
    if (waiting.size > 0) await ask();
  }

  async function askReplay(target: RouteTarget, replay: Replay): Promise<void> {
    replay.asking = true;
    for (let tries = 0; tries < MOST_QUESTIONS; tries++) {
      if (tries > 0) await realClock.sleep(AGAIN_MS);
      const answer = await controls.of(target).ask('select pg_catalog.pg_last_wal_replay_lsn()::text as lsn');
      const lsn = answer.ok ? parseLsn(String(answer.value[0]?.['lsn'])) : null;
      if (lsn === null || replayed.get(target.node) !== replay) break;
      replay.lsn = lsn;
      if (lsn >= replay.wanted) break;
    }
    replay.asking = false;
  }

  return {
    forget: (target) => void replayed.delete(target.node),
    want: (waiter) => {
      waiting.add(waiter);
      void ask();
    },
    reached: (target, token) => {
      // Positions of another term are of another history.
      if (token.term !== replayTerm) {
        replayed.clear();
        replayTerm = token.term;
      }
      let replay = replayed.get(target.node);
      if (replay === undefined) {
        replay = { lsn: null, wanted: token.lsn, asking: false };
        replayed.set(target.node, replay);
      }
      if (replay.lsn !== null && replay.lsn >= token.lsn) return true;
      if (token.lsn > replay.wanted) replay.wanted = token.lsn;
      if (!replay.asking) void askReplay(target, replay);
      return false;
    },
  };
}
