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
/** L1: a node or a command that waits for a person too long. I9: a twin of a timeline (one number and fork opened twice) that was not told. */
const OPEN: readonly RegExp[] = [/: L1: the healed cluster/, /: I9: .* streams from .* what does not follow its own WAL/];

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

  // Fresh seeds still find what is not mended yet, about one in eighty (docs/simulation.md, "What is open"): kinds are named here so that
  // everything else fails this test. What they found is printed, whatever it is.
  test(`breaks nothing but what is known with at least ${FRESH_AT_LEAST} fresh seeds`, async (t) => {
    const from = randomBytes(6).readUIntBE(0, 6);
    const until = monoMs() + FRESH_MS;
    let given = 0;
    const { seeds, failures } = await failuresOf(() =>
      given < FRESH_AT_LEAST || monoMs() < until ? { seed: String(from + given++), profile: null } : null,
    );
    t.diagnostic(`${seeds} seeds from ${from}`);
    for (const failure of failures) t.diagnostic(failure.slice(0, 400));
    assert.deepEqual(
      failures.filter((failure) => !OPEN.some((known) => known.test(failure))),
      [],
    );
  });
});
