/**
 * The fence: make this node unable to write, in the order in which clients lose it.
 *   1. nobody gets in over TCP any more, and the addresses leave, at the same time    2. PostgreSQL is stopped immediately    3. whatever is left is killed
 * A step that fails or hangs never holds the next one: the kill alone is what safety rests on.
 *
 * Invariant: `fenced` is answered only when no process of the data directory was left at the last look.
 * Broken if: something starts PostgreSQL meanwhile; so the caller runs no start while a fence runs.
 */
import type { Clock } from '../../base/clock.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import type { KillOutcome } from '../guard/kill-tree.ts';

export interface FencePorts {
  readonly closeFirewall: () => Promise<void>;
  readonly dropAddresses: () => Promise<void>;
  /** SIGQUIT to the postmaster and the wait for it. */
  readonly stopImmediate: () => Promise<void>;
  readonly killAll: () => Promise<KillOutcome>;
  /** Also when processes are left. */
  readonly ensureStandbySignal: () => Promise<void>;
  readonly clock: Clock;
}

export type FenceStepName = 'firewall' | 'address' | 'stop' | 'kill' | 'standby-signal';

export interface FenceStep {
  readonly name: FenceStepName;
  readonly result: 'done' | 'failed' | 'late';
  readonly detail: string;
  readonly durationMs: number;
}

export interface FenceOutcome {
  readonly steps: readonly FenceStep[];
  readonly killed: readonly number[];
  readonly durationMs: number;
}

/** nft takes 3 ms; a hung one must not keep a writer alive. */
const FIREWALL_LIMIT_MS = 75;
const ADDRESS_LIMIT_MS = 50;
/** An immediate stop of a healthy server takes some 30 ms; longer than this it is quicker to kill. The lease's margin (500 ms) covers the sum. */
const STOP_LIMIT_MS = 300;
const SIGNAL_LIMIT_MS = 2000;

/** Errors: `fence.survivors` names the processes that could not be killed; then nothing may be released, and the caller fences again. */
export async function runFence(ports: FencePorts): Promise<Result<FenceOutcome, Failure>> {
  const begin = ports.clock.now().mono;
  const steps: FenceStep[] = [];
  const timed = async (name: FenceStepName, limitMs: number, work: () => Promise<void>): Promise<FenceStep> => {
    const from = ports.clock.now().mono;
    const outcome = await bounded(ports.clock, limitMs, work);
    return { name, ...outcome, durationMs: Math.round(ports.clock.now().mono - from) };
  };
  const first = [timed('firewall', FIREWALL_LIMIT_MS, ports.closeFirewall), timed('address', ADDRESS_LIMIT_MS, ports.dropAddresses)];
  steps.push(...(await Promise.all(first)));
  steps.push(await timed('stop', STOP_LIMIT_MS, ports.stopImmediate));
  // The kill is bounded by itself and its answer is what counts: no second limit around it.
  const killFrom = ports.clock.now().mono;
  const kill = await ports.killAll();
  const survivors = kill.survivors.map((info) => `${info.pid} (${info.command}, state ${info.state})`).join(', ');
  steps.push({
    name: 'kill',
    result: kill.complete ? 'done' : 'failed',
    detail: survivors,
    durationMs: Math.round(ports.clock.now().mono - killFrom),
  });
  steps.push(await timed('standby-signal', SIGNAL_LIMIT_MS, ports.ensureStandbySignal));
  if (kill.complete) return ok({ steps, killed: kill.killed, durationMs: Math.round(ports.clock.now().mono - begin) });
  return err({
    code: 'fence.survivors',
    what: 'processes of the data directory could not be killed',
    cause: survivors,
    now: 'the port stays closed, nothing is released, and the kill is tried again',
    remedy: 'a process in state D waits for a disk: repair the disk, or power the host off before anybody is promoted by hand',
    retryable: true,
  });
}

type Bounded = { readonly result: FenceStep['result']; readonly detail: string };

async function bounded(clock: Clock, limitMs: number, work: () => Promise<void>): Promise<Bounded> {
  const limit = new AbortController();
  const late = clock.sleep(limitMs, limit.signal).then((): Bounded => ({ result: 'late', detail: `no answer within ${limitMs} ms` }));
  const done = work().then(
    (): Bounded => ({ result: 'done', detail: '' }),
    (cause: unknown): Bounded => ({ result: 'failed', detail: cause instanceof Error ? cause.message : String(cause) }),
  );
  try {
    return await Promise.race([done, late]);
  } finally {
    limit.abort();
  }
}
