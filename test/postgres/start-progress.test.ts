import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { addMono, makeMonoMs } from '../../src/core/ids.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { findPostmaster } from '../../src/agent/postgres/postmaster.ts';
import { createStartProgress, readStartProgress } from '../../src/agent/postgres/start-progress.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { createLab, createPrimary, signalServer, sql, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());

test('the time without progress begins anew with each sign of it, and with another server', async () => {
  let at = makeMonoMs(1000);
  let key = 'a';
  const progress = createStartProgress({ read: async () => ({ key }), now: () => at });
  const after_ = async (ms: number, pid: number): Promise<number> => {
    at = addMono(at, ms);
    return progress.stalledMs(pid);
  };
  assert.deepEqual([await after_(0, 7), await after_(500, 7), await after_(700, 7)], [0, 500, 1200]);
  key = 'b';
  assert.deepEqual([await after_(500, 7), await after_(500, 7)], [0, 500]);
  assert.deepEqual([await after_(500, 8), await after_(500, 8)], [0, 500], 'another postmaster');
  assert.equal(await progress.stalledMs(null), 0);
});

test('a crash recovery that is stopped in the middle is reported as starting without progress (Z34)', async () => {
  const node = await lab.node('n1');
  await createPrimary(node);
  await sql(node, (db) => db.query('CREATE TABLE public.t AS SELECT generate_series(1, 300000) AS id'));
  await killAll(node.dataDirectory);
  const observer = createObserver(node, { members: () => [] });
  const abort = new AbortController();
  const starting = startPostgres(node, { mode: 'primary', mayStart: () => true, signal: abort.signal });
  await until('it starts', () => findPostmaster(node.dataDirectory) !== null);
  signalServer(node.dataDirectory, 'SIGSTOP');
  try {
    const first = await observer.observe();
    assert.equal(first.state, 'starting');
    assert.ok(first.stalledMs !== null);
    const pid = first.postmasterPid ?? 0;
    const before = await readStartProgress(node, pid);
    await until('nothing moves for 200 ms', async () => ((await observer.observe()).stalledMs ?? 0) >= 200);
    assert.equal((await readStartProgress(node, pid)).key, before.key);
  } finally {
    signalServer(node.dataDirectory, 'SIGCONT');
  }
  const started = await starting;
  assert.ok(started.ok, 'what was only stopped comes up');
  assert.equal((await observer.observe()).stalledMs, null);
  observer.close();
});
