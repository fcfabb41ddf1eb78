/** `npm run sim -- --mutants`: runs every defect until the simulator catches it, at most LIMIT seeds. */
import { availableParallelism } from 'node:os';
import { monoMs } from '../../src/base/clock.ts';
import { runSeed } from '../run.ts';
import { runPool } from '../pool.ts';
import type { JobResult } from '../worker.ts';
import { type Mutant, findMutant, mutants } from './mutants.ts';

const LIMIT = 2000;

export interface MutantResult {
  readonly name: string;
  /** Null: it survived. */
  readonly caughtAtSeed: string | null;
  readonly seeds: number;
  readonly invariant: string | null;
}

/** Answers the exit code: 0 when each was caught. `only`: one defect. */
export async function checkMutants(values: {
  readonly jobs?: string | undefined;
  readonly json: boolean;
  readonly mutant?: string | undefined;
  /** First seed and number of them, so that a long search can be done in pieces. */
  readonly from?: string | undefined;
  readonly seeds?: string | undefined;
  /** No seed is begun after so many minutes (of one defect). */
  readonly minutes?: string | undefined;
  /** Instead of the mutant's own. */
  readonly profile?: string | undefined;
}): Promise<number> {
  const chosen = values.mutant === undefined ? mutants : [findMutant(values.mutant)].filter((one): one is Mutant => one !== null);
  if (chosen.length === 0) {
    process.stderr.write(`sim: no mutant "${values.mutant}"\n`);
    return 2;
  }
  const results: MutantResult[] = [];
  for (const mutant of chosen) {
    const result = await runMutant(mutant, {
      jobs: Number(values.jobs ?? availableParallelism()),
      from: Number(values.from ?? 1),
      limit: Math.min(LIMIT, Number(values.seeds ?? LIMIT)),
      profile: values.profile ?? mutant.profile ?? null,
      until: values.minutes === undefined ? Number.POSITIVE_INFINITY : monoMs() + Number(values.minutes) * 60_000,
    });
    results.push(result);
    if (!values.json)
      process.stdout.write(
        `${mutant.name.padEnd(34)} ${result.caughtAtSeed === null ? `SURVIVED ${result.seeds} seeds` : `caught after ${result.seeds} seeds by ${result.invariant} (seed ${result.caughtAtSeed})`}\n`,
      );
  }
  const survivors = results.filter((result) => result.caughtAtSeed === null).map((result) => result.name);
  if (values.json) process.stdout.write(`${JSON.stringify({ mutants: results, survivors })}\n`);
  else
    process.stdout.write(`\n${results.length} defects, ${survivors.length} not caught${survivors.length === 0 ? '' : `: ${survivors.join(', ')}`}\n`);
  return survivors.length === 0 ? 0 : 1;
}

/** A seed that fails without the defect too proves nothing. */
async function runMutant(
  mutant: Mutant,
  options: { readonly jobs: number; readonly from: number; readonly limit: number; readonly profile: string | null; readonly until: number },
): Promise<MutantResult> {
  const { jobs, from, limit, profile } = options;
  let given = 0;
  let seeds = 0;
  const isOver = (): boolean => given >= limit || monoMs() >= options.until;
  while (!isOver()) {
    const failed: JobResult[] = [];
    await runPool({
      jobs,
      mutant: mutant.name,
      next: () => (failed.length > 0 || isOver() ? null : { seed: String(from + given++), profile }),
      onResult: (result) => {
        seeds++;
        if (result.failure !== null) failed.push(result);
      },
    });
    for (const result of failed) {
      const sound = await runSeed({ seed: BigInt(result.seed), profile });
      if (sound.failure === null) return { name: mutant.name, caughtAtSeed: result.seed, seeds, invariant: result.failure?.invariant ?? null };
    }
  }
  return { name: mutant.name, caughtAtSeed: null, seeds, invariant: null };
}
