import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createClock, runVirtually } from '../../sim/clock.ts';
import { createRandom } from '../../sim/random.ts';

describe('the virtual clock', () => {
  test('carries out events by time, then by order of entry, and all promise reactions between two of them', async () => {
    const seen = await runVirtually(() => {
      const clock = createClock();
      const lines: string[] = [];
      clock.after(20, () => lines.push(`second at ${clock.now()}`));
      clock.after(10, () => lines.push('first'));
      clock.after(20, () => lines.push('third'));
      void (async () => {
        await clock.sleep(10);
        for (let i = 0; i < 3; i++) await Promise.resolve();
        lines.push(`reaction at ${clock.now()}`);
      })();
      while (clock.step(1_000));
      return lines;
    });
    assert.deepEqual(seen, ['first', 'reaction at 10', 'second at 20', 'third']);
  });

  test('runs nothing of a killed process, and what a stopped one missed when it goes on', async () => {
    const seen = await runVirtually(() => {
      const clock = createClock();
      const lines: string[] = [];
      const host = clock.scope('host');
      const agent = host.child('agent');
      const other = host.child('other');
      agent.after(10, () => lines.push(`agent at ${clock.now()}`));
      other.after(10, () => lines.push(`other at ${clock.now()}`));
      void other.enter(clock.sleep(20)).then(() => lines.push(`answer at ${clock.now()}`));
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
      const clock = createClock();
      const abort = new AbortController();
      let at = -1;
      void clock.sleep(1_000, abort.signal).then(() => {
        at = clock.now();
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
    const draws = [first.next(), first.next()];
    assert.deepEqual([createRandom(7n).next(), createRandom(8n).next() === draws[0]], [draws[0], false]);
    const stream = createRandom(7n).stream('network').next();
    assert.equal(first.stream('network').next(), stream);
    assert.notEqual(createRandom(7n).stream('disk').next(), stream);
  });

  test('stays within its bounds', () => {
    const random = createRandom(1n);
    for (let i = 0; i < 1_000; i++) {
      assert.ok(random.int(3) < 3);
      const between = random.between(5, 7);
      assert.ok(between >= 5 && between < 7);
    }
    assert.deepEqual([...random.shuffle([1, 2, 3])].sort(), [1, 2, 3]);
  });
});
