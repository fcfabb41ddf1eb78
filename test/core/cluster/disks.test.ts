import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeReport, WriteHealth } from '../../../src/core/report.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { id, picture } from './picture.ts';
import { expectDecision, expectRule, withReport } from './rule-case.ts';

const OPEN = `term 3 primary n1 lease n1/3
  n1 primary lease3 open @0/5000
  n2 standby @0/5000 sees:n1=down
  n3 standby @0/5000 sees:n1=down`;

const writes = (state: WriteHealth['state'], forMs: number): WriteHealth => ({ state, forMs, detail: 'it waits for IO/WALSync' });
const problem = (code: string): NodeReport['problems'] => [{ code, text: 'the disk of the data directory is full: 0 MiB are free', remedy: 'r' }];
const stuck = (text: string, forMs = 5000): ClusterView => withReport(picture(text), 'n1', { writes: writes('stuck', forMs) });

test('an open primary whose disk answers no write is replaced, although it answers reads (I6, H50)', () => {
  const decision = expectDecision(stuck(OPEN), 'disk.failover');
  assert.match(decision.why, /n1 answers, but its disk answers no write since 5.0 s \(it waits for IO\/WALSync\), seen by n2, n3 too/);
  assert.equal(decision.state?.goals[id('n1')]?.kind, 'fenced');
  expectRule(withReport(picture(OPEN), 'n1', { writes: writes('refused', 9000) }), 'disk.failover');
});

test('a disk that is slow for less than writeStallMs changes nothing', () => {
  expectRule(stuck(OPEN, 4999), 'cluster.steady');
  expectRule(withReport(picture(OPEN), 'n1', { writes: writes('ok', 0) }), 'cluster.steady');
  const patient = withReport(picture(OPEN, { spec: { writeStallMs: 20_000 } }), 'n1', { writes: writes('stuck', 19_000) });
  expectRule(patient, 'cluster.steady');
});

test('one viewpoint alone does not replace it: neither its own agent, nor the others, nor against one that sees it write (H12, H13)', () => {
  expectRule(picture(OPEN), 'cluster.steady');
  expectRule(stuck(OPEN.replaceAll('n1=down', 'n1=unknown')), 'failover.blocked-viewpoints');
  expectRule(stuck(OPEN.replace('n3 standby @0/5000 sees:n1=down', 'n3 standby @0/5000 sees:n1=primary')), 'failover.blocked-viewpoints');
});

test('the policies hold here too: frozen, manual, anti-flapping', () => {
  expectRule(stuck(OPEN.replace('term 3', 'frozen term 3')), 'failover.blocked-frozen');
  expectRule(withReport(picture(OPEN, { spec: { failover: 'manual' } }), 'n1', { writes: writes('stuck', 9000) }), 'failover.blocked-manual');
  expectRule(stuck(OPEN.replace('term 3', 'flapped term 3')), 'failover.blocked-flapping');
});

test('a successor whose own disk is in trouble is no help; one of equal standing that is well comes first', () => {
  const known = (view: ClusterView, codes: Readonly<Record<string, string>>): ClusterView => ({
    ...view,
    state: { ...view.state, diskProblems: codes },
  });
  const one = known(withReport(stuck(OPEN), 'n2', { problems: problem('disk.full') }), { n2: 'disk.full' });
  expectRule(one, 'disk.failover');
  const both = known(withReport(one, 'n3', { problems: problem('disk.full') }), { n2: 'disk.full', n3: 'disk.full' });
  assert.match(expectDecision(both, 'failover.blocked-no-candidate').why, /the disk of n[23] is no better/);
});

test('a crash names the trouble of the disk as its cause', () => {
  const text = OPEN.replace('primary lease3 open', 'crashed lease3');
  const view = withReport(picture(text), 'n1', { problems: problem('disk.full') });
  assert.match(
    expectDecision({ ...view, state: { ...view.state, diskProblems: { n1: 'disk.full' } } }, 'crash.failover').why,
    /crashed \(disk\.full: /,
  );
});

test('a trouble of a disk begins and ends as an event, once', () => {
  const full = withReport(picture(OPEN.replaceAll(' sees:n1=down', '')), 'n2', { problems: problem('disk.full') });
  const begins = expectDecision(full, 'housekeeping.disk');
  assert.deepEqual(
    begins.events.map(({ level, node, text }) => [level, node, text]),
    [['error', 'n2', 'n2: the disk of the data directory is full: 0 MiB are free (disk.full)']],
  );
  assert.deepEqual(begins.state?.diskProblems, { n2: 'disk.full' });
  const told = { ...full, state: { ...full.state, diskProblems: { n2: 'disk.full' } } };
  expectRule(told, 'cluster.steady');
  expectRule(withReport(told, 'n2', { problems: [], diskKnown: false }), 'cluster.steady');
  const over = expectDecision(withReport(told, 'n2', { problems: [] }), 'housekeeping.disk');
  assert.match(over.events[0]?.text ?? '', /n2: its disk takes writes again \(was disk\.full\)/);
});
