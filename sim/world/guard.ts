/**
 * The guard process of a host and the agent's connection to it: the real mind (guard-state.ts) in a modelled process. The order of a fence is that of
 * guard-fence.ts: close the port, kill everything, then touch the disk.
 */
import type { GuardClient, adoptable } from '../../src/agent/guard/guard-client.ts';
import {
  type GuardReply,
  type GuardState,
  IDLE,
  acknowledge,
  arm,
  beginFence,
  disarm,
  isDue,
  noteFence,
  noteLostTime,
  shorten,
} from '../../src/agent/guard/guard-state.ts';
import { type Armed, type FenceRecord, GUARD_PROTOCOL, type GuardStatus, NO_WATCHDOG } from '../../src/agent/guard/protocol.ts';
import { type TickClocks, pausedMs } from '../../src/agent/lease/pause.ts';
import { addMono } from '../../src/core/ids.ts';
import { type Result, err, ok } from '../../src/core/result.ts';
import type { Scope } from '../clock.ts';
import type { Trace } from '../trace.ts';
import type { Disk } from './disk.ts';
import type { HostClock } from './host-clock.ts';

export interface GuardHost {
  readonly name: string;
  /** The host itself; guards are children of it. */
  readonly machine: () => Scope;
  readonly clock: HostClock;
  readonly disk: Disk;
  readonly trace: Trace;
  readonly bootId: () => string;
  closePort(): void;
  /** Ends every process of the data directory; false: some are left (a stuck disk). */
  killAll(): Promise<boolean>;
  /** The postmaster that was armed is still the same living process. */
  isAlive(postmaster: NonNullable<Armed['postmaster']>): boolean;
}

export interface SimGuard {
  /** A connection for one run of the agent, which lives in `agent`. */
  client(agent: Scope): GuardClient;
  adoptable: typeof adoptable;
  /** SIGKILL; the agent starts another one. */
  kill(): void;
  pause(): void;
  resume(): void;
  /** Null when no guard runs. */
  armed(): Armed | null;
  alive(): boolean;
  /** It lives and is not stopped. */
  works(): boolean;
}

const START_MS = 60;
const ANSWER_MS = 0.3;
const ACK_LIMIT_MS = 200;
const AGAIN_MS = 250;
const TICK_MS = 250;
/** *Source:* Node, timers: a delay below 1 ms is 1 ms. Without it a remainder that rounds to nothing would wake the guard without end. */
const LEAST_TIMER_MS = 1;
const WALL_INTERVAL_MS = 500;
const FENCE_FILE = 'fenced.json';

interface Running {
  readonly scope: Scope;
  state: GuardState;
  cancelTimer: () => void;
  clocks: TickClocks;
}

type Request = 'status' | 'disarm' | 'acknowledge' | { readonly arm: Armed; readonly shorten: boolean };

export function createSimGuard(host: GuardHost): SimGuard {
  let running: Running | null = null;
  /** One for each run of the agent; those of dead ones do nothing. */
  let connections: (() => void)[] = [];

  const living = (): Running | null => (running?.scope.alive() === true ? running : null);

  function start(): Running {
    const record = host.disk.file(FENCE_FILE).read();
    const fenced = record === null ? null : (JSON.parse(record) as FenceRecord);
    const state: GuardState = fenced?.complete === true ? { phase: 'fenced', armed: null, fenced } : IDLE;
    running = { scope: host.machine().child(`${host.name}/guard`), state, cancelTimer: () => undefined, clocks: readClocks() };
    host.trace.add(`${host.name}/guard`, 'started');
    return running;
  }

  function schedule(guard: Running): void {
    guard.cancelTimer();
    const { armed, phase } = guard.state;
    if (phase !== 'armed' || armed === null) return;
    const timer = guard.scope.after(Math.min(TICK_MS, Math.max(LEAST_TIMER_MS, armed.deadline - host.clock.monoMs())), () => {
      noteClocks(guard);
      if (isDue(guard.state, host.clock.monoMs())) fence(guard);
      else schedule(guard);
    });
    guard.cancelTimer = timer.cancel;
  }

  function readClocks(): TickClocks {
    const { mono, wall } = host.clock.now();
    return { mono, wall, boot: host.clock.bootMs() };
  }

  /** As noteClocks and sinceSent of guard-main.ts. */
  function noteClocks(guard: Running): void {
    const before = guard.clocks;
    guard.clocks = readClocks();
    guard.state = noteLostTime(guard.state, pausedMs(before, guard.clocks, WALL_INTERVAL_MS));
  }

  function sinceSent(guard: Running, request: Armed): Armed {
    return request.at === null ? request : { ...request, deadline: addMono(request.deadline, -pausedMs(request.at, guard.clocks, WALL_INTERVAL_MS)) };
  }

  function fence(guard: Running): void {
    const { armed } = guard.state;
    if (armed === null || guard.state.phase !== 'armed') return;
    guard.state = beginFence(guard.state);
    host.trace.add(`${host.name}/guard`, `!! fencing: the write lease of term ${armed.term} was not renewed before its deadline`);
    void fenceUntilDone(guard, armed);
  }

  async function fenceUntilDone(guard: Running, armed: Armed): Promise<void> {
    for (;;) {
      if (armed.table !== null) host.closePort();
      const complete = await guard.scope.enter(host.killAll());
      const record: FenceRecord = {
        version: 1,
        term: armed.term,
        leaseId: armed.leaseId,
        why: 'the write lease was not renewed before its deadline',
        at: '',
        complete,
        killed: [],
        survivors: complete ? [] : [1],
        durationMs: 0,
        problems: [],
      };
      guard.state = noteFence(guard.state, record);
      if (complete) {
        // A disk that refuses does not undo the fence.
        await guard.scope.enter(host.disk.file(FENCE_FILE).write(JSON.stringify(record))).catch(() => undefined);
        return;
      }
      await guard.scope.sleep(AGAIN_MS);
    }
  }

  function status(guard: Running): GuardStatus {
    return {
      protocol: GUARD_PROTOCOL,
      bootId: host.bootId(),
      pid: 1,
      phase: guard.state.phase,
      armed: guard.state.armed,
      fenced: guard.state.fenced,
      watchdog: NO_WATCHDOG,
    };
  }

  function handle(guard: Running, request: Request): GuardReply {
    noteClocks(guard);
    if (request === 'status') return { state: guard.state, ok: true, why: '' };
    if (request === 'disarm') return disarm(guard.state);
    if (request === 'acknowledge') {
      const reply = acknowledge(guard.state);
      if (reply.ok) host.disk.set(FENCE_FILE, null);
      return reply;
    }
    if (isDue(guard.state, host.clock.monoMs())) {
      fence(guard);
      return { state: guard.state, ok: false, why: 'the deadline has passed' };
    }
    const asked = sinceSent(guard, request.arm);
    return request.shorten ? shorten(guard.state, asked) : arm(guard.state, asked, host.clock.monoMs());
  }

  /** One question over the socket; null when no answer came in time. */
  function ask(agent: Scope, request: Request): Promise<{ readonly ok: boolean; readonly status: GuardStatus } | null> {
    return new Promise((resolve) => {
      const guard = living();
      if (guard === null) {
        resolve(null);
        return;
      }
      const late = agent.after(ACK_LIMIT_MS, () => resolve(null));
      guard.scope.after(ANSWER_MS, () => {
        const reply = handle(guard, request);
        guard.state = reply.state;
        schedule(guard);
        agent.after(ANSWER_MS, () => {
          late.cancel();
          resolve({ ok: reply.ok, status: status(guard) });
        });
      });
    });
  }

  function client(agent: Scope): GuardClient {
    let lastArmed: Armed | null = null;
    let met: Running | null = null;

    const ensure = async (): Promise<Result<GuardStatus, never>> => {
      for (;;) {
        if (living() === null) {
          await agent.sleep(START_MS);
          if (living() === null) start();
        }
        const guard = living();
        const answered = await ask(agent, 'status');
        if (answered !== null && guard !== null) {
          if (met !== null && met !== guard && answered.status.phase === 'idle' && lastArmed !== null && lastArmed.deadline > host.clock.monoMs())
            await ask(agent, { arm: lastArmed, shorten: false });
          met = guard;
          return ok(answered.status);
        }
        await agent.sleep(10);
      }
    };
    /** Bounded like the real one: after 5 s without a guard the answer is a failure. */
    const ensureInTime = (): ReturnType<GuardClient['ensure']> =>
      Promise.race([
        ensure(),
        agent.sleep(5000).then(() =>
          err({
            code: 'guard.missing',
            what: 'the guard does not run',
            cause: 'no answer',
            now: 'no lease is renewed',
            remedy: '',
            retryable: true,
          }),
        ),
      ]);
    const command = async (request: Exclude<Request, 'status'>): Promise<boolean> => {
      if (living() === null || met !== living()) {
        const back = await ensureInTime();
        if (!back.ok) return false;
      }
      return (await ask(agent, request))?.ok === true;
    };
    // The socket closes when the guard dies: it is brought back at once.
    connections.push(() => agent.after(1, () => void ensureInTime()));
    return {
      ensure: ensureInTime,
      arm: async (armed) => {
        const acknowledged = await command({ arm: armed, shorten: false });
        if (acknowledged) lastArmed = armed;
        return acknowledged;
      },
      shorten: async (armed) => {
        if (lastArmed !== null && lastArmed.leaseId === armed.leaseId) lastArmed = armed;
        return living() !== null && (await ask(agent, { arm: armed, shorten: true }))?.ok === true;
      },
      disarm: () => {
        lastArmed = null;
        return command('disarm');
      },
      acknowledge: () => command('acknowledge'),
      status: async () => (await ask(agent, 'status'))?.status ?? null,
      isConnected: () => living() !== null,
      watchdog: () => NO_WATCHDOG,
      openWatchdog: async () => undefined,
      quit: async () => false,
      close: () => undefined,
    };
  }

  return {
    client,
    adoptable: (found, bootId) => {
      const { armed } = found;
      if (found.bootId !== bootId || found.phase !== 'armed' || armed === null) return null;
      if (armed.postmaster !== null && !host.isAlive(armed.postmaster)) return null;
      return armed.deadline > host.clock.monoMs() ? armed : null;
    },
    kill: () => {
      if (living() === null) return;
      running?.scope.kill();
      host.trace.add(`${host.name}/guard`, 'killed');
      const told = connections.slice(-1);
      connections = told;
      for (const tell of told) tell();
    },
    pause: () => living()?.scope.pause(),
    resume: () => living()?.scope.resume(),
    armed: () => living()?.state.armed ?? null,
    alive: () => living() !== null,
    works: () => living()?.scope.paused() === false,
  };
}
