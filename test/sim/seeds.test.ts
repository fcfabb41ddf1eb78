import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { describe, test } from 'node:test';
import { runPool } from '../../sim/pool.ts';
import { readSeeds } from '../../sim/seeds.ts';
import type { Job, JobResult } from '../../sim/worker.ts';

async function failuresOf(next: () => Job | null): Promise<readonly string[]> {
  const failures: string[] = [];
  await runPool({
    jobs: Math.max(1, Math.min(4, availableParallelism())),
    next,
    onResult: (result: JobResult) => {
      if (result.failure !== null) failures.push(`npm run sim -- --seed ${result.seed} --profile ${result.profile}: ${result.failure.message}`);
    },
  });
  return failures;
}

describe('the simulator', () => {
  test('finds nothing any more with the seeds that once found something', async () => {
    const kept = [...readSeeds()];
    assert.ok(kept.length > 0);
    assert.deepEqual(await failuresOf(() => kept.shift() ?? null), []);
  });
});
