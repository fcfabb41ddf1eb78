/**
 * The simulator's time: events in a heap, ordered by time and then by the order in which they were asked for, so that a run is the same every time.
 * Between two events all promises come to rest; virtual time stands still meanwhile.
 */

export interface Timer {
  /** No call comes after it; harmless when the call has been. */
  cancel(): void;
}

export interface Scheduler {
  /** Virtual milliseconds since the run began, with fractions. */
  now(): number;
  /** Calls `run` at that time; at the present time, after what is already due, when it has passed. */
  at(ms: number, run: () => void): Timer;
  /** Like `at(now() + ms)`. */
  after(ms: number, run: () => void): Timer;
  /** Resolves after `ms`; at once when `ms` ≤ 0; early, without error, when `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface VirtualClock extends Scheduler {
  /** Runs every event up to and including `until`; afterwards `now()` is `until`. Errors of events end it. */
  run(until: number): Promise<void>;
  /** Runs until `work` settled, at most until `limitMs` from now; rejects when it did not. */
  runUntil<T>(work: Promise<T>, limitMs: number): Promise<T>;
  /** Events that were run so far. */
  steps(): number;
  /** The time of the next event; null when there is none. */
  nextAt(): number | null;
}

interface Event extends Timer {
  readonly time: number;
  readonly order: number;
  run: (() => void) | null;
}

/** A macrotask of Node: every promise that can settle without time passing has settled before it comes. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function createClock(startAt = 0): VirtualClock {
  const heap: Event[] = [];
  let now = startAt;
  let order = 0;
  let steps = 0;

  const before = (a: Event, b: Event): boolean => a.time < b.time || (a.time === b.time && a.order < b.order);

  function push(event: Event): void {
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Event;
      if (before(above, event)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  function pop(): Event | null {
    const top = heap[0];
    if (top === undefined) return null;
    const last = heap.pop() as Event;
    const length = heap.length;
    if (length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (child + 1 < length && before(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (before(last, heap[child] as Event)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
    return top;
  }

  /** Drops cancelled events from the top. */
  function peek(): Event | null {
    while (heap.length > 0 && (heap[0] as Event).run === null) pop();
    return heap[0] ?? null;
  }

  function at(ms: number, run: () => void): Timer {
    const event: Event = {
      time: ms > now ? ms : now,
      order: order++,
      run,
      cancel: () => {
        event.run = null;
      },
    };
    push(event);
    return event;
  }

  function step(until: number): boolean {
    const next = peek();
    if (next === null || next.time > until) return false;
    pop();
    now = next.time;
    steps++;
    const { run } = next;
    next.run = null;
    run?.();
    return true;
  }

  return {
    now: () => now,
    at,
    after: (ms, run) => at(now + ms, run),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted === true || ms <= 0) {
          resolve();
          return;
        }
        const done = (): void => {
          timer.cancel();
          signal?.removeEventListener('abort', done);
          resolve();
        };
        const timer = at(now + ms, done);
        signal?.addEventListener('abort', done, { once: true });
      }),
    run: async (until) => {
      do await settled();
      while (step(until));
      now = Math.max(now, until);
    },
    runUntil: async (work, limitMs) => {
      const until = now + limitMs;
      let over = false;
      const noted = work.finally(() => {
        over = true;
      });
      // Its failure is handed on below.
      noted.catch(() => undefined);
      for (;;) {
        await settled();
        if (over) return noted;
        if (!step(until)) throw new Error(`not within ${limitMs} ms of virtual time`);
      }
    },
    steps: () => steps,
    nextAt: () => peek()?.time ?? null,
  };
}
