/**
 * The simulator's time: events in a heap, ordered by time and then by the order in which they were asked for, so that a run is the same every time.
 * Between two events all promises come to rest; virtual time stands still meanwhile.
 *
 * A *scope* is a process of the model: what runs in it is scheduled through it. A killed scope runs nothing any more; a stopped one (SIGSTOP,
 * suspended machine) keeps what became due and runs it, in order, when it goes on.
 *
 * Invariant: a run is a function of its seed. Because: promise reactions are first in, first out, and nothing outside this heap settles a promise.
 * Broken if: a part under simulation waits for a real timer, a thread or a file.
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

/** A process of the model, or a host with its processes. */
export interface Scope extends Scheduler {
  readonly name: string;
  alive(): boolean;
  paused(): boolean;
  /** Runs now, or when the scope goes on, or never: how answers of the world reach a process. */
  deliver(run: () => void): void;
  /** The same promise, as this process sees it: settles only while the scope runs, never after it was killed. */
  enter<T>(promise: Promise<T>): Promise<T>;
  kill(): void;
  pause(): void;
  resume(): void;
  /** Killed and stopped together with this one. */
  child(name: string): Scope;
}

export interface VirtualClock extends Scheduler {
  /** Runs every event up to and including `until`; afterwards `now()` is `until`. Errors of events end it. */
  run(until: number): Promise<void>;
  /** Runs until `work` settled, at most until `limitMs` from now; rejects when it did not. */
  runUntil<T>(work: Promise<T>, limitMs: number): Promise<T>;
  /**
   * Runs the next event and every promise reaction that follows from it, without leaving the present task; false when there is none up to `until`.
   * Only from inside of `runVirtually`.
   */
  step(until: number): boolean;
  /** Lets promise reactions run now, at the same virtual time. Only from inside of `runVirtually`. */
  settle(): void;
  /** Moves the clock to `ms`, which lies before every event. */
  advanceTo(ms: number): void;
  scope(name: string): Scope;
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

/**
 * Performs all promise reactions that are due, and those that follow from them, unless called from inside of one.
 * *Source:* Node, lib/internal/process/task_queues.js, runNextTicks (exposed under this old name by lib/internal/bootstrap/node.js).
 */
const drain = (process as unknown as { _tickCallback(): void })._tickCallback;

/** Runs `body` in a task of its own, where `step` and `settle` can perform promise reactions. */
export function runVirtually<T>(body: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(body());
      } catch (cause) {
        reject(cause);
      }
    });
  });
}

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

  const base: Base = { now: () => now, at };
  return {
    now: base.now,
    at,
    after: (ms, run) => at(now + ms, run),
    sleep: (ms, signal) => sleepOn(base, ms, signal),
    step: (until) => {
      if (!step(until)) return false;
      drain();
      return true;
    },
    settle: drain,
    advanceTo: (ms) => {
      const next = peek();
      if (next !== null && next.time < ms) throw new Error('the clock does not jump over an event');
      now = Math.max(now, ms);
    },
    scope: (name) => createScope(name, null, base),
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

type Base = Pick<Scheduler, 'now' | 'at'>;

function sleepOn(base: Base, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true || ms <= 0) {
      resolve();
      return;
    }
    if (signal === undefined) {
      base.at(base.now() + ms, resolve);
      return;
    }
    const done = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = base.at(base.now() + ms, done);
    signal.addEventListener('abort', done, { once: true });
  });
}

/** What a scope hands down to its children at once, so that asking costs nothing: it is asked at every event. */
interface Child {
  kill(): void;
  /** A scope above is stopped, or none is any more. */
  halt(halted: boolean): void;
}

function createScope(
  name: string,
  parent: { readonly dead: boolean; readonly halted: boolean; readonly deliver: (run: () => void) => void } | null,
  base: Base,
): Scope & Child {
  let killed = parent?.dead === true;
  let stopped = false;
  let above = parent?.halted === true;
  let waiting: (() => void)[] = [];
  const children: Child[] = [];

  function deliver(run: () => void): void {
    if (killed) return;
    if (stopped) waiting.push(run);
    else if (above) parent?.deliver(() => deliver(run));
    else run();
  }

  function tellChildren(): void {
    for (const child of children) child.halt(stopped || above);
  }

  const own: Base = { now: base.now, at: (ms, run) => base.at(ms, () => deliver(run)) };
  return {
    name,
    alive: () => !killed,
    paused: () => stopped || above,
    deliver,
    now: own.now,
    at: own.at,
    after: (ms, run) => own.at(own.now() + ms, run),
    sleep: (ms, signal) => sleepOn(own, ms, signal),
    enter: (promise) =>
      new Promise((resolve, reject) => {
        promise.then(
          (value) => deliver(() => resolve(value)),
          (cause: unknown) => deliver(() => reject(cause)),
        );
      }),
    kill: () => {
      killed = true;
      waiting = [];
      for (const child of children) child.kill();
    },
    halt: (halted) => {
      above = halted;
      tellChildren();
    },
    pause: () => {
      stopped = true;
      tellChildren();
    },
    resume: () => {
      if (!stopped) return;
      stopped = false;
      tellChildren();
      const due = waiting;
      waiting = [];
      for (const run of due) deliver(run);
    },
    child: (childName) => {
      const made = createScope(childName, { dead: killed, halted: stopped || above, deliver }, base);
      children.push(made);
      return made;
    },
  };
}
