import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMonoMs, makeWallMs } from '../../src/core/ids.ts';
import { watchEndpoints } from '../../src/store/endpoint-watch.ts';

/** Milliseconds until an endpoint answers; null: never; `refuses`: at once, with an error. */
type Behaviour = number | null | 'refuses';

/** Time that passes only when everybody waits for it. */
function virtualTime() {
  let now = 0;
  const waiting: { at: number; go: () => void }[] = [];
  const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (signal?.aborted === true || ms <= 0) return resolve();
      waiting.push({ at: now + ms, go: resolve });
      signal?.addEventListener('abort', () => resolve(), { once: true });
    });
  const run = async (untilMs: number): Promise<void> => {
    for (;;) {
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
      waiting.sort((a, b) => a.at - b.at);
      const next = waiting[0];
      if (next === undefined || next.at > untilMs) break;
      waiting.shift();
      now = next.at;
      next.go();
    }
    now = untilMs;
  };
  return { clock: { now: () => ({ mono: makeMonoMs(now), wall: makeWallMs(now) }), sleep }, run, now: () => now };
}

async function watch(
  behaviour: Readonly<Record<string, (atMs: number) => Behaviour>>,
  runMs: number,
): Promise<readonly (readonly [string, number])[]> {
  const time = virtualTime();
  const ending = new AbortController();
  const moves: (readonly [string, number])[] = [];
  const names = Object.keys(behaviour);
  let current = names[0] ?? '';
  watchEndpoints({
    endpoints: names,
    clock: time.clock,
    signal: ending.signal,
    current: () => current,
    ask: async (name, limitMs, signal) => {
      const answer = behaviour[name]?.(time.now()) ?? null;
      if (answer === 'refuses') return false;
      await time.clock.sleep(Math.min(answer ?? limitMs, limitMs), signal);
      return answer !== null && answer < limitMs;
    },
    moveTo: (name) => {
      current = name;
      moves.push([name, time.now()]);
    },
  });
  await time.run(runMs);
  ending.abort();
  await time.run(runMs + 1000);
  return moves;
}

const well = (): Behaviour => 5;
const silentFrom =
  (fromMs: number) =>
  (atMs: number): Behaviour =>
    atMs >= fromMs ? null : 5;

test('an endpoint that falls silent is left for one that answers, within half a second', async () => {
  const moves = await watch({ a: silentFrom(1001), b: silentFrom(0), c: well }, 5000);
  assert.deepEqual(
    moves.map(([name]) => name),
    ['c'],
  );
  assert.ok((moves[0]?.[1] ?? 0) <= 1001 + 520, `${moves[0]?.[1]} ms`);
});

test('when nobody answers nothing is changed: changing would help nobody', async () => {
  assert.deepEqual(await watch({ a: silentFrom(1000), b: silentFrom(1000), c: silentFrom(1000) }, 10_000), []);
});

test('an endpoint that is slow, but faster than the others, is kept', async () => {
  assert.deepEqual(await watch({ a: () => 300, b: () => 400, c: () => 550 }, 10_000), []);
});

test('an endpoint that refuses, or has no leader, is not silent: who calls it goes on by himself', async () => {
  assert.deepEqual(await watch({ a: () => 'refuses', b: well, c: well }, 10_000), []);
});

test('a single endpoint is never asked', async () => {
  let asked = 0;
  await watch(
    {
      a: () => {
        asked++;
        return 5;
      },
    },
    5000,
  );
  assert.equal(asked, 0);
});
