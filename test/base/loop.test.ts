import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Clock, monoMs, realClock, wallMs } from '../../src/base/clock.ts';
import { type LogFields, type Logger, silentLogger } from '../../src/base/log.ts';
import { startLoop } from '../../src/base/loop.ts';

/** A clock whose sleeps end only when they are told to; it records how long each wanted to be. */
function manualClock(): { clock: Clock; sleeps: number[]; wakeSleepers: () => void } {
  const sleeps: number[] = [];
  let sleepers: (() => void)[] = [];
  const clock: Clock = {
    now: () => ({ mono: monoMs(), wall: wallMs() }),
    sleep: (ms, signal) => {
      sleeps.push(ms);
      if (signal?.aborted === true) return Promise.resolve();
      return new Promise((resolve) => {
        sleepers.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    },
  };
  return {
    clock,
    sleeps,
    wakeSleepers: () => {
      const now = sleepers;
      sleepers = [];
      for (const wake of now) wake();
    },
  };
}

async function until(condition: () => boolean): Promise<void> {
  const limit = monoMs() + 5000;
  while (!condition()) {
    assert.ok(monoMs() < limit, 'the condition did not become true within 5 s');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function recordingLogger(): { log: Logger; lines: { level: string; fields: LogFields; message: string }[] } {
  const lines: { level: string; fields: LogFields; message: string }[] = [];
  const at = (level: string) => (fields: LogFields, message: string) => void lines.push({ level, fields, message });
  return { lines, log: { ...silentLogger, info: at('info'), warn: at('warn'), error: at('error') } };
}

describe('a loop', () => {
  test('starts at once, then runs when woken, and says who woke it', async () => {
    const reasons: string[] = [];
    const { clock } = manualClock();
    const loop = startLoop({ name: 't', intervalMs: 60_000, log: silentLogger, clock, step: async (reason) => void reasons.push(reason) });
    await until(() => reasons.length === 1);
    loop.wake('state');
    await until(() => reasons.length === 2);
    assert.deepEqual(reasons, ['start', 'state']);
    await loop.stop();
  });

  test('never runs two steps at once; many wakes during one step make one more', async () => {
    let running = 0;
    let steps = 0;
    let release: () => void = () => {};
    const loop = startLoop({
      name: 't',
      intervalMs: 60_000,
      log: silentLogger,
      step: async () => {
        running += 1;
        steps += 1;
        assert.equal(running, 1);
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        running -= 1;
      },
    });
    await until(() => steps === 1);
    for (let i = 0; i < 100; i++) loop.wake(`w${i}`);
    release();
    await until(() => steps === 2);
    release();
    await until(() => running === 0);
    await realClock.sleep(5);
    assert.equal(steps, 2);
    await loop.stop();
  });

  test('waits no longer than a step asks for', async () => {
    const { clock, sleeps } = manualClock();
    const loop = startLoop({ name: 't', intervalMs: 60_000, log: silentLogger, clock, step: () => 250 });
    await until(() => sleeps.length === 1);
    assert.ok((sleeps[0] ?? 0) > 200 && (sleeps[0] ?? 0) <= 250, String(sleeps[0]));
    await loop.stop();
  });

  test('goes on after an error, logs the same one once, and says when it works again', async () => {
    const { log, lines } = recordingLogger();
    let steps = 0;
    const loop = startLoop({
      name: 't',
      intervalMs: 1,
      log,
      step: () => {
        steps += 1;
        if (steps <= 3) throw new Error('store is away');
      },
    });
    await until(() => lines.some((line) => line.level === 'info'));
    await loop.stop();
    assert.deepEqual(
      lines.map((line) => [line.level, line.fields['count']]),
      [
        ['error', 1],
        ['info', 3],
      ],
    );
  });

  test('ends the role at a broken invariant', async () => {
    const crashes: string[] = [];
    let steps = 0;
    const loop = startLoop({
      name: 't',
      intervalMs: 60_000,
      log: silentLogger,
      crash: (error) => void crashes.push(error.message),
      step: () => {
        steps += 1;
        if (steps === 1) throw new Error('invariant: two primaries in one term');
      },
    });
    await until(() => crashes.length === 1);
    await loop.stop();
    assert.deepEqual(crashes, ['invariant: two primaries in one term']);
  });

  test('stop waits for the running step and starts no other', async () => {
    let ended = false;
    let steps = 0;
    let release: () => void = () => {};
    const loop = startLoop({
      name: 't',
      intervalMs: 1,
      log: silentLogger,
      step: async () => {
        steps += 1;
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        ended = true;
      },
    });
    await until(() => steps === 1);
    const stopped = loop.stop();
    loop.wake('late');
    release();
    await stopped;
    assert.equal(ended, true);
    assert.equal(steps, 1);
  });
});
