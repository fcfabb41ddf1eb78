/**
 * Child processes: own process group, time limit, kill of the whole group, bounded output, never a shell.
 * Who starts a process logs its argv; secrets must not stand in argv (use a PGPASSFILE or `stdin`).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { type Result, err, ok } from '../core/result.ts';
import { monoMs } from './clock.ts';
import { atNormalPriority } from './priority.ts';

export interface ProcessOptions {
  readonly uid?: number;
  readonly gid?: number;
  /** The complete environment of the child; default: PATH and a C locale only, so that outputs can be parsed and no secret is inherited. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default `/`: the caller's directory may not be readable by `uid`. */
  readonly cwd?: string;
  /** At the limit the whole process group gets SIGKILL. */
  readonly timeoutMs: number;
  /** Aborting kills the whole process group. */
  readonly signal?: AbortSignal;
  /** Bytes kept of each stream, the newest; default 1 MiB. */
  readonly maxOutputBytes?: number;
  readonly onStdoutLine?: (line: string) => void;
  /** Lines end at \n or \r (progress lines of PostgreSQL's tools end in \r). */
  readonly onStderrLine?: (line: string) => void;
  readonly stdin?: string;
}

export interface ProcessOutput {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
  readonly durationMs: number;
}

export interface ProcessFailure {
  /** `spawn`: it never ran (missing program, no memory, no process left). `signal`: somebody else killed it. */
  readonly kind: 'spawn' | 'timeout' | 'aborted' | 'signal';
  readonly message: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** The environment that children get unless told otherwise. */
export const PLAIN_ENV: Readonly<Record<string, string>> = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TZ: 'UTC' };

const DEFAULT_OUTPUT_BYTES = 1_048_576;
/**
 * How long the pipes may stay open after the process exited (a grandchild may hold them for ever). Longer only delays the
 * answer; shorter could cut the last lines of a loaded machine.
 */
const PIPE_GRACE_MS = 200;

/**
 * Runs `argv` to its end. An exit code other than 0 is a value, not a failure.
 * Failures: see ProcessFailure. After `timeout` and `aborted` the group got SIGKILL, and the answer does not wait for a
 * process that cannot be killed longer than PIPE_GRACE_MS.
 */
export function runProcess(argv: readonly string[], options: ProcessOptions): Promise<Result<ProcessOutput, ProcessFailure>> {
  const startedAt = monoMs();
  const [program, ...args] = argv;
  if (program === undefined) throw new Error('runProcess: empty argv');
  return new Promise((resolve) => {
    const limit = options.maxOutputBytes ?? DEFAULT_OUTPUT_BYTES;
    const stdout = createCollector(limit, options.onStdoutLine);
    const stderr = createCollector(limit, options.onStderrLine);
    let killedFor: 'timeout' | 'aborted' | null = null;
    let settled = false;
    let timer: NodeJS.Timeout | null = null;
    let grace: NodeJS.Timeout | null = null;

    const finish = (outcome: { readonly exitCode: number } | { readonly kind: ProcessFailure['kind']; readonly message: string }): void => {
      if (settled) return;
      settled = true;
      if (timer !== null) clearTimeout(timer);
      if (grace !== null) clearTimeout(grace);
      options.signal?.removeEventListener('abort', onAbort);
      const output = { stdout: stdout.end(), stderr: stderr.end(), durationMs: monoMs() - startedAt };
      child?.stdout?.destroy();
      child?.stderr?.destroy();
      resolve('exitCode' in outcome ? ok({ ...output, exitCode: outcome.exitCode }) : err({ ...output, ...outcome }));
    };
    const killFor = (why: 'timeout' | 'aborted'): void => {
      if (killedFor !== null || settled) return;
      killedFor = why;
      if (child?.pid !== undefined) killGroup(child.pid);
      grace = setTimeout(() => finish(describeKill(why, program, options.timeoutMs)), PIPE_GRACE_MS);
    };
    const onAbort = (): void => killFor('aborted');
    const onExit = (code: number | null, signal: NodeJS.Signals | null): void => {
      const outcome =
        killedFor !== null
          ? describeKill(killedFor, program, options.timeoutMs)
          : code !== null
            ? { exitCode: code }
            : { kind: 'signal' as const, message: `${program} was ended by ${signal ?? 'an unknown signal'}` };
      if (grace !== null) clearTimeout(grace);
      grace = setTimeout(() => finish(outcome), PIPE_GRACE_MS);
      child?.once('close', () => finish(outcome));
    };

    if (options.signal?.aborted === true) {
      resolve(err({ kind: 'aborted', message: `${program} was not started: aborted`, stdout: '', stderr: '', durationMs: 0 }));
      return;
    }
    let child: ChildProcess | null = null;
    try {
      child = atNormalPriority(() => spawn(program, args, spawnOptions(options)));
    } catch (cause) {
      finish({ kind: 'spawn', message: `${program}: ${cause instanceof Error ? cause.message : String(cause)}` });
      return;
    }
    child.once('error', (cause) => finish({ kind: 'spawn', message: `${program}: ${cause.message}` }));
    child.once('exit', onExit);
    child.stdout?.on('data', stdout.push);
    child.stderr?.on('data', stderr.push);
    // A child that closes its input early is no error: its exit code speaks.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.stdin ?? '');
    options.signal?.addEventListener('abort', onAbort, { once: true });
    timer = setTimeout(() => killFor('timeout'), options.timeoutMs);
  });
}

function spawnOptions(options: ProcessOptions): import('node:child_process').SpawnOptions {
  return {
    detached: true,
    cwd: options.cwd ?? '/',
    env: { ...(options.env ?? PLAIN_ENV) },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    ...(options.gid === undefined ? {} : { gid: options.gid }),
  };
}

function describeKill(why: 'timeout' | 'aborted', program: string, timeoutMs: number): { kind: 'timeout' | 'aborted'; message: string } {
  return why === 'timeout'
    ? { kind: why, message: `${program} did not end within ${timeoutMs} ms and was killed` }
    : { kind: why, message: `${program} was killed because the operation was cancelled` };
}

/** SIGKILL to the group of `pid`; false when no process was there. */
export function killGroup(pid: number): boolean {
  try {
    process.kill(-pid, 'SIGKILL');
    return true;
  } catch (cause) {
    // ESRCH: the group is gone already, which is what we wanted. EPERM: the group changed its user; the caller sees that it still lives.
    return (cause as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

interface Collector {
  readonly push: (chunk: Buffer) => void;
  readonly end: () => string;
}

function createCollector(limit: number, onLine: ((line: string) => void) | undefined): Collector {
  let kept: Buffer[] = [];
  let bytes = 0;
  let partial = '';
  const lines = (chunk: Buffer): void => {
    if (onLine === undefined) return;
    const parts = (partial + chunk.toString('utf8')).split(/[\r\n]/);
    // A line without an end is cut at the limit, so that memory stays bounded.
    partial = (parts.pop() ?? '').slice(-limit);
    for (const part of parts) if (part !== '') onLine(part);
  };
  return {
    push: (chunk) => {
      kept.push(chunk);
      bytes += chunk.length;
      while (kept.length > 1 && bytes - (kept[0]?.length ?? 0) >= limit) bytes -= kept.shift()?.length ?? 0;
      lines(chunk);
    },
    end: () => {
      if (partial !== '' && onLine !== undefined) onLine(partial);
      partial = '';
      const all = Buffer.concat(kept);
      kept = [];
      return all.subarray(Math.max(0, all.length - limit)).toString('utf8');
    },
  };
}
