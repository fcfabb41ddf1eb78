import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Firewall } from '../../src/agent/firewall/firewall.ts';
import { type Gate, createGate } from '../../src/agent/firewall/gate.ts';
import { type MonoMs, makeMonoMs } from '../../src/core/ids.ts';
import { ok } from '../../src/core/result.ts';

/** What the gate asked of its firewall, in order. */
function rig(): { readonly gate: Gate; readonly asked: string[]; hold(until: MonoMs | null): void } {
  const asked: string[] = [];
  let deadline: MonoMs | null = null;
  const firewall: Firewall = {
    kind: 'fail-closed',
    table: 'inet t',
    apply: async (mode) => {
      asked.push(mode.kind);
      return ok(null);
    },
    turnAway: async ({ members }) => void asked.push(`away but ${members.join() || 'nobody'}`),
    welcome: async () => void asked.push('welcome'),
    remove: async () => ok(null),
    close: () => undefined,
  };
  const gate = createGate({ firewall, deadline: () => deadline, members: () => ['10.0.0.1'], onFailure: () => assert.fail('nothing fails here') });
  return {
    gate,
    asked,
    hold: (until) => {
      deadline = until;
    },
  };
}

test('a standby turns newcomers away but members; a primary everybody, because what members may is bound to its lease', async () => {
  const { gate, asked, hold } = rig();
  await gate.openStandby();
  await gate.turnAway();
  await gate.close();
  hold(makeMonoMs(5));
  await gate.openTimed();
  await gate.turnAway();
  assert.deepEqual(asked, ['unrestricted', 'away but 10.0.0.1', 'closed', 'welcome', 'timed', 'away but nobody']);
});

test('newcomers are let in again once, and a renewal alone does not do it', async () => {
  const { gate, asked, hold } = rig();
  hold(makeMonoMs(5));
  await gate.openTimed();
  await gate.turnAway();
  await gate.refresh();
  await gate.welcome();
  await gate.welcome();
  assert.deepEqual(asked, ['timed', 'away but nobody', 'timed', 'welcome']);
});

test('a gate that nobody has set yet, a closed one and a fenced one turn nobody away: they are left as they are', async () => {
  const { gate, asked } = rig();
  await gate.turnAway();
  await gate.close();
  await gate.turnAway();
  await gate.fence();
  await gate.turnAway();
  await gate.prepare();
  assert.deepEqual(asked, ['closed', 'closed']);
});

test('a node that may take over soon gets the rules of a standby, unless it holds a lease', async () => {
  const { gate, asked } = rig();
  await gate.prepare();
  await gate.prepare();
  assert.deepEqual(asked, ['unrestricted']);
  const adopted = rig();
  adopted.hold(makeMonoMs(5));
  await adopted.gate.prepare();
  assert.deepEqual(adopted.asked, []);
});
