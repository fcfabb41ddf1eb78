import assert from 'node:assert/strict';
import { test } from 'node:test';
import { monoMs, realClock } from '../../src/base/clock.ts';
import { addMono } from '../../src/core/ids.ts';
import type { Connection } from '../../src/store/connection.ts';
import { keepAliveOnce } from '../../src/store/keep-alive.ts';

interface Line {
  open: boolean;
  /** Answers the newest renewal. */
  answer(): void;
}

/** An endpoint whose streams a test answers. */
function connect(): { readonly connection: Connection; readonly lines: Line[] } {
  const lines: Line[] = [];
  const endpoint = { url: 'http://store', channel: {}, givenUp: new AbortController() };
  const connection = {
    clock: realClock,
    tryMs: 2000,
    current: () => endpoint,
    prepare: () => Promise.resolve({ kind: 'answer', value: null }),
    foreign: () => null,
    closed: () => false,
    checkHeader: () => null,
    stream: (_endpoint: unknown, _method: unknown, handlers: { onMessage(value: unknown): void }) => {
      const line: Line = { open: true, answer: () => handlers.onMessage({ TTL: 5n, header: undefined }) };
      lines.push(line);
      return {
        write: () => undefined,
        cancel: () => {
          line.open = false;
        },
      };
    },
  };
  return { connection: connection as unknown as Connection, lines };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('renewals of a lease that come one after the other share a stream, and of two first ones at a time one stream stays', async () => {
  const { connection, lines } = connect();
  const renew = (): ReturnType<typeof keepAliveOnce> => keepAliveOnce(connection, '7', addMono(monoMs(), 2000));
  const both = [renew(), renew()];
  await turn();
  assert.equal(lines.length, 2);
  for (const line of lines) line.answer();
  assert.deepEqual(
    (await Promise.all(both)).map((one) => one.ok),
    [true, true],
  );
  assert.deepEqual(
    lines.map((line) => line.open),
    [true, false],
  );
  const third = renew();
  await turn();
  lines[0]?.answer();
  assert.equal((await third).ok, true);
  assert.equal(lines.length, 2);
});
