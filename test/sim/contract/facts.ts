/**
 * What the product, and its simulator, believe about PostgreSQL. Every fact is run against the model and against a real server; one that holds for
 * only one of them makes the simulator a liar. Five stories, each on servers of its own; the tests of a story follow one another.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Driver, NOT_STREAMING_MS, type Node } from './driver.ts';
import { otherTimelines } from './other-timelines.ts';
import { three } from './three.ts';

export function postgresFacts(kind: string, createDriver: () => Driver): void {
  describe(`synchronous replication, ${kind}`, () => synchronous(createDriver));
  describe(`timelines, ${kind}`, () => timelines(createDriver));
  describe(`timelines that others have opened, ${kind}`, () => otherTimelines(createDriver));
  describe(`files and processes, ${kind}`, () => files(createDriver));
  describe(`a standby of a standby, and what people do by hand, ${kind}`, () => others(createDriver));
}

function synchronous(createDriver: () => Driver): void {
  let driver: Driver;
  let n1: Node;
  let n2: Node;
  let n3: Node;
  before(async () => {
    driver = createDriver();
    [n1, n2, n3] = await three(driver);
  });
  after(() => driver.close());

  const setSync = async (names: string, priorities: Readonly<Record<string, number>>): Promise<void> => {
    await n1.set('synchronous_standby_names', names);
    // Every process loads it at its own time, and only the priority can be seen from outside.
    await driver.sleep(200);
    await driver.until(`the walsenders have ${names}`, async () => {
      const seen = await n1.priorities();
      return Object.entries(priorities).every(([name, priority]) => seen[name] === priority);
    });
  };
  const syncStates = async (): Promise<Readonly<Record<string, string>>> =>
    Object.fromEntries((await n1.report()).walsenders.map((sender) => [sender.node, sender.syncState]));

  test('a standby that streams confirms what it has flushed', async () => {
    await n1.write();
    const { flushLsn } = await n1.report();
    assert.ok(flushLsn !== null);
    await driver.until('both confirm it', async () => {
      const { walsenders } = await n1.report();
      return walsenders.length === 2 && walsenders.every((sender) => sender.state === 'streaming' && (sender.flushLsn ?? 0n) >= flushLsn);
    });
    await driver.until('it is replayed', async () => ((await n2.report()).replayedLsn ?? 0n) >= flushLsn);
  });

  test('ANY 1 of two is satisfied by either', async () => {
    await setSync('ANY 1 (n2, n3)', { n2: 1, n3: 1 });
    assert.deepEqual(await syncStates(), { n2: 'quorum', n3: 'quorum' });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('n3 alone confirms', () => commit.state() === 'acknowledged');
    n2.thaw();
  });

  test('ANY 2 of two waits for both, and nobody sees the row meanwhile', async () => {
    await setSync('ANY 2 (n2, n3)', { n2: 1, n3: 1 });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    assert.equal(await n1.sees(commit.id), false, 'its own server hides it');
    await driver.until('n3 has replayed it all the same', () => n3.sees(commit.id));
    assert.equal(commit.state(), 'running');
    n2.thaw();
    await driver.until('n2 confirms', () => commit.state() === 'acknowledged');
    assert.equal(await n1.sees(commit.id), true);
  });

  test('FIRST 1 waits for the first in the list although the second has it', async () => {
    await setSync('FIRST 1 (n2, n3)', { n2: 1, n3: 2 });
    assert.deepEqual(await syncStates(), { n2: 'sync', n3: 'potential' });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    await driver.until('n3 has it', () => n3.sees(commit.id));
    assert.equal(commit.state(), 'running');
    n2.thaw();
    await driver.until('n2 confirms', () => commit.state() === 'acknowledged');
  });

  test('when the first is gone, the next one in the list counts', async () => {
    assert.equal(await n2.stop('fast'), 'ok');
    await driver.until('n3 is the one', async () => (await syncStates())['n3'] === 'sync');
    const commit = await n1.commit();
    await driver.until('n3 confirms', () => commit.state() === 'acknowledged');
    assert.equal(await n2.start('standby'), 'ok');
    await driver.until('n2 streams', async () => (await syncStates())['n2'] === 'sync');
  });

  test('a cancelled wait leaves a row that everybody sees, and a warning', async () => {
    await setSync('ANY 2 (n2, n3)', { n2: 1, n3: 1 });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    await n1.cancelSyncWaits();
    await driver.until('it returns', () => commit.state() !== 'running');
    assert.equal(commit.state(), 'unprotected');
    assert.equal(await n1.sees(commit.id), true);
    n2.thaw();
  });

  test('an empty list lets the waiting ones go', async () => {
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    await n1.set('synchronous_standby_names', '');
    await driver.until('it returns', () => commit.state() === 'acknowledged');
    n2.thaw();
  });

  test('a crash of the primary releases what waited: after the restart the row is there', async () => {
    await setSync('ANY 2 (n2, n3)', { n2: 1, n3: 1 });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    assert.equal(await n1.stop('kill'), 'ok');
    await driver.until('the client has lost its session', () => commit.state() === 'lost');
    assert.equal((await n1.report()).state, 'crashed');
    assert.equal(await n1.start('primary'), 'ok');
    assert.equal(await n1.sees(commit.id), true);
    assert.equal((await n1.report()).timeline, 1, 'crash recovery makes no timeline');
    n2.thaw();
  });

  test('a standby that says nothing for wal_sender_timeout is given up, and comes back by itself', async () => {
    const streams = async (): Promise<boolean> => (await n1.report()).walsenders.some((one) => one.node === 'n3' && one.state === 'streaming');
    await driver.until('n3 streams', streams);
    n3.freeze();
    await driver.sleep(2500);
    assert.equal(await streams(), true, 'for half of the time nobody doubts it');
    await driver.until('it is given up', async () => !(await streams()));
    n3.thaw();
    await driver.until('it is back', streams);
  });

  test('a fast stop ends a waiting session without an answer, and its row is there afterwards', async () => {
    await driver.until('both stream again', async () => {
      const { walsenders } = await n1.report();
      return walsenders.length === 2 && walsenders.every((sender) => sender.state === 'streaming');
    });
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    const stopping = n1.stop('fast');
    await driver.until('the session is over', () => commit.state() !== 'running');
    assert.equal(commit.state(), 'lost');
    n2.thaw();
    assert.equal(await stopping, 'ok');
    const { cleanShutdown, shutdownLsn } = await n1.report();
    assert.equal(cleanShutdown, true);
    await driver.until('both standbys have the shutdown checkpoint', async () => {
      const [two, of] = [await n2.report(), await n3.report()];
      return two.replayedLsn === shutdownLsn && of.replayedLsn === shutdownLsn;
    });
    assert.equal(await n3.sees(commit.id), true);
  });
}

function timelines(createDriver: () => Driver): void {
  let driver: Driver;
  let n1: Node;
  let n2: Node;
  let n3: Node;
  let onlyOnN1 = 0;
  before(async () => {
    driver = createDriver();
    [n1, n2, n3] = await three(driver);
  });
  after(() => driver.close());

  test('an empty connection setting alone does not end the confirmations of a standby whose startup process is blocked', async () => {
    await n2.blockStartup();
    await n2.set('primary_conninfo', '');
    // As long as the product waits for a reload to show.
    await driver.sleep(300);
    await n1.write();
    const { flushLsn } = await n1.report();
    await driver.until('n2 confirms', async () => {
      const sender = (await n1.report()).walsenders.find((one) => one.node === 'n2');
      return (sender?.flushLsn ?? 0n) >= (flushLsn ?? 1n);
    });
    assert.equal(await n2.hasWalreceiver(), true);
    await n2.unblockStartup();
    await driver.until('now it goes', async () => !(await n2.hasWalreceiver()));
    assert.equal(await n2.follow(n1), 'ok');
  });

  test('what a standby confirmed before it was detached still counts when the walsender reads it later, and is below its final position', async () => {
    await n1.set('synchronous_standby_names', 'ANY 1 (n2)');
    await driver.sleep(200);
    await driver.until('the walsender has it', async () => (await n1.priorities())['n2'] === 1);
    n2.freeze();
    const commit = await n1.commit();
    await driver.until('it waits', async () => (await n1.syncWaiters()) === 1);
    const { flushLsn } = await n1.report();
    n1.freeze();
    n2.thaw();
    await driver.until('n2 has the row', () => n2.sees(commit.id));
    const detached = await n2.detach();
    assert.ok(typeof detached === 'object' && detached.final && detached.lsn >= (flushLsn ?? 0n) && commit.state() === 'running');
    n1.thaw();
    await driver.until('it is acknowledged', () => commit.state() === 'acknowledged');
    const later = await n1.commit();
    await driver.sleep(500);
    assert.deepEqual([later.state(), await n2.sees(later.id)], ['running', false]);
    await n1.set('synchronous_standby_names', '');
    assert.equal(await n2.follow(n1), 'ok');
  });

  test('a detached standby confirms nothing more, and its position is the end of what it has', async () => {
    let row = 0;
    for (let i = 0; i < 30; i++) row = await n1.write();
    for (const node of [n2, n3]) await driver.until('it is there', () => node.sees(row));
    const { flushLsn } = await n1.report();
    for (const node of [n2, n3]) {
      const detached = await node.detach();
      assert.ok(typeof detached === 'object');
      assert.deepEqual([detached.final, detached.timeline], [true, 1]);
      assert.ok(detached.lsn >= (flushLsn ?? 0n));
    }
    await driver.until('no walsender is left', async () => (await n1.report()).walsenders.length === 0);
    onlyOnN1 = await n1.write();
    assert.equal(await n2.sees(onlyOnN1), false);
  });

  test('a promotion makes the next timeline, which leaves the old one where replay ended', async () => {
    const { replayedLsn } = await n2.report();
    await n2.promote();
    const report = await n2.report();
    assert.deepEqual([report.state, report.role, report.timeline], ['running', 'primary', 2]);
    assert.deepEqual(report.history, [{ timeline: 1, forkLsn: replayedLsn }]);
    assert.ok((report.flushLsn ?? 0n) > (replayedLsn ?? 0n), 'the end of recovery is a record of its own');
  });

  test('pg_control has the old timeline until the first checkpoint of the new one', async () => {
    assert.equal(await n2.controlTimeline(), 1);
    await n2.checkpoint();
    assert.equal(await n2.controlTimeline(), 2);
  });

  test('two promotions from the same point make two timelines with the same number', async () => {
    const before = await n3.report();
    await n3.promote();
    const [two, of] = [await n2.report(), await n3.report()];
    assert.deepEqual([of.timeline, of.role], [2, 'primary']);
    assert.deepEqual(of.history, [{ timeline: 1, forkLsn: before.replayedLsn }]);
    assert.deepEqual(two.history, of.history, 'nothing in the numbers tells them apart');
    const row = await n2.write();
    assert.equal(await n3.sees(row), false);
  });

  test('a diverged standby gets nothing of the new timeline', async () => {
    await n2.makeSlot('pgherd_n1');
    const row = await n2.write();
    assert.equal(await n1.stop('fast'), 'ok');
    assert.equal(await n1.start('standby'), 'ok');
    // It is in the segment of the fork: for moments it streams what it has already.
    assert.equal(await n1.follow(n2, NOT_STREAMING_MS), 'follow.not-streaming');
    const report = await n1.report();
    assert.deepEqual([report.role, report.timeline], ['standby', 1]);
    assert.deepEqual([await n1.sees(onlyOnN1), await n1.sees(row)], [true, false]);
  });

  test('a standby on a twin timeline is not turned away, and confirms rows that it does not have', async () => {
    let last = 0;
    for (let i = 0; i < 30; i++) last = await n3.write();
    assert.equal(await n3.stop('fast'), 'ok');
    await n2.makeSlot('pgherd_n3');
    await n2.set('synchronous_standby_names', 'ANY 1 (n3)');
    await driver.sleep(200);
    const commit = await n2.commit();
    await driver.until('it waits', async () => (await n2.syncWaiters()) === 1);
    assert.equal(await n3.start('standby'), 'ok');
    assert.equal(await n3.follow(n2), 'ok');
    await driver.until('it is acknowledged', () => commit.state() === 'acknowledged');
    assert.deepEqual([await n3.sees(commit.id), await n3.sees(last)], [false, true]);
    await n2.set('synchronous_standby_names', '');
  });

  test('when the other twin overtakes it, its replay breaks, and it streams no more', async () => {
    await n2.fillWal(16 * 1024 * 1024);
    const row = await n2.write();
    const streams = async (): Promise<boolean> => (await n2.report()).walsenders.some((sender) => sender.node === 'n3');
    await driver.until('the walsender is gone', async () => !(await streams()));
    await driver.sleep(1500);
    assert.deepEqual([await streams(), await n3.sees(row), (await n3.report()).streamingFrom], [false, false, null]);
  });

  test('having asked, it holds the history file of the new timeline, and starts no more as a standby', async () => {
    assert.equal(await n1.stop('fast'), 'ok');
    assert.equal(await n1.start('standby'), 'start.failed');
  });

  test('it is rewound all the same', async () => {
    assert.equal(await n1.rewind(n2), 'ok');
    assert.equal(await n1.start('standby'), 'ok');
    assert.equal(await n1.follow(n2), 'ok');
    const row = await n2.write();
    await driver.until('the new row', () => n1.sees(row));
    assert.equal(await n1.sees(onlyOnN1), false);
  });
}

function files(createDriver: () => Driver): void {
  let driver: Driver;
  let n1: Node;
  let n2: Node;
  let n3: Node;
  before(async () => {
    driver = createDriver();
    [n1, n2, n3] = await three(driver);
  });
  after(() => driver.close());

  test('an immediate stop leaves no shutdown checkpoint, and a standby gets none', async () => {
    await n1.write();
    assert.equal(await n1.stop('immediate'), 'ok');
    const report = await n1.report();
    assert.deepEqual([report.state, report.cleanShutdown, report.shutdownLsn, report.role], ['crashed', false, null, 'primary']);
    assert.ok((report.walEnd ?? 0n) >= ((await n2.report()).receivedLsn ?? 0n));
  });

  test('standby.signal makes a crashed primary come up read-only, on its timeline', async () => {
    assert.equal(await n1.start('standby'), 'ok');
    const report = await n1.report();
    assert.deepEqual([report.state, report.role, report.timeline], ['running', 'standby', 1]);
    assert.equal(await n1.stop('fast'), 'ok');
    const stopped = await n1.report();
    assert.deepEqual([stopped.state, stopped.role, stopped.cleanShutdown, stopped.shutdownLsn], ['stopped', 'standby', true, null]);
  });

  test('started without it, it is a primary again, on the same timeline', async () => {
    assert.equal(await n1.start('primary'), 'ok');
    const report = await n1.report();
    assert.deepEqual([report.role, report.timeline], ['primary', 1]);
    await driver.until('the standbys stream again', async () => (await n1.report()).walsenders.length === 2);
  });

  test('a base backup that was broken off leaves a directory that is not started', async () => {
    assert.equal(await n3.stop('fast'), 'ok');
    assert.equal(await n3.cloneInterrupted(n1), 'postgres.cancelled');
    assert.equal((await n3.report()).state, 'incomplete');
    assert.equal(await n3.start('standby'), 'start.incomplete');
    assert.equal(await n3.clone(n1), 'ok');
    const report = await n3.report();
    assert.deepEqual([report.state, report.role], ['stopped', 'standby']);
    assert.equal(await n3.start('standby'), 'ok');
    assert.equal(await n3.follow(n1), 'ok');
  });

  test('replay that is paused does not hold confirmations back, only rows', async () => {
    await n2.pauseReplay();
    const row = await n1.write();
    const { flushLsn } = await n1.report();
    await driver.until('n2 has flushed it', async () => {
      const sender = (await n1.report()).walsenders.find((one) => one.node === 'n2');
      return (sender?.flushLsn ?? 0n) >= (flushLsn ?? 1n);
    });
    assert.equal(await n2.sees(row), false);
    assert.ok(((await n2.report()).replayedLsn ?? 0n) < (flushLsn ?? 0n));
    await n2.resumeReplay();
    await driver.until('the row', () => n2.sees(row));
  });

  test('a slot keeps WAL for its standby, up to max_slot_wal_keep_size; beyond it the slot is lost and the standby cannot go on', async () => {
    await n1.set('wal_keep_size', '0');
    await n1.set('max_slot_wal_keep_size', '32MB');
    assert.equal(await n3.stop('fast'), 'ok');
    await n1.fillWal(16 * 1024 * 1024);
    await n1.checkpoint();
    assert.equal((await n1.slots())['pgherd_n3'] === 'lost', false);
    assert.equal(await n3.start('standby'), 'ok');
    assert.equal(await n3.follow(n1), 'ok', 'one segment behind is no trouble');
    const row = await n1.write();
    await driver.until('n3 is up to date', () => n3.sees(row));
    assert.equal(await n3.stop('fast'), 'ok');
    for (let segment = 0; segment < 6; segment++) {
      await n1.fillWal(16 * 1024 * 1024);
      const last = await n1.write();
      await driver.until('n2, which streams, keeps up', () => n2.sees(last));
    }
    await n1.checkpoint();
    assert.deepEqual(await n1.slots(), { pgherd_n2: 'reserved', pgherd_n3: 'lost' });
    assert.equal(await n3.start('standby'), 'ok');
    assert.equal(await n3.follow(n1, NOT_STREAMING_MS), 'follow.not-streaming');
  });

  test('a diverged node is taken back by a rewind', async () => {
    const before = await n1.write();
    await driver.until('n2 has it', () => n2.sees(before));
    await n2.checkpoint();
    assert.equal(typeof (await n2.detach()), 'object');
    const lost = await n1.write();
    await n2.promote();
    await n2.makeSlot('pgherd_n1');
    const kept = await n2.write();
    assert.equal(await n1.stop('fast'), 'ok');
    assert.equal(await n1.rewind(n2), 'ok', 'which asks for the checkpoint first');
    assert.equal(await n1.start('standby'), 'ok');
    assert.equal(await n1.follow(n2), 'ok');
    await driver.until('the new row', () => n1.sees(kept));
    assert.deepEqual([await n1.sees(before), await n1.sees(lost)], [true, false]);
    assert.equal((await n1.report()).timeline, 2);
  });
}

function others(createDriver: () => Driver): void {
  let driver: Driver;
  let n1: Node;
  let n2: Node;
  let n3: Node;
  before(async () => {
    driver = createDriver();
    [n1, n2, n3] = await three(driver);
  });
  after(() => driver.close());

  test('a killed standby is found crashed, and streams again by itself once it is started', async () => {
    assert.equal(await n3.stop('kill'), 'ok');
    const report = await n3.report();
    assert.deepEqual([report.state, report.role, report.cleanShutdown, report.timeline], ['crashed', 'standby', false, 1]);
    assert.equal(await n3.start('standby'), 'ok');
    const row = await n1.write();
    await driver.until('the row', () => n3.sees(row));
  });

  test('a standby of a standby gets the rows, and is synchronous for nobody', async () => {
    await n2.makeSlot('pgherd_n3');
    assert.equal(await n3.follow(n2), 'ok');
    await n2.set('synchronous_standby_names', 'ANY 1 (n3)');
    await driver.sleep(200);
    const row = await n1.write();
    await driver.until('the row', () => n3.sees(row));
    assert.deepEqual(await n2.priorities(), { n3: 0 });
    assert.equal((await n3.report()).streamingFrom, 'n2');
  });

  test('when the one in the middle is promoted, the other one goes on with it, and counts from then on', async () => {
    assert.equal(await n1.stop('fast'), 'ok');
    await n2.promote();
    const commit = await n2.commit();
    await driver.until('n3 confirms', () => commit.state() === 'acknowledged');
    await driver.until('n3 has it', () => n3.sees(commit.id));
    assert.deepEqual([(await n3.report()).timeline, (await n2.priorities())['n3']], [2, 1]);
  });

  test('a former primary that stopped before the fork follows without a rewind', async () => {
    await n2.makeSlot('pgherd_n1');
    assert.equal(await n1.start('standby'), 'ok');
    assert.equal(await n1.follow(n2), 'ok');
    const row = await n2.write();
    await driver.until('the row', () => n1.sees(row));
    assert.equal((await n1.report()).timeline, 2);
  });

  test('promoted by hand and killed before its first checkpoint, a node looks like one of the old timeline to pg_rewind: it is not rewound', async () => {
    await n2.checkpoint();
    const row = await n2.write();
    await driver.until('it is replayed', () => n1.sees(row));
    await n1.checkpoint();
    // Without dirty pages the first checkpoint of the new timeline would take no time.
    let last = row;
    for (let i = 0; i < 30; i++) last = await n2.write();
    await driver.until('they are replayed', () => n1.sees(last));
    assert.equal(typeof (await n1.detach()), 'object');
    await n1.promote();
    assert.equal(await n1.stop('kill'), 'ok');
    const report = await n1.report();
    assert.deepEqual([report.state, report.role, report.timeline], ['crashed', 'primary', 3]);
    assert.equal(await n1.controlTimeline(), 2);
    assert.equal(await n1.rewind(n2), 'rewind.no-checkpoint');
  });

  test('a standby that is started without standby.signal takes writes on the same timeline: no promotion, no trace in the history', async () => {
    await n2.set('synchronous_standby_names', '');
    await driver.sleep(200);
    const before = await n3.report();
    assert.equal(await n3.stop('fast'), 'ok');
    assert.equal(await n3.start('primary'), 'ok');
    const row = await n3.write();
    const report = await n3.report();
    assert.deepEqual([report.role, report.timeline, report.history], ['primary', 2, before.history]);
    assert.equal(await n2.sees(row), false);
  });
}
