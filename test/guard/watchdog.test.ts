import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { type MonoMs, addMono } from '../../src/core/ids.ts';
import { type GuardClient, createGuardClient } from '../../src/agent/guard/guard-client.ts';
import { createLeaseGuard } from '../../src/agent/guard/lease-guard.ts';
import type { WatchdogConfig } from '../../src/agent/guard/protocol.ts';
import { type OpenDevice, type Watchdog, createWatchdog, longestWatchdogSeconds } from '../../src/agent/guard/watchdog.ts';
import { PATIENT, type Rig, createRig, until } from './harness.ts';

const config = (mode: WatchdogConfig['mode']): WatchdogConfig => ({ mode, device: '/dev/watchdog', timeoutSeconds: 5 });

interface Fake {
  readonly watchdog: Watchdog;
  /** `open`, `feed`, `release`, in order. */
  readonly done: string[];
}

function fake(options: { readonly seconds?: number | null; readonly fails?: 'open' | 'feed' } = {}): Fake {
  const done: string[] = [];
  const device: OpenDevice = {
    timeoutSeconds: options.seconds === undefined ? 5 : options.seconds,
    feed: async () => {
      done.push('feed');
      if (options.fails === 'feed') throw new Error('no such device any more');
    },
    release: async () => void done.push('release'),
  };
  const watchdog = createWatchdog(async () => {
    done.push('open');
    if (options.fails === 'open') throw new Error('ENOENT /dev/watchdog');
    return device;
  });
  return { watchdog, done };
}

const NOW = 100_000 as MonoMs;
const LEASE = { ttlMs: 3000, renewMs: 500, marginMs: 500 };
/** Armed by an agent that does not say how long the lease is. */
const AHEAD = { deadline: addMono(NOW, 2500), lease: null };

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a device that is open is fed and let go; before it is open nothing is written', async () => {
  const { watchdog, done } = fake();
  watchdog.feed(AHEAD, NOW);
  await watchdog.open(config('required'));
  assert.deepEqual(watchdog.status(), { state: 'armed', detail: '/dev/watchdog, 5 s', late: false });
  watchdog.feed(AHEAD, NOW);
  await settle();
  await watchdog.open(config('required'));
  await watchdog.release();
  await watchdog.release();
  assert.deepEqual(done, ['open', 'feed', 'release']);
  assert.equal(watchdog.status().state, 'off');
});

test('a device that resets too late, or does not tell when, serves `automatic` and not `required`', async () => {
  for (const seconds of [60, null]) {
    const automatic = fake({ seconds });
    await automatic.watchdog.open(config('automatic'));
    assert.equal(automatic.watchdog.status().state, 'armed');
    const required = fake({ seconds });
    await required.watchdog.open(config('required'));
    assert.equal(required.watchdog.status().state, 'failed');
    assert.deepEqual(required.done, ['open', 'release']);
  }
});

test('the longest time of a device leaves a renewal its time, in whole seconds', () => {
  const longest = (ttlMs: number, renewMs: number): number => longestWatchdogSeconds({ ttlMs, renewMs });
  assert.deepEqual([longest(3000, 500), longest(2000, 500), longest(10_000, 2000), longest(30_000, 500), longest(1000, 200)], [2, 1, 8, 29, 1]);
});

test('a device that is fast enough is fed only while it would reset the host before the lease can be another node’s', async () => {
  // The lease was renewed at NOW: its deadline is 2.5 s later, and the store lets nobody else have it for 3 s.
  const armed = { deadline: addMono(NOW, 2500), lease: LEASE };
  for (const [seconds, lastMs] of [
    [2, 1000],
    [1, 2000],
  ] as const) {
    const { watchdog, done } = fake({ seconds });
    await watchdog.open(config('required'));
    for (const at of [0, lastMs, lastMs + 1, 2499]) {
      watchdog.feed(armed, addMono(NOW, at));
      await settle();
    }
    assert.deepEqual(done, ['open', 'feed', 'feed'], `${seconds} s`);
    assert.equal(watchdog.status().late, false);
  }
});

test('a device that is too slow for the lease, or does not tell its time, is fed until the deadline, and told; with a longer lease it is in time', async () => {
  for (const seconds of [3, 60, null]) {
    const { watchdog, done } = fake({ seconds });
    await watchdog.open(config('automatic'));
    watchdog.feed({ deadline: addMono(NOW, 1), lease: LEASE }, NOW);
    await settle();
    assert.deepEqual(done, ['open', 'feed']);
    assert.deepEqual([watchdog.status().state, watchdog.status().late], ['armed', true], `${seconds} s`);
    watchdog.feed({ deadline: addMono(NOW, 99_500), lease: { ...LEASE, ttlMs: 100_000 } }, NOW);
    assert.equal(watchdog.status().late, seconds === null);
  }
});

test('a device that is asked for another time is let go and opened again', async () => {
  const { watchdog, done } = fake({ seconds: 2 });
  await watchdog.open({ ...config('required'), timeoutSeconds: 2 });
  await watchdog.open({ ...config('required'), timeoutSeconds: 2 });
  assert.deepEqual(done, ['open']);
  await watchdog.open({ ...config('required'), timeoutSeconds: 1 });
  assert.deepEqual(done, ['open', 'release', 'open', 'release'], 'it cannot be set so short');
  assert.match(watchdog.status().detail, /resets after 2 s, and at most 1 s are allowed/);
});

test('a device that cannot be opened, or not be written to, is told with the reason', async () => {
  const missing = fake({ fails: 'open' });
  await missing.watchdog.open(config('automatic'));
  assert.deepEqual(missing.watchdog.status(), { state: 'failed', detail: 'ENOENT /dev/watchdog', late: false });
  await missing.watchdog.release();
  assert.equal(missing.watchdog.status().state, 'failed', 'the reason stays');
  const broken = fake({ fails: 'feed' });
  await broken.watchdog.open(config('automatic'));
  broken.watchdog.feed(AHEAD, NOW);
  await settle();
  assert.deepEqual(broken.watchdog.status(), { state: 'failed', detail: 'no such device any more', late: false });
});

let rig: Rig;
let clients: GuardClient[];
beforeEach(() => {
  rig = createRig();
  clients = [];
});
afterEach(async () => {
  for (const client of clients) client.close();
  await rig.cleanup();
});

function openClient(): GuardClient {
  const client = createGuardClient({ ...PATIENT, stateDirectory: rig.stateDirectory, onStarted: (pid) => rig.adopt(pid) });
  clients.push(client);
  return client;
}

/** A plain file in the place of the device: what is written to it can be read. */
function plainDevice(mode: WatchdogConfig['mode']): WatchdogConfig & { written(): string } {
  const device = join(rig.root, 'watchdog-file');
  writeFileSync(device, '');
  return { mode, device, timeoutSeconds: 5, written: () => readFileSync(device, 'latin1') };
}

const armed = (forMs: number, postmaster: { pid: number; startTime: number } | null = null): Parameters<GuardClient['arm']>[0] => ({
  term: 3,
  leaseId: '77',
  deadline: addMono(monoMs(), forMs),
  dataDirectory: rig.dataDirectory,
  postmaster,
  table: null,
  addresses: [],
  at: null,
  lease: null,
});

test('an armed guard feeds the device without being asked, and lets it go when it is disarmed', async () => {
  const client = openClient();
  const device = plainDevice('automatic');
  await client.ensure();
  await client.openWatchdog(device);
  assert.equal(client.watchdog().state, 'off', 'a guard that guards nothing opens no device');
  assert.equal(await client.arm(armed(60_000)), true);
  await client.openWatchdog(device);
  assert.equal(client.watchdog().state, 'armed');
  await until(() => device.written().length >= 3, 5000, 'it is fed');
  assert.equal(await client.disarm(), true);
  await until(() => device.written().endsWith('V'), 2000, 'it is let go');
  assert.equal((await client.status())?.watchdog.state, 'off');
});

test('a guard whose deadline passed feeds it no more, and lets it go only after the last process is gone (Z25)', async () => {
  const client = openClient();
  const device = plainDevice('automatic');
  const postmaster = await rig.startServer(2);
  await client.ensure();
  assert.equal(await client.arm(armed(3000, postmaster)), true);
  await client.openWatchdog(device);
  assert.equal(client.watchdog().state, 'armed');
  await until(() => device.written().endsWith('V'), 10_000, 'it is let go');
  const status = await client.status();
  assert.equal(status?.phase, 'fenced');
  assert.equal(status?.fenced?.complete, true);
});

test('without a device that is required no renewal counts; where it is automatic it is told', async () => {
  const client = openClient();
  const missing = { mode: 'required', device: join(rig.root, 'nothing', 'watchdog'), timeoutSeconds: 5 } as const;
  let settings = LEASE;
  const guardWith = (watchdog: WatchdogConfig, through: GuardClient = client): ReturnType<typeof createLeaseGuard> =>
    createLeaseGuard({
      client: through,
      postgres: () => ({ dataDirectory: rig.dataDirectory, postmaster: null, table: null, addresses: [] }),
      onFenced: () => undefined,
      watchdog,
      settings: () => settings,
      clock: { now: () => ({ mono: monoMs(), wall: 0 as never }) },
    });
  const lease = { term: 3 as never, leaseId: '77', deadline: addMono(monoMs(), 60_000), at: null as never };
  await client.ensure();
  assert.equal(await guardWith(missing).arm(lease), false);
  assert.match(client.watchdog().detail, /ENOENT/);
  assert.equal(await guardWith({ ...missing, mode: 'automatic' }).arm(lease), true);
  assert.equal(client.watchdog().state, 'failed');
  const plain = plainDevice('automatic');
  assert.equal(await guardWith(plain).arm(lease), true);
  assert.equal(client.watchdog().state, 'armed');
  assert.equal(client.watchdog().late, true, 'a plain file tells no time');

  const asked: number[] = [];
  const openWatchdog = client.openWatchdog;
  const recorded = { ...client, openWatchdog: (one: WatchdogConfig) => openWatchdog(one).then(() => void asked.push(one.timeoutSeconds)) };
  const guard = guardWith(plain, recorded);
  await guard.arm(lease);
  await guard.arm(lease);
  settings = { ...LEASE, ttlMs: 30_000 };
  await guard.arm(lease);
  assert.deepEqual(asked, [2, 5], 'less than timeoutSeconds where the lease is shorter');
});
