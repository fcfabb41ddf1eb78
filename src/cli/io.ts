/** The command line's doors to the world: a test passes its own. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline/promises';
import { type Clock, realClock } from '../base/clock.ts';

export interface Sink {
  write(text: string): void;
  readonly isTTY: boolean;
  /** Width of the terminal in columns; null when it is not one. */
  columns(): number | null;
}

export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly stdinIsTTY: boolean;
  /** Asks on standard error and reads one line; null when the input ended. */
  ask(question: string): Promise<string | null>;
  readonly clock: Clock;
  /** Calls `handler` at Ctrl+C or SIGTERM instead of ending the process; the returned function takes it back. */
  onInterrupt(handler: () => void): () => void;
  /** Runs a program on this terminal; its exit code, 127 when it could not be started. */
  runInForeground(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number>;
}

interface WritableTerminal {
  write(text: string): boolean;
  readonly isTTY?: boolean;
  readonly columns?: number;
  on(event: 'error', handler: (error: NodeJS.ErrnoException) => void): unknown;
}

/** A reader that went away (`pgherd show | head`) is no error: stop writing, keep the exit code. */
function sink(stream: WritableTerminal): Sink {
  let closed = false;
  stream.on('error', (error) => {
    if (error.code !== 'EPIPE') throw error;
    closed = true;
  });
  return {
    write: (text) => {
      if (!closed) stream.write(text);
    },
    isTTY: stream.isTTY === true,
    // A pseudo-terminal without a size says 0: unknown, not narrow.
    columns: () => (stream.isTTY === true && stream.columns !== undefined && stream.columns > 0 ? stream.columns : null),
  };
}

/** The real terminal, environment and clock of this process. */
export function processIo(): Io {
  return {
    env: process.env,
    stdout: sink(process.stdout),
    stderr: sink(process.stderr),
    stdinIsTTY: process.stdin.isTTY === true,
    ask: askOnTerminal,
    clock: realClock,
    onInterrupt,
    runInForeground,
  };
}

async function askOnTerminal(question: string): Promise<string | null> {
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise<string | null>((resolve) => {
      reader.once('close', () => resolve(null));
      reader.once('SIGINT', () => resolve(null));
      reader.question(question).then(resolve, () => resolve(null));
    });
  } finally {
    reader.close();
  }
}

function onInterrupt(handler: () => void): () => void {
  process.on('SIGINT', handler);
  process.on('SIGTERM', handler);
  return () => {
    process.off('SIGINT', handler);
    process.off('SIGTERM', handler);
  };
}

function runInForeground(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number> {
  const [program, ...rest] = argv;
  // Ctrl+C belongs to the program in front (psql cancels its query); we only wait for it.
  const release = onInterrupt(() => undefined);
  return new Promise<number>((resolve) => {
    const child = spawn(program ?? '', rest, { stdio: 'inherit', env: { ...env } });
    child.once('error', () => resolve(127));
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  }).finally(release);
}
