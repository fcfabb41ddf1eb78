/**
 * Holds the write lease of one node: takes it, renews it, gives it back, and says when it is lost.
 *
 * Modes: none → (acquire) → held → (release) → none, or held → (deadline passed, or the store says that it is another's) → lost = none, after `onLost`.
 * While held, each renewal is confirmed by the store (keep-alive and a transaction that compares key, value and lease), or, when the store does not answer,
 * by a complete set of promises (core/node/promises.ts). Only a confirmation that the guard acknowledged moves the deadline.
 *
 * Invariant: `heldTerm` is not null only before the deadline of the last confirmation.
 * Because: it compares with the clocks at every call, and takes off what the machine was paused; the watcher fires at the deadline without any message, and the
 * guard holds the same deadline.
 * Broken if: a confirmation counts from after it was sent, or whoever asks first after a pause (a proxy, a promotion) is answered by a clock that stood still.
 */
import { type Clock, untilTick } from '../../base/clock.ts';
import { type MonoMs, type NodeId, type Revision, type Term, addMono } from '../../core/ids.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import type { ClusterKeys } from '../../store/keys.ts';
import type { Store } from '../../store/store.ts';
import { longPromiseMs } from '../../core/node/promises.ts';
import { type Confirmation, type LeaseSettings, ownDeadline, promisedDeadline } from './lease-rules.ts';
import { type Granted, claim, claimAgain, confirm, giveBack, grant } from './lease-store.ts';
import { type TickClocks, pausedMs, readTogether } from './pause.ts';

export interface GuardedLease {
  readonly term: Term;
  readonly leaseId: string;
  readonly deadline: MonoMs;
  /** When `deadline` was right: what the machine was paused since then is to be taken off. */
  readonly at: TickClocks;
}

export interface LeaseGuard {
  /** Before a lease is taken: a living guard that is free to be armed (an earlier fence was read and acknowledged). */
  prepare(): Promise<boolean>;
  /** True only when a living guard acknowledged this deadline. */
  arm(lease: GuardedLease): Promise<boolean>;
  /** Time was lost: this earlier deadline counts. A guard that does not hear of it has the same clocks and finds the pause by itself. Never rejects. */
  shorten(lease: GuardedLease): Promise<boolean>;
  disarm(): Promise<boolean>;
}

/** What happened, for the agent's log and report. */
export type LeaseEvent =
  | { readonly kind: 'renewed'; readonly term: Term; readonly deadline: MonoMs; readonly by: 'store' | 'promises' }
  | { readonly kind: 'renewal-failed'; readonly term: Term; readonly why: string; readonly leftMs: number }
  | { readonly kind: 'paused'; readonly ms: number }
  | { readonly kind: 'claimed-again'; readonly term: Term };

/** One stretch of holding the lease, from the taking to the release or the loss; its name is never used for another one. */
export interface Hold {
  readonly term: Term;
  readonly hold: string;
}

export interface PromisesAsked extends Hold {
  readonly ttlMs: number;
  /** Of members that are without the store, too. */
  readonly longMs: number;
}

export interface LeaseKeeperOptions {
  readonly store: Store;
  readonly keys: Pick<ClusterKeys, 'state' | 'writeLease'>;
  readonly node: NodeId;
  /** Read at every renewal: people change them. */
  readonly settings: () => LeaseSettings;
  readonly clock: Clock;
  readonly bootMs: () => number;
  readonly guard: LeaseGuard;
  /** Asked when the store did not confirm: for how long F members, we among them, promised, counted from before this call; null when they did not. */
  readonly askPromises: (what: PromisesAsked) => Promise<number | null>;
  /** The hold has ended, and what was promised to it may be forgotten. Never rejects; not waited for. */
  readonly returnPromises: (hold: Hold) => Promise<void>;
  /** The deadline moved: refresh everything that has a time-out. */
  readonly onRenewed: (deadline: MonoMs) => void;
  /** Time was lost (VM pause): clients are to be blocked until the next `onRenewed`. */
  readonly onPaused: () => void;
  /** The lease is lost: fence now. Called once for each loss, in the same turn of the loop. */
  readonly onLost: (term: Term, why: string) => void;
  readonly onEvent?: (event: LeaseEvent) => void;
}

export interface LeaseKeeper {
  /** Term of the lease that is valid by our own deadline; null: none. */
  heldTerm(): Term | null;
  /** Null when none is held. May lie in the past for the moment until the loss is noted. */
  deadline(): MonoMs | null;
  leaseId(): string | null;
  /** One renewal that was sent after this call; who confirmed it, or null. */
  renewNow(): Promise<'store' | 'promises' | null>;
  /** Gives back what was lost, once nothing here can write; never a lease that was taken since. */
  releaseLost(): Promise<Result<null, Failure>>;
  /**
   * It may be asked for soon: makes the guard ready and has a lease granted, which `acquire` then needs only to put the key under. Returns at once;
   * at most one grant in a third of the TTL. What is not used runs out by itself.
   */
  prepare(): void;
  /** Takes the key for `term` if `state` still has this revision and the key is free, our own of an older claim, or anybody's of term `over` or lower. */
  acquire(term: Term, stateRevision: Revision, over?: Term | null): Promise<Result<null, Failure>>;
  /** Takes over a lease that the guard guards for this node's former agent, and confirms it. False: it is lost, `onLost` was called. */
  adopt(lease: { readonly term: Term; readonly leaseId: string; readonly deadline: MonoMs }): Promise<boolean>;
  /** Gives the lease back, also one that was lost and may still stand in the store. Only called when nothing here can accept writes. Not held any more, whatever the result. */
  release(): Promise<Result<null, Failure>>;
  /**
   * What is held is renewed no more, and is lost at its deadline.
   *
   * *Invariant:* a server whose processes cannot be ended keeps no other from being promoted for ever. *Because:* SIGKILL is pending for each of them: none comes
   * back from the kernel to acknowledge anything, and the port is closed; so the lease may run out as if the agent were dead, and is not released.
   * *Broken if:* a renewal that is under way, or the promises, extend it after this.
   */
  lapse(): void;
  /** Ends the loops; the lease is left to the guard and to a later agent. */
  stop(): void;
}

interface Held {
  readonly term: Term;
  readonly hold: string;
  leaseId: string;
  deadline: MonoMs;
  /** When the request was sent that the store confirmed last; of one that was taken over, when that was. */
  storeAt: MonoMs;
  /** Members were asked for promises: somebody may wait for their end. */
  promised: boolean;
}

/** An answer of the store takes milliseconds; after this long the promises are asked, which leaves time for several rounds in one TTL. */
const CONFIRM_LIMIT_MS = 800;
/** With less time left, a store that says nothing would leave none to ask the members. */
const ONE_AFTER_THE_OTHER_MS = 1200;
/** A store that is there answers sooner. */
const SILENCE_MS = 150;
const ACQUIRE_LIMIT_MS = 2000;
/** Members that were late, or had not enough to say, are asked again this long after: as often as the time that is left allows. */
const ASK_AGAIN_MS = 100;
/** When this process stood still, its timers run before what was answered meanwhile is read: the store client reads that first (store/silence.ts), and so do we. */
const READ_FIRST_MS = 10;
/** A reason of our own: without one, each end of a wait builds an error with its stack. */
const DECIDED = Symbol('decided');
/** How often the clocks are compared while a lease is held: clients of a machine that was paused are blocked this long after it goes on. */
const PAUSE_LOOK_MS = 500;

/** F members promised for this long, counted from these clocks. */
interface Promised {
  readonly sent: TickClocks;
  readonly promisedMs: number;
}

/** A lease without a key, granted ahead. Its time runs since `sent`. */
interface Prepared extends Granted {
  readonly sent: TickClocks;
}

export function createLeaseKeeper(options: LeaseKeeperOptions): LeaseKeeper {
  const { clock } = options;
  let held: Held | null = null;
  /** Lost, and perhaps still standing in the store for the length of the margin: given back once nothing here can write. */
  let lost: Held | null = null;
  let loop = new AbortController();
  let renewing: Promise<'store' | 'promises' | null> | null = null;
  let storeAnswers = true;
  /** Renewed no more; see `lapse`. */
  let lapsing: Held | null = null;
  let preparing: { readonly sentAt: MonoMs; readonly granted: Promise<Prepared | null>; readonly ready: Promise<boolean> } | null = null;
  let ticks: TickClocks = readClocks();

  function readClocks(): TickClocks {
    return readTogether(() => clock.now(), options.bootMs);
  }

  const lose = (lease: Held, why: string): void => {
    if (held !== lease) return;
    held = null;
    lost = lease;
    loop.abort();
    options.onLost(lease.term, why);
  };

  const expire = (): void => {
    if (held !== null && clock.now().mono >= held.deadline) lose(held, 'the lease was not renewed before its deadline');
  };

  /** Fires at the deadline, however often that moved; a pause is noticed soon, and renewed upon at once. */
  const watchDeadline = async (lease: Held, signal: AbortSignal): Promise<void> => {
    while (held === lease && !signal.aborted) {
      if (notePause(lease)) void renewNow();
      const left = lease.deadline - clock.now().mono;
      if (left <= 0) return lose(lease, 'the lease was not renewed before its deadline');
      await clock.sleep(Math.min(left, untilTick(clock.now().mono, PAUSE_LOOK_MS)), signal);
    }
  };

  const renewLoop = async (lease: Held, signal: AbortSignal): Promise<void> => {
    const nextTick = (): MonoMs => addMono(clock.now().mono, untilTick(clock.now().mono, options.settings().renewMs));
    let next = nextTick();
    while (held === lease && !signal.aborted) {
      await clock.sleep(next - clock.now().mono, signal);
      if (held !== lease || signal.aborted) return;
      next = nextTick();
      await renewNow();
    }
  };

  const lostSince = (before: TickClocks, now: TickClocks): number => pausedMs(before, now, options.settings().renewMs);

  /** True when time was lost since the last look: clients are blocked first, and the next confirmation lets them in again (§4.2). */
  const notePause = (lease: Held): boolean => {
    const before = ticks;
    ticks = readClocks();
    const paused = lostSince(before, ticks);
    if (paused === 0 || held !== lease) return false;
    options.onPaused();
    // The store's clock went on while ours stood still.
    lease.deadline = addMono(lease.deadline, -paused);
    options.onEvent?.({ kind: 'paused', ms: Math.round(paused) });
    void options.guard.shorten({ term: lease.term, leaseId: lease.leaseId, deadline: lease.deadline, at: ticks });
    expire();
    return held === lease;
  };

  /**
   * A confirmation counts when the guard has it too, and when it comes in time.
   *
   * Invariant: time that was lost between the sending and this moment is not in the deadline. Because: the clocks are compared with those of
   * the sending, before and after the guard was told. Broken if: a pause is only taken off a deadline that a late answer then replaces.
   */
  const extend = async (lease: Held, sent: TickClocks, until: MonoMs, by: 'store' | 'promises'): Promise<'store' | 'promises' | null> => {
    notePause(lease);
    if (held !== lease) return null;
    const before = readClocks();
    const deadline = addMono(until, -lostSince(sent, before));
    if (lapsing === lease) return null;
    const acknowledged = await options.guard.arm({ term: lease.term, leaseId: lease.leaseId, deadline, at: before });
    notePause(lease);
    expire();
    if (held !== lease || lapsing === lease) return null;
    if (!acknowledged) {
      options.onEvent?.({
        kind: 'renewal-failed',
        term: lease.term,
        why: 'the guard did not acknowledge',
        leftMs: lease.deadline - clock.now().mono,
      });
      return null;
    }
    const confirmed = addMono(deadline, -lostSince(before, readClocks()));
    if (confirmed > lease.deadline) lease.deadline = confirmed;
    options.onRenewed(lease.deadline);
    options.onEvent?.({ kind: 'renewed', term: lease.term, deadline: lease.deadline, by });
    return by;
  };

  const byStore = async (lease: Held, sent: TickClocks, grantedMs: number): Promise<'store' | 'promises' | null> => {
    lease.storeAt = sent.mono;
    return extend(lease, sent, ownDeadline({ sentAt: sent.mono, grantedMs, settings: options.settings() }), 'store');
  };

  /** One round; null when its promises were too few. */
  const ask = async (lease: Held): Promise<Promised | null> => {
    lease.promised = true;
    const sent = readClocks();
    const { ttlMs } = options.settings();
    const longMs = longPromiseMs(sent.mono - lease.storeAt, ttlMs);
    const promisedMs = await options.askPromises({ term: lease.term, hold: lease.hold, ttlMs, longMs });
    return promisedMs === null ? null : { sent, promisedMs };
  };

  /** Rounds until one has enough, the store has decided, or the next renewal is due: a disk or a processor that was late is so for a moment, and each round counts. */
  const askRounds = async (lease: Held, until: MonoMs, decided: AbortSignal): Promise<Promised | null> => {
    for (;;) {
      const asked = await ask(lease);
      if (asked !== null || decided.aborted || clock.now().mono + ASK_AGAIN_MS >= until) return asked;
      await clock.sleep(ASK_AGAIN_MS, decided);
      expire();
      if (decided.aborted || held !== lease || lapsing === lease) return null;
    }
  };

  /**
   * The guard lets go of a hold that ended, and then what was promised to it is given back: nobody counts on it any more, and an answer that is still to come
   * extends nothing (takeBack, core/node/promises.ts). With a guard that did not hear it the promises run out by themselves.
   */
  const letGo = async (lease: Held): Promise<void> => {
    if ((await options.guard.disarm()) && lease.promised) void options.returnPromises({ term: lease.term, hold: lease.hold });
  };

  /**
   * With little time left the members are asked before the store has failed, and their promises count as soon as they are there: an agent that was restarted
   * while the store is away has less time than the store may take to say nothing. A store that answers is given time to do so first: a promise that stands
   * keeps its member from voting.
   */
  const renewOnce = async (lease: Held): Promise<'store' | 'promises' | null> => {
    const sent = readClocks();
    const decided = new AbortController();
    let asking: Promise<void> | null = null;
    let promised: Promise<'store' | 'promises' | null> | null = null;
    const askMembers = (): Promise<void> => {
      asking ??= askRounds(lease, addMono(sent.mono, CONFIRM_LIMIT_MS), decided.signal).then((asked) => {
        if (asked !== null && !decided.signal.aborted && held === lease)
          promised = extend(lease, asked.sent, promisedDeadline(asked, options.settings()), 'promises');
      });
      return asking;
    };
    const askEarly = (): void => {
      // A failure is met where the members are waited for.
      if (!decided.signal.aborted && held === lease) askMembers().catch(() => undefined);
    };
    if (!storeAnswers) askEarly();
    else if (lease.deadline - sent.mono < ONE_AFTER_THE_OTHER_MS) void clock.sleep(SILENCE_MS, decided.signal).then(askEarly);
    const seen = await confirmInTime(lease, sent.mono);
    if (seen.confirmation.kind !== 'unknown') decided.abort(DECIDED);
    expire();
    if (held === lease && seen.confirmation.kind === 'taken') {
      const { by, term } = seen.confirmation;
      lose(lease, `the store gave the write lease to ${by ?? 'another'} in term ${term ?? '?'}`);
    }
    await promised;
    expire();
    if (held !== lease) return null;
    storeAnswers = seen.confirmation.kind !== 'unknown';
    switch (seen.confirmation.kind) {
      case 'confirmed':
        return byStore(lease, sent, seen.grantedMs);
      case 'taken':
        return null;
      case 'gone':
        return reclaim(lease);
      case 'unknown': {
        options.onEvent?.({ kind: 'renewal-failed', term: lease.term, why: seen.confirmation.why, leftMs: lease.deadline - clock.now().mono });
        await askMembers();
        return promised;
      }
    }
  };

  /** A store client that breaks its own limit must not hold the renewal. */
  const confirmInTime = async (lease: Held, sentAt: MonoMs): Promise<{ readonly confirmation: Confirmation; readonly grantedMs: number }> => {
    const limit = new AbortController();
    const late = clock
      .sleep(CONFIRM_LIMIT_MS + 50, limit.signal)
      .then(() => clock.sleep(READ_FIRST_MS, limit.signal))
      .then(() => ({ confirmation: { kind: 'unknown' as const, why: 'the store did not answer in time' }, grantedMs: 0 }));
    try {
      return await Promise.race([confirm(options, lease, addMono(sentAt, CONFIRM_LIMIT_MS)), late]);
    } finally {
      limit.abort(DECIDED);
    }
  };

  /** Nothing here writes under it: it was granted to a loop that had given up by then. An answer that is lost leaves it to its TTL. */
  const giveBackUnused = (term: Term, leaseId: string): Promise<Result<null, Failure>> =>
    giveBack(options, { term, leaseId, deadline: addMono(clock.now().mono, ACQUIRE_LIMIT_MS) });

  /** The key is gone though we are entitled until our deadline: take it again if the state still wants us in this term, else it is lost. */
  const reclaim = async (lease: Held): Promise<'store' | 'promises' | null> => {
    const sent = readClocks();
    const again = await claimAgain(options, lease.term, addMono(sent.mono, CONFIRM_LIMIT_MS));
    expire();
    if (held !== lease) {
      // Given up while the key was being taken again: nobody else knows of this lease, and the next primary would wait for all of its time.
      if (again.kind === 'granted') await giveBackUnused(lease.term, again.leaseId);
      return null;
    }
    if (again.kind === 'refused') {
      lose(lease, `the write lease is gone from the store, and ${again.why}`);
      return null;
    }
    if (again.kind === 'unknown') {
      options.onEvent?.({ kind: 'renewal-failed', term: lease.term, why: again.why, leftMs: lease.deadline - clock.now().mono });
      return null;
    }
    lease.leaseId = again.leaseId;
    options.onEvent?.({ kind: 'claimed-again', term: lease.term });
    return byStore(lease, sent, again.grantedMs);
  };

  /** One at a time; a caller that needs a renewal sent after its call waits for the running one and starts another. */
  const renewNow = async (): Promise<'store' | 'promises' | null> => {
    while (renewing !== null) await renewing;
    const lease = held;
    if (lease === null || lapsing === lease || heldTerm() === null) return null;
    renewing = renewOnce(lease).finally(() => {
      renewing = null;
    });
    return renewing;
  };

  const heldTerm = (): Term | null => {
    // Only a pause moves the clocks that are compared: looks in quick succession would each find too little lost.
    if (held !== null && lostSince(ticks, readClocks()) > 0) notePause(held);
    expire();
    return held?.term ?? null;
  };

  const prepare = (): void => {
    const sent = readClocks();
    if (held !== null || (preparing !== null && sent.mono - preparing.sentAt < options.settings().ttlMs / 3)) return;
    const ready = options.guard.prepare();
    const granted = grant(options, addMono(sent.mono, CONFIRM_LIMIT_MS)).then((one) => (one === null ? null : { ...one, sent }));
    preparing = { sentAt: sent.mono, granted, ready };
  };

  /** The prepared lease, once, while most of its time is left. */
  const takePrepared = async (): Promise<{ readonly ready: boolean; readonly prepared: Prepared | null }> => {
    const waiting = preparing;
    preparing = null;
    const prepared = (await waiting?.granted) ?? null;
    const fresh = prepared !== null && clock.now().mono - prepared.sent.mono < prepared.grantedMs / 2 ? prepared : null;
    // A guard that was ready a moment ago is asked again only by `arm`, whose acknowledgement is what counts.
    const ready = fresh !== null && (await waiting?.ready) === true ? true : await options.guard.prepare();
    return { ready, prepared: fresh };
  };

  const begin = (taken: Pick<Held, 'term' | 'leaseId' | 'deadline'>): void => {
    // A lease that is adopted twice has its id twice, and the clock of this boot goes on between.
    const now = clock.now().mono;
    const lease: Held = { ...taken, hold: `${taken.leaseId}@${now}`, storeAt: now, promised: false };
    held = lease;
    storeAnswers = true;
    loop.abort();
    loop = new AbortController();
    ticks = readClocks();
    void watchDeadline(lease, loop.signal);
    void renewLoop(lease, loop.signal);
  };

  return {
    heldTerm,
    deadline: () => held?.deadline ?? null,
    leaseId: () => held?.leaseId ?? null,
    renewNow,
    prepare,
    acquire: async (term, stateRevision, over) => {
      if (heldTerm() === term) return ok(null);
      if (held !== null) return err(failure('lease.held', `term ${term} was asked for while term ${held.term} is held`, '', false));
      const { ready, prepared } = await takePrepared();
      if (!ready) return err(failure('lease.no-guard', `the write lease of term ${term} was not asked for`, 'no guard runs', true));
      const asked = readClocks();
      const claimed = await claim(options, { term, stateRevision, over: over ?? null, deadline: addMono(asked.mono, ACQUIRE_LIMIT_MS), prepared });
      if (!claimed.ok) return claimed;
      // A lease that was granted ahead counts from its own request.
      const sent = claimed.value.fresh || prepared === null ? asked : prepared.sent;
      const at = readClocks();
      const granted = ownDeadline({ sentAt: sent.mono, grantedMs: claimed.value.grantedMs, settings: options.settings() });
      const deadline = addMono(granted, -lostSince(sent, at));
      const lease = { term, leaseId: claimed.value.leaseId, deadline };
      const armed = await options.guard.arm({ term, leaseId: lease.leaseId, deadline, at });
      lease.deadline = addMono(deadline, -lostSince(at, readClocks()));
      if (!armed || clock.now().mono >= lease.deadline) {
        await options.guard.disarm();
        await giveBack(options, { term, leaseId: lease.leaseId, deadline: addMono(clock.now().mono, ACQUIRE_LIMIT_MS) });
        return err(failure('lease.no-guard', `the write lease of term ${term} was given back`, 'no guard acknowledged it', true));
      }
      begin(lease);
      options.onRenewed(lease.deadline);
      return ok(null);
    },
    adopt: async (lease) => {
      begin(lease);
      const confirmed = await renewNow();
      return confirmed !== null || heldTerm() !== null;
    },
    releaseLost: async () => {
      const lease = lost;
      if (lease === null || held !== null) return ok(null);
      lost = null;
      await letGo(lease);
      return giveBack(options, { term: lease.term, leaseId: lease.leaseId, deadline: addMono(clock.now().mono, ACQUIRE_LIMIT_MS) });
    },
    release: async () => {
      const lease = held ?? lost;
      held = null;
      lost = null;
      loop.abort();
      if (lease === null) {
        await options.guard.disarm();
        return ok(null);
      }
      // A renewal that is under way is confirmed for nobody any more; the guard must have its last word after it.
      while (renewing !== null) await renewing;
      // At the same time: until the guard has heard it, it would only fence what cannot write any more, and nothing is started here before both ended.
      const [given] = await Promise.all([
        giveBack(options, { term: lease.term, leaseId: lease.leaseId, deadline: addMono(clock.now().mono, ACQUIRE_LIMIT_MS) }),
        letGo(lease),
      ]);
      return given;
    },
    lapse: () => {
      lapsing = held;
    },
    stop: () => {
      loop.abort();
    },
  };
}

function failure(code: string, what: string, cause: string, retryable: boolean): Failure {
  return { code, what, cause, now: 'nothing here accepts writes without the lease', remedy: '', retryable };
}
