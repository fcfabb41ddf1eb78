import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { faultsOf } from '../../sim/plan.ts';
import { runSeed } from '../../sim/run.ts';

describe('a run', () => {
  for (const seed of [3n, 2024n]) {
    test(`of seed ${seed} is the same twice, event by event`, async () => {
      const first = await runSeed({ seed, profile: null });
      const second = await runSeed({ seed, profile: null });
      assert.equal(second.hash, first.hash);
      assert.equal(second.steps, first.steps);
      assert.deepEqual(second.trace.slice(-50), first.trace.slice(-50));
    });
  }

  test('without one entry of its plan is another run of the same world', async () => {
    const full = await runSeed({ seed: 3n, profile: null });
    const less = await runSeed({ seed: 3n, profile: null, without: new Set([faultsOf(full.plan)[0]?.id ?? -1]) });
    assert.equal(less.profile, full.profile);
    assert.equal(faultsOf(less.plan).length, faultsOf(full.plan).length - 1);
  });
});
