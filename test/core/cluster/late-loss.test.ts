import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import type { ClusterState, TermRecord } from '../../../src/core/state.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { NOW, type Picture, WALL, id, lsnOf, picture } from './picture.ts';
import { expectDecision } from './rule-case.ts';

const record = (change: Partial<TermRecord>): TermRecord => ({
  term: makeTerm(4),
  timeline: makeTimeline(2),
  primary: id('n1'),
  forkLsn: lsnOf('0/5000'),
  rule: 'primary.lost',
  reason: 'n2 is lost',
  startedWallMs: makeWallMs(WALL - 5000),
  outageMs: 3000,
  lostBytes: null,
  ...change,
});
const OLD = record({ term: makeTerm(3), timeline: makeTimeline(1), primary: id('n2'), forkLsn: null });

/** n1 opened term 4 on timeline 2, which left timeline 1 of n2 at 0/5000. */
const given = (line: string, terms: readonly TermRecord[] = [OLD, record({})], more: Partial<ClusterState> = {}): Picture & { text: string } => ({
  text: `term 4 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000 lease n1/4
  n1 primary @0/6000
  ${line}`,
  state: (state: ClusterState) => ({ ...state, ...more, terms }),
});
const lossOf = (...of: Parameters<typeof given>): number | null | undefined => {
  const { text, ...rest } = given(...of);
  return decideCluster(picture(text, rest), NOW).opened?.lostBytes;
};

test('the loss of a failover is known when the old primary shows the end of its WAL, and the history says it', () => {
  const { text, ...rest } = given('n2 crashed tl1 @0/5800 goal:fenced');
  // Frozen: nothing else is decided on it.
  const decision = expectDecision(picture(text.replace('lease', 'frozen lease'), rest), 'housekeeping.loss-known');
  assert.equal(decision.opened?.lostBytes, 0x800);
  assert.equal(decision.state?.terms.at(-1)?.lostBytes, 0x800);
  assert.match(decision.events.map((event) => event.text).join(), /n2 has 2048 bytes of WAL that term 4 has not/);
});

test('an old primary with nothing of its own says that nothing was lost', () => {
  assert.equal(lossOf('n2 stopped tl1 @0/5000 goal:fenced'), 0);
});

test('it is said once', () => {
  assert.equal(lossOf('n2 crashed tl1 @0/5800 goal:fenced', [OLD, record({ lostBytes: 0x800 })]), undefined);
});

test('no amount is noted where it would not be the whole of the loss, or is not that of the old primary', () => {
  const crashed = 'n2 crashed tl1 @0/5800 goal:fenced';
  const cases: readonly [string, Parameters<typeof given>][] = [
    ['a candidate between the two terms may have been open', [crashed, [{ ...OLD, term: makeTerm(2) }, record({})]]],
    ['a person said that nobody is waited for', [crashed, [OLD, record({ rule: 'failover.by-hand' })]]],
    ['the first term has no old primary', [crashed, [record({})]]],
    ['the same node opened both', [crashed, [{ ...OLD, primary: id('n1') }, record({})]]],
    ['its server runs: its end moves', ['n2 primary tl1 @0/5800 goal:fenced', [OLD, record({})]]],
    ['it was rewound already', ['n2 stopped tl2 fork1@0/5000 @0/5800 goal:rewind', [OLD, record({})]]],
    [
      'it is on another timeline with the old one’s number',
      ['n2 crashed tl2 fork1@0/4000 @0/5800 goal:fenced', [{ ...OLD, timeline: makeTimeline(2) }, record({})]],
    ],
    ['it holds another system', ['n2 crashed tl1 sys9 @0/5800 goal:fenced', [OLD, record({})]]],
    ['it cannot be heard', ['n2 dead tl1 @0/5800 goal:fenced', [OLD, record({})]]],
  ];
  for (const [why, of] of cases) assert.equal(lossOf(...of), undefined, why);
  const { text, ...rest } = given(crashed);
  const view = picture(text, rest);
  const seen = view.reports[id('n2')];
  assert.ok(seen !== undefined);
  const postgres = { ...seen.report.postgres, flushLsn: seen.report.postgres.walEnd, walEnd: null };
  const unread = { ...view, reports: { ...view.reports, [id('n2')]: { ...seen, report: { ...seen.report, postgres } } } };
  assert.equal(decideCluster(unread, NOW).opened, null, 'its end could not be read');
});
