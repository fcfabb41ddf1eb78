import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { hostController } from '../../src/agent/controller-host.ts';
import type { ControllerOptions } from '../../src/controller/controller.ts';
import { type NodeId, makeClusterId, makeMonoMs, makeNodeId, makeWallMs } from '../../src/core/ids.ts';
import { ok } from '../../src/core/result.ts';
import type { Store, StoreStatus } from '../../src/store/store.ts';
import { createMemoryStore } from '../controller/memory-store.ts';

const log = createLogger({ role: 'test', stream: { write: () => undefined }, pretty: false });
const n1 = makeNodeId('n1');

/** Hosts a controller that only waits for its end, or what `control` does instead. */
function host(options: {
  readonly engine: StoreStatus['engine'];
  readonly controller?: 'auto' | 'on' | 'off';
  /** Default: n3. */
  readonly primary?: NodeId | null;
  readonly primaryNow?: () => NodeId;
  readonly now?: () => number;
  readonly control?: (run: ControllerOptions) => Promise<void>;
}): { readonly runs: ControllerOptions[]; readonly slept: number[]; readonly asked: () => number; stop(): Promise<void> } {
  const runs: ControllerOptions[] = [];
  const slept: number[] = [];
  let asked = 0;
  const memory = createMemoryStore().store;
  const store: Store = {
    ...memory,
    status: async (call) => {
      asked++;
      const status = await memory.status(call);
      return status.ok ? ok({ ...status.value, engine: options.engine }) : status;
    },
  };
  const waits = (run: ControllerOptions): Promise<void> =>
    new Promise((resolve) => run.signal.addEventListener('abort', () => resolve(), { once: true }));
  const hosted = hostController({
    config: { cluster: makeClusterId('demo'), node: n1, controller: options.controller ?? 'auto', fencing: null },
    store,
    clock: {
      now: () => ({ mono: makeMonoMs(options.now?.() ?? 0), wall: makeWallMs(0) }),
      sleep: (ms, signal) => {
        slept.push(ms);
        return new Promise((resolve) => (signal?.aborted === true ? resolve() : setImmediate(resolve)));
      },
    },
    log,
    primary: () => options.primaryNow?.() ?? (options.primary === undefined ? makeNodeId('n3') : options.primary),
    control: (run) => {
      runs.push(run);
      return (options.control ?? waits)(run);
    },
  });
  return { runs, slept, asked: () => asked, stop: () => hosted.stop() };
}

/** The steps of `hostController` up to the run are a few promises. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

test('with etcd an agent is a candidate for the controller; with the store in the server it is none, unless it is told', async () => {
  for (const [engine, controller, expected] of [
    ['etcd', 'auto', 1],
    ['embedded', 'auto', 0],
    ['embedded', 'on', 1],
    ['etcd', 'off', 0],
  ] as const) {
    const hosted = host({ engine, controller });
    await settle();
    assert.equal(hosted.runs.length, expected, `${engine} ${controller}`);
    await hosted.stop();
  }
});

test("a standby's agent stands back for a server, and the primary's for a standby's", async () => {
  const standby = host({ engine: 'etcd', primary: makeNodeId('n2') });
  const primary = host({ engine: 'etcd', primary: n1 });
  await settle();
  const [mine = 0, theirs = 0] = [standby.runs[0]?.standBackMs?.(), primary.runs[0]?.standBackMs?.()];
  assert.ok(mine > 0 && theirs > mine, `${mine} ${theirs}`);
  assert.equal(standby.runs[0]?.name, 'agent/n1');
  await Promise.all([standby.stop(), primary.stop()]);
});

test('before the cluster is created nobody campaigns here: the first controller would sit beside the first primary', async () => {
  const hosted = host({ engine: 'etcd', primary: null });
  await settle();
  assert.equal(hosted.runs.length, 0);
  await hosted.stop();
});

test('a controller beside the primary hands over, after the change that brought it there has settled', async () => {
  let now = 0;
  let primary = makeNodeId('n2');
  const hosted = host({ engine: 'etcd', primaryNow: () => primary, now: () => now });
  await settle();
  const yields = (): boolean | undefined => hosted.runs[0]?.yields?.();
  assert.equal(yields(), false);
  primary = n1;
  assert.equal(yields(), false);
  now += 5000;
  assert.equal(yields(), true);
  primary = makeNodeId('n2');
  assert.equal(yields(), false);
  await hosted.stop();
});

test('a controller that breaks ends itself alone, and campaigns again only after a minute', async () => {
  let broken = 0;
  const hosted = host({
    engine: 'etcd',
    control: (run) =>
      new Promise((resolve) => {
        run.signal.addEventListener('abort', () => resolve(), { once: true });
        if (broken++ === 0) run.crash?.(new Error('invariant: broken'));
      }),
  });
  await settle();
  assert.deepEqual([hosted.runs.length, hosted.slept.includes(60_000)], [2, true]);
  assert.deepEqual(
    hosted.runs.map((run) => run.signal.aborted),
    [true, false],
  );
  await hosted.stop();
});
