/** A terminal, or none, that a test can read. */
import { makeMonoMs, makeWallMs } from '../../src/core/ids.ts';
import type { Io } from '../../src/cli/io.ts';
import { runCli } from '../../src/cli/program.ts';

export interface FakeIo extends Io {
  readonly out: () => string;
  readonly err: () => string;
  readonly ran: (readonly string[])[];
  interrupt(): void;
}

export interface FakeIoOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Columns; absent: no terminal. */
  readonly terminal?: number;
  /** Lines that a person types. */
  readonly answers?: readonly string[];
  /** What a program in front does; its exit code. */
  readonly run?: (argv: readonly string[]) => number;
}

/** Time passes only by sleeping, and each sleep ends in the next turn of the event loop. */
export function fakeIo(options: FakeIoOptions = {}): FakeIo {
  const out: string[] = [];
  const err: string[] = [];
  const ran: (readonly string[])[] = [];
  const answers = [...(options.answers ?? [])];
  const handlers = new Set<() => void>();
  const isTTY = options.terminal !== undefined;
  let elapsed = 0;
  const sink = (into: string[]): Io['stdout'] => ({ write: (text) => into.push(text), isTTY, columns: () => options.terminal ?? null });
  return {
    env: { HOME: '/nonexistent', PATH: '/usr/bin:/bin', ...options.env },
    stdout: sink(out),
    stderr: sink(err),
    stdinIsTTY: isTTY,
    ask: async (question) => {
      err.push(question);
      return answers.shift() ?? null;
    },
    clock: {
      now: () => ({ mono: makeMonoMs(1000 + elapsed), wall: makeWallMs(Date.UTC(2026, 10, 21) + elapsed) }),
      sleep: async (ms, signal) => {
        if (signal?.aborted !== true) elapsed += Math.max(ms, 0);
        await new Promise((resolve) => setImmediate(resolve));
      },
    },
    onInterrupt: (handler) => {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    runInForeground: async (argv) => {
      ran.push(argv);
      return options.run?.(argv) ?? 0;
    },
    out: () => out.join(''),
    err: () => err.join(''),
    ran,
    interrupt: () => {
      for (const handler of handlers) handler();
    },
  };
}

export interface RunResult {
  readonly exit: number;
  readonly out: string;
  readonly err: string;
  readonly io: FakeIo;
}

export async function run(argv: readonly string[], options: FakeIoOptions = {}): Promise<RunResult> {
  const io = fakeIo(options);
  const exit = await runCli(argv, io);
  return { exit, out: io.out(), err: io.err(), io };
}
