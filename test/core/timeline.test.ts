import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { makeNodeId, makeTerm, makeTimeline } from '../../src/core/ids.ts';
import { blankReport } from './cluster/picture.ts';
import { formatLsn, makeLsn, parseLsn } from '../../src/core/lsn.ts';
import { type Lineage, type Relation, relate } from '../../src/core/timeline.ts';
import { compareLineage, compareVote } from '../../src/core/cluster/lineage.ts';
import '../fixed-seed.ts';

/** `1@0/100 2@0/200 3`: timeline 3, with its ancestors and their ends. */
function way(text: string): Lineage {
  const words = text.split(' ');
  const history = words.slice(0, -1).map((word) => {
    const [timeline, lsn] = word.split('@');
    const forkLsn = parseLsn(lsn ?? '');
    assert.ok(forkLsn !== null, text);
    return { timeline: makeTimeline(Number(timeline)), forkLsn };
  });
  return { timeline: makeTimeline(Number(words.at(-1))), history };
}

const say = (relation: Relation): string => ('forkLsn' in relation ? `${relation.kind} ${formatLsn(relation.forkLsn)}` : relation.kind);

const CASES: readonly (readonly [own: string, other: string, says: string])[] = [
  ['1', '1', 'same'],
  ['1@0/100 2', '1@0/100 2', 'same'],
  ['1', '1@0/100 2', 'ancestor 0/100'],
  ['1@0/100 2', '1@0/100 2@0/200 3@0/300 4', 'ancestor 0/200'],
  ['1@0/100 2', '1', 'descendant 0/100'],
  ['1@0/100 2@0/200 5', '1@0/100 2', 'descendant 0/200'],
  // Two that have one number (Z53): they left their parent elsewhere, or came another way.
  ['1@0/100 2', '1@0/90 2', 'parted 0/90'],
  ['1@0/100 2@0/200 3', '1@0/100 3', 'parted 0/100'],
  ['1@0/100 2@0/200 4', '1@0/100 3@0/150 4', 'parted 0/100'],
  // A twin is among the ancestors.
  ['1@0/90 2', '1@0/100 2@0/200 3', 'parted 0/90'],
  ['1@0/90 2@0/200 3', '1@0/100 2@0/200 4', 'parted 0/90'],
  ['1@0/100 3', '1@0/100 2@0/200 4', 'parted 0/100'],
  // What is not known is not held against anybody.
  ['3', '1@0/100 2@0/200 3', 'same'],
  ['3', '1@0/100 2@0/200 3@0/300 4', 'ancestor 0/300'],
  ['2@0/200 3', '1@0/100 2@0/200 3', 'same'],
  ['2@0/210 3', '1@0/100 2@0/200 3', 'parted 0/200'],
  ['3', '1@0/100 2', 'unknown'],
  ['1@0/100 2', '3', 'unknown'],
  // A list that goes on behind the timeline it is given for: only its ancestors are looked at.
  ['1@0/100 2@0/200 2', '1@0/100 2', 'same'],
];

describe('two lineages', () => {
  for (const [own, other, says] of CASES) test(`${own} against ${other}: ${says}`, () => assert.equal(say(relate(way(own), way(other))), says));

  test('say the same of each other', () => {
    const mirrored = { same: 'same', ancestor: 'descendant', descendant: 'ancestor', parted: 'parted', unknown: 'unknown' } as const;
    const anyWay = fc
      .uniqueArray(fc.integer({ min: 2, max: 6 }), { maxLength: 4 })
      .chain((numbers) =>
        fc.tuple(fc.constant([1, ...numbers.sort((a, b) => a - b)]), fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 5, maxLength: 5 })),
      )
      .map(([numbers, steps]): Lineage => {
        let lsn = 0;
        const forks = numbers.map((number, index) => {
          lsn += steps[index] ?? 1;
          return { timeline: makeTimeline(number), forkLsn: makeLsn(BigInt(lsn)) };
        });
        return { timeline: forks.at(-1)?.timeline ?? makeTimeline(1), history: forks.slice(0, -1) };
      });
    fc.assert(
      fc.property(anyWay, anyWay, (one, two) => {
        const there = relate(one, two);
        const back = relate(two, one);
        assert.equal(back.kind, mirrored[there.kind]);
        assert.equal('forkLsn' in there && there.forkLsn, 'forkLsn' in back && back.forkLsn);
        assert.notEqual(there.kind, 'unknown', 'both begin on timeline 1');
      }),
    );
  });
});

test('a vote is held against the history of its own timeline, which the look of the same report may not have reached', () => {
  const cluster = way('1@0/100 2@0/200 3');
  const judged = (own: string, vote: string): string => {
    const [timeline, at] = vote.split('@');
    const lsn = parseLsn(at ?? '');
    assert.ok(lsn !== null);
    const position = { timeline: makeTimeline(Number(timeline)), lsn };
    const report = blankReport(makeNodeId('n2'));
    const { timeline: seen, history } = way(own);
    return compareVote({ vote: { term: makeTerm(4), position, final: true }, postgres: { ...report.postgres, timeline: seen, history } }, cluster)
      .kind;
  };
  assert.equal(judged('1', '3@0/250'), 'same', 'replay went over to timeline 3 between look and vote');
  assert.equal(judged('1@0/100 2', '3@0/250'), 'same');
  assert.equal(judged('1@0/100 2@0/200 3', '3@0/250'), 'same');
  assert.equal(judged('1@0/100 3', '3@0/250'), 'diverged', 'of a timeline whose history is known');
  assert.equal(judged('1@0/100 2@0/200 3', '2@0/150'), 'ancestor', 'an older vote');
  assert.equal(compareVote(blankReport(makeNodeId('n2')), cluster).kind, 'unknown', 'no vote');
});

test('a position: up to the fork it is contained, behind it diverged, and of another history it is foreign (Z43, Z44)', () => {
  const cluster = way('1@0/100 2@0/200 3');
  const judged = (own: string, at: string): string => {
    const { timeline, history } = way(own);
    const lsn = parseLsn(at);
    assert.ok(lsn !== null);
    return compareLineage({ timeline, lsn }, history, cluster).kind;
  };
  assert.equal(judged('1', '0/100'), 'ancestor');
  assert.equal(judged('1', '0/101'), 'diverged');
  assert.equal(judged('1@0/100 2@0/200 3', '0/900'), 'same');
  assert.equal(judged('1@0/90 2', '0/91'), 'diverged');
  assert.equal(judged('1@0/100 3', '0/101'), 'diverged', 'the number of the cluster’s, and another way to it');
  assert.equal(judged('1@0/100 2@0/200 3@0/300 5', '0/301'), 'foreign');
  assert.equal(judged('1@0/100 5', '0/101'), 'foreign');
  assert.equal(judged('5', '0/10'), 'unknown');
});
