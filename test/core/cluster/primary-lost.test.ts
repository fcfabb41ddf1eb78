import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeWallMs } from '../../../src/core/ids.ts';
import { type Picture, NOW, WALL, goalsOf, makeTask, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';
import type { NodeReport } from '../../../src/core/report.ts';
import { id, later, lsnOf } from './picture.ts';
import { decideCluster } from '../../../src/core/cluster/decide.ts';

const LOST = `term 3 primary n1
  n1 dead @0/5000
  n2 standby @0/5000 sees:n1=down
  n3 standby @0/4000 sees:n1=down`;

function lost(change: (text: string) => string, extra: Picture = {}): ReturnType<typeof picture> {
  return picture(change(LOST), extra);
}

test('a lost primary whose lease is gone, seen down by two, opens an attempt (H12)', () => {
  const view = lost((text) => text);
  const state = expectRule(view, 'primary.lost');
  assert.equal(state.term, 4);
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:stream n3:stream');
  assert.equal(state.route.writer, null);
});

test('nothing is promoted while the write lease stands (H14, H16)', () => {
  expectRule(
    lost((text) => text.replace('primary n1', 'primary n1 lease n1/3')),
    'failover.blocked-lease',
  );
});

test('one viewpoint alone causes no failover (H12, I3)', () => {
  expectRule(
    lost((text) => text.replace('@0/4000 sees:n1=down', '@0/4000 sees:n1=standby')),
    'failover.blocked-viewpoints',
  );
});

test('a member that still sees it accept writes stops the failover (H13)', () => {
  expectRule(
    lost((text) => text.replace('@0/4000 sees:n1=down', '@0/4000 sees:n1=primary')),
    'failover.blocked-viewpoints',
  );
});

test('a single remaining member is enough when no other can be heard (I8)', () => {
  const view = lost((text) => text.replace('n3 standby @0/4000 sees:n1=down', 'n3 dead'));
  expectRule(view, 'primary.lost');
});

test('members that reach no trusted address do not count (H17, I28)', () => {
  const spec = { trustedAddresses: ['10.0.0.254'] };
  expectRule(
    lost((text) => text.replaceAll('n1=down', 'n1=down untrusted'), { spec }),
    'failover.blocked-trusted',
  );
  expectRule(
    lost((text) => text.replaceAll('n1=down', 'n1=down trusted'), { spec }),
    'primary.lost',
  );
});

test('frozen and manual stop it with their own reasons', () => {
  expectRule(
    lost((text) => text.replace('term 3', 'frozen term 3')),
    'failover.blocked-frozen',
  );
  expectRule(
    lost((text) => text, { spec: { failover: 'manual' } }),
    'failover.blocked-manual',
  );
});

test('within the anti-flapping window nothing is promoted, after it something is (Q41)', () => {
  const view = lost((text) => text.replace('term 3', 'flapped term 3'));
  expectRule(view, 'failover.blocked-flapping');
  assert.equal(decideCluster(view, later(60_000)).rule, 'primary.lost');
});

test('a controller that has just begun to watch waits', () => {
  expectRule(
    lost((text) => text.replace('term 3', 'watched 300 term 3')),
    'failover.blocked-watch',
  );
});

test('after the store was restored nothing is promoted (Z14)', () => {
  expectRule(
    lost((text) => text, { state: (state) => ({ ...state, incarnation: 'store-0' }) }),
    'failover.blocked-store',
  );
});

test('everything was off: in asynchronous mode the primary is waited for, and not for ever (Q15, Q24)', () => {
  const base = lost((text) => text);
  type Postgres = NodeReport['postgres'];
  /** As the standbys are after a loss of power: started a moment ago, without a record of the primary since. */
  const off = (change: (postgres: Postgres, node: string) => Partial<Postgres>): typeof base => ({
    ...base,
    reports: Object.fromEntries(
      Object.entries(base.reports).map(([node, seen]) => {
        const { postgres } = seen.report;
        return [node, { ...seen, report: { ...seen.report, postgres: { ...postgres, ...(node === 'n1' ? {} : change(postgres, node)) } } }];
      }),
    ),
  });
  const startedAt = makeWallMs(WALL - 10_000);
  const quiet = off(() => ({ startedAt, receivedLsn: null }));
  assert.match(
    expectDecision(quiet, 'failover.blocked-return').why,
    /n2, n3 heard nothing of n1 since they were started.*"pgherd failover" does not wait/,
  );
  expectRule(
    off(() => ({ startedAt, receivedLsn: lsnOf('0/3000') })),
    'failover.blocked-return',
  );
  expectRule(quiet, 'primary.lost', later(50_000));
  const one = off((postgres, node) => ({ startedAt, receivedLsn: node === 'n2' ? postgres.replayedLsn : null }));
  expectRule(one, 'primary.lost');
  const synchronous = { ...quiet, state: { ...quiet.state, quorum: { ...quiet.state.quorum, k: 1, voters: ['n2.a', 'n3.a'] } } };
  assert.notEqual(decideCluster(synchronous, NOW).rule, 'failover.blocked-return');
});

test('the last known position of the primary bounds the loss, and the message names the setting that was compared (Q13, Q45)', () => {
  const view = lost((text) => text.replace('n1 dead @0/5000', 'n1 dead @0/900000'));
  const decision = decideCluster(view, NOW);
  assert.equal(decision.rule, 'failover.blocked-lag');
  assert.match(decision.why, /lacks 9416704 bytes.*maxLagOnFailoverBytes is 1048576.*--accept-loss/);
});

test('nobody who may be promoted: each one has its reason (Q22, Q23)', () => {
  const view = lost((text) => text.replace('n2 standby', 'n2 cloning').replace('n3 standby', 'n3 standby prio0'));
  const decision = decideCluster(view, NOW);
  assert.equal(decision.rule, 'failover.blocked-no-candidate');
  assert.match(decision.why, /n2: .*being cloned.*n3: its priority is 0/);
});

test('a blocked failover makes one event, not one a tick', () => {
  const view = lost((text) => text.replace('term 3', 'frozen term 3'));
  const first = decideCluster(view, NOW);
  assert.equal(first.events.length, 1);
  assert.ok(first.state !== null);
  const second = decideCluster({ ...view, state: first.state }, later(250));
  assert.deepEqual([second.events.length, second.state], [0, null]);
});

const CRASH = `term 3 primary n1 lease n1/3
  n1 crashed lease3 @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;

test('a crash with a streaming candidate opens an attempt at once, the lease not yet released', () => {
  const view = picture(CRASH);
  const state = expectRule(view, 'crash.failover');
  assert.equal(goalsOf(state, view.spec), 'n1:fenced n2:stream n3:stream');
});

test('a primary that was fenced because its lease ran out is not said to have crashed', () => {
  const view = picture(CRASH);
  const seen = view.reports[id('n1')];
  assert.ok(seen !== undefined);
  const problems = [
    { code: 'fence.lease-lost', text: 'the write lease of term 3 ran out, and its guard fenced it: not renewed in time', remedy: '' },
  ];
  const reports = { ...view.reports, [id('n1')]: { ...seen, report: { ...seen.report, problems } } };
  const decision = expectDecision({ ...view, reports }, 'crash.failover');
  assert.match(
    decision.state?.attempt?.reason ?? '',
    /^PostgreSQL of n1 was stopped: the write lease of term 3 ran out, and its guard fenced it: not renewed/,
  );
});

test('with onCrash: restart, or without a candidate, it is restarted in place (Z33)', () => {
  for (const view of [picture(CRASH, { spec: { onCrash: 'restart' } }), picture(CRASH.replaceAll('standby', 'dead'))]) {
    const state = expectRule(view, 'crash.restart');
    assert.equal(state.goals[id('n1')]?.id, 'primary-3-g1');
  }
});

test('a restart in place gets its time, then a candidate within the bound is promoted (Z34)', () => {
  const recovery = (notBefore: number): Picture => ({
    spec: { onCrash: 'restart' },
    state: (state) => ({
      ...state,
      recovery: {
        [id('n1')]: { checks: 0, firstSeenWallMs: makeWallMs(WALL), attempts: 1, notBeforeWallMs: makeWallMs(notBefore), lastError: null },
      },
    }),
  });
  expectRule(picture(CRASH, recovery(WALL + 20_000)), 'primary.restarting');
  expectRule(picture(CRASH, recovery(WALL - 1)), 'crash.restart-failed');
  expectRule(picture(CRASH.replace('@0/5000', '@0/5000 gaveup:start.failed'), recovery(WALL + 20_000)), 'crash.restart-failed');
});

test('a primary that hangs, seen by its own agent and another, is fenced and replaced (I6, H50)', () => {
  const text = `term 3 primary n1 lease n1/3
    n1 hung @0/5000
    n2 standby @0/5000 sees:n1=down
    n3 standby @0/5000 sees:n1=unknown`;
  const state = expectRule(picture(text), 'hung.failover');
  assert.equal(state.goals[id('n1')]?.kind, 'fenced');
  assert.ok(
    (state.attempt?.outageFromWallMs ?? WALL) <= WALL - 2500,
    'writes stopped when somebody last saw it work, not when its agent last reported',
  );
  expectRule(picture(text.replace('n1=down', 'n1=unknown')), 'failover.blocked-viewpoints');
});

const STARTING = `term 3 primary n1 lease n1/3
  n1 starting lease3 busy @0/5000
  n2 standby @0/5000 sees:n1=down
  n3 standby @0/5000 sees:n1=down`;

test('a start that moves is waited for, however long; one in which nothing moves is failed over from (Z34, Q17)', () => {
  expectRule(picture(STARTING), 'primary.restarting');
  expectRule(picture(STARTING.replace('starting', 'starting stalled29999')), 'primary.restarting');
  const decision = expectDecision(picture(STARTING.replace('starting', 'starting stalled31000')), 'start.stalled');
  assert.match(decision.why, /n1 has been starting without any progress for 31 s/);
  assert.equal(decision.state?.goals[id('n1')]?.kind, 'fenced');
});

test('a stalled start is left alone when nobody may be promoted', () => {
  const text = STARTING.replace('starting', 'starting stalled31000');
  expectRule(picture(text.replaceAll('standby @0/5000', 'standby prio0 @0/5000')), 'failover.blocked-no-candidate');
  expectRule(picture(text.replace('term 3', 'frozen term 3')), 'failover.blocked-frozen');
  expectRule(picture(text.replace('sees:n1=down', 'sees:n1=primary')), 'failover.blocked-viewpoints');
});

test('a primary that holds the lease and cannot be opened does not keep the cluster without a writer for ever', () => {
  const text = `term 3 primary n1 lease n1/3
    n1 primary lease3 fail:open.refused @0/5000
    n2 standby @0/5000
    n3 standby @0/5000`;
  expectRule(picture(text), 'primary.restarting');
  const view = picture(text);
  const seen = view.reports[id('n1')];
  assert.ok(seen?.report.activity.kind === 'failed');
  const tried = { ...seen, report: { ...seen.report, activity: { ...seen.report.activity, attempts: 5 } } };
  expectRule({ ...view, reports: { ...view.reports, [id('n1')]: tried } }, 'start.stalled');
});

test('an agent that fenced itself gets two seconds to take its lease back', () => {
  const text = `term 3 primary n1 goneMs 500
    n1 detached @0/5000
    n2 standby @0/5000 sees:n1=down
    n3 standby @0/5000 sees:n1=blocked`;
  expectRule(picture(text), 'primary.restarting');
  expectRule(picture(text.replace('goneMs 500', 'goneMs 2500')), 'primary.lost');
});

test('an open primary with a stopped standby is steady', () => {
  expectRule(picture('term 3 primary n1 lease n1/3\nn1 primary\nn2 standby'), 'cluster.steady');
});

test('an open task does not hide a loss', () => {
  expectRule(
    lost((text) => text, { tasks: [makeTask({ kind: 'nodeStart', node: id('n3') }, { status: 'running' })] }),
    'primary.lost',
  );
});
