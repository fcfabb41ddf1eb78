import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { describe, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { runPool } from '../../sim/pool.ts';
import { readSeeds } from '../../sim/seeds.ts';
import type { Job, JobResult } from '../../sim/worker.ts';

/** Fresh seeds of every test run: at least so many, and as many more as fit into the time. */
const FRESH_AT_LEAST = 300;
const FRESH_MS = 100_000;

async function failuresOf(next: () => Job | null): Promise<{ readonly seeds: number; readonly failures: readonly string[] }> {
  const failures: string[] = [];
  let seeds = 0;
  await runPool({
    jobs: Math.max(1, Math.min(4, availableParallelism())),
    next,
    onResult: (result: JobResult) => {
      seeds++;
      if (result.failure !== null) failures.push(`npm run sim -- --seed ${result.seed} --profile ${result.profile}: ${result.failure.message}`);
    },
  });
  return { seeds, failures };
}

describe('the simulator', () => {
  test('finds nothing any more with the seeds that once found something', async () => {
    const kept = [...readSeeds()];
    const { failures } = await failuresOf(() => kept.shift() ?? null);
    assert.deepEqual(failures, []);
  });

  test(`finds nothing with at least ${FRESH_AT_LEAST} fresh seeds`, async (t) => {
    const from = randomBytes(6).readUIntBE(0, 6);
    const until = monoMs() + FRESH_MS;
    let given = 0;
    const { seeds, failures } = await failuresOf(() =>
      given < FRESH_AT_LEAST || monoMs() < until ? { seed: String(from + given++), profile: null } : null,
    );
    t.diagnostic(`${seeds} seeds from ${from}`);
    assert.deepEqual(failures, []);
  });
});
