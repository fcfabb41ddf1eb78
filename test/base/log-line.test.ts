import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mergeLogs, parseLog } from '../../src/base/log-line.ts';
import { createLogger } from '../../src/base/log.ts';
import { keepRecentLines, tailFile } from '../../src/base/recent-lines.ts';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const at = (iso: string): number => Date.parse(iso);

describe("PostgreSQL's log lines", () => {
  test('keep their time in every zone: named by itself, by an offset, or the host’s', () => {
    const line = (zone: string): string => `2026-11-21 07:18:58.123 ${zone} [4711] LOG:  database system is ready`;
    const read = (zone: string): number | null | undefined => parseLog('postgres', [line(zone)], 480)[0]?.atMs;
    assert.equal(read('UTC'), at('2026-11-21T07:18:58.123Z'));
    assert.equal(read('+0530'), at('2026-11-21T01:48:58.123Z'));
    assert.equal(read('-03'), at('2026-11-21T10:18:58.123Z'));
    assert.equal(read('CST'), at('2026-11-20T23:18:58.123Z'));
  });

  test('DETAIL, HINT, STATEMENT and further lines of a statement belong to their message', () => {
    const [first, second, ...more] = parseLog(
      'postgres',
      [
        '2026-11-21 07:18:58.123 UTC [12] app@demo psql ERROR:  duplicate key value',
        '2026-11-21 07:18:58.123 UTC [12] app@demo psql DETAIL:  Key (id)=(1) already exists.',
        '2026-11-21 07:18:58.123 UTC [12] app@demo psql STATEMENT:  insert into t',
        '\tvalues (1)',
        '2026-11-21 07:18:59 UTC [13] FATAL:  terminating',
      ],
      0,
    );
    assert.deepEqual(more, []);
    assert.deepEqual(
      [first?.level, first?.text],
      ['error', '[12] app@demo psql ERROR:  duplicate key value\nDETAIL:  Key (id)=(1) already exists.\nSTATEMENT:  insert into t\n\tvalues (1)'],
    );
    assert.deepEqual([second?.level, second?.atMs], ['error', at('2026-11-21T07:18:59Z')]);
  });

  test('of another prefix are shown as they are, without a time', () => {
    assert.deepEqual(parseLog('postgres', ['something else', ''], 0), [
      { atMs: null, source: 'postgres', level: null, text: 'something else', detail: {} },
    ]);
  });
});

describe('our log lines', () => {
  test('are read as what the logger wrote, and what is not JSON stays', () => {
    const recent = keepRecentLines();
    const log = createLogger({ role: 'agent', stream: { write: () => undefined }, recent, fields: { cluster: 'demo', node: 'n1' } });
    log.warn({ term: 3, password: 'x' }, 'the store does not answer');
    const [entry, other] = parseLog('agent', [...recent.tail(10), 'Error: not JSON'], 0);
    assert.deepEqual(
      [entry?.level, entry?.text, entry?.detail],
      ['warn', 'the store does not answer', { cluster: 'demo', term: 3, password: '***' }],
    );
    assert.ok((entry?.atMs ?? 0) > at('2020-01-01T00:00:00Z'));
    assert.deepEqual([other?.text, other?.level], ['Error: not JSON', null]);
  });
});

describe('logs as one', () => {
  test('are in the order of time; a line without a time follows the one before it', () => {
    const one = [
      { atMs: 10, is: 'a' },
      { atMs: null, is: 'a2' },
      { atMs: 30, is: 'c' },
    ];
    const two = [
      { atMs: 20, is: 'b' },
      { atMs: 15, is: 'set back' },
      { atMs: 30, is: 'c2' },
    ];
    assert.deepEqual(
      mergeLogs([one, two]).map((line) => line.is),
      ['a', 'a2', 'b', 'set back', 'c', 'c2'],
    );
  });
});

describe('recent lines', () => {
  test('are bounded, and the newest are kept', () => {
    const recent = keepRecentLines();
    for (let index = 0; index < 10_000; index++) recent.add(`line ${index}`);
    assert.equal(recent.tail(1)[0], 'line 9999');
    assert.ok(recent.tail(1_000_000).length <= 2000);
    for (let index = 0; index < 8; index++) recent.add('x'.repeat(300_000));
    assert.ok(recent.tail(1_000_000).join('').length <= 1024 * 1024);
  });

  test('of a file begin with a whole line; no file is no lines', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'pgherd-tail-'));
    try {
      writeFileSync(join(directory, 'log'), 'first line\nsecond\n\nthird\n');
      assert.deepEqual(await tailFile(join(directory, 'log'), { count: 10, maxBytes: 18 }), ['second', 'third']);
      assert.deepEqual(await tailFile(join(directory, 'log'), { count: 1, maxBytes: 1000 }), ['third']);
      assert.deepEqual(await tailFile(join(directory, 'none'), { count: 1, maxBytes: 1000 }), []);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
