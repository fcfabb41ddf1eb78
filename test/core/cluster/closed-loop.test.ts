import assert from 'node:assert/strict';
import { test } from 'node:test';
import { marks, rules } from '../../../src/core/cluster/rules.ts';
import { makeTask } from './picture.ts';
import { created, interrupted } from './world-runs.ts';
import { type World, addTask, boot, host, isHealthy, killHost, killPostgres, runFor, runUntil } from './world.ts';
import { id } from './picture.ts';

test('a cluster of three is created and runs', () => {
  const world = created();
  assert.deepEqual([world.state?.term, world.state?.primary, world.state?.route.readers], [1, 'n1', ['n2', 'n3']]);
  const { length } = world.decisions;
  runFor(world, 5000);
  assert.ok(world.decisions.length - length <= 2, `steady, yet ${world.decisions.slice(length).join()}`);
});

test('PostgreSQL killed: a lossless candidate opens within a second; the old one follows', () => {
  const world = created();
  killPostgres(host(world, 'n1'));
  const ms = runUntil(world, 'open again', (one) => [...one.hosts.values()].some((two) => two.open), 5000);
  assert.ok(ms <= 1000, `${ms} ms`);
  assert.equal(world.state?.term, 2);
  runUntil(world, 'healthy', isHealthy, 10_000);
});

test('PostgreSQL killed with records that nobody else has: restarted in place, nothing lost', () => {
  const world = created();
  killPostgres(host(world, 'n1'));
  host(world, 'n1').pg.lsn += 5000n;
  const ms = runUntil(world, 'open again', (one) => host(one, 'n1').open, 5000);
  assert.ok(ms <= 1500, `${ms} ms`);
  assert.equal(world.state?.primary === null ? null : runUntil(world, 'healthy', isHealthy, 10_000) >= 0, true);
  assert.equal(world.state?.primary, 'n1');
});

test('the host lost: failover after the lease; rejoin by rewind within five seconds of its return', () => {
  const world = created();
  killHost(host(world, 'n1'));
  host(world, 'n1').pg.lsn += 700n;
  const ms = runUntil(world, 'open again', (one) => [...one.hosts.values()].some((two) => two.up && two.open), 10_000);
  assert.ok(ms <= 5000, `${ms} ms`);
  runFor(world, 3000);
  boot(host(world, 'n1'));
  const back = runUntil(world, 'healthy', isHealthy, 20_000);
  assert.ok(back <= 5000, `${back} ms`);
  assert.ok(world.decisions.includes('standby.rewind'));
});

test('two nodes: the survivor is promoted, the other one comes back', () => {
  const world = created({}, ['n1', 'n2']);
  killHost(host(world, 'n1'));
  runUntil(world, 'open again', (one) => host(one, 'n2').open, 8000);
  boot(host(world, 'n1'));
  runUntil(world, 'healthy', isHealthy, 10_000);
});

test('a primary cut off from the store fences itself before another opens (I2)', () => {
  const world = created();
  host(world, 'n1').linked = false;
  runUntil(world, 'another opens', (one) => host(one, 'n2').open || host(one, 'n3').open, 15_000);
  host(world, 'n1').linked = true;
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('switchover: done, the old primary streams, nothing lost', () => {
  const world = created();
  addTask(world, makeTask({ kind: 'switchover', to: id('n2') }, { id: 's' }));
  runUntil(world, 'done', (one) => one.tasks.get('s')?.status === 'done', 20_000);
  assert.equal(world.state?.primary, 'n2');
  assert.ok(isHealthy(world));
  assert.equal(world.state?.route.hold, false);
  assert.ok(!world.decisions.includes('standby.rewind'));
});

test('the candidate dies in the promotion: the old primary is writable again (I15)', () => {
  const world = created();
  addTask(world, makeTask({ kind: 'switchover', to: id('n2') }, { id: 's' }));
  runUntil(world, 'ordered', (one) => one.state?.attempt?.candidate === 'n2', 20_000);
  killHost(host(world, 'n2'));
  const ms = runUntil(world, 'n1 open', (one) => host(one, 'n1').open, 15_000);
  assert.ok(ms <= 8000, `${ms} ms`);
  assert.equal(world.tasks.get('s')?.status, 'failed');
  boot(host(world, 'n2'));
  runUntil(world, 'healthy', isHealthy, 30_000);
});

test('a candidate that cannot promote refuses; another one is promoted (Z38)', () => {
  const world = created();
  host(world, 'n2').broken.add('promote');
  killHost(host(world, 'n1'));
  runUntil(world, 'n3 open', (one) => host(one, 'n3').open, 20_000);
  assert.ok(world.decisions.includes('attempt.refused'));
});

test('the candidate of a switchover refuses while it holds the lease: the old primary is writable again (I12, I15)', () => {
  const world = created();
  host(world, 'n2').broken.add('promote');
  addTask(world, makeTask({ kind: 'switchover', to: id('n2') }, { id: 's' }));
  runUntil(world, 'n1 open again', (one) => one.tasks.get('s')?.status === 'failed' && host(one, 'n1').open, 20_000);
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('the candidate loses its stream while the old primary stops: the role is given back within seconds (I12)', () => {
  const world = created();
  addTask(world, makeTask({ kind: 'switchover', to: id('n2') }, { id: 's' }));
  runUntil(world, 'stopping', (one) => one.state?.goals[id('n1')]?.kind === 'handover', 5000);
  killPostgres(host(world, 'n2'));
  const ms = runUntil(world, 'n1 open again', (one) => one.tasks.get('s')?.status === 'failed' && host(one, 'n1').open, 20_000);
  assert.ok(ms <= 3000, `${ms} ms`);
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('everything loses power at once; the last primary comes back (Q15, Q24)', () => {
  const world = created();
  for (const name of ['n1', 'n2', 'n3']) killHost(host(world, name));
  runFor(world, 10_000);
  for (const name of ['n3', 'n2', 'n1']) boot(host(world, name));
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('failover by hand of a living primary: fenced first, then the target', () => {
  const world = created();
  addTask(world, makeTask({ kind: 'failover', to: id('n3'), acceptLoss: false, acceptTwoPrimaries: false }, { id: 'f' }));
  runUntil(world, 'done', (one) => one.tasks.get('f')?.status === 'done', 10_000);
  assert.equal(world.state?.primary, 'n3');
  runUntil(world, 'healthy', isHealthy, 20_000);
});

test('stop, start, restart of nodes and of the cluster end when seen', () => {
  const world = created();
  const run = (name: string, request: Parameters<typeof makeTask>[0]): void => {
    addTask(world, makeTask(request, { id: name }));
    runUntil(world, name, (one) => ['done', 'failed', 'refused'].includes(one.tasks.get(name)?.status ?? ''), 40_000);
    assert.equal(world.tasks.get(name)?.status, 'done', `${name}: ${JSON.stringify(world.tasks.get(name)?.problems)}`);
  };
  run('stop', { kind: 'nodeStop', node: id('n3') });
  runFor(world, 2000);
  assert.equal(host(world, 'n3').pg.state, 'stopped');
  run('start', { kind: 'nodeStart', node: id('n3') });
  run('restart', { kind: 'nodeRestart', node: id('n2') });
  run('restart-primary', { kind: 'nodeRestart', node: id('n1') });
  run('rejoin', { kind: 'nodeRejoin', node: id('n2'), via: 'clone', source: null, rateKb: null });
  run('cluster-stop', { kind: 'clusterStop' });
  assert.equal(world.state?.phase, 'stopped');
  run('cluster-start', { kind: 'clusterStart' });
  run('cluster-restart', { kind: 'clusterRestart', rolling: false });
  assert.equal(world.state?.primary, 'n1');
  run('rolling', { kind: 'clusterRestart', rolling: true });
  assert.notEqual(world.state?.primary, 'n1');
  assert.ok(isHealthy(world));
});

const SCENARIOS: Readonly<Record<string, (world: World) => void>> = {
  switchover: (world) => addTask(world, makeTask({ kind: 'switchover', to: id('n3') }, { id: 's' })),
  'failover by hand': (world) => addTask(world, makeTask({ kind: 'failover', to: null, acceptLoss: false, acceptTwoPrimaries: false }, { id: 'f' })),
  crash: (world) => killPostgres(host(world, 'n1')),
  'crash with records of its own': (world) => {
    killPostgres(host(world, 'n1'));
    host(world, 'n1').pg.lsn += 900n;
  },
  'host lost and back at once': (world) => {
    killHost(host(world, 'n1'));
    runFor(world, 3400);
    boot(host(world, 'n1'));
  },
};

for (const [name, scenario] of Object.entries(SCENARIOS)) {
  test(`${name}: the controller may die after any decision (H45)`, () => {
    const steps = interrupted(1000, scenario);
    for (let k = 1; k <= steps; k++) interrupted(k, scenario);
  });
}

test('the record of each term, and the last decision, name rules of the table', () => {
  const known = new Set([...rules, ...marks].map((one) => one.id));
  const world = created();
  killHost(host(world, 'n1'));
  runUntil(world, 'open again', (one) => one.state?.primaryTerm === 2, 10_000);
  boot(host(world, 'n1'));
  runUntil(world, 'healthy', isHealthy, 20_000);
  addTask(world, makeTask({ kind: 'switchover', to: id('n1') }, { id: 'back' }));
  runUntil(world, 'switched over', (one) => one.tasks.get('back')?.status === 'done', 20_000);
  const terms = world.state?.terms.map((record) => record.rule) ?? [];
  assert.deepEqual(terms, ['bootstrap.opened', 'primary.lost', 'switchover.promote']);
  for (const rule of [...terms, ...world.decisions, world.state?.decided.rule ?? '']) assert.ok(known.has(rule), rule);
});
