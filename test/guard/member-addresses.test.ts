import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveMembers } from '../../src/agent/firewall/member-addresses.ts';
import { type Clock, wallMs } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { makeMonoMs } from '../../src/core/ids.ts';
import { eventually } from '../server/harness.ts';

/** Time passes by the test's hand; a sleep ends when its time has come. */
function handClock(): { readonly clock: Clock; pass(ms: number): Promise<void> } {
  let mono = 1000;
  let sleepers: { readonly until: number; readonly wake: () => void }[] = [];
  return {
    clock: {
      now: () => ({ mono: makeMonoMs(mono), wall: wallMs() }),
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          sleepers.push({ until: mono + ms, wake: resolve });
          signal?.addEventListener('abort', () => resolve(), { once: true });
        }),
    },
    pass: async (ms) => {
      mono += ms;
      const due = sleepers.filter((one) => one.until <= mono);
      sleepers = sleepers.filter((one) => one.until > mono);
      for (const one of due) one.wake();
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test('names of members become addresses for the firewall, follow a change, and keep the last answer when none comes', async (t) => {
  const { clock, pass } = handClock();
  let answer: () => Promise<readonly string[]> = () => Promise.resolve(['10.0.0.2', 'fd00::2']);
  let asked = 0;
  const members = resolveMembers({
    hosts: () => ['10.0.0.1', 'db2.example'],
    clock,
    log: silentLogger,
    resolve: () => {
      asked += 1;
      return answer();
    },
  });
  t.after(() => members.stop());
  await pass(0);
  assert.deepEqual(members.current(), ['10.0.0.1', '10.0.0.2', 'fd00::2']);
  assert.deepEqual(members.problems(), []);
  await pass(2000);
  assert.equal(asked, 1, 'not asked again at once');
  answer = () => Promise.resolve(['10.0.0.22']);
  await pass(30_000);
  assert.deepEqual(members.current(), ['10.0.0.1', '10.0.0.22']);
  answer = () => Promise.reject(new Error('getaddrinfo ENOTFOUND db2.example'));
  await pass(30_000);
  assert.deepEqual(members.current(), ['10.0.0.1', '10.0.0.22'], 'the last answer stays');
  assert.match(members.problems()[0]?.text ?? '', /db2.example cannot be looked up .*ENOTFOUND.*10\.0\.0\.22 stays in use/);
  answer = () => Promise.resolve(['10.0.0.2']);
  await pass(2000);
  assert.deepEqual([members.current(), members.problems()], [['10.0.0.1', '10.0.0.2'], []]);
});

test('a name without any answer has no address, and a resolver that hangs is asked once, and said', async (t) => {
  const { clock, pass } = handClock();
  let asked = 0;
  const members = resolveMembers({
    hosts: () => ['10.0.0.1', 'db2.example'],
    clock,
    log: silentLogger,
    resolve: () => {
      asked += 1;
      return new Promise(() => undefined);
    },
  });
  t.after(() => members.stop());
  await pass(0);
  assert.deepEqual(members.current(), ['10.0.0.1']);
  await pass(3000);
  assert.match(members.problems()[0]?.text ?? '', /has no address \(no answer within 3000 ms\)/);
  for (let round = 0; round < 10; round++) await pass(60_000);
  assert.equal(asked, 1);
});

test('the system knows the names of this host', async (t) => {
  const members = resolveMembers({ hosts: () => ['localhost'], clock: handClock().clock, log: silentLogger });
  t.after(() => members.stop());
  await eventually('localhost', async () => (members.current().some((address) => address === '127.0.0.1' || address === '::1') ? true : null));
});
