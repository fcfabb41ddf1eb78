/** People's ALTER SYSTEM on a setting that pgherd manages, noticed while the server runs, not only at its next start. */
import type { Logger } from '../base/log.ts';
import { MANAGED_PARAMETERS } from '../core/managed-parameters.ts';
import type { NodeProblem } from '../core/report.ts';
import { describeFailure } from '../core/result.ts';
import type { Instance } from './postgres/instance.ts';
import { type Override, findOverrides, takeBackManaged } from './postgres/settings.ts';

const CODE = 'settings.overridden';

export interface OverrideWatch {
  /** Reads the two files of a running server anew; the answer stands in the next report. Never two looks at once. */
  look(): void;
  /** `problems` with what the last look found in place of older findings of the same kind. */
  merge(problems: readonly NodeProblem[]): readonly NodeProblem[];
}

export interface OverrideWatchOptions {
  readonly instance: Instance;
  readonly log: Logger;
  /** False: the node is left alone (maintenance), and what is found is only told. */
  readonly mayMend: () => boolean;
}

export function createOverrideWatch({ instance, log, mayMend }: OverrideWatchOptions): OverrideWatch {
  let found: readonly NodeProblem[] | null = null;
  let looking = false;
  let lastTrouble = '';

  async function mend(): Promise<void> {
    const back = await takeBackManaged(instance);
    const trouble = back.ok ? '' : describeFailure(back.error);
    if (trouble !== '' && trouble !== lastTrouble) log.warn({}, `settings that ALTER SYSTEM overrides cannot be taken back: ${trouble}`);
    lastTrouble = trouble;
    for (const { name, winning, ours } of back.ok ? back.value : [])
      log.warn({ name, was: winning, ours }, `${name} was changed by ALTER SYSTEM; pgherd relies on its own value, which holds again`);
  }

  const read = async (): Promise<void> => {
    looking = true;
    try {
      if (mayMend()) await mend();
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

export function describeOverride({ name, ours, winning }: Override): NodeProblem {
  const reset = `ALTER SYSTEM RESET ${name}; then SELECT pg_reload_conf();`;
  if (ours === null)
    return {
      code: CODE,
      text: `${name} is "${winning}" by ALTER SYSTEM, and not by pgherd: commits wait for standbys that no failover counts on`,
      remedy: `${reset} "durability" of "pgherd meta edit" says for whom commits wait`,
    };
  return { code: CODE, text: `${name} is ${winning} by ALTER SYSTEM and not ${ours}, which pgherd sets`, remedy: overrideRemedy(name, reset) };
}

function overrideRemedy(name: string, reset: string): string {
  return MANAGED_PARAMETERS.includes(name)
    ? `${reset} pgherd relies on its own value, and takes it back itself where the node is not in maintenance`
    : `${reset} or put the value into the cluster settings ("pgherd settings set ${name}=VALUE")`;
}
