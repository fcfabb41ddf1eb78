/** The one loop of every role: observe, decide, act; woken by a change or by the interval, never two steps at once. */
import { type Clock, monoMs, realClock, untilTick } from './clock.ts';
import type { Logger } from './log.ts';

export interface LoopOptions {
  readonly name: string;
  /** From the start of one step to the start of the next when nobody wakes the loop. */
  readonly intervalMs: number;
  /**
   * One pass. `reason` says who woke it (`interval` when nobody did; the last one when several did).
   * May return milliseconds after which it wants to run again, if that is earlier than the interval.
   */
  readonly step: (reason: string) => Promise<number | void> | number | void;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Periodic steps fall on multiples of the interval (`untilTick`). */
  readonly aligned?: boolean;
  /** Ends the role after a broken invariant. Default: the error is thrown outside every catch, so that the process dies. */
  readonly crash?: (error: Error) => void;
}

export interface Loop {
  /** Runs a step as soon as the running one, if any, has ended. Many calls during one step make one more step. */
  wake(reason: string): void;
  /** Resolves when the step that runs, if any, has ended; no step starts after the call. */
  stop(): Promise<void>;
}

/** A failed step is not repeated faster than this, however often it is woken: a broken step must not eat a core. */
const PAUSE_AFTER_ERROR_MS = 50;
/** A reason of our own: without one, every wake-up would build a DOMException with its stack (4 % of an idle agent's processor time, measured). */
const WOKEN = Symbol('woken');
/** The same error again is logged at most this often. */
const REPEAT_LOG_MS = 30_000;

/**
 * Starts at once with a first step (reason `start`).
 * An error of a step is logged here, the loop's top, and the loop goes on; a broken invariant ends the role.
 */
export function startLoop(options: LoopOptions): Loop {
  const clock = options.clock ?? realClock;
  const stopping = new AbortController();
  let pending: string | null = 'start';
  let sleeping = new AbortController();
  const errors = createErrorLog(options);

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const reason = pending ?? 'interval';
      pending = null;
      const startedAt = clock.now().mono;
      let wait = options.intervalMs;
      try {
        const again = await options.step(reason);
        errors.succeeded();
        if (typeof again === 'number') wait = Math.min(wait, Math.max(0, again));
      } catch (cause) {
        errors.failed(cause);
        await clock.sleep(PAUSE_AFTER_ERROR_MS, stopping.signal);
      }
      if (pending !== null || stopping.signal.aborted) {
        // Timers and sockets get their turn between two steps that follow at once.
        await clock.sleep(1, stopping.signal);
        continue;
      }
      sleeping = new AbortController();
      const now = clock.now().mono;
      const rest = options.aligned === true && wait === options.intervalMs ? untilTick(now, wait) : wait - (now - startedAt);
      await clock.sleep(Math.max(1, rest), sleeping.signal);
    }
  };
  const finished = run();

  return {
    wake: (reason) => {
      pending = reason;
      sleeping.abort(WOKEN);
    },
    stop: async () => {
      stopping.abort(WOKEN);
      sleeping.abort(WOKEN);
      await finished;
    },
  };
}

interface ErrorLog {
  failed(cause: unknown): void;
  succeeded(): void;
}

function createErrorLog(options: LoopOptions): ErrorLog {
  let last = '';
  let lastAt = 0;
  let count = 0;
  return {
    failed: (cause) => {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      if (error.message.startsWith('invariant:')) {
        options.log.error({ loop: options.name, error }, 'a broken invariant ends this process');
        options.log.flush();
        (options.crash ?? crashProcess)(error);
        return;
      }
      count += 1;
      if (error.message === last && monoMs() - lastAt < REPEAT_LOG_MS) return;
      last = error.message;
      lastAt = monoMs();
      options.log.error({ loop: options.name, error, count }, 'a step failed; the loop goes on');
    },
    succeeded: () => {
      if (count > 0) options.log.info({ loop: options.name, count }, 'the step works again');
      count = 0;
      last = '';
    },
  };
}

function crashProcess(error: Error): void {
  process.nextTick(() => {
    throw error;
  });
}
