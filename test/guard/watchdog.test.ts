import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import { type GuardClient, createGuardClient } from '../../src/agent/guard/guard-client.ts';
import { createLeaseGuard } from '../../src/agent/guard/lease-guard.ts';
import type { WatchdogConfig } from '../../src/agent/guard/protocol.ts';
import { type OpenDevice, type Watchdog, createWatchdog } from '../../src/agent/guard/watchdog.ts';
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

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a device that is open is fed and let go; before it is open nothing is written', async () => {
  const { watchdog, done } = fake();
  watchdog.feed();
  await watchdog.open(config('required'));
  assert.deepEqual(watchdog.status(), { state: 'armed', detail: '/dev/watchdog, 5 s' });
  watchdog.feed();
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

test('a device that cannot be opened, or not be written to, is told with the reason', async () => {
  const missing = fake({ fails: 'open' });
  await missing.watchdog.open(config('automatic'));
  assert.deepEqual(missing.watchdog.status(), { state: 'failed', detail: 'ENOENT /dev/watchdog' });
  await missing.watchdog.release();
  assert.equal(missing.watchdog.status().state, 'failed', 'the reason stays');
  const broken = fake({ fails: 'feed' });
  await broken.watchdog.open(config('automatic'));
  broken.watchdog.feed();
  await settle();
  assert.deepEqual(broken.watchdog.status(), { state: 'failed', detail: 'no such device any more' });
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
  const guardWith = (watchdog: WatchdogConfig): ReturnType<typeof createLeaseGuard> =>
    createLeaseGuard({
      client,
      postgres: () => ({ dataDirectory: rig.dataDirectory, postmaster: null, table: null, addresses: [] }),
      onFenced: () => undefined,
      watchdog,
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
});
