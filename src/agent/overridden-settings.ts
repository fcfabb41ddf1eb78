/** People's ALTER SYSTEM on a setting that pgherd manages, noticed while the server runs, not only at its next start. */
import type { Logger } from '../base/log.ts';
import type { NodeProblem } from '../core/report.ts';
import type { Instance } from './postgres/instance.ts';
import { findOverrides } from './postgres/settings.ts';

const CODE = 'settings.overridden';

export interface OverrideWatch {
  /** Reads the two files anew; the answer stands in the next report. Never two looks at once. */
  look(): void;
  /** `problems` with what the last look found in place of older findings of the same kind. */
  merge(problems: readonly NodeProblem[]): readonly NodeProblem[];
}

export function createOverrideWatch(instance: Instance, log: Logger): OverrideWatch {
  let found: readonly NodeProblem[] | null = null;
  let looking = false;
  const read = async (): Promise<void> => {
    looking = true;
    try {
      found = (await findOverrides(instance)).map(describeOverride);
    } catch (cause) {
      // The directory may be replaced at this moment; the last finding stands until the next look.
      log.debug({ cause: String(cause) }, 'looking for overridden settings failed');
    } finally {
      looking = false;
    }
  };
  return {
    look: () => {
      if (!looking) void read();
    },
    merge: (problems) => (found === null ? problems : [...problems.filter((problem) => problem.code !== CODE), ...found]),
  };
}

export function describeOverride(found: { readonly name: string; readonly ours: string; readonly winning: string }): NodeProblem {
  return {
    code: CODE,
    text: `${found.name} is ${found.winning} by ALTER SYSTEM and not ${found.ours}, which pgherd sets`,
    remedy: `ALTER SYSTEM RESET ${found.name}; then SELECT pg_reload_conf(); or put the value into the cluster settings`,
  };
}
