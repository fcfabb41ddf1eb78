import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Fault } from '../../sim/plan.ts';
import type { RunResult } from '../../sim/run.ts';
import { shrink } from '../../sim/shrink.ts';

/** A run of twenty faults that breaks `invariant` when `breaks` says so of those that are left in. */
function world(breaks: (ids: ReadonlySet<number>) => string | null) {
  const faults = Array.from({ length: 20 }, (_, id): Fault => ({ id, episode: 0, at: id, forMs: 0, what: { kind: 'store-leader-loss' } }));
  const all = new Set(faults.map((fault) => fault.id));
  const resultOf = (ids: ReadonlySet<number>): RunResult => {
    const invariant = breaks(ids);
    return {
      seed: 1n,
      profile: 'three',
      plan: { episodes: [{ faults }] },
      failure: invariant === null ? null : { invariant, message: [...ids].join(), step: 1, atMs: 1 },
    } as unknown as RunResult;
  };
  let runs = 0;
  return {
    failed: resultOf(all),
    runs: () => runs,
    run: async ({ only }: { readonly only?: ReadonlySet<number> }): Promise<RunResult> => {
      runs++;
      return resultOf(only ?? all);
    },
  };
}

test('only the faults without which the same invariant holds are kept', async () => {
  const { failed, run, runs } = world((ids) => (ids.has(3) && ids.has(17) ? 'I1' : null));
  const { result, kept, runs: counted } = await shrink(failed, run);
  assert.deepEqual(
    kept.map((fault) => fault.id),
    [3, 17],
  );
  assert.equal(result.failure?.message, '3,17', 'the run that is shown is the small one');
  assert.equal(counted, runs());
});

test('a run that breaks another invariant is not the one that was looked for', async () => {
  const { failed, run } = world((ids) => (ids.size === 20 ? 'I1' : 'L1'));
  const { result, kept } = await shrink(failed, run);
  assert.deepEqual([kept.length, result.failure?.invariant], [20, 'I1']);
});

test('the work is bounded', async () => {
  const { failed, run } = world(() => 'I1');
  assert.equal((await shrink(failed, run)).kept.length, 0, 'it breaks without any fault');
  const stubborn = world((ids) => (ids.size >= 19 ? 'I1' : null));
  const { kept, runs } = await shrink(stubborn.failed, stubborn.run);
  assert.equal(kept.length, 19);
  assert.ok(runs <= 120, `${runs} runs`);
});
