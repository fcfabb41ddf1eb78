import assert from 'node:assert/strict';
import { test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { type FencePorts, runFence } from '../../src/agent/fence/fence.ts';
import { type Gate, createGate } from '../../src/agent/firewall/gate.ts';
import { FIREWALL_OFF } from '../../src/agent/firewall/firewall.ts';
import { type MonoMs, makeMonoMs } from '../../src/core/ids.ts';
import { ok } from '../../src/core/result.ts';

function ports(change: Partial<FencePorts>, order: string[]): FencePorts {
  const note = (name: string) => async () => {
    order.push(name);
  };
  return {
    clock: realClock,
    closeFirewall: note('firewall'),
    dropAddresses: note('address'),
    stopImmediate: note('stop'),
    killAll: async () => {
      order.push('kill');
      return { complete: true, killed: [7], survivors: [], durationMs: 1 };
    },
    ensureStandbySignal: note('signal'),
    ...change,
  };
}

test('the fence goes from the outside to the inside', async () => {
  const order: string[] = [];
  const outcome = await runFence(ports({}, order));
  assert.equal(outcome.ok, true);
  assert.deepEqual(order, ['firewall', 'address', 'stop', 'kill', 'signal']);
});

test('a step that hangs or fails never holds the kill (Q29, Z25)', async () => {
  const order: string[] = [];
  const hang = () => new Promise<void>(() => undefined);
  const outcome = await runFence(ports({ closeFirewall: hang, dropAddresses: () => Promise.reject(new Error('no')), stopImmediate: hang }, order));
  assert.ok(outcome.ok);
  assert.deepEqual(
    outcome.value.steps.map((step) => step.result),
    ['late', 'failed', 'late', 'done', 'done'],
  );
  assert.ok(outcome.value.durationMs < 4000, `${outcome.value.durationMs} ms`);
});

test('a process that cannot be killed is said, and the fence has not succeeded (H16)', async () => {
  const stuck = { pid: 42, ppid: 1, startTime: 1, state: 'D', command: 'postgres' };
  const outcome = await runFence(ports({ killAll: async () => ({ complete: false, killed: [], survivors: [stuck], durationMs: 1 }) }, []));
  assert.equal(outcome.ok, false);
  assert.match(outcome.ok ? '' : outcome.error.cause, /42 \(postgres, state D\)/);
});

/** A gate, and what it asked of its firewall. */
function gateOf(deadline: () => MonoMs | null): { readonly gate: Gate; readonly asked: string[] } {
  const asked: string[] = [];
  const gate = createGate({
    firewall: {
      ...FIREWALL_OFF,
      apply: async (mode) => {
        asked.push(mode.kind);
        return ok(null);
      },
      turnAway: async () => void asked.push('away'),
    },
    deadline,
    members: () => ['10.0.0.2'],
    onFailure: () => assert.fail('nothing fails here'),
  });
  return { gate, asked };
}

test('the gate follows the lease: open with it, members with it, nobody without it', async () => {
  let deadline: MonoMs | null = makeMonoMs(9);
  const { gate, asked } = gateOf(() => deadline);
  await gate.refresh();
  await gate.openStandby();
  await gate.refresh();
  await gate.close();
  await gate.openTimed();
  await gate.block();
  await gate.refresh();
  deadline = null;
  await gate.close();
  await gate.fence();
  await gate.refresh();
  assert.deepEqual(asked, ['unrestricted', 'members', 'timed', 'closed', 'timed', 'closed', 'closed']);
});

test('only a primary that is open turns newcomers away; every other gate is left as it is', async () => {
  let deadline: MonoMs | null = null;
  const { gate, asked } = gateOf(() => deadline);
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
