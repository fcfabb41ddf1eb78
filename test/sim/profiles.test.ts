import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { addHunts } from '../../sim/hunt-faults.ts';
import { addOperations } from '../../sim/operation-faults.ts';
import { type Plan, drawPlan, faultsOf } from '../../sim/plan.ts';
import { buildShape, parseChoice, profiles } from '../../sim/profiles.ts';
import { createRandom } from '../../sim/random.ts';

function planOf(name: string, seed: bigint): { readonly base: Plan; readonly full: Plan } {
  const chosen = parseChoice(name);
  assert.ok(chosen !== null);
  const drawn = createRandom(seed);
  const shape = buildShape(chosen, drawn.stream('shape'));
  const base = drawPlan(drawn.stream('plan'), shape);
  const hunted = chosen.extras.has('hunt') ? addHunts(drawn.stream('hunt'), base, shape, chosen.story) : base;
  return { base, full: chosen.extras.has('operations') ? addOperations(drawn.stream('operations'), hunted, shape) : hunted };
}

describe('a profile of the simulator', () => {
  test('is named with its extras and asked for again by that name', () => {
    for (const name of ['three', 'quorum+restore', 'two-witness+proxy+hunt', 'quorum+hunt.deaf', 'cascading+reads+operations'])
      assert.equal(parseChoice(name)?.name, name);
  });

  test('is none with an extra or a story that there is not', () => {
    for (const name of ['four', 'three+what', 'three+hunt.what', 'three+hunt+hunt.deaf']) assert.equal(parseChoice(name), null, name);
  });

  test('has an entry of the plan for each id, within its episode', () => {
    for (const profile of profiles)
      for (let seed = 1n; seed <= 20n; seed++) {
        const { base, full } = planOf(`${profile.name}+hunt+operations`, seed);
        assert.deepEqual(
          faultsOf(full)
            .map((fault) => fault.id)
            .toSorted((a, b) => a - b),
          faultsOf(full).map((_, index) => index),
        );
        for (const episode of full.episodes)
          for (const fault of episode.faults)
            assert.ok(fault.at >= 0 && fault.at + fault.forMs <= episode.lengthMs, `seed ${seed} of ${profile.name}: entry ${fault.id}`);
        // What an extra adds comes after what is there without it, and moves nothing of it.
        const ids = new Set(faultsOf(base).map((fault) => fault.id));
        assert.deepEqual(
          faultsOf(full).filter((fault) => ids.has(fault.id)),
          faultsOf(base),
        );
      }
  });
});
