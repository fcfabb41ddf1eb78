/** A whole proxy on a store of its own, without a PostgreSQL: what it follows, and what it says of that. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { initialState } from '../../src/core/cluster/goals.ts';
import { decodeJson, encodeJson } from '../../src/core/decode.ts';
import { makeClusterId, makeMonoMs, makeNodeId, makeTerm, makeWallMs } from '../../src/core/ids.ts';
import { proxyConfig } from '../../src/core/proxy-config.ts';
import type { Result } from '../../src/core/result.ts';
import type { ClusterState } from '../../src/core/state.ts';
import { type ProxyAck, proxyAck } from '../../src/core/traffic.ts';
import { startProxy } from '../../src/proxy/proxy.ts';
import type { EmbeddedStore } from '../../src/store/embedded/server.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import type { Store } from '../../src/store/store.ts';
import { until } from '../lab/plain-postgres.ts';
import { freePorts, removeDir, startEmbedded, tempDir } from '../store/fixtures.ts';

const keys = clusterKeys(makeClusterId('c'));
const directory = tempDir();
let served: EmbeddedStore;
let store: Store;
let stop: () => Promise<void>;

const base: ClusterState = { ...initialState('i', { mono: makeMonoMs(0), wall: makeWallMs(0) }), phase: 'running', primary: makeNodeId('n1') };
const state = (epoch: number, hold = false): ClusterState => ({
  ...base,
  term: makeTerm(3),
  primaryTerm: makeTerm(3),
  route: { epoch, writer: makeNodeId('n1'), readers: [], hold },
});

function done<T>(result: Result<T, unknown>): T {
  assert.ok(result.ok, JSON.stringify(result));
  return result.value;
}

async function put(key: string, value: unknown): Promise<void> {
  done(await store.txn([], [{ kind: 'put', key, value: encodeJson(value) }]));
}

const wishes = (paused: boolean): object => ({ version: 1, weights: {}, paused, by: 'test', sinceWallMs: 0 });

async function ack(): Promise<Pick<ProxyAck, 'epoch' | 'paused'> | null> {
  const read = done(await store.get(keys.proxyAck('p1')));
  const decoded = read === null ? null : decodeJson(proxyAck, read.value);
  return decoded?.ok === true ? { epoch: decoded.value.epoch, paused: decoded.value.paused } : null;
}

async function says(epoch: number, paused: boolean): Promise<void> {
  await until(async () => {
    const said = await ack();
    return said?.epoch === epoch && said.paused === paused;
  }, 5000);
}

before(async () => {
  served = await startEmbedded({ file: join(directory, 'store.db') });
  const [write, read, split] = await freePorts(3);
  const endpoint = `http://127.0.0.1:${served.port}`;
  store = openStore({ endpoints: [endpoint], tls: null });
  writeFileSync(join(directory, 'secret'), 'x\n', { mode: 0o600 });
  const decoded = proxyConfig(
    {
      cluster: 'c',
      id: 'p1',
      listen: { host: '127.0.0.1', write, read, split, admin: null },
      store: { endpoints: [endpoint], ca: null, cert: null, key: null },
      secretFile: join(directory, 'secret'),
      serverTls: 'off',
    },
    '',
  );
  await put(keys.state, state(5));
  stop = done(await startProxy(done(decoded), silentLogger)).stop;
});
after(async () => {
  await stop();
  store.close();
  await served.close();
  removeDir(directory);
});

describe('a proxy', () => {
  test('acknowledges the route that it has applied, and each newer one', async () => {
    await says(5, false);
    await put(keys.state, state(6));
    await says(6, false);
  });

  test('says when it is paused, each time, and follows switchovers meanwhile', async () => {
    for (let n = 0; n < 2; n++) {
      await put(keys.traffic, wishes(true));
      await says(6, true);
      await put(keys.traffic, wishes(false));
      await says(6, false);
    }
    await put(keys.traffic, wishes(true));
    await says(6, true);
    await put(keys.state, state(7, true));
    await says(7, true);
    await put(keys.state, state(8));
    await says(8, true);
    done(await store.txn([], [{ kind: 'delete', key: keys.traffic }]));
    await says(8, false);
  });

  test('keeps the last wishes that it could read', async () => {
    await put(keys.traffic, wishes(true));
    await says(8, true);
    done(await store.txn([], [{ kind: 'put', key: keys.traffic, value: '{"paused":' }]));
    await put(keys.state, state(9));
    await says(9, true);
    await put(keys.traffic, wishes(false));
    await says(9, false);
  });
});
