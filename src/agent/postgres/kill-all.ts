/** The complete end of a data directory's processes, also when they hang or are stopped: the guard's own kill, for the agent. */
import { type KillOutcome, killTree } from '../guard/kill-tree.ts';
import { canonicalDirectory, findPostmaster } from './postmaster.ts';

/** 2 s: a process that SIGKILL does not end within that sits in the kernel (stuck disk); waiting longer only delays the alarm. */
const KILL_LIMIT_MS = 2000;

/**
 * Ends every process of the data directory with SIGKILL; returns when none is left (`complete`) or the limit passed (`survivors`).
 * One implementation for agent and guard, so that "no process is left" means the same to both; its argument stands in `killTree`.
 */
export async function killAll(dataDirectory: string, { limitMs = KILL_LIMIT_MS }: { readonly limitMs?: number } = {}): Promise<KillOutcome> {
  const found = findPostmaster(dataDirectory);
  const postmaster = found === null ? null : { pid: found.pid, startTime: found.startTicks };
  return killTree({ dataDirectory: canonicalDirectory(dataDirectory), postmaster }, { limitMs });
}
