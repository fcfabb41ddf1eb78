import assert from 'node:assert/strict';
import { test } from 'node:test';
import { showCluster, showLag, showLsn } from '../../../src/core/cluster/describe.ts';
import { explainCluster } from '../../../src/core/cluster/explain.ts';
import { formatIso } from '../../../src/core/cluster/text.ts';
import { NOW, id, picture } from './picture.ts';

const STEADY = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/4000`;

test('explain says who would be promoted, and what might be lost', () => {
  const answer = explainCluster(picture(STEADY), NOW);
  assert.deepEqual([answer.rule, answer.ifPrimaryDies.promoted, answer.ifPrimaryDies.mayLoseBytes], ['cluster.steady', 'n2', 0]);
  assert.ok((answer.ifPrimaryDies.estimatedOutageMs ?? 0) <= 5000);
  assert.deepEqual(
    answer.candidates.map((one) => [one.node, one.eligible]),
    [
      ['n2', true],
      ['n3', true],
    ],
  );
  assert.match(answer.candidates[1]?.reasons[0] ?? '', /4096 bytes behind/);
});

test('explain names the gate that stands before a failover', () => {
  assert.match(
    explainCluster(picture(STEADY.replace('term', 'frozen term')), NOW).ifPrimaryDies.action,
    /nothing is promoted: the cluster is frozen by anna/,
  );
  const none = explainCluster(picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby prio0'), NOW);
  assert.equal(none.ifPrimaryDies.rule, 'failover.blocked-no-candidate');
  assert.match(none.candidates[0]?.reasons[0] ?? '', /priority is 0/);
});

test('explain says what the fencing command would have to do first', () => {
  const action = (text: string, fencing: 'automatic' | 'required'): string => {
    const view = picture(text);
    return explainCluster({ ...view, spec: { ...view.spec, fencing } }, NOW).ifPrimaryDies.action;
  };
  assert.match(action(STEADY, 'automatic'), /^once the fencing command has turned n1 off, or its write lease has expired, n[23] is promoted$/);
  assert.match(action(STEADY, 'required'), /^once the fencing command has turned n1 off \(nothing is promoted before\), n[23] is promoted$/);
  assert.match(action(STEADY.replace('term 3', 'quorum 1/n2,n3 term 3'), 'required'), /^the fencing command turns n1 off .*; once 2 of 2 voters/);
});

test('explain of a loss names the very rule that decides', () => {
  const answer = explainCluster(picture('term 3 primary n1 lease n1/3\nn1 dead\nn2 standby sees:n1=down'), NOW);
  assert.equal(answer.rule, 'failover.blocked-lease');
});

test('show: healthy, degraded, no-primary, switching, frozen, stopped, unknown', () => {
  const words: readonly (readonly [string, string])[] = [
    [STEADY, 'healthy'],
    [STEADY.replace('n3 standby', 'n3 dead'), 'degraded'],
    [STEADY.replace('n1 primary', 'n1 dead'), 'no-primary'],
    [STEADY.replace('lease n1/3', 'attempt 4 vote'), 'switching'],
    [STEADY.replace('term', 'frozen term'), 'frozen'],
    [STEADY.replace('lease n1/3', 'phase stopped'), 'stopped'],
    ['term 0\nn1 absent', 'unknown'],
  ];
  for (const [text, word] of words) assert.equal(showCluster(picture(text), NOW).state, word, text);
});

test('show: each problem with what to do, in the node and in the list', () => {
  const show = showCluster(picture(STEADY.replace('n2 standby', 'n2 dead').replace('n3 standby @0/4000', 'n3 detached tl1 sys9 @0/4000')), NOW);
  assert.deepEqual(
    show.nodes.map((node) => node.state),
    ['running', 'unreachable', 'diverged'],
  );
  const codes = show.problems.map((problem) => problem.code);
  assert.ok(codes.includes('node.unreachable') && codes.includes('node.foreign') && codes.includes('cluster.no-standby'));
  for (const problem of show.problems) assert.ok(problem.text !== '' && problem.remedy !== '', problem.code);
});

test('show: what is wanted and what is differ', () => {
  const show = showCluster(picture(STEADY.replace('n3 standby', 'n3 rogue')), NOW);
  const n3 = show.nodes.find((node) => node.id === id('n3'));
  assert.deepEqual([n3?.role, n3?.wantedRole], ['primary', 'standby']);
  assert.ok(n3?.problems.some((problem) => problem.code === 'node.second-primary'));
});

test('lsn and lag have a row for each data node', () => {
  const view = picture(`${STEADY}\nw witness`);
  assert.deepEqual(
    showLsn(view).map((row) => [row.node, row.role, row.lsn]),
    [
      ['n1', 'primary', '0/5000'],
      ['n2', 'standby', '0/5000'],
      ['n3', 'standby', '0/4000'],
    ],
  );
  assert.deepEqual(
    showLag(view).map((row) => row.node),
    ['n1', 'n2', 'n3'],
  );
});

test('times are ISO 8601 without reading a clock', () => {
  for (const ms of [0, 951_782_400_000, 1_709_164_800_123, 1_800_000_000_000, 4_102_444_799_999])
    assert.equal(formatIso(ms), new Date(ms).toISOString());
});

test('in quorum mode nothing has to expire, and nothing acknowledged is lost', () => {
  const view = picture(`term 3 primary n1 lease n1/3 quorum 1/n2,n3
    n1 primary @0/5000
    n2 standby @0/5000 sees:n1=primary
    n3 standby @0/4000 sees:n1=primary`);
  const { action, promoted, mayLoseBytes } = explainCluster(view, NOW).ifPrimaryDies;
  assert.deepEqual([promoted, mayLoseBytes], ['n2', 0]);
  assert.equal(action, 'once 2 of 2 voters are detached, n2 is promoted without waiting for the write lease of n1');
});

test('that writes wait is said beside a rule that has nothing to do, with who is silent', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3
    n1 primary @0/5000 silent:n2=900 silent:n3=900
    n2 dead @0/5000
    n3 dead @0/4000`;
  const strict = { durability: { mode: 'quorum', k: 1, strict: true } };
  const { why } = explainCluster(picture(text, { spec: strict }), NOW);
  assert.match(why, /Writes wait for 1 of 2 standbys, and too few acknowledge \(silent: n2, n3\)$/);
});

test('a primary that runs and lets nobody in yet says which standbys it waits for', () => {
  const text = `term 3 primary n1 lease n1/3 quorum 1/n2,n3
    n1 primary @0/5000
    n2 standby @0/5000 sees:n1=primary
    n3 standby @0/4000 sees:n1=primary`;
  const view = picture(text);
  const seen = view.reports[id('n1')];
  assert.ok(seen !== undefined);
  const closed = { ...view, reports: { ...view.reports, [id('n1')]: { ...seen, report: { ...seen.report, open: false } } } };
  const { rule, why } = explainCluster(closed, NOW);
  assert.equal(rule, 'primary.restarting');
  assert.match(why, /its server runs, and clients are let in once 1 of n2, n3 hold what it recovered \(streaming: n2, n3\)/);
});
