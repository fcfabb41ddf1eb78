/** The doors of the synchronous set on a modelled server: when every process acts on a new set, as the agent's judgement would have to find out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createModelDriver } from './model-driver.ts';

const SET = { method: 'any', k: 1, members: ['n2'] } as const;
const NAMES = 'ANY 1 ("n2")';

test('names are written, loaded by each process at its own time, and a terminated walsender comes back with the newest', async () => {
  const driver = createModelDriver(3n);
  const [n1, n2] = [await driver.node('n1'), await driver.node('n2')];
  await n1.create();
  assert.equal(await n2.clone(n1), 'ok');
  assert.equal(await n2.start('standby'), 'ok');
  assert.equal(await n2.follow(n1), 'ok');
  const { sync } = driver.port('n1');
  assert.equal(await sync.written(), null);
  const applied = await sync.apply(SET);
  assert.deepEqual([applied.ok && applied.value.changed, await sync.written()], [true, NAMES]);
  const look = async () => {
    const seen = await sync.look();
    assert.ok(seen.ok);
    return seen.value;
  };
  await driver.until('all of them have it', async () => {
    const seen = await look();
    return seen.names === NAMES && seen.checkpointer === 'idle' && seen.senders.every((sender) => sender.priority === 1);
  });
  const [before] = (await look()).senders;
  assert.ok(before !== undefined && before.flushLsn !== null);
  await sync.end([before.pid]);
  await driver.until('another one is there', async () => {
    const [now] = (await look()).senders;
    return now !== undefined && now.pid !== before.pid && now.startedMs > before.startedMs && now.priority === 1;
  });
  const again = await sync.apply(SET);
  assert.equal(again.ok && again.value.changed, false);
  await driver.close();
});
