import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSse, parseSse } from '../../src/api/sse.ts';
import { diffJson } from '../../src/server/diff.ts';
import { createFailureLimit } from '../../src/server/limits.ts';
import { makeMonoMs, makeWallMs } from '../../src/core/ids.ts';

test('an event stream that is cut at any byte is read as the whole one', async () => {
  const text = `: alive\r\n\r\n${formatSse({ id: '7', event: 'task', data: '{"text":"zwei\nZeilen, 中文"}' })}${formatSse({ data: 'x' })}event: lost\ndata: half`;
  const bytes = Buffer.from(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const chunks = [bytes.subarray(0, cut), bytes.subarray(cut)];
    const items = [];
    for await (const item of parseSse(
      (async function* () {
        yield* chunks;
      })(),
    ))
      items.push(item);
    assert.deepEqual(
      items,
      [
        { id: '7', event: 'task', data: '{"text":"zwei\nZeilen, 中文"}' },
        { id: '7', event: 'message', data: 'x' },
      ],
      `cut at ${cut}`,
    );
  }
});

test('a difference names each changed leaf; nodes are matched by their id, not by their place', () => {
  const from = {
    a: 1,
    nodes: [
      { id: 'n1', port: 1 },
      { id: 'n2', port: 2 },
    ],
  };
  const to = { a: 1, b: null, nodes: [{ id: 'n2', port: 3 }, { id: 'n1', port: 1 }, { id: 'n3' }] };
  assert.deepEqual(diffJson(from, to), [
    { path: 'nodes[n2].port', from: 2, to: 3 },
    { path: 'nodes[n3]', from: null, to: { id: 'n3' } },
  ]);
  assert.deepEqual(diffJson(from, structuredClone(from)), []);
});

test('wrong tokens are counted a minute an address', () => {
  let mono = 0;
  const clock = { now: () => ({ mono: makeMonoMs(mono), wall: makeWallMs(0) }), sleep: () => Promise.resolve() };
  const limit = createFailureLimit(clock);
  for (let i = 0; i < 10; i++) limit.failed('a');
  assert.equal(limit.waitMs('a'), 60_000);
  assert.equal(limit.waitMs('b'), 0);
  mono = 60_000;
  assert.equal(limit.waitMs('a'), 0);
  limit.failed('a');
  assert.equal(limit.waitMs('a'), 0);
});
