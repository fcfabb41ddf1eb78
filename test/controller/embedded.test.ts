import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { runControllers } from '../../src/controller/controllers.ts';
import { decodeJson, encodeJson } from '../../src/core/decode.ts';
import { makeClusterId } from '../../src/core/ids.ts';
import { type ClusterState, clusterState } from '../../src/core/state.ts';
import { startEmbeddedStore } from '../../src/store/embedded/server.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { id, makeTask, picture } from '../core/cluster/picture.ts';

test('over the embedded store: a create command becomes the first goal, a restart of the controller changes nothing', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'pgherd-controller-'));
  const started = await startEmbeddedStore({ file: join(dir, 'store.db'), listen: { host: '127.0.0.1', port: 0 }, tls: null });
  assert.ok(started.ok);
  const store = openStore({ endpoints: [`http://127.0.0.1:${started.value.port}`], tls: null });
  const log = createLogger({ role: 'test', stream: { write: () => undefined }, pretty: false });
  const keys = clusterKeys(makeClusterId('demo'));
  const view = picture('term 0\nn1 absent\nn2 absent');
  const stateNow = async (): Promise<(ClusterState & { readonly revision: number }) | null> => {
    const got = await store.get(keys.state);
    if (!got.ok || got.value === null) return null;
    const decoded = decodeJson(clusterState, got.value.value);
    return decoded.ok ? { ...decoded.value, revision: got.value.modRevision } : null;
  };
  try {
    const puts = [
      { kind: 'put', key: keys.spec, value: encodeJson(view.spec) },
      { kind: 'put', key: keys.task('t1'), value: encodeJson(makeTask({ kind: 'create' })) },
      ...Object.values(view.reports).map((seen) => ({ kind: 'put', key: keys.report(seen.report.node), value: encodeJson(seen.report) }) as const),
    ] as const;
    assert.ok((await store.txn([], puts)).ok);
    const revisions: number[] = [];
    for (const name of ['first', 'second']) {
      const abort = new AbortController();
      const ended = runControllers({ store, clock: realClock, log, name, signal: abort.signal });
      const end = Date.now() + 10_000;
      for (;;) {
        const holder = await store.get(keys.controller);
        const state = await stateNow();
        if (state !== null && state.goals[id('n1')]?.kind === 'create' && holder.ok && holder.value?.value.includes(name) === true) break;
        if (Date.now() > end) throw new Error(`the ${name} controller did not decide`);
        await realClock.sleep(20);
      }
      await realClock.sleep(500);
      revisions.push((await stateNow())?.revision ?? 0);
      abort.abort();
      await ended;
    }
    assert.equal(revisions[0], revisions[1]);
  } finally {
    store.close();
    await started.value.close();
    rmSync(dir, { recursive: true, force: true });
  }
});
