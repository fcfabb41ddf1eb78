/**
 * The processors' favour for processes that must act in time and need little: on a host whose processors are all busy a normal process waits some ten
 * milliseconds for each of its steps, on an overloaded one for seconds, and then a lease ends although nothing is broken.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** About nine times the weight of a normal process. Real-time priority would be more than enough to starve a database of its own machine. */
const NICE = -10;

/** The first moment after an opening belongs to the clients that come back: whoever only watches them then, or tidies up, waits its turn. */
const STEP_BACK_MS = 1000;

let raised = false;
let back: NodeJS.Timeout | null = null;

/**
 * Raises this process above normal ones. False, and nothing is changed: it has not the right to (CAP_SYS_NICE), or somebody started it with a priority of
 * their own choice, which `vital` overrules. Only the calling thread is raised, and threads that it starts later.
 * Both settings are needed: the kernel weighs sessions against each other first, then the threads within one. Source: sched(7), "The autogroup feature".
 */
export function raisePriority(vital: 'vital' | null = null): boolean {
  if (raised || (vital === null && getPriority() !== 0)) return raised;
  raised = set(NICE);
  return raised;
}

/** Normal priority for a second from now on; nothing when it is not raised. */
export function stepBack(): void {
  if (!raised) return;
  if (back !== null) clearTimeout(back);
  else set(0);
  back = setTimeout(() => {
    back = null;
    set(NICE);
  }, STEP_BACK_MS).unref();
}

/**
 * Raises another process, one that leads its session, as every process of PostgreSQL does, for the rest of its life. Nothing where this process may not raise
 * itself, was given a priority of people's choice, or when that one is gone.
 */
export function hurryProcess(pid: number): void {
  if (raised) set(NICE, pid);
}

/** True when the process itself could be set; its group is not everywhere. */
function set(nice: number, pid: number = process.pid): boolean {
  let done = false;
  try {
    setPriority(pid, nice);
    done = true;
    // The group is the session's: whoever was started from a shell leaves it to the others there.
    if (leadsSession(pid)) writeFileSync(`/proc/${pid}/autogroup`, String(nice));
  } catch (cause) {
    // Not allowed, the process is gone, or this kernel does not group by session.
    if (!(cause instanceof Error && 'code' in cause)) throw cause;
  }
  return done;
}

/** Source: proc(5), /proc/PID/stat: session is the sixth field, the fourth after the name. */
function leadsSession(pid: number): boolean {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3] === String(pid);
}

/** Runs `start`, which makes a child process before it returns: the child has normal priority (a child inherits its parent's). */
export function atNormalPriority<T>(start: () => T): T {
  if (!raised || back !== null) return start();
  setPriority(0);
  try {
    return start();
  } finally {
    setPriority(NICE);
  }
}
