import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownDeadline } from '../../src/agent/lease/lease-rules.ts';
import { pausedMs } from '../../src/agent/lease/pause.ts';
import { elapsedMs } from '../../src/core/cluster/observe.ts';
import { decideCluster } from '../../src/core/cluster/decide.ts';
import { type Now, addMono, makeMonoMs, makeWallMs } from '../../src/core/ids.ts';
import type { ClusterState } from '../../src/core/state.ts';
import { NOW, WALL, id, makeTask, picture } from '../core/cluster/picture.ts';
import { expectRule } from '../core/cluster/rule-case.ts';

const HOUR = 3_600_000;
/** `passedMs` of real time, while somebody set the wall clock by `wallMs`. */
const jumped = (passedMs: number, wallMs: number): Now => ({ mono: addMono(NOW.mono, passedMs), wall: makeWallMs(NOW.wall + passedMs + wallMs) });
const settings = { ttlMs: 5000, renewMs: 500, marginMs: 1000 };

test('the deadline of the write lease rests on the monotonic clock alone (Z9)', () => {
  const sentAt = makeMonoMs(1000);
  assert.equal(ownDeadline({ sentAt, grantedMs: 5000, settings }), 5000);
});

test('a wall clock set forward costs the primary at most its present lease; set back it costs nothing and extends nothing (Q5, Z23)', () => {
  const tick = (mono: number, boot: number, wall: number) => ({ mono: makeMonoMs(mono), boot, wall });
  const before = tick(1000, 1000, WALL);
  assert.equal(pausedMs(before, tick(1500, 1500, WALL + 500 + HOUR), 500), HOUR, 'taken for a pause: fenced too early, never too late');
  assert.equal(pausedMs(before, tick(1500, 1500, WALL + 500 - HOUR), 500), 0);
  assert.equal(pausedMs(before, tick(1500, 61_500, WALL + 500 - HOUR), 500), 60_000, 'a clock set back does not hide a real suspension');
  assert.equal(pausedMs(before, tick(1500, 1500, WALL + 900), 500), 0, 'the small steps of NTP are nothing');
});

test('the time since a step began survives a clock that is set back', () => {
  assert.equal(elapsedMs(NOW, WALL - 700), 700);
  assert.equal(elapsedMs(NOW, WALL + 3000), 0, 'another controller with a clock slightly ahead began it');
  assert.equal(elapsedMs(NOW, WALL + HOUR), Number.POSITIVE_INFINITY);
});

const LOST = `term 3 primary n1
  n1 dead
  n2 standby @0/5000 sees:n1=down
  n3 standby @0/4000 sees:n1=down`;

test('a lost primary is failed over from whatever the wall clock does', () => {
  for (const wallMs of [0, HOUR, -HOUR, -30 * 24 * HOUR, 30 * 24 * HOUR])
    assert.equal(decideCluster(picture(LOST), jumped(1000, wallMs)).rule, 'primary.lost');
});

test('a lease that stands holds a failover up, also when the wall clock is years ahead (H14)', () => {
  const held = picture(LOST.replace('primary n1', 'primary n1 lease n1/3'));
  for (const wallMs of [30 * 24 * HOUR, -HOUR]) assert.equal(decideCluster(held, jumped(1000, wallMs)).state?.attempt ?? null, null);
});

test('the anti-flapping window does not last longer because the clock was set back (Q41)', () => {
  const flapped = picture(LOST.replace('term 3', 'flapped term 3'));
  expectRule(flapped, 'failover.blocked-flapping');
  assert.equal(decideCluster(flapped, jumped(0, -HOUR)).rule, 'primary.lost');
});

const planned = (phase: 'checkpoint' | 'hold' | 'stop'): NonNullable<ClusterState['switchover']> => ({
  taskId: 't1',
  from: id('n1'),
  to: id('n2'),
  phase,
  startedWallMs: makeWallMs(WALL),
  phaseWallMs: makeWallMs(WALL),
  deadlineWallMs: makeWallMs(WALL + 60_000),
  holdRoute: 5,
  reason: '',
});

test('a switchover whose writers are held is undone, not held for the hour by which the clock was set back (Q28)', () => {
  const view = picture('term 3 primary n1 lease n1/3\n n1 primary @0/5000\n n2 standby @0/5000\n n3 standby @0/4000', {
    acks: { p1: 4 },
    tasks: [makeTask({ kind: 'switchover', to: id('n2') }, { status: 'running' })],
    state: (state) => ({ ...state, switchover: planned('hold') }),
  });
  expectRule(view, 'switchover.waiting');
  expectRule(view, 'switchover.undone', jumped(100, -HOUR));
  expectRule(view, 'switchover.undone', jumped(100, HOUR));
});

test('a candidate that does not open is replaced, also when the clock was set back meanwhile', () => {
  const view = picture(`term 3 primary n1 attempt 4 promote:n2
    n1 dead
    n2 standby @0/5000 vote4@0/5000
    n3 detached @0/4000 vote4@0/4000`);
  expectRule(view, 'attempt.waiting-open');
  assert.notEqual(decideCluster(view, jumped(100, -HOUR)).rule, 'attempt.waiting-open');
});

test('a command that waits for a node ends at its limit when the clock was set back', () => {
  const steps = [{ name: 'stop', state: 'running' as const, atWallMs: makeWallMs(WALL), detail: '' }];
  const task = makeTask({ kind: 'nodeStop', node: id('n3') } as never, { status: 'running', steps });
  const view = picture('term 3 primary n1 lease n1/3\n n1 primary @0/5000\n n2 standby @0/5000\n n3 standby @0/4000 goal:stopped', { tasks: [task] });
  const statusAt = (now: Now) => decideCluster(view, now).tasks.find((one) => one.id === 't1')?.status ?? 'running';
  assert.deepEqual([statusAt(jumped(100, 0)), statusAt(jumped(100, -HOUR))], ['running', 'failed']);
});
