/**
 * Keeps the primary's synchronous set as the state asks for it, and says what is in force.
 *
 * Modes: idle (nobody asks) · working (a set is asked, and not every process acts on it) · in force. A restart of the server leads back to working.
 * The work runs beside the agent's loop: each step hands in what was asked and seen, and takes what is known.
 */
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { renderSyncNames, sameSet } from '../../core/cluster/sync-set.ts';
import { type MonoMs, addMono } from '../../core/ids.ts';
import type { Lsn } from '../../core/lsn.ts';
import type { PostgresReport, SyncReport } from '../../core/report.ts';
import { type Failure, type Result, describeFailure, err, ok } from '../../core/result.ts';
import type { SyncSet } from '../../core/state.ts';
import type { SyncPort, WantedSet } from '../ports.ts';
import { failure } from './failure.ts';
import type { Instance } from './instance.ts';
import { type SyncDoors, hasImpostor, isOurs, judgeInForce, openSyncDoors } from './sync-set.ts';

const LOOK_MS = 5;
/** A reload takes milliseconds; what is not in force after so many looks waits for something else, and each look is a login. */
const QUICK_LOOKS = 20;
const SLOW_LOOK_MS = 100;
/** One round of work; what is not in force by then is looked at again with the next step of the loop. */
const ROUND_MS = 1000;
/** While somebody is silent the next look comes this soon, so that its loss is known 0.2 s after the limit and not half a second. */
const CLOSE_LOOK_MS = 150;
/** A member that was never seen here yet (a new primary's, or of a server that has just started) gets this much longer to come: it has to follow first. */
const ARRIVAL_MS = 1000;
/** How often the file is compared with what is asked for. */
const FILE_EVERY_MS = 2000;
/** A checkpoint under way loads settings between two writes, at most 100 ms apart. Source: PostgreSQL, checkpointer.c, CheckpointWriteDelay. */
const WRITING_MS = 250;
/** Before a promotion the set is waited for this long: a checkpointer that works on a checkpoint must not hold it up, since the opening waits all the same. */
const PREPARE_MS = 300;

export interface SyncKeeperOptions {
  readonly instance: Instance;
  /** Those of the instance unless told. */
  readonly doors?: SyncDoors;
  readonly clock: Clock;
  readonly log: Logger;
  readonly wake: () => void;
}

interface Track {
  /** Since the first look at which it had acknowledged nothing of what there was; null: it is current. In the future for a member that has yet to come. */
  silentSince: MonoMs | null;
  flushLsn: Lsn | null;
}

export function createSyncKeeper(options: SyncKeeperOptions): SyncPort {
  const { clock, log } = options;
  const doors = options.doors ?? openSyncDoors(options.instance);
  let wanted: WantedSet | null = null;
  let pid: number | null = null;
  /** The set that every process acts on, by our own look at this server; null: not known. */
  let inForce: SyncSet | null = null;
  let inForceLsn: Lsn | null = null;
  /** Each k that some walsender may still act on; null: not known (a new agent). */
  let possible: ReadonlySet<number> | null = null;
  let seen: PostgresReport | null = null;
  /** Where the WAL ended when this server had recovered, if it was started by us and nobody was let in since. */
  let recovered: 'not-yet' | Lsn | null = null;
  let lastFlush: Lsn | null = null;
  let working: Promise<Result<null, Failure>> | null = null;
  let lastTrouble = '';
  let looking = false;
  let lastFile = -Infinity;
  const tracks = new Map<string, Track>();

  const forgetInForce = (): void => {
    inForce = null;
    inForceLsn = null;
  };
  const isServed = (): boolean => wanted !== null && inForce !== null && sameSet(inForce, wanted.set);

  function track(postgres: PostgresReport): void {
    const now = clock.now().mono;
    const members = wanted?.set.members ?? [];
    for (const known of tracks.keys()) if (!members.includes(known)) tracks.delete(known);
    for (const voter of members) {
      const sender = postgres.walsenders.find((one) => one.voter === voter);
      const flushLsn = sender?.flushLsn ?? null;
      const before = tracks.get(voter);
      const moved = before !== undefined && before.flushLsn !== null && flushLsn !== null && flushLsn > before.flushLsn;
      const complete = flushLsn !== null && lastFlush !== null && flushLsn >= lastFlush;
      if (before === undefined) tracks.set(voter, { silentSince: complete ? null : addMono(now, ARRIVAL_MS), flushLsn });
      else if (moved || complete) tracks.set(voter, { silentSince: null, flushLsn });
      else before.silentSince ??= now;
    }
    lastFlush = postgres.flushLsn;
    if ([...tracks.values()].some((one) => one.silentSince !== null)) lookCloser();
  }

  function lookCloser(): void {
    if (looking) return;
    looking = true;
    void clock.sleep(CLOSE_LOOK_MS).then(() => {
      looking = false;
      options.wake();
    });
  }

  function forget(): void {
    forgetInForce();
    lastFlush = null;
    tracks.clear();
  }

  /**
   * *Invariant:* `inForce` is the set that every process acts on, and nothing else was written since. *Because:* it is forgotten before the first step of the
   * work for another one. *Broken if:* an order overtakes that work and asks for the former set: it would be called in force while the other one is loaded.
   */
  async function work(asked: WantedSet): Promise<Result<null, Failure>> {
    if (inForce !== null && !sameSet(inForce, asked.set)) {
      forgetInForce();
    }
    // A node that never waited for anybody is left as it is: no write, no look.
    if (asked.set.k === 0 && !isOurs(await doors.written())) return served(asked.set);
    const { k } = asked.set;
    const largerK = k > 1 && (possible === null || [...possible].some((other) => other > 0 && other < k));
    if (possible !== null) possible = new Set([...possible, k]);
    const applied = await doors.apply(asked.set);
    if (!applied.ok) return applied;
    if (applied.value.changed) log.info({ names: renderSyncNames(asked.set), revision: asked.revision }, 'synchronous set written');
    let loadedMs: number | null = null;
    let settled = 0;
    let writingSince: MonoMs | null = null;
    let why = 'it was not looked at';
    let looks = 0;
    for (const until = clock.now().mono + ROUND_MS; clock.now().mono < until; await clock.sleep(looks > QUICK_LOOKS ? SLOW_LOOK_MS : LOOK_MS)) {
      looks++;
      if (wanted !== asked) return err(notInForce('another set is asked for'));
      const look = await doors.look();
      if (!look.ok) return look;
      if (look.value.names !== renderSyncNames(asked.set)) {
        why = 'the reload is under way';
        continue;
      }
      loadedMs ??= look.value.nowMs;
      const judged = judgeInForce(look.value, { set: asked.set, loadedMs, largerK });
      if (judged.end.length > 0) await doors.end(judged.end);
      writingSince = look.value.checkpointer === 'writing' ? (writingSince ?? clock.now().mono) : null;
      const loaded = look.value.checkpointer === 'idle' || (writingSince !== null && clock.now().mono - writingSince >= WRITING_MS);
      settled = judged.inForce && loaded ? settled + 1 : 0;
      why = judged.inForce ? 'the checkpointer has not loaded it' : judged.why;
      // Twice: the first look may fall between the end of a checkpoint and the loading of the setting.
      if (settled >= 2) return served(asked.set);
    }
    return err(notInForce(why));
  }

  /**
   * A set that somebody else changed in the file is written again (Z56). What was acknowledged meanwhile was acknowledged by that other set; until it is
   * in force again the report says that it is not.
   */
  async function checkFile(): Promise<void> {
    const asked = wanted;
    if (asked === null || asked.set.k === 0 || !isServed()) return;
    const names = await doors.written();
    if (wanted !== asked || names === renderSyncNames(asked.set)) return;
    log.warn({ found: names ?? '', wanted: renderSyncNames(asked.set) }, 'synchronous_standby_names was changed by somebody else; it is set again');
    forgetInForce();
    options.wake();
  }

  function lookAtFile(now: MonoMs): void {
    if (now - lastFile < FILE_EVERY_MS) return;
    lastFile = now;
    checkFile().catch((cause: unknown) => log.warn({ cause: String(cause) }, 'reading the synchronous set broke; it is read again'));
  }

  function served(set: SyncSet): Result<null, Failure> {
    if (inForce === null || !sameSet(inForce, set)) inForceLsn = null;
    inForce = set;
    possible = new Set([set.k]);
    return ok(null);
  }

  function begin(): Promise<Result<null, Failure>> {
    const asked = wanted;
    if (asked === null) return Promise.resolve(ok(null));
    working ??= work(asked)
      .catch((cause: unknown): Result<null, Failure> => err(notInForce(cause instanceof Error ? cause.message : String(cause))))
      .then((result) => {
        working = null;
        const trouble = result.ok ? '' : describeFailure(result.error);
        if (trouble !== '' && trouble !== lastTrouble && wanted === asked) log.warn({ code: result.ok ? '' : result.error.code }, trouble);
        lastTrouble = trouble;
        if (result.ok || wanted !== asked) options.wake();
        return result;
      });
    return working;
  }

  /** *Invariant:* an older order never replaces a newer one. *Because:* terms, and revisions within a term, only rise (architecture 4.4). */
  function isNewer(next: WantedSet): boolean {
    return wanted === null || next.term > wanted.term || (next.term === wanted.term && next.revision > wanted.revision);
  }

  function want(next: WantedSet | null): void {
    if (next === null) wanted = null;
    else if (isNewer(next)) {
      if (!sameSet(next.set, wanted?.set ?? next.set)) inForceLsn = null;
      wanted = next;
    }
  }

  return {
    step: (postgres, next) => {
      seen = postgres;
      if (postgres.postmasterPid !== pid) {
        pid = postgres.postmasterPid;
        forget();
      }
      want(next);
      if (wanted === null || postgres.state !== 'running') return;
      if (isServed() && wanted.set.k > 0 && hasImpostor(postgres.walsenders)) {
        log.warn(
          { names: renderSyncNames(wanted.set) },
          'a walsender has the name of a member and is not that member: it is ended, and less is promised until then',
        );
        forgetInForce();
      }
      if (!isServed()) void begin();
      else lookAtFile(clock.now().mono);
      if (postgres.role !== 'primary') return;
      // Any look after it was in force will do: WAL only grows.
      if (isServed()) inForceLsn ??= postgres.flushLsn;
      if (recovered === 'not-yet') recovered = postgres.flushLsn ?? 'not-yet';
      track(postgres);
    },
    prepare: async (next) => {
      want(next);
      if (!isServed() && seen?.state === 'running') {
        // The work that is under way may be for an older order.
        const done = working === null ? begin() : working.then(() => (isServed() ? ok(null) : begin()));
        const late = new AbortController();
        const result = await Promise.race([done, clock.sleep(PREPARE_MS, late.signal).then(() => ok(null))]);
        late.abort();
        return result;
      }
      if (seen?.state === 'running') return ok(null);
      if (next.set.k === 0 && !isOurs(await doors.written())) return ok(null);
      const applied = await doors.apply(next.set);
      return applied.ok ? ok(null) : applied;
    },
    startsAfterCrash: () => {
      recovered = 'not-yet';
    },
    ready: () => {
      if (wanted === null) return true;
      if (!isServed()) return false;
      if (recovered === null || wanted.set.k === 0) return true;
      if (recovered === 'not-yet' || seen === null) return false;
      const end = recovered;
      const { members, k } = wanted.set;
      const holding = seen.walsenders.filter(
        (one) => one.voter !== null && members.includes(one.voter) && one.flushLsn !== null && one.flushLsn >= end,
      );
      return holding.length >= k;
    },
    startsAsStandby: () => {
      recovered = null;
    },
    opened: () => {
      recovered = null;
    },
    report: (): SyncReport | null => {
      if (wanted === null || seen?.role !== 'primary' || seen.state !== 'running') return null;
      const now = clock.now().mono;
      return {
        revision: isServed() ? wanted.revision : 0,
        inForceLsn: isServed() ? inForceLsn : null,
        silence: [...tracks].map(([voter, one]) => ({ voter, ms: one.silentSince === null ? 0 : Math.max(0, Math.round(now - one.silentSince)) })),
      };
    },
  };
}

function notInForce(cause: string): Failure {
  return failure(
    'sync.not-in-force',
    'the synchronous set is not in force in every process',
    cause,
    'less is promised meanwhile; it is looked at again',
    'see the log of PostgreSQL if it stays',
    true,
  );
}
