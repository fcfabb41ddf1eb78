/** Makes a failing run readable: faults are left out, halves first, then one by one, as long as the same invariant still breaks. */
import { type Fault, faultsOf } from './plan.ts';
import { type RunResult, runSeed } from './run.ts';

export interface Shrunk {
  readonly result: RunResult;
  readonly kept: readonly Fault[];
  readonly runs: number;
}

/** Bounds the work: each run is one seed's worth of time. */
const MAX_RUNS = 120;

/** `run` stands in for the simulator in a test. */
export async function shrink(failed: RunResult, run: typeof runSeed = runSeed): Promise<Shrunk> {
  const wanted = failed.failure?.invariant ?? '';
  let best = failed;
  let kept = [...faultsOf(failed.plan)];
  let runs = 0;

  async function stillFails(faults: readonly Fault[]): Promise<boolean> {
    runs++;
    const result = await run({ seed: failed.seed, profile: failed.profile, only: new Set(faults.map((fault) => fault.id)) });
    if (result.failure?.invariant !== wanted) return false;
    best = result;
    kept = [...faults];
    return true;
  }

  for (let size = Math.ceil(kept.length / 2); size >= 1 && runs < MAX_RUNS; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let start = 0; start < kept.length && runs < MAX_RUNS; ) {
      const without = [...kept.slice(0, start), ...kept.slice(start + size)];
      if (without.length === kept.length || !(await stillFails(without))) start += size;
    }
  }
  return { result: best, kept, runs };
}
