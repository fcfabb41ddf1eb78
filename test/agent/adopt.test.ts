/** An agent that starts takes over what its guard kept, and does not wait for a guard that says nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type WriteLeaseOptions, createWriteLease } from '../../src/agent/write-lease.ts';
import type { GuardClient } from '../../src/agent/guard/guard-client.ts';
import { createLogger } from '../../src/base/log.ts';
import { makeMonoMs, makeWallMs } from '../../src/core/ids.ts';

test('an agent that starts beside a stopped guard goes on after a second without its lease, so that it can fence', async () => {
  const slept: number[] = [];
  const silent = { ensure: () => new Promise(() => undefined), close: () => undefined, watchdog: () => null } as unknown as GuardClient;
  const parts = await createWriteLease({
    config: {
      node: 'n1',
      cluster: 'c1',
      port: 5432,
      firewall: 'off',
      guard: true,
      watchdog: { mode: 'off', device: '/dev/watchdog', timeoutSeconds: 10 },
    },
    instance: { stateDirectory: '/none', dataDirectory: '/none/data' },
    doors: {
      clock: {
        now: () => ({ mono: makeMonoMs(0), wall: makeWallMs(0) }),
        sleep: async (ms: number) => void slept.push(ms),
      },
      bootMs: () => 0,
      firewall: { kind: 'off', table: null, close: () => undefined },
      guard: silent,
      adoptable: () => assert.fail('nothing was answered'),
    },
    log: createLogger({ role: 'test', level: 'error', stream: { write: () => undefined } }),
    spec: () => null,
  } as unknown as WriteLeaseOptions);
  assert.equal(await parts.adopt(), false);
  assert.deepEqual(slept, [1000]);
  assert.equal(parts.keeper.heldTerm(), null);
});
