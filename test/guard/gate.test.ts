import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Firewall } from '../../src/agent/firewall/firewall.ts';
import { createGate } from '../../src/agent/firewall/gate.ts';
import { type MonoMs, makeMonoMs } from '../../src/core/ids.ts';
import { ok } from '../../src/core/result.ts';

test('only a primary that is open turns newcomers away; every other gate is left as it is', async () => {
  const asked: string[] = [];
  let deadline: MonoMs | null = null;
  const firewall: Firewall = {
    kind: 'fail-closed',
    table: 'inet t',
    apply: async (mode) => {
      asked.push(mode.kind);
      return ok(null);
    },
    turnAway: async () => void asked.push('away'),
    remove: async () => ok(null),
    close: () => undefined,
  };
  const gate = createGate({ firewall, deadline: () => deadline, members: () => [], onFailure: () => assert.fail('nothing fails here') });
  await gate.turnAway();
  await gate.openStandby();
  await gate.turnAway();
  await gate.close();
  await gate.turnAway();
  await gate.fence();
  await gate.turnAway();
  assert.deepEqual(asked, ['unrestricted', 'closed', 'closed']);
  deadline = makeMonoMs(5);
  await gate.openTimed();
  await gate.turnAway();
  await gate.refresh();
  assert.deepEqual(asked.slice(3), ['timed', 'away', 'timed']);
});
