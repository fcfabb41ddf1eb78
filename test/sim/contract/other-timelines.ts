/** What PostgreSQL makes of timeline numbers that somebody else has used: what src/agent/postgres/skipped-timelines.ts rests on. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Driver, NOT_STREAMING_MS, type Node } from './driver.ts';
import { three } from './three.ts';

export function otherTimelines(createDriver: () => Driver): void {
  let driver: Driver;
  let n1: Node;
  let n2: Node;
  let n3: Node;
  let n4: Node;
  before(async () => {
    driver = createDriver();
    [n1, n2, n3] = await three(driver);
    n4 = await driver.node('n4');
    assert.equal(await n4.clone(n1), 'ok');
    assert.equal(await n4.start('standby'), 'ok');
    assert.equal(await n4.follow(n1), 'ok');
  });
  after(() => driver.close());

  test('a promotion above numbers that others have used, which is refused, keeps nobody from following or starting', async () => {
    for (const node of [n2, n3]) assert.equal(await node.promoteAbove(3, false), 'promote.refused');
    assert.equal(await n2.follow(n1), 'ok');
    assert.equal(await n3.stop('fast'), 'ok');
    assert.equal(await n3.start('standby'), 'ok');
    assert.equal(await n3.follow(n1), 'ok');
    const row = await n1.write();
    for (const node of [n2, n3, n4]) await driver.until('the row', () => node.sees(row));
  });

  test('a promotion takes a number above those that others have used, and history goes past them', async () => {
    for (const node of [n4, n2, n3]) assert.ok(typeof (await node.detach()) === 'object');
    await n2.promote();
    assert.equal((await n2.report()).timeline, 2);
    const { replayedLsn } = await n3.report();
    assert.equal(await n3.promoteAbove(4, true), 'ok');
    const report = await n3.report();
    assert.deepEqual([report.role, report.timeline, report.history], ['primary', 5, [{ timeline: 1, forkLsn: replayedLsn }]]);
  });

  test('its standbys follow it over the gap, and start again', async () => {
    await n3.makeSlot('pgherd_n4');
    assert.equal(await n4.follow(n3), 'ok');
    const row = await n3.write();
    await driver.until('the row', () => n4.sees(row));
    assert.equal(await n4.stop('immediate'), 'ok');
    assert.equal(await n4.start('standby'), 'ok');
    assert.deepEqual([await n4.sees(row), (await n4.report()).timeline], [true, 5]);
  });

  test('whoever is on the other timeline is turned away, and rewound', async () => {
    assert.equal(await n2.stop('fast'), 'ok');
    assert.equal(await n2.start('standby'), 'ok');
    await n3.makeSlot('pgherd_n2');
    assert.equal(await n2.follow(n3, NOT_STREAMING_MS), 'follow.not-streaming');
    assert.equal(await n2.stop('fast'), 'ok');
    assert.equal(await n2.rewind(n3), 'ok');
    assert.equal(await n2.start('standby'), 'ok');
    assert.equal(await n2.follow(n3), 'ok');
    const row = await n3.write();
    await driver.until('the row', () => n2.sees(row));
  });

  test('after a crash it comes up read-only, on its own timeline', async () => {
    assert.equal(await n3.stop('kill'), 'ok');
    assert.equal(await n3.start('standby'), 'ok');
    assert.deepEqual([(await n3.report()).role, (await n3.report()).timeline], ['standby', 5]);
  });
}
