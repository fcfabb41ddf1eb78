/** The complete end of a data directory's processes, also when they hang or are stopped. */
import { type MonoMs, addMono } from '../../core/ids.ts';
import { monoMs, realClock } from '../../base/clock.ts';
import { errnoOf } from './failure.ts';
import { type ProcessInfo, findPostmaster, findProcesses, readProcess } from './postmaster.ts';

export interface KillOutcome {
  /** Processes that still live: nothing may be released. Empty: no process of the data directory is left. */
  readonly survivors: readonly ProcessInfo[];
  readonly killed: number;
  readonly durationMs: number;
}

/** 2 s: a process that SIGKILL does not end within that sits in the kernel (stuck disk); waiting longer only delays the alarm. */
const KILL_LIMIT_MS = 2000;
const LOOK_INTERVAL_MS = 5;

/**
 * Ends every process of the data directory with SIGKILL; returns when none is left or the limit passed.
 *
 * Invariant: when `survivors` is empty, no process can write to the data directory.
 * Because: the postmaster is stopped first, so that it can start no more children while they are listed; the list is by
 *   working directory and by descent, and taken again until it is empty twice in a row.
 * Broken if: a process changes its directory away and was re-parented before the first look; PostgreSQL's never do.
 */
export async function killAll(dataDirectory: string, { limitMs = KILL_LIMIT_MS }: { limitMs?: number } = {}): Promise<KillOutcome> {
  const startedAt = monoMs();
  const deadline: MonoMs = addMono(startedAt, limitMs);
  const known = new Map<number, number>();
  const killed = new Set<number>();
  const postmaster = findPostmaster(dataDirectory);
  if (postmaster !== null) signal(postmaster.pid, 'SIGSTOP');
  for (let emptyLooks = 0; ; ) {
    const living = findProcesses(dataDirectory, stillTheSame(known));
    if (living.length === 0) {
      emptyLooks++;
      if (emptyLooks === 2) return { survivors: [], killed: killed.size, durationMs: monoMs() - startedAt };
      continue;
    }
    emptyLooks = 0;
    for (const process of living) {
      known.set(process.pid, process.startTicks);
      killed.add(process.pid);
      signal(process.pid, 'SIGKILL');
    }
    if (monoMs() >= deadline) return { survivors: living, killed: killed.size, durationMs: monoMs() - startedAt };
    await realClock.sleep(LOOK_INTERVAL_MS);
  }
}

/** Children that lost their parent are not found by descent any more: they are remembered by pid and start time. */
function stillTheSame(known: ReadonlyMap<number, number>): number[] {
  return [...known].filter(([pid, startTicks]) => readProcess(pid)?.startTicks === startTicks).map(([pid]) => pid);
}

function signal(pid: number, name: 'SIGSTOP' | 'SIGKILL'): void {
  try {
    process.kill(pid, name);
  } catch (cause) {
    // Gone meanwhile is what we want; EPERM shows itself as a survivor.
    if (errnoOf(cause) !== 'ESRCH' && errnoOf(cause) !== 'EPERM') throw cause;
  }
}
