/**
 * How far the nodes are, asked over the proxy's own connections: one question at a time for each node, whose answer serves everybody who waited for it.
 *
 * Invariant: a session reads on a standby only what contains everything that it wrote or saw before.
 * Because: its token is the primary's insert position, asked after the primary's last answer to it; the standby is used only when it has replayed that far.
 * Broken if: the token were the flushed position: with `synchronous_commit = off` a commit is answered before its record is flushed.
 */
import { type Clock, realClock } from '../base/clock.ts';
import { type MonoMs, type Term, addMono, makeMonoMs } from '../core/ids.ts';
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
  /**
   * The standby has replayed what the token stands for, as far as is known. If not, it is asked, and `onReached` is called as soon as it has; never, when that takes
   * longer than PATIENCE_MS or it does not answer.
   */
  reached(target: RouteTarget, token: Token, onReached?: () => void): boolean;
  /** It was too far behind a moment ago: a read that waits for it would most likely wait in vain. */
  late(target: RouteTarget): boolean;
  /** A new connection to it was made: it may have been restarted, and be further back than it was. */
  forget(target: RouteTarget): void;
}

/** Between two questions to a standby that is not there yet: most are within a millisecond, and each question costs it a tenth of one. */
const AGAIN_MS = 1;
/**
 * A read waits this long for a standby before the primary gets it. Replay follows a commit within one or two milliseconds; one that takes longer has a reason that
 * lasts, and then each further millisecond is latency for nothing.
 */
export const PATIENCE_MS = 10;
/** A standby that was waited for in vain is not waited for during this time. */
const LATE_MS = 100;

interface Waiting {
  readonly lsn: Lsn;
  readonly untilMs: MonoMs;
  readonly onReached: () => void;
}

interface Replay {
  lsn: Lsn | null;
  asking: boolean;
  lateUntilMs: MonoMs;
  waiting: Waiting[];
}

export function openPositions(options: { readonly controls: Controls; readonly route: () => Route; readonly clock?: Clock }): Positions {
  const { controls } = options;
  const clock = options.clock ?? realClock;
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
    while (replay.waiting.length > 0) {
      const answer = await controls.of(target).ask('select pg_catalog.pg_last_wal_replay_lsn()::text as lsn');
      const lsn = answer.ok ? parseLsn(String(answer.value[0]?.['lsn'])) : null;
      if (lsn === null) replay.lateUntilMs = addMono(clock.now().mono, LATE_MS);
      if (lsn === null || replayed.get(target.node) !== replay) break;
      replay.lsn = lsn;
      serve(replay);
      if (replay.waiting.length > 0) await clock.sleep(AGAIN_MS);
    }
    replay.asking = false;
    replay.waiting = [];
  }

  /** Who waits for more than there is goes on waiting, for a while. */
  function serve(replay: Replay): void {
    const now = clock.now().mono;
    const { waiting: all, lsn } = replay;
    replay.waiting = all.filter((one) => (lsn === null || one.lsn > lsn) && now < one.untilMs);
    for (const one of all) {
      if (lsn !== null && one.lsn <= lsn) one.onReached();
      else if (now >= one.untilMs) replay.lateUntilMs = addMono(now, LATE_MS);
    }
  }

  return {
    forget: (target) => void replayed.delete(target.node),
    want: (waiter) => {
      waiting.add(waiter);
      void ask();
    },
    late: (target) => clock.now().mono < (replayed.get(target.node)?.lateUntilMs ?? 0),
    reached: (target, token, onReached = () => undefined) => {
      // Positions that were asked before a term was known may be of another history; a token of an older term stands for less than any of the present one.
      if (replayTerm === null || token.term > replayTerm) {
        replayed.clear();
        replayTerm = token.term;
      }
      let replay = replayed.get(target.node);
      if (replay === undefined) {
        replay = { lsn: null, asking: false, lateUntilMs: makeMonoMs(0), waiting: [] };
        replayed.set(target.node, replay);
      }
      if (replay.lsn !== null && replay.lsn >= token.lsn) return true;
      replay.waiting.push({ lsn: token.lsn, untilMs: addMono(clock.now().mono, PATIENCE_MS), onReached });
      if (!replay.asking) void askReplay(target, replay);
      return false;
    },
  };
}
