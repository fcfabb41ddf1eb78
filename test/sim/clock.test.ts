import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createScheduler, runVirtually } from '../../sim/clock.ts';
import { createRandom } from '../../sim/random.ts';

describe('the virtual clock', () => {
  test('carries out events by time, then by order of entry, and all promise reactions between two of them', async () => {
    const seen = await runVirtually(() => {
      const clock = createScheduler();
      const lines: string[] = [];
      clock.after(20, () => lines.push(`second at ${clock.nowMs()}`));
      clock.after(10, () => lines.push('first'));
      clock.after(20, () => lines.push('third'));
      void (async () => {
        await clock.sleep(10);
        for (let i = 0; i < 3; i++) await Promise.resolve();
        lines.push(`reaction at ${clock.nowMs()}`);
      })();
      while (clock.step(1_000));
      return lines;
    });
    assert.deepEqual(seen, ['first', 'reaction at 10', 'second at 20', 'third']);
  });

  test('runs nothing of a killed process, and what a stopped one missed when it goes on', async () => {
    const seen = await runVirtually(() => {
      const clock = createScheduler();
      const lines: string[] = [];
      const host = clock.scope('host');
      const agent = host.child('agent');
      const other = host.child('other');
      agent.after(10, () => lines.push(`agent at ${clock.nowMs()}`));
      other.after(10, () => lines.push(`other at ${clock.nowMs()}`));
      void other.enter(clock.sleep(20)).then(() => lines.push(`answer at ${clock.nowMs()}`));
      agent.pause();
      clock.after(15, () => host.pause());
      clock.after(30, () => agent.kill());
      clock.after(40, () => host.resume());
      while (clock.step(1_000));
      return lines;
    });
    assert.deepEqual(seen, ['other at 10', 'answer at 40']);
  });

  test('aborted sleeps end at once', async () => {
    const seen = await runVirtually(() => {
      const clock = createScheduler();
      const abort = new AbortController();
      let at = -1;
      void clock.root.sleep(1_000, abort.signal).then(() => {
        at = clock.nowMs();
      });
      clock.after(5, () => abort.abort());
      while (clock.step(10_000));
      return at;
    });
    assert.equal(seen, 5);
  });
});

describe('randomness', () => {
  test('is a function of the seed, and of the name of the stream', () => {
    const first = createRandom(7n);
    const draws = [first.uint32(), first.uint32()];
    assert.deepEqual([createRandom(7n).uint32(), createRandom(8n).uint32() === draws[0]], [draws[0], false]);
    const stream = createRandom(7n).stream('network').uint32();
    assert.equal(first.stream('network').uint32(), stream);
    assert.notEqual(createRandom(7n).stream('disk').uint32(), stream);
  });

  test('stays within its bounds', () => {
    const random = createRandom(1n);
    for (let i = 0; i < 1_000; i++) {
      assert.ok(random.below(3) < 3);
      const between = random.between(5, 7);
      assert.ok(between >= 5 && between <= 7);
      assert.ok(random.delay(10) <= 100);
    }
    assert.deepEqual([...random.shuffle([1, 2, 3])].sort(), [1, 2, 3]);
  });
});
