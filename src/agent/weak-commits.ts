/** Who opted out of what "durability" promises, looked up beside the agent's loop while the node is open for writes. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { WeakCommit } from '../core/report.ts';
import { describeFailure } from '../core/result.ts';
import type { Instance } from './postgres/instance.ts';
import { findWeakCommits } from './postgres/weak-commits.ts';

/** One short session. People change this once, and look with `doctor` right after. */
const LOOK_EVERY_MS = 10_000;

export interface WeakCommits {
  /** What the last look found; looks anew when it is time. Never waits, never throws. Empty for a node on which nobody may write. */
  current(clients: 'open' | 'out'): readonly WeakCommit[];
}

export function createWeakCommits(instance: Instance, options: { readonly clock: Pick<Clock, 'now'>; readonly log: Logger }): WeakCommits {
  let found: readonly WeakCommit[] = [];
  let lookedAt = -Infinity;
  let looking = false;

  async function look(): Promise<void> {
    const answer = await findWeakCommits(instance);
    if (answer.ok) found = answer.value;
    // The last finding stands until the next look.
    else options.log.debug({ cause: describeFailure(answer.error) }, 'looking for a weak synchronous_commit failed');
  }

  return {
    current: (clients) => {
      if (clients === 'out') {
        found = [];
        lookedAt = -Infinity;
        return found;
      }
      const now = options.clock.now().mono;
      if (!looking && now - lookedAt >= LOOK_EVERY_MS) {
        lookedAt = now;
        looking = true;
        void look().finally(() => {
          looking = false;
        });
      }
      return found;
    },
  };
}
