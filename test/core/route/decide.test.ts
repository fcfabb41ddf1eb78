import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { initialState } from '../../../src/core/cluster/goals.ts';
import { type NodeId, makeMonoMs, makeNodeId, makeTerm, makeTimeline, makeWallMs } from '../../../src/core/ids.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { Member, NodeReport } from '../../../src/core/report.ts';
import { type RouteFacts, type RouteLimits, decideRoute, pickReader } from '../../../src/core/route/decide.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import { blankReport } from '../cluster/picture.ts';
import '../../fixed-seed.ts';

const [n1, n2, n3] = ['n1', 'n2', 'n3'].map((name) => makeNodeId(name)) as [NodeId, NodeId, NodeId];
const LIMITS: RouteLimits = { staleMs: 3000, maxReadLagBytes: 1000, primaryReads: 'last-resort' };
const now = makeWallMs(0);

function state(change: Partial<ClusterState> = {}): ClusterState {
  return {
    ...initialState('i', { mono: makeMonoMs(0), wall: now }),
    phase: 'running',
    term: makeTerm(4),
    primary: n1,
    primaryTerm: makeTerm(4),
    route: { epoch: 7, writer: n1, readers: [n2, n3], hold: false },
    ...change,
  };
}

function report(node: NodeId, flush: number | null, replayed: number | null): NodeReport {
  const blank = blankReport(node);
  const lsn = (value: number | null): ReturnType<typeof makeLsn> | null => (value === null ? null : makeLsn(BigInt(value)));
  const postgres = { ...blank.postgres, timeline: null, history: [], flushLsn: lsn(flush), replayedLsn: lsn(replayed) };
  return { ...blank, postgres, highestTerm: makeTerm(4) };
}

function facts(change: Partial<RouteFacts> = {}): RouteFacts {
  const members = new Map([n1, n2, n3].map((node, index) => [node, { node, host: `10.0.0.${index + 1}`, port: 5432 } as Member]));
  const reports = new Map([report(n1, 5000, null), report(n2, null, 5000), report(n3, null, 4500)].map((one) => [one.node, one]));
  return {
    state: state(),
    members,
    reports,
    incarnation: 'i',
    newestTerm: makeTerm(4),
    ageMs: 10,
    confirmed: null,
    weights: new Map(),
    down: new Set(),
    ...change,
  };
}

const writer = (change: Partial<RouteFacts>, limits = LIMITS): string | null => decideRoute(facts(change), limits).writer?.node ?? null;
const readers = (change: Partial<RouteFacts>, limits = LIMITS): readonly string[] =>
  decideRoute(facts(change), limits).readers.map((reader) => reader.node);

describe('the route of a proxy', () => {
  test('leaves out a standby that is on a timeline of its own, as long as the state is the one of this store (I17, seed 9600677)', () => {
    const on = (timeline: number, history: NodeReport['postgres']['history']): ReadonlyMap<NodeId, NodeReport> => {
      const all = facts().reports;
      const one = report(n2, null, 5000);
      return new Map([...all, [n2, { ...one, postgres: { ...one.postgres, timeline: makeTimeline(timeline), history } }]]);
    };
    const fork = (timeline: number, lsn: number): NodeReport['postgres']['history'] => [
      { timeline: makeTimeline(timeline), forkLsn: makeLsn(BigInt(lsn)) },
    ];
    const known = state({ timeline: makeTimeline(2), history: fork(1, 4000) });
    assert.deepEqual(readers({ state: known, reports: on(2, fork(1, 4000)) }), ['n2', 'n3']);
    assert.deepEqual(readers({ state: known, reports: on(3, [...fork(1, 4000), ...fork(2, 4800)]) }), ['n3'], 'promoted by hand');
    assert.deepEqual(readers({ state: known, reports: on(2, fork(1, 3900)) }), ['n3'], 'a twin');
    assert.deepEqual(readers({ state: known, reports: on(1, []) }), ['n3'], 'past the fork');
    assert.deepEqual(
      readers({ state: known, reports: on(3, fork(2, 4800)), incarnation: 'j' }),
      ['n2', 'n3'],
      'a restored state may be the older one',
    );
  });

  test('leads writes to the writer of the newest published route', () => {
    assert.equal(writer({}), 'n1');
    assert.equal(writer({ state: null }), null);
    assert.equal(writer({ state: state({ route: { epoch: 8, writer: null, readers: [n2], hold: false } }) }), null);
    assert.equal(writer({ members: new Map() }), null);
  });

  test('closes the way to the primary when its knowledge is too old, unless the primary itself vouches for its term', () => {
    assert.equal(writer({ ageMs: 3000 }), 'n1');
    assert.equal(writer({ ageMs: 3001 }), null);
    assert.equal(writer({ ageMs: Infinity }), null);
    assert.equal(writer({ ageMs: 60_000, confirmed: { node: n1, term: makeTerm(4), forMs: 1 } }), 'n1');
    assert.equal(writer({ ageMs: 60_000, confirmed: { node: n1, term: makeTerm(4), forMs: 0 } }), null);
    assert.equal(writer({ ageMs: 60_000, confirmed: { node: n1, term: makeTerm(3), forMs: 1000 } }), null);
    assert.equal(writer({ ageMs: 60_000, confirmed: { node: n2, term: makeTerm(4), forMs: 1000 } }), null);
  });

  test('closes when an agent speaks of a newer term than the state', () => {
    const route = decideRoute(facts({ confirmed: { node: n2, term: makeTerm(5), forMs: 1000 } }), LIMITS);
    assert.equal(route.writer, null);
    assert.match(route.closed ?? '', /n2 is the primary of term 5/);
  });

  test('closes when the store was restored from before a term that this proxy or a member knows, until the controller has confirmed the state', () => {
    const newer = new Map([n1, n2, n3].map((node) => [node, { ...report(node, null, null), highestTerm: makeTerm(node === n3 ? 5 : 4) }]));
    assert.match(decideRoute(facts({ incarnation: 'j', reports: newer }), LIMITS).closed ?? '', /restored from before term 5/);
    assert.match(decideRoute(facts({ incarnation: 'j', newestTerm: makeTerm(6) }), LIMITS).closed ?? '', /restored from before term 6/);
    assert.equal(writer({ incarnation: null, reports: newer }), null, 'which store it is was not heard yet');
    assert.equal(writer({ incarnation: 'j' }), 'n1', 'nobody knows of more');
    assert.equal(writer({ reports: newer, newestTerm: makeTerm(6) }), 'n1', 'the state is of this store');
    const open = { ...report(n1, 5000, null), open: true, leaseTerm: makeTerm(4), incarnation: 'j' };
    assert.equal(writer({ incarnation: 'j', reports: new Map([...newer, [n1, open]]) }), 'n1', 'it is open in its term, and says so in this store');
    assert.equal(writer({ incarnation: 'k', reports: new Map([...newer, [n1, open]]) }), null, 'it said so in another store');
    assert.equal(writer({ incarnation: 'j', reports: new Map([...newer, [n1, open]]), newestTerm: makeTerm(5) }), null, 'term 5 was opened');
  });

  test('reads go on while the way to the primary is closed', () => {
    assert.deepEqual(readers({ ageMs: Infinity }), ['n2', 'n3']);
  });

  test('leaves out readers that lag, are drained, or have no address', () => {
    assert.deepEqual(readers({}), ['n2', 'n3']);
    assert.deepEqual(readers({}, { ...LIMITS, maxReadLagBytes: 499 }), ['n2']);
    assert.deepEqual(readers({ weights: new Map([[n2, 0]]) }), ['n3']);
    assert.deepEqual(readers({ down: new Set([n2]) }), ['n3'], 'it does not answer this proxy');
    assert.equal(writer({ down: new Set([n1]) }), 'n1', 'who gets writes is not the proxy’s to judge');
    assert.deepEqual(readers({ reports: new Map() }), ['n2', 'n3'], 'an unknown lag keeps nobody out: the controller has seen it stream');
  });

  test('the primary serves reads only as configured', () => {
    const nobody = {
      weights: new Map([
        [n2, 0],
        [n3, 0],
      ] as const),
    };
    assert.deepEqual(readers(nobody), ['n1']);
    assert.deepEqual(readers(nobody, { ...LIMITS, primaryReads: 'never' }), []);
    assert.deepEqual(readers({}, { ...LIMITS, primaryReads: 'always' }), ['n1', 'n2', 'n3']);
    assert.deepEqual(readers({ ...nobody, ageMs: Infinity }), [], 'a primary that is not known to be one serves nothing');
  });

  test('names the next primary while a switchover is coming or under way', () => {
    const switchover: ClusterState['switchover'] = {
      taskId: 't',
      from: n1,
      to: n2,
      phase: 'hold',
      startedWallMs: now,
      phaseWallMs: now,
      deadlineWallMs: now,
      holdRoute: 8,
      reason: '',
    };
    const held = state({ switchover, route: { epoch: 8, writer: n1, readers: [n2, n3], hold: true } });
    assert.equal(decideRoute(facts({ state: held }), LIMITS).next?.node, 'n2');
    assert.deepEqual(readers({ state: held }), ['n3'], 'the next primary is left alone');
    const two = { ...held, route: { ...held.route, readers: [n2] } };
    assert.deepEqual(readers({ state: two }), [], 'the old one is about to stop');
    assert.equal(decideRoute(facts({ state: state({ switchover }) }), LIMITS).next, null);
    const coming = state({ switchover: { ...switchover, phase: 'checkpoint' } });
    const before = decideRoute(facts({ state: coming }), LIMITS);
    assert.deepEqual([before.next?.node, before.hold, before.writer?.node], ['n2', false, 'n1']);
    assert.deepEqual(readers({ state: coming }), ['n3'], 'its readers leave it while nobody waits');
    const onlyNext = { ...coming, route: { ...coming.route, readers: [n2] } };
    assert.deepEqual(readers({ state: onlyNext }), ['n2'], 'until the hold, where there is no other');
  });

  test('follows a candidate that has opened the attempt’s term, before the controller says so', () => {
    const attempt = { term: makeTerm(5), candidate: n2, path: 'planned', mayHaveOpened: [] } as unknown as ClusterState['attempt'];
    const route = { epoch: 8, writer: n1, readers: [n2, n3], hold: true };
    const opened = (change: object, postgres: object = {}): ReadonlyMap<NodeId, NodeReport> => {
      const base = report(n2, 6000, null);
      const more = { open: true, leaseTerm: makeTerm(5), ...change, postgres: { ...base.postgres, role: 'primary', state: 'running', ...postgres } };
      return new Map([[n2, { ...base, ...more } as NodeReport]]);
    };
    const held = state({ attempt, route });
    const ahead = decideRoute(facts({ state: held, reports: opened({}) }), LIMITS);
    assert.deepEqual([ahead.writer?.node, ahead.term, ahead.hold, ahead.epoch], ['n2', 5, false, 8]);
    assert.deepEqual(
      ahead.readers.map((reader) => reader.node),
      ['n3'],
    );
    const lost = state({ attempt: { ...attempt, path: 'lease' } as ClusterState['attempt'], route: { ...route, writer: null, hold: false } });
    assert.equal(writer({ state: lost, reports: opened({}) }), 'n2');
    assert.equal(writer({ state: lost, reports: opened({}), ageMs: 3001 }), null, 'old knowledge closes in any case');
    assert.equal(writer({ state: lost, reports: opened({ open: false }) }), null, 'not open yet');
    assert.equal(writer({ state: lost, reports: opened({ leaseTerm: makeTerm(4) }) }), null, 'a report of a former term');
    assert.equal(writer({ state: lost, reports: opened({ leaseTerm: null }) }), null, 'the lease is gone');
    assert.equal(writer({ state: lost, reports: opened({}, { role: 'standby' }) }), null);
    const other = state({ attempt: { ...attempt, candidate: n3 } as ClusterState['attempt'], route: { ...route, writer: null, hold: false } });
    assert.deepEqual(readers({ state: lost, reports: new Map() }), ['n3'], 'its readers leave a candidate, which is about to reset them');
    const alone = state({ attempt: lost.attempt, route: { ...lost.route, readers: [n2] } });
    assert.deepEqual(readers({ state: alone, reports: new Map() }), ['n2'], 'until it is open, where there is no other');
    assert.equal(writer({ state: other, reports: opened({}) }), null, 'another candidate was chosen');
  });

  test('after a loss, a standby reads under whoever has opened the next term only when its vote proves that its WAL is the new primary’s', () => {
    const attempt = { term: makeTerm(5), candidate: n2, path: 'lease', mayHaveOpened: [] } as unknown as ClusterState['attempt'];
    const lost = state({ attempt, route: { epoch: 8, writer: null, readers: [n3], hold: false } });
    const history = [{ timeline: makeTimeline(1), forkLsn: makeLsn(6000n) }];
    const primary = { role: 'primary', state: 'running', timeline: makeTimeline(3), history };
    const opener = { ...report(n2, 6100, null), open: true, leaseTerm: makeTerm(5) };
    const seen = (vote: object, of: readonly object[] = []): readonly string[] => {
      const standby = report(n3, null, 6000);
      const voted = { term: makeTerm(5), final: true, position: { timeline: makeTimeline(1), lsn: makeLsn(6000n) }, ...vote };
      const reports = [
        { ...opener, postgres: { ...opener.postgres, ...primary } },
        { ...standby, vote: voted, postgres: { ...standby.postgres, history: of } },
      ];
      return readers({ state: lost, reports: new Map((reports as unknown as NodeReport[]).map((one) => [one.node, one])) });
    };
    assert.deepEqual(seen({}), ['n3'], 'not past the fork');
    assert.deepEqual(seen({ position: { timeline: makeTimeline(1), lsn: makeLsn(6001n) } }), ['n2'], 'it holds what the new primary never had');
    assert.deepEqual(seen({ position: { timeline: makeTimeline(2), lsn: makeLsn(6000n) } }, history), ['n2'], 'it is on a timeline beside it');
    assert.deepEqual(seen({ term: makeTerm(4) }), ['n2'], 'it may have streamed on since');
    assert.deepEqual(seen({ final: false }), ['n2']);
    assert.deepEqual(seen({ position: null }), ['n2']);
    const back = { ...opener, node: n1, postgres: { ...opener.postgres, ...primary } } as NodeReport;
    const again = (mayHaveOpened: readonly object[]): readonly string[] => {
      const mine = { ...attempt, candidate: n1, mayHaveOpened } as ClusterState['attempt'];
      return readers({ state: { ...lost, attempt: mine }, reports: new Map([[n1, back]]) });
    };
    assert.deepEqual(again([]), ['n3'], 'the old primary itself has all that its standbys have');
    assert.deepEqual(again([{ node: n2, term: makeTerm(4) }]), ['n1'], 'but for what another one may have opened between');
  });

  test('weights decide how often a reader is picked', () => {
    const { readers: all } = decideRoute(facts({ weights: new Map([[n2, 3]]) }), LIMITS);
    const picked = Array.from({ length: 100 }, (_, roll) => pickReader(all, roll / 100)?.node);
    assert.equal(picked.filter((node) => node === 'n2').length, 75);
    assert.equal(pickReader([], 0.5), null);
  });

  test('whatever is known: writes go to nobody but the published writer or whoever opened the next term, and to nobody on old knowledge', () => {
    const node = fc.constantFrom(n1, n2, n3);
    const known = fc.record({
      term: fc.integer({ min: 1, max: 4 }),
      named: fc.option(node),
      candidate: fc.option(node),
      attemptTerm: fc.integer({ min: 1, max: 6 }),
      attempt: fc.boolean(),
      hold: fc.boolean(),
      phase: fc.option(fc.constantFrom('checkpoint' as const, 'hold' as const, 'stop' as const, 'promote' as const)),
      ageMs: fc.constantFrom(0, 2999, 3001, Infinity),
      confirmed: fc.option(fc.record({ node, term: fc.integer({ min: 1, max: 6 }), forMs: fc.constantFrom(0, 500) })),
      open: fc.array(
        fc.record({ node, term: fc.option(fc.integer({ min: 1, max: 6 })), open: fc.boolean(), primary: fc.boolean(), runs: fc.boolean() }),
      ),
      readers: fc.uniqueArray(node),
      down: fc.uniqueArray(node),
    });
    fc.assert(
      fc.property(known, (one) => {
        const switchover = one.phase === null ? null : ({ from: n1, to: n2, phase: one.phase } as ClusterState['switchover']);
        const attempt = one.attempt
          ? ({ term: makeTerm(one.attemptTerm), candidate: one.candidate, path: 'planned', mayHaveOpened: [] } as unknown as ClusterState['attempt'])
          : null;
        const published = { epoch: 1, writer: one.named, readers: one.readers, hold: one.hold };
        const reports = new Map(
          one.open.map(({ node: of, term, open, primary, runs }) => {
            const base = report(of, 5000, 5000);
            const postgres = { ...base.postgres, role: primary ? 'primary' : 'standby', state: runs ? 'running' : 'crashed' };
            return [of, { ...base, open, leaseTerm: term === null ? null : makeTerm(term), postgres } as NodeReport] as const;
          }),
        );
        const confirmed = one.confirmed === null ? null : { ...one.confirmed, term: makeTerm(one.confirmed.term) };
        const given = state({ primaryTerm: makeTerm(one.term), switchover, attempt, route: published });
        const route = decideRoute(facts({ state: given, reports, confirmed, ageMs: one.ageMs, down: new Set(one.down) }), LIMITS);
        const ahead = route.term > one.term;
        if (ahead) {
          const said = reports.get(one.candidate ?? n1);
          assert.ok(one.attempt && route.term === one.attemptTerm && said?.open === true && said.leaseTerm === route.term);
          assert.ok(said.postgres.role === 'primary' && said.postgres.state === 'running' && !route.hold);
        } else assert.equal(route.hold, one.hold);
        if (route.writer === null) assert.ok(route.closed !== null);
        else {
          assert.equal(route.writer.node, ahead ? one.candidate : one.named);
          assert.ok(confirmed === null || confirmed.term <= route.term);
          assert.ok(one.ageMs <= LIMITS.staleMs || (confirmed?.node === route.writer.node && confirmed.term === route.term && confirmed.forMs > 0));
        }
        for (const reader of route.readers) {
          assert.ok(one.readers.includes(reader.node) || reader.node === route.writer?.node);
          assert.ok(!one.down.includes(reader.node) || reader.node === route.writer?.node);
          if (route.hold && route.next !== null) assert.notEqual(reader.node, route.next.node);
        }
      }),
      { numRuns: 5000, seed: 20_261_121 },
    );
  });
});
