/** The write lease over the real client of the store: what one bad endpoint, or a standstill of this process, costs it. */
import assert from 'node:assert/strict';
import { stat } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { monoMs, realClock } from '../../src/base/clock.ts';
import { bootMs } from '../../src/agent/lease/boot-clock.ts';
import { type LeaseEvent, type LeaseKeeper, createLeaseKeeper } from '../../src/agent/lease/lease-keeper.ts';
import { makeClusterId, makeNodeId, makeTerm } from '../../src/core/ids.ts';
import type { Channel } from '../../src/store/channel.ts';
import { openStore } from '../../src/store/etcd-client.ts';
import { status } from '../../src/store/grpc-status.ts';
import { clusterKeys } from '../../src/store/keys.ts';
import { onSilence } from '../../src/store/silence.ts';
import { removeDir, startEmbedded, tempDir } from '../store/fixtures.ts';

const keys = clusterKeys(makeClusterId('demo'));
const settings = { ttlMs: 3000, renewMs: 500, marginMs: 500 };

interface Rig {
  readonly keeper: LeaseKeeper;
  readonly events: LeaseEvent[];
  readonly lost: string[];
  /**
   * `half`: the first endpoint answers that it is there, and nothing else, as a member does that hangs on its disk or on its peers. `standstill`: this process
   * stops for 1.2 s in the middle of the next renewal.
   */
  turn(mode: 'half' | 'standstill'): void;
}

async function rig(t: TestContext): Promise<Rig> {
  const directory = tempDir();
  const engine = await startEmbedded({ file: join(directory, 'store.db') });
  let mode: 'well' | 'half' | 'standstill' = 'well';
  let sent = 0;
  /** Once both halves of a renewal are on their way the process stands still; the answers are read when it goes on, after its timers. */
  const send = (): void => {
    sent += 1;
    if (mode !== 'standstill' || sent < 2) return;
    for (const until = monoMs() + 1200; monoMs() < until; );
    mode = 'well';
  };
  const arrived = (): Promise<void> => new Promise((resolve) => stat('/', () => resolve()));
  const half = (channel: Channel): Channel => ({
    ...channel,
    unary: (call) => {
      const isStatus = call.method.path.endsWith('/Status');
      if (mode === 'half' && !isStatus)
        return new Promise((resolve) =>
          onSilence(call.limitMs, () => resolve({ kind: 'failed', sent: true, error: { code: status.DEADLINE_EXCEEDED, details: 'silence' } })),
        );
      if (mode === 'well' || isStatus) return channel.unary(call);
      const read = arrived();
      const answer = channel.unary({ ...call, limitMs: 60_000 });
      send();
      return read.then(() => answer);
    },
    stream: (method, metadata, handlers) => {
      let read: Promise<void> | null = null;
      const stream = channel.stream(method, metadata, {
        ...handlers,
        onMessage: (message) => {
          if (read !== null) void read.then(() => handlers.onMessage(message));
          else if (mode !== 'half') handlers.onMessage(message);
        },
      });
      return {
        ...stream,
        write: (message) => {
          if (mode === 'half') return;
          read = mode === 'standstill' ? arrived() : null;
          stream.write(message);
          if (mode === 'standstill') send();
        },
      };
    },
  });
  const [first, second] = ['http://127.0.0.1:1', 'http://127.0.0.1:2'];
  const store = openStore({
    endpoints: [first, second],
    tls: null,
    openChannel: (url) => (url === first ? half(engine.openChannel(url)) : engine.openChannel(url)),
  });
  const state = await store.txn(
    [],
    [{ kind: 'put', key: keys.state, value: JSON.stringify({ term: 3, goals: { n1: { kind: 'primary', term: 3 } } }) }],
  );
  assert.ok(state.ok);
  const events: LeaseEvent[] = [];
  const lost: string[] = [];
  const keeper = createLeaseKeeper({
    store,
    keys,
    node: makeNodeId('n1'),
    settings: () => settings,
    clock: realClock,
    bootMs,
    guard: { prepare: async () => true, arm: async () => true, shorten: async () => true, disarm: async () => true },
    askPromises: async () => null,
    returnPromises: async () => undefined,
    onRenewed: () => undefined,
    onPaused: () => undefined,
    onLost: (_term, why) => lost.push(why),
    onEvent: (event) => events.push(event),
  });
  t.after(async () => {
    keeper.stop();
    store.close();
    await engine.close();
    removeDir(directory);
  });
  const taken = await keeper.acquire(makeTerm(3), state.value.revision);
  assert.ok(taken.ok);
  return {
    keeper,
    events,
    lost,
    turn: (to) => {
      mode = to;
      sent = 0;
    },
  };
}

test('an endpoint that is there and renews nothing is left early enough for another one within the deadline (Z5)', async (t) => {
  const { keeper, events, lost, turn } = await rig(t);
  await realClock.sleep(600);
  turn('half');
  const failedAt = monoMs();
  const before = events.length;
  const since = (): readonly LeaseEvent[] => events.slice(before);
  while (!since().some((event) => event.kind === 'renewal-failed') && monoMs() - failedAt < 4000) await realClock.sleep(10);
  while (since().at(-1)?.kind !== 'renewed' && monoMs() - failedAt < 4000) await realClock.sleep(10);
  const failures = since().filter((event) => event.kind === 'renewal-failed');
  assert.equal(failures.length, 1, JSON.stringify(since()));
  // More than the limit of another try was left.
  assert.ok((failures[0]?.leftMs ?? 0) > 850, JSON.stringify(failures));
  assert.equal(keeper.heldTerm(), 3);
  assert.deepEqual(lost, []);
});

test('a standstill of this process is not taken for the silence of the store: what was answered meanwhile is read first', async (t) => {
  const { keeper, events, turn } = await rig(t);
  turn('standstill');
  assert.equal(await keeper.renewNow(), 'store');
  assert.deepEqual(
    events.filter((event) => event.kind === 'renewal-failed'),
    [],
  );
});
