import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutSessions } from '../../src/agent/postgres/log-tail.ts';

test("what sessions log is left out of the server's own words, with the lines that go on from it; lines of another prefix stay", () => {
  const own = [
    '2026-11-22 23:08:32.116 UTC [40] FATAL:  could not connect to the primary server: No route to host',
    '\tIs the server running on that host?',
  ];
  const lines = [
    '2026-11-22 23:08:32.110 UTC [41] app@app psql ERROR:  cannot execute INSERT in a read-only transaction',
    '2026-11-22 23:08:32.110 UTC [41] app@app psql STATEMENT:  insert into users',
    "\tvalues ('a secret')",
    ...own,
    '2026-11-22 23:08:32.117 UTC [42] [unknown]@[unknown] [unknown] LOG:  connection received',
    'a line of a prefix that a person chose',
  ];
  assert.deepEqual(withoutSessions(lines), [...own, 'a line of a prefix that a person chose']);
});
