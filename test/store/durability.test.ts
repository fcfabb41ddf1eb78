/** The store is killed with SIGKILL in the middle of writes: every answered write is there afterwards, and the revisions go on. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { collect, put, until, value } from './contract.ts';
import { freePorts, removeDir, stopChild, tempDir } from './fixtures.ts';

const SERVE = join(import.meta.dirname, 'serve.ts');

async function serve(file: string, port: number): Promise<ChildProcess> {
  const child = spawn(process.execPath, [SERVE, file, String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout ?? child, 'data');
  return child;
}

describe('durability', () => {
  const dir = tempDir();
  const children: ChildProcess[] = [];
  after(async () => {
    await Promise.all(children.map(stopChild));
    removeDir(dir);
  });

  test('every answered write survives kill -9, at whatever moment it comes', async () => {
    const file = join(dir, 'kill.db');
    const [port = 0] = await freePorts(1);
    const store = openStore({ endpoints: [`http://127.0.0.1:${port}`], tls: null });
    const answered = new Map<string, number>();
    for (let round = 0; round < 4; round++) {
      const child = await serve(file, port);
      children.push(child);
      let failed = false;
      const writer = async (name: string): Promise<void> => {
        for (let i = 0; !failed; i++) {
          const key = `/d/${round}/${name}/${i}`;
          const result = await store.txn([], [{ kind: 'put', key, value: key }]);
          if (result.ok) answered.set(key, result.value.revision);
          else failed = true;
        }
      };
      const enough = answered.size + 150 + round * 37;
      const writers = ['a', 'b', 'c', 'd'].map(writer);
      await until('enough writes', () => answered.size >= enough, 20_000);
      await stopChild(child);
      await Promise.all(writers);
    }
    children.push(await serve(file, port));
    const found = new Map(value(await store.list('/d/')).kvs.map((kv) => [kv.key, kv.modRevision as number]));
    for (const [key, revision] of answered) assert.equal(found.get(key), revision, key);
    const next = await put(store, '/d/next', '');
    assert.ok(next > Math.max(...found.values()), 'revisions are not used again');
    store.close();
  });

  test('a client and its watch come back soon after a killed store returns, with nothing missed', async () => {
    const file = join(dir, 'return.db');
    const [port = 0] = await freePorts(1);
    const first = await serve(file, port);
    children.push(first);
    const store = openStore({ endpoints: [`http://127.0.0.1:${port}`], tls: null });
    const seen = collect(store, '/r/', await put(store, '/r/0', '0'));
    await until('the watch stands', () => seen.state.alive > 0);
    await stopChild(first);
    const down = await store.get('/r/0', { deadline: (monoMs() + 300) as never });
    assert.equal(down.ok ? 'ok' : down.error.kind, 'unavailable');
    children.push(await serve(file, port));
    const back = monoMs();
    await until('the store answers', async () => (await store.get('/r/0')).ok);
    const answeredMs = monoMs() - back;
    assert.ok(answeredMs < 1_000, `answered after ${answeredMs} ms`);
    await put(store, '/r/1', '1');
    await until('the watch goes on', () => seen.events().length === 1, 4_000);
    assert.equal(seen.state.ended, null);
    seen.close();
    store.close();
  });

  test('a watch of a store whose files were set back ends, since it would wait for revisions that come again (architecture 4.10)', async () => {
    const file = join(dir, 'set-back.db');
    const [port = 0] = await freePorts(1);
    const store = openStore({ endpoints: [`http://127.0.0.1:${port}`], tls: null });
    let child = await serve(file, port);
    children.push(child);
    const from = await put(store, '/b/0', '0');
    await stopChild(child);
    const old = readdirSync(dir).filter((name) => name.startsWith('set-back.db'));
    for (const name of old) copyFileSync(join(dir, name), join(dir, `old-${name}`));
    child = await serve(file, port);
    children.push(child);
    const seen = collect(store, '/b/', from);
    for (let i = 1; i <= 20; i++) await put(store, `/b/${i}`, '');
    await until('the watch has them', () => seen.events().length === 20, 4_000);
    await stopChild(child);
    for (const name of readdirSync(dir).filter((one) => one.startsWith('set-back.db'))) rmSync(join(dir, name));
    for (const name of old) copyFileSync(join(dir, `old-${name}`), join(dir, name));
    children.push(await serve(file, port));
    await until('the watch ends', () => seen.state.ended !== null, 5_000);
    assert.equal(seen.state.ended, 'lost');
    assert.deepEqual(
      value(await store.list('/b/')).kvs.map(({ key }) => key),
      ['/b/0'],
    );
    seen.close();
    store.close();
  });

  test('a store that stood still (SIGSTOP) longer than a TTL expires no lease whose renewals waited (H31)', async () => {
    const [port = 0] = await freePorts(1);
    const child = await serve(join(dir, 'pause.db'), port);
    children.push(child);
    const store = openStore({ endpoints: [`http://127.0.0.1:${port}`], tls: null });
    const { id } = value(await store.grantLease(1_000));
    const from = await put(store, '/p', '1', id);
    const seen = collect(store, '/p', from);
    child.kill('SIGSTOP');
    const stopped = monoMs();
    await until('more than the TTL passes', () => monoMs() - stopped > 1_500);
    child.kill('SIGCONT');
    value(await store.keepAlive(id));
    assert.equal(value(await store.get('/p'))?.lease, id);
    assert.deepEqual(seen.events(), []);
    seen.close();
    store.close();
  });
});
