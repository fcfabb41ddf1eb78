/** The order of the steps of a synchronous set: from every interrupted prefix the published facts are true. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Facts, SyncSet } from '../../../src/core/state.ts';
import {
  NO_FACTS,
  NO_SET,
  type SyncProgress,
  countQuorum,
  implies,
  mixtureOf,
  isSound,
  nextSyncMove,
  nodeOfVoter,
  renderSyncNames,
  sameSet,
  stepTowards,
  voterName,
} from '../../../src/core/cluster/sync-set.ts';
import { id } from './picture.ts';
import '../../fixed-seed.ts';

const any = (k: number, ...members: string[]): SyncSet => ({ method: 'any', k, members });

test('names are quoted, with a method, and empty when nobody is waited for (Z54)', () => {
  assert.equal(renderSyncNames(any(1, 'n-2.0a', 'n3.0b')), 'ANY 1 ("n-2.0a", "n3.0b")');
  assert.equal(renderSyncNames({ method: 'first', k: 2, members: ['n2.0a', 'n3.0b'] }), 'FIRST 2 ("n2.0a", "n3.0b")');
  assert.equal(renderSyncNames(NO_SET), '');
});

test('a strict set without members waits for a name that nobody can have (Z61)', () => {
  assert.equal(renderSyncNames(any(1)), 'ANY 1 ("pgherd_nobody")');
  assert.equal(nodeOfVoter('pgherd_nobody'), null);
});

test('a voter is a node with its data directory (Z58)', () => {
  assert.equal(voterName(id('n2'), '0a1b2c3d'), 'n2.0a1b2c3d');
  assert.equal(nodeOfVoter('n2.0a1b2c3d'), 'n2');
  for (const text of ['n2', 'n2.', '', 'walreceiver', '.x']) assert.equal(nodeOfVoter(text), null, text);
});

test('any k voters and any |voters| − k + 1 share one: counted for up to five voters', () => {
  for (let size = 1; size <= 5; size++) {
    const voters = ['a', 'b', 'c', 'd', 'e'].slice(0, size);
    for (let k = 1; k <= size; k++) {
      for (const detached of subsets(voters)) {
        if (!countQuorum({ k, voters }, detached).enough) continue;
        for (const holders of subsets(voters).filter((one) => one.length === k)) {
          assert.ok(
            holders.some((one) => detached.includes(one)),
            `${k} of ${voters.join('')}: ${detached.join('')} misses ${holders.join('')}`,
          );
        }
        const left = voters.length - detached.length;
        assert.ok(left < k, 'fewer than k are left to acknowledge to the old primary');
      }
    }
  }
});

test('without facts no number of voters is enough', () => {
  assert.equal(countQuorum(NO_FACTS, []).enough, false);
  assert.equal(countQuorum(NO_FACTS, ['n2.0a']).enough, false);
});

test('a rebuilt directory does not count as the voter that it replaced (Z58, Q14)', () => {
  const count = countQuorum({ k: 1, voters: ['n2.old', 'n3.0b'] }, ['n2.new', 'n3.0b']);
  assert.deepEqual([count.enough, count.missing], [false, ['n2.old']]);
});

test('every set is reached from every other one, a step at a time', () => {
  const all = allSets(['a', 'b', 'c'], 2);
  for (const from of all) {
    for (const to of all) {
      let now = from;
      let steps = 0;
      while (!sameSet(now, to)) {
        const next = stepTowards(now, to);
        assert.notEqual(next, now);
        now = next;
        assert.ok(++steps <= 8, `${renderSyncNames(from)} to ${renderSyncNames(to)}`);
      }
      assert.equal(stepTowards(now, to), now);
    }
  }
});

function subsets(of: readonly string[]): readonly (readonly string[])[] {
  const all: (readonly string[])[] = [[]];
  for (const one of of) all.push(...all.map((set) => [...set, one]));
  return all;
}

/** Every set that a rule can ask for: off, and 1 to `most` of each group that is large enough; strict ones without members too. */
function allSets(members: readonly string[], most: number): readonly SyncSet[] {
  const sets: SyncSet[] = [NO_SET, any(1)];
  for (const group of subsets(members)) for (let k = 1; k <= Math.min(most, group.length); k++) sets.push(any(k, ...group));
  return sets;
}

/** A cluster as far as the facts depend on it. */
interface Model {
  readonly progress: SyncProgress;
  /** What processes of the primary act on in truth. */
  readonly acting: readonly SyncSet[];
  /** The last order that the agent has read. */
  readonly known: SyncSet;
  /** The agent's last word is of the wanted set, and no order was read since. */
  readonly said: boolean;
  /** Holders of acknowledged commits: those of before the moment in which the set was last in force, and later ones. Only the smallest groups are kept. */
  readonly before: readonly (readonly string[])[];
  readonly after: readonly (readonly string[])[];
}

const holds = (facts: Facts, holders: readonly string[]): boolean => facts.voters.filter((one) => holders.includes(one)).length >= facts.k;

function check(model: Model, how: string): void {
  const { progress } = model;
  const shown = (): string => `${how}: ${JSON.stringify(model)}`;
  assert.ok(isSound(progress), shown());
  for (const set of model.acting)
    assert.ok(
      progress.mayStand.some((one) => sameSet(one, set)),
      `a set is in force that the state does not know; ${shown()}`,
    );
  for (const holders of [...model.before, ...model.after])
    assert.ok(holds(progress.facts, holders), `an acknowledged commit is not covered; ${shown()}`);
}

/** Groups without those that contain another one: a larger group is never the worse case, neither for the facts nor for who has caught up. */
function smallest(groups: readonly (readonly string[])[]): readonly (readonly string[])[] {
  const sorted = [...new Map(groups.map((one) => [[...one].sort().join(''), [...one].sort()] as const)).values()];
  return sorted
    .filter((one) => !sorted.some((other) => other !== one && other.every((member) => one.includes(member))))
    .sort((a, b) => a.join().localeCompare(b.join()));
}

interface Step {
  readonly how: string;
  readonly model: Model;
}

/** Everything that can happen next. `desires`: what the rules may want, each at any time. */
function successors(model: Model, members: readonly string[], desires: readonly SyncSet[]): readonly Step[] {
  const steps: Step[] = [];
  const { progress } = model;
  const inForce = model.said ? { caughtUp: members.filter((one) => model.before.every((holders) => holders.includes(one))) } : null;
  for (const desired of desires) {
    const move = nextSyncMove(progress, desired, inForce);
    if (move.kind === 'none') continue;
    // An order makes the agent's word one of an older order.
    steps.push({
      how: `${move.kind} towards ${renderSyncNames(desired)}`,
      model: { ...model, progress: move.progress, said: model.said && move.kind !== 'ask' },
    });
  }
  if (!sameSet(model.known, progress.wanted)) steps.push({ how: 'the agent reads the order', model: { ...model, known: progress.wanted } });
  if (!model.acting.some((set) => sameSet(set, model.known)))
    steps.push({ how: 'some process loads the set', model: { ...model, acting: [...model.acting, model.known] } });
  if (sameSet(model.known, progress.wanted) && model.acting.some((set) => sameSet(set, model.known)))
    steps.push({
      how: 'every process acts on the set, and the agent says so',
      model: { ...model, acting: [model.known], said: true, before: smallest([...model.before, ...model.after]), after: [] },
    });
  // Each process acts on its own copy, so any mixture of two sets can be what a commit waited for.
  const mixtures = model.acting.flatMap((one, index) => model.acting.slice(index).map((other) => mixtureOf([one, other])));
  for (const set of new Map(mixtures.map((one) => [JSON.stringify(one), one])).values()) {
    if (set.members.length < set.k) continue;
    for (const holders of subsets(set.members).filter((one) => one.length === set.k))
      steps.push({ how: `a commit is acknowledged by ${holders.join('')}`, model: { ...model, after: smallest([...model.after, holders]) } });
  }
  for (const one of members) {
    const hold = (groups: Model['before']): Model['before'] => smallest(groups.map((holders) => [...new Set([...holders, one])]));
    steps.push({ how: `${one} catches up`, model: { ...model, before: hold(model.before), after: hold(model.after) } });
  }
  return steps;
}

const START: Model = {
  progress: { facts: NO_FACTS, wanted: NO_SET, mayStand: [NO_SET] },
  acting: [NO_SET],
  known: NO_SET,
  said: true,
  before: [],
  after: [],
};

const textOf = (set: SyncSet): string => (set.k === 0 ? '-' : `${set.k}${[...set.members].sort().join('')}`);
const keyOf = (model: Model): string =>
  [
    `${model.progress.facts.k}${[...model.progress.facts.voters].sort().join('')}`,
    textOf(model.progress.wanted),
    [...new Set(model.progress.mayStand.map(textOf))].sort().join(','),
    model.acting.map(textOf).sort().join(','),
    textOf(model.known),
    model.said,
    JSON.stringify([model.before, model.after]),
  ].join('|');

test('two standbys: whatever is wanted, loaded, acknowledged or lost in between, the facts are true (I4, I7; all states)', () => {
  const members = ['a', 'b'];
  const desires = allSets(members, 2).filter((set) => set.members.length >= set.k);
  const seen = new Set<string>([keyOf(START)]);
  let front: readonly Model[] = [START];
  let established = 0;
  while (front.length > 0) {
    const next: Model[] = [];
    for (const model of front) {
      for (const step of successors(model, members, desires)) {
        const key = keyOf(step.model);
        if (seen.has(key)) continue;
        seen.add(key);
        check(step.model, step.how);
        if (step.model.progress.facts.k > 0) established++;
        next.push(step.model);
      }
    }
    front = next;
    assert.ok(seen.size < 2_000_000, 'the model has more states than it should');
  }
  assert.ok(established > 100, `${seen.size} states, ${established} with facts`);
});

test('three standbys: long random stories, the same invariant', () => {
  const members = ['a', 'b', 'c'];
  const desires = allSets(members, 3);
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 20, maxLength: 150 }), (choices) => {
      let model = START;
      for (const choice of choices) {
        const steps = successors(model, members, desires);
        const step = steps[choice % steps.length];
        assert.ok(step !== undefined);
        model = step.model;
        check(model, step.how);
      }
    }),
    { numRuns: 600 },
  );
});

test('left alone, each wish is reached and its facts are published', () => {
  const members = ['a', 'b', 'c'];
  const wishes = allSets(members, 3).filter((set) => set.members.length >= set.k);
  for (const first of wishes) {
    for (const desired of wishes) {
      let progress: SyncProgress = {
        facts: first.k === 0 ? NO_FACTS : { k: first.k, voters: first.members },
        wanted: first,
        mayStand: [first],
      };
      for (let round = 0; ; round++) {
        const move = nextSyncMove(progress, desired, { caughtUp: members });
        if (move.kind === 'none') break;
        progress = move.progress;
        assert.ok(round < 20);
      }
      assert.ok(sameSet(progress.wanted, desired));
      assert.deepEqual([progress.facts.k, [...progress.facts.voters].sort()], [desired.k, desired.k === 0 ? [] : [...desired.members].sort()]);
    }
  }
});

test('a smaller set that nobody waits for is asked for although the last one was never in force (Q8)', () => {
  const stuck: SyncProgress = { facts: { k: 1, voters: ['a', 'b'] }, wanted: any(1, 'a'), mayStand: [any(1, 'a', 'b'), any(1, 'a')] };
  const move = nextSyncMove(stuck, NO_SET, null);
  assert.ok(move.kind === 'ask');
  assert.deepEqual([move.progress.facts, move.progress.wanted], [NO_FACTS, NO_SET]);
});

test('facts are not made stronger before enough members hold the WAL of that moment (Z55)', () => {
  const raising: SyncProgress = { facts: NO_FACTS, wanted: any(1, 'a', 'b'), mayStand: [any(1, 'a', 'b')] };
  assert.equal(nextSyncMove(raising, raising.wanted, null).kind, 'none');
  assert.equal(nextSyncMove(raising, raising.wanted, { caughtUp: [] }).kind, 'none');
  assert.equal(nextSyncMove(raising, raising.wanted, { caughtUp: ['c'] }).kind, 'none');
  assert.equal(nextSyncMove(raising, raising.wanted, { caughtUp: ['b'] }).kind, 'strengthen');
});

test('implies counts the copies that lie outside', () => {
  assert.ok(implies(any(2, 'a', 'b', 'c'), { k: 1, voters: ['a', 'b'] }));
  assert.ok(!implies(any(1, 'a', 'b'), { k: 1, voters: ['a'] }));
  assert.ok(implies(any(1, 'a'), { k: 1, voters: ['a', 'b'] }));
  assert.ok(implies(NO_SET, NO_FACTS));
});
