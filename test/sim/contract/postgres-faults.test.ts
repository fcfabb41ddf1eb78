/** Faults of the modelled PostgreSQL that a test cannot do to a real server without harm: power, disks, links. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { contains } from '../../../sim/model/postgres/wal.ts';
import type { Node, RunningCommit } from './driver.ts';
import { type ModelDriver, createModelDriver } from './model-driver.ts';

let driver: ModelDriver;
let n1: Node;
let n2: Node;

async function pair(seed: bigint): Promise<void> {
  driver = createModelDriver(seed);
  [n1, n2] = [await driver.node('n1'), await driver.node('n2')];
  await n1.create();
  assert.equal(await n2.clone(n1), 'ok');
  assert.equal(await n2.start('standby'), 'ok');
  assert.equal(await n2.follow(n1), 'ok');
}

describe('the modelled PostgreSQL in trouble', () => {
  beforeEach(() => pair(11n));
  afterEach(() => driver.close());

  test('a loss of power takes what was not fsynced, and nothing that was acknowledged', async () => {
    let lost = 0;
    for (let round = 0; round < 12; round++) {
      const commits: RunningCommit[] = [];
      for (let i = 0; i < 20; i++) {
        commits.push(await n1.commit());
        await driver.sleep(0.2);
      }
      const acknowledged = commits.filter((commit) => commit.state() === 'acknowledged');
      driver.server('n1').powerOff();
      assert.ok(commits.every((commit) => commit.state() !== 'running'));
      assert.equal(await n1.start('primary'), 'ok');
      for (const commit of acknowledged) assert.equal(await n1.sees(commit.id), true);
      for (const commit of commits) if (!(await n1.sees(commit.id))) lost++;
    }
    assert.ok(lost > 0);
  });

  test('a standby never has what its primary could still lose', async () => {
    driver.server('n1').setDisk({ fsyncMs: 400 });
    const commit = await n1.commit();
    await driver.sleep(150);
    driver.server('n1').powerOff();
    assert.equal(await n1.start('primary'), 'ok');
    assert.deepEqual([await n1.sees(commit.id), await n2.sees(commit.id)], [false, false]);
  });

  test('a stuck disk holds commits and stops, not looks; processes in its hands survive a kill', async () => {
    driver.server('n1').setDisk({ stuck: true, holdsProcesses: true });
    const commit = await n1.commit();
    await driver.sleep(3000);
    assert.equal(commit.state(), 'running');
    assert.equal((await n1.report()).state, 'running');
    const killed = await driver.port('n1').kill();
    assert.equal(killed.ok ? 'ok' : killed.error.code, 'fence.survivors');
    driver.server('n1').setDisk({ stuck: false, holdsProcesses: false });
    const again = await driver.port('n1').kill();
    assert.equal(again.ok, true);
    assert.notEqual((await n1.report()).state, 'running');
  });

  test('a start on a stuck disk does not end, says so, and goes on when the disk does', async () => {
    assert.equal(await n1.stop('kill'), 'ok');
    driver.server('n1').setDisk({ stuck: true });
    const starting = n1.start('primary');
    await driver.sleep(100);
    const first = await n1.report();
    await driver.sleep(5000);
    const second = await n1.report();
    assert.deepEqual([first.state, second.state], ['starting', 'starting']);
    assert.ok((second.stalledMs ?? 0) - (first.stalledMs ?? 0) >= 4900);
    driver.server('n1').setDisk({ stuck: false });
    assert.equal(await starting, 'ok');
    assert.equal((await n1.report()).state, 'running');
  });

  test('a full disk is a panic for a primary, and a pause for a standby', async () => {
    driver.server('n2').setDisk({ full: true });
    const row = await n1.write();
    await driver.sleep(1000);
    assert.deepEqual([(await n2.report()).state, await n2.sees(row)], ['running', false]);
    driver.server('n2').setDisk({ full: false });
    await driver.until('it goes on', () => n2.sees(row));
    driver.server('n1').setDisk({ full: true });
    const commit = await n1.commit();
    await driver.until('it is down', async () => (await n1.report()).state === 'crashed');
    assert.equal(commit.state(), 'lost');
    assert.equal(await n1.start('primary'), 'start.failed');
  });

  test('a short cut delays WAL, a long one ends the connection, and both end without a gap', async () => {
    for (const ms of [2000, 9000]) {
      driver.network.cut('n1', 'n2');
      driver.network.cut('n2', 'n1');
      const row = await n1.write();
      await driver.sleep(ms);
      assert.equal(await n2.sees(row), false);
      assert.equal((await n1.report()).walsenders.length, ms > 5000 ? 0 : 1);
      driver.network.healAll();
      await driver.until('it has it', () => n2.sees(row));
    }
  });

  test('a standby that cannot answer gets rows, is not counted, and is given up', async () => {
    await n1.set('synchronous_standby_names', 'n2');
    await driver.sleep(100);
    driver.network.cut('n2', 'n1');
    const commit = await n1.commit();
    await driver.until('it has the row', () => n2.sees(commit.id));
    assert.equal(commit.state(), 'running');
    await driver.until('the walsender ends', async () => (await n1.report()).walsenders.length === 0);
    driver.network.heal('n2', 'n1');
    await driver.until('it comes back and confirms', () => commit.state() === 'acknowledged');
  });

  test('a standby started as a primary without a promotion writes on the same timeline: the numbers agree, the histories do not', async () => {
    await n1.write();
    await driver.sleep(50);
    assert.equal(await n2.stop('fast'), 'ok');
    assert.equal(await n2.start('primary'), 'ok');
    await n1.write();
    await n2.write();
    const [one, two] = [await n1.report(), await n2.report()];
    assert.deepEqual([one.timeline, one.history, one.role], [two.timeline, two.history, two.role]);
    const [a, b] = [driver.server('n1').disk.directory?.end, driver.server('n2').disk.directory?.end];
    assert.ok(a !== undefined && b !== undefined && !contains(a, b) && !contains(b, a));
  });

  test('a server that is stopped hears no signal until it goes on', async () => {
    n1.freeze();
    driver.server('n1').signal('fast');
    await driver.sleep(2000);
    assert.notEqual(driver.server('n1').core.run, null);
    n1.thaw();
    await driver.until('it ends then', () => driver.server('n1').core.run === null);
    assert.equal((await n1.report()).cleanShutdown, true);
  });

  test('an agent’s look at a stopped server ends, and says hung at the second one', async () => {
    n1.freeze();
    const [first, second] = [await n1.report(), await n1.report()];
    assert.deepEqual([first.state === 'hung', second.state, second.role], [false, 'hung', 'primary']);
    n1.thaw();
    assert.equal((await n1.report()).state, 'running');
  });

  test('the same seed makes the same story', async () => {
    const stories: string[] = [];
    for (let i = 0; i < 2; i++) {
      await driver.close();
      await pair(5n);
      await n1.set('synchronous_standby_names', 'n2');
      const commit = await n1.commit();
      await driver.until('it is acknowledged', () => commit.state() === 'acknowledged');
      await n2.promote();
      const { directory } = driver.server('n2').disk;
      stories.push([directory?.end.lsn, directory?.timeline.tli, directory?.systemIdentifier].join(' '));
    }
    assert.equal(stories[0], stories[1]);
  });
});
