/**
 * The agent's loop: observe, decide, act, report; one action at a time, a fence before everything.
 *
 * Modes: idle (no action runs) and busy (one runs, cancellable). Entry to busy: decideNode names an action. Exit: the
 * action settles, or it is aborted because the goal changed or a fence is due. The lease keeper and the guard fence
 * by themselves; this loop is never what safety waits for.
 */
import type { MonoMs, NodeId, Revision, Term } from '../core/ids.ts';
import type { NodeAction } from '../core/node/action.ts';
import { type LocalFacts, decideNode, isAlive, mayAcceptWrites } from '../core/node/decide.ts';
import type { Activity, PostgresReport } from '../core/report.ts';
import { type Failure, describeFailure, err } from '../core/result.ts';
import type { ClusterSpec } from '../core/spec.ts';
import type { ClusterState, Goal } from '../core/state.ts';
import type { Logger } from '../base/log.ts';
import { isTold } from '../base/seldom.ts';
import { type ExecuteContext, executeAction } from './execute.ts';
import { wantedSetOf } from '../core/node/wanted-set.ts';
import type { BallotPort, ClockPort, FirewallPort, LeasePort, MemoryPort, PostgresPort, Progress, SyncPort } from './ports.ts';

export interface LoopInput {
  readonly spec: ClusterSpec | null;
  readonly state: ClusterState | null;
  readonly stateRevision: Revision;
  /** The store that counts `stateRevision`; null: it did not answer yet. */
  readonly incarnation: string | null;
}

export interface LoopStatus {
  readonly postgres: PostgresReport;
  readonly leaseTerm: Term | null;
  readonly open: boolean;
  readonly activity: Activity;
  readonly stateRevision: Revision;
}

export interface LoopPorts {
  readonly node: NodeId;
  readonly witness: boolean;
  readonly postgres: PostgresPort;
  readonly lease: LeasePort;
  readonly firewall: FirewallPort;
  readonly memory: MemoryPort;
  readonly ballot: BallotPort;
  readonly sync: SyncPort;
  readonly clock: ClockPort;
  readonly log: Logger;
  /** Called after every step with what is true now. */
  readonly onStatus: (status: LoopStatus) => void;
  /** Ask for another step at once. */
  readonly wake: () => void;
}

interface Running {
  readonly action: NodeAction;
  readonly goalId: string;
  readonly abort: AbortController;
}

interface Failed {
  readonly goalId: string;
  readonly action: string;
  readonly failure: Failure;
  readonly attempts: number;
  readonly notBefore: MonoMs;
  /** Under which it failed. */
  readonly spec: ClusterSpec | null;
  readonly atWallMs: number;
}

/** First wait after a failure; doubles with each further one. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 60_000;
/**
 * A look at a healthy server takes 3 ms. After this long the step ends without a decision, so that a new order is read; the look goes on, and
 * the next step takes its answer.
 */
const OBSERVE_PATIENCE_MS = 300;
/** The step that follows an action comes within 2 ms. */
const JUST_LOOKED_MS = 10;
const ASKED_AGAIN_AT_ONCE: ReadonlySet<string> = new Set(['acquire-lease', 'release-lease', 'fence', 'vote']);
/** Slots are looked after this often; a standby's are advanced then, so that they do not hold WAL for long. */
const SLOTS_EVERY_MS = 5000;
/** An opening comes before all upkeep; one that takes longer may wait for standbys that cannot come because their slots are missing. */
const OPENING_MS = 1000;

export interface AgentLoop {
  /** One step. Never two at once (the caller's loop coalesces). */
  step(input: LoopInput): Promise<void>;
  /**
   * The lease of a former run was taken over, of a term that was opened here: what was open may stay so without a new confirmation by the store. One that
   * was started again, and had not let anybody in, begins to wait anew.
   */
  leaseAdopted(): void;
  /** The lease is gone and PostgreSQL was fenced by the keeper. */
  leaseLost(): void;
  status(): LoopStatus | null;
  /** Aborts a running action and waits until it settled. PostgreSQL goes on. */
  stop(): Promise<void>;
}

export function createAgentLoop(ports: LoopPorts): AgentLoop {
  let running: Running | null = null;
  let settled: Promise<void> = Promise.resolve();
  let failed: Failed | null = null;
  let open = false;
  let confirmed = false;
  let progress: Progress | null = null;
  let busySinceWall = 0;
  let notStreamingSince: MonoMs | null = null;
  let leaseWantedSince: MonoMs | null = null;
  /** A writable server under a lease that lets nobody in yet; null: it is none, or is open. */
  let closedSince: MonoMs | null = null;
  let ranUnder: string | null = null;
  let downSince: MonoMs | null = null;
  let stoppingSince: MonoMs | null = null;
  let lastPostgres: PostgresReport | null = null;
  let lastStatus: LoopStatus | null = null;
  let lastSlots = -Infinity;
  let lastSpec: ClusterSpec | null = null;
  let lastWhy = '';
  let begun = false;
  let done: { goalId: string; detail: string } | null = null;
  /** What the last rewind or copy did, and where it kept what it replaced: it is told when the goal is reached. */
  let takenBack: { readonly goalId: string; readonly detail: string } | null = null;
  /** Counts actions that ended. */
  let ended = 0;
  let lastLook: { readonly postgres: PostgresReport; readonly at: MonoMs } | null = null;
  let justLooked: { readonly postgres: PostgresReport; readonly at: MonoMs } | null = null;

  /**
   * A former run of this agent started the primary and let nobody in: answers true, and the wait for its standbys begins again.
   *
   * Invariant: a primary that was started again lets nobody in before k members hold what it recovered (§4.4). Because: the start is noted durably before it
   * is made, and read before the first step. Broken if: an agent that was killed between the start and the opening takes the lease for the proof that
   * clients were in, or asks only when it knows the state already.
   */
  function waitAnew(): boolean {
    begun = true;
    if (!ports.memory.unopened()) return false;
    ports.sync.startsAfterCrash();
    return true;
  }

  async function step(input: LoopInput): Promise<void> {
    if (!begun) waitAnew();
    const goal = input.state?.goals[ports.node] ?? null;
    const endedBefore = ended;
    // Written to disk while the server is asked: a new term costs no time of its own.
    const sawTerm = goal !== null && goal.term > ports.memory.highestTerm() ? ports.memory.sawTerm(goal.term) : null;
    // A failure is met where it is waited for; a step that ends before leaves it to the next one.
    sawTerm?.catch(() => undefined);
    const seen = await Promise.race([look(), ports.clock.sleep(OBSERVE_PATIENCE_MS).then(() => null)]);
    // A look that takes long must not hold a fence back: the order is carried out on what was seen last. Anything else waits for the look.
    if (seen === null && (goal?.kind !== 'fenced' || lastPostgres === null)) return;
    const postgres = seen ?? lastPostgres;
    if (postgres === null) return;
    lastPostgres = postgres;
    ports.sync.step(postgres, wantedSetOf(input.state, ports.node));
    const now = ports.clock.now();
    lastLook = seen === null ? null : { postgres, at: now.mono };
    await sawTerm;
    const leaseTerm = ports.lease.heldTerm();
    if (leaseTerm === null) {
      open = false;
      confirmed = false;
    }
    if (leaseTerm !== null) leaseWantedSince = null;
    if (postgres.state === 'running' && postgres.role === 'primary' && goal !== null) ranUnder = goal.id;
    const isClosed = leaseTerm !== null && !open && postgres.state === 'running' && postgres.role === 'primary';
    closedSince = isClosed ? (closedSince ?? now.mono) : null;
    stoppingSince = postgres.state !== 'stopping' || running !== null ? null : (stoppingSince ?? now.mono);
    downSince = isAlive(postgres) ? null : (downSince ?? now.mono);
    if (leaseTerm === null && running === null && mayPromoteSoon(input.state, ports.node) && postgres.role === 'standby') {
      ports.lease.prepare();
      ports.postgres.preparePromotion();
    }
    // What people have just corrected is tried at once, not after a pause of up to a minute.
    if (failed !== null && input.spec !== null && input.spec !== failed.spec) failed = { ...failed, spec: input.spec, notBefore: now.mono };
    const facts = await collectFacts(postgres, leaseTerm, goal, now.mono);
    // What was looked at while an action still ran is not what is true after it: the end of the action asked for another step.
    if (ended !== endedBefore) return;
    const action = decideNode(facts, input.state, now.mono);
    await act(action, goal, input, now.mono);
    publish(postgres, input.stateRevision, goal);
    await housekeeping(postgres, goal, input, now.mono);
  }

  /** The look that ended an action a moment ago is as good as another one. */
  function look(): Promise<PostgresReport> {
    const recent = justLooked;
    justLooked = null;
    return recent !== null && ports.clock.now().mono - recent.at < JUST_LOOKED_MS ? Promise.resolve(recent.postgres) : ports.postgres.observe();
  }

  async function collectFacts(postgres: PostgresReport, leaseTerm: Term | null, goal: Goal | null, now: MonoMs): Promise<LocalFacts> {
    const upstream =
      postgres.state === 'running' && postgres.role === 'standby' ? await ports.postgres.configuredUpstream(postgres.incarnation) : null;
    const wanted = goal?.kind === 'standby' ? goal.upstream : null;
    if (wanted === null || postgres.streamingFrom === wanted || postgres.state !== 'running' || upstream !== wanted) notStreamingSince = null;
    else notStreamingSince ??= now;
    return {
      node: ports.node,
      witness: ports.witness,
      postgres,
      leaseTerm,
      confirmed,
      open,
      highestTerm: ports.memory.highestTerm(),
      vote: ports.memory.vote(),
      refusedTerms: ports.memory.refusedTerms(),
      finished: ports.memory.finished(),
      failure: failed === null ? null : { goalId: failed.goalId, permanent: !failed.failure.retryable, notBefore: failed.notBefore },
      notStreamingSince,
      upstream,
      ranUnderGoal: goal !== null && ranUnder === goal.id,
      downSince,
      stoppingSince,
      leaseWantedSince,
      syncReady: ports.sync.ready(),
    };
  }

  async function act(action: NodeAction, goal: Goal | null, input: LoopInput, now: MonoMs): Promise<void> {
    const goalId = goal?.id ?? '';
    if (running !== null) {
      const same = running.goalId === goalId;
      const urgent = action.kind === 'fence' && running.action.kind !== 'fence';
      if (same && !urgent) return;
      // A fence that runs is never interrupted; everything else is, when the goal changed.
      if (running.action.kind === 'fence') return;
      ports.log.info({ action: running.action.kind, goalId: running.goalId, for: action.kind }, 'aborting an action');
      running.abort.abort();
      return;
    }
    if (action.kind === 'none') {
      noteIdle(action, goalId);
      await confirmIfNeeded();
      return;
    }
    if (input.spec === null) return;
    if (action.kind === 'acquire-lease') leaseWantedSince ??= now;
    begin(action, goal, { ...input, spec: input.spec });
  }

  function noteIdle(action: Extract<NodeAction, { kind: 'none' }>, goalId: string): void {
    if (action.why !== lastWhy) {
      lastWhy = action.why;
      ports.log.debug({ why: action.why }, 'nothing to do');
    }
    done = action.done ? { goalId, detail: action.why } : null;
    if (action.done && failed?.goalId === goalId) failed = null;
  }

  /** A primary that is not open yet needs one renewal sent after it became writable. */
  async function confirmIfNeeded(): Promise<void> {
    const writable = lastPostgres !== null && lastPostgres.state === 'running' && lastPostgres.role === 'primary';
    if (!confirmed && writable) await confirm();
  }

  async function confirm(): Promise<void> {
    if (ports.lease.heldTerm() === null) return;
    const heldTerm = ports.lease.heldTerm();
    // Invariant: only the store confirms an opening. Because: promises prove that nobody else was opened, not that the store still wants this
    // node; a candidate that lost the store right after its claim may be replaced there, and rows it acknowledged would be lost unseen.
    if ((await ports.lease.renewNow()) === 'store' && ports.lease.heldTerm() === heldTerm) {
      confirmed = true;
      ports.wake();
    }
  }

  function begin(action: Exclude<NodeAction, { kind: 'none' }>, goal: Goal | null, input: ExecuteContext['input']): void {
    const abort = new AbortController();
    const goalId = goal?.id ?? '';
    running = { action, goalId, abort };
    progress = null;
    done = null;
    lastWhy = '';
    const startedAt = ports.clock.now();
    busySinceWall = startedAt.wall;
    if (action.kind === 'promote' || action.kind === 'start-primary' || action.kind === 'adopt') confirmed = false;
    const before = failed?.goalId === goalId && failed.action === action.kind ? failed.attempts : 0;
    if (!ASKED_AGAIN_AT_ONCE.has(action.kind) || isTold(before + 1))
      ports.log.info({ action: action.kind, goalId, term: goal?.term, why: action.why }, 'acting');
    let confirming: Promise<void> | null = null;
    const context: ExecuteContext = {
      ...ports,
      input,
      goal,
      signal: abort.signal,
      setOpen: (value) => {
        open = value;
      },
      onProgress: (value) => {
        progress = value;
      },
      look: () => {
        justLooked ??= lastLook;
        return look();
      },
      confirm: () => {
        confirming ??= confirm();
        // Waited for, and a failure met, when the promotion has ended.
        confirming.catch(() => undefined);
      },
      tell: async () => {
        lastPostgres = await ports.postgres.observe();
        publish(lastPostgres, input.stateRevision, goal);
      },
    };
    settled = executeAction(action, context)
      .catch((cause: unknown) => err(unexpected(action.kind, cause)))
      .then(async (result) => {
        finish(action, goalId, result.ok ? null : result.error, {
          startedAt: startedAt.mono,
          spec: input.spec,
          detail: result.ok ? result.value : '',
        });
        if (action.kind === 'promote' || action.kind === 'start-primary') {
          const looked = ports.postgres.observe();
          // A promotion that succeeded left a writable server: the renewal that the opening waits for need not wait for the look.
          if (action.kind === 'promote' && result.ok) await (confirming ?? confirm());
          lastPostgres = await looked;
          justLooked = { postgres: lastPostgres, at: ports.clock.now().mono };
        }
        // Taking the lease changes nothing of PostgreSQL, and a promotion looks for itself.
        if (action.kind === 'acquire-lease' && goal?.kind === 'promote' && result.ok && lastPostgres !== null)
          justLooked = { postgres: lastPostgres, at: ports.clock.now().mono };
        await confirmIfNeeded();
      })
      .catch((cause: unknown) => ports.log.error({ cause: String(cause) }, 'after an action'))
      .then(() => ports.wake());
  }

  function finish(
    action: NodeAction,
    goalId: string,
    failure: Failure | null,
    { startedAt, spec, detail }: { readonly startedAt: MonoMs; readonly spec: ClusterSpec | null; readonly detail: string },
  ): void {
    const aborted = running?.abort.signal.aborted === true;
    running = null;
    ended += 1;
    progress = null;
    const now = ports.clock.now();
    const durationMs = Math.round(now.mono - startedAt);
    if (failure === null) {
      if (failed?.goalId === goalId && failed.action === action.kind) failed = null;
      if (action.kind === 'rewind' || action.kind === 'clone') takenBack = { goalId, detail };
      ports.log.info({ action: action.kind, goalId, durationMs, detail }, 'done');
      return;
    }
    if (aborted) {
      ports.log.info({ action: action.kind, goalId, durationMs }, 'aborted');
      return;
    }
    const attempts = failed?.goalId === goalId && failed.action === action.kind ? failed.attempts + 1 : 1;
    const backoff = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** (attempts - 1));
    // Somebody else may release the lease, or a promise may end, any moment; asking changes nothing.
    const wait = ASKED_AGAIN_AT_ONCE.has(action.kind) ? Math.min(backoff, 100) : backoff;
    const isSame = failed?.failure.code === failure.code && attempts > 1;
    failed = { goalId, action: action.kind, failure, attempts, notBefore: (now.mono + wait) as MonoMs, spec, atWallMs: now.wall };
    if (isSame && ASKED_AGAIN_AT_ONCE.has(action.kind) && !isTold(attempts)) return;
    ports.log.warn({ action: action.kind, goalId, attempts, durationMs, code: failure.code }, describeFailure(failure));
  }

  async function housekeeping(postgres: PostgresReport, goal: Goal | null, input: LoopInput, now: MonoMs): Promise<void> {
    const { spec } = input;
    const positions = input.state?.positions ?? {};
    if (spec === null || goal === null || running !== null || postgres.state !== 'running') return;
    // A server that may hang keeps its upkeep for seconds, while the next look, and whoever waits for it, must not be late.
    if (ports.postgres.trouble() !== null) return;
    if (goal.kind !== 'primary' && goal.kind !== 'standby') return;
    if (lastSpec !== spec || ports.postgres.settingsOutdated()) {
      const applied = await ports.postgres.applySettings(spec);
      if (!applied.ok) ports.log.warn({ code: applied.error.code }, describeFailure(applied.error));
      lastSpec = spec;
      lastSlots = -Infinity;
    }
    const mayTendSlots = postgres.role !== 'primary' || open || (closedSince !== null && now - closedSince >= OPENING_MS);
    if (now - lastSlots < SLOTS_EVERY_MS || !mayTendSlots) return;
    lastSlots = now;
    const slots = await ports.postgres.ensureSlots(spec, positions);
    if (!slots.ok) ports.log.warn({ code: slots.error.code }, describeFailure(slots.error));
  }

  function publish(postgres: PostgresReport, stateRevision: Revision, goal: Goal | null): void {
    lastStatus = {
      postgres,
      leaseTerm: ports.lease.heldTerm(),
      open: open && ports.lease.heldTerm() !== null && mayAcceptWrites(postgres),
      activity: currentActivity(goal),
      stateRevision,
    };
    ports.onStatus(lastStatus);
  }

  function currentActivity(goal: Goal | null): Activity {
    if (running !== null) {
      return {
        kind: 'busy',
        goalId: running.goalId,
        step: running.action.kind,
        sinceWallMs: busySinceWall as never,
        doneBytes: progress?.doneBytes ?? null,
        totalBytes: progress?.totalBytes ?? null,
      };
    }
    if (failed !== null && failed.goalId === goal?.id) {
      return {
        kind: 'failed',
        goalId: failed.goalId,
        step: failed.action,
        code: failed.failure.code,
        message: describeFailure(failed.failure),
        attempts: failed.attempts,
        atWallMs: failed.atWallMs as never,
        retrying: failed.failure.retryable,
      };
    }
    if (done === null) return { kind: 'idle' };
    return { kind: 'done', goalId: done.goalId, detail: takenBack?.goalId === done.goalId ? takenBack.detail : '' };
  }

  return {
    step,
    leaseAdopted: () => {
      // Members get in again: they have to fetch what is waited for.
      if (waitAnew()) void ports.firewall.close();
      else confirmed = ports.lease.heldTerm() !== null;
    },
    leaseLost: () => {
      open = false;
      confirmed = false;
      running?.abort.abort();
      ports.wake();
    },
    status: () => lastStatus,
    stop: async () => {
      running?.abort.abort();
      await settled;
    },
  };
}

/** The next order may be a promotion: what it needs and what costs nothing when it does not come is made ready. */
function mayPromoteSoon(state: ClusterState | null, node: NodeId): boolean {
  const goal = state?.goals[node]?.kind;
  // Already during the checkpoint before: writes go on then, and nobody waits for what is made ready.
  return goal === 'vote' || goal === 'promote' || state?.switchover?.to === node;
}

function unexpected(action: string, cause: unknown): Failure {
  return {
    code: 'agent.unexpected',
    what: `the action ${action} broke`,
    cause: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause),
    now: 'it is tried again after a pause',
    remedy: 'look at the log of the agent and report it with the lines around this one',
    retryable: true,
  };
}
