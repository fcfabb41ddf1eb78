import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { runProcess } from '../../src/base/process.ts';
import { makeTerm, makeTimeline } from '../../src/core/ids.ts';
import { type Lsn, formatLsn, parseLsn } from '../../src/core/lsn.ts';
import { readControlData } from '../../src/agent/postgres/control-data.ts';
import { asOsUser, binary } from '../../src/agent/postgres/instance.ts';
import { MARK_PREFIX, decodeMark, markOpening, readMarks } from '../../src/agent/postgres/opening-mark.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { lineageOf } from '../../src/agent/postgres/timeline-history.ts';
import { createLab, createPrimary, must, sql } from './harness.ts';

const lab = createLab();
after(() => lab.close());

/** Contract with PostgreSQL: what the mark of an opening relies on (docs/contracts.md). */
test('the opening of a term is marked in the WAL, is flushed with the next commit, and is read back by us and by pg_waldump (Z53)', async () => {
  const node = await lab.node('n1');
  await createPrimary(node);
  const [before] = await sql(node, (db) => db.query('SELECT pg_current_wal_insert_lsn()::text AS at, txid_current_if_assigned() AS xid'));
  const from = parseLsn(String(before?.['at'])) as Lsn;
  const marked = must(await markOpening(node, { term: makeTerm(41) }));
  await sql(node, async (db) => {
    await db.query("SELECT pg_logical_emit_message(false, 'somebody else', 'x')");
    await db.query("SELECT pg_logical_emit_message(false, $1, 'not ours')", [MARK_PREFIX]);
    await db.query('CREATE TABLE public.t (v int)');
    const [flushed] = await db.query('SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn AS yes', [marked.lsn]);
    assert.equal(flushed?.['yes'], true, 'a commit flushes everything before it');
  });
  must(await markOpening(node, { term: makeTerm(42) }));
  const stopped = must(await stopPostgres(node));
  const control = must(await readControlData(node));
  const range = { dataDirectory: node.dataDirectory, segmentBytes: control.segmentBytes, pageBytes: control.pageBytes };
  const marks = await readMarks({ ...range, lineage: lineageOf(makeTimeline(1), []), from, until: null });
  assert.deepEqual(
    marks.map(({ term, node: who }) => [term, who]),
    [
      [41, 'n1'],
      [42, 'n1'],
    ],
  );
  const dumped = await runProcess(
    [
      binary(node, 'pg_waldump'),
      '-p',
      `${node.dataDirectory}/pg_wal`,
      '-r',
      'LogicalMessage',
      '-s',
      formatLsn(from),
      '-e',
      formatLsn(stopped.shutdownLsn ?? from),
    ],
    { ...asOsUser(node), timeoutMs: 20_000 },
  );
  assert.ok(dumped.ok);
  const lines = dumped.value.stdout.split('\n').filter((line) => line.includes('prefix "pgherd"'));
  assert.equal(lines.length, 3, dumped.value.stdout);
  const text = Buffer.from(/payload \(\d+ bytes\): ([0-9A-F ]+)/.exec(lines[0] ?? '')?.[1]?.replaceAll(' ', '') ?? '', 'hex').toString('utf8');
  assert.equal(text, '{"term":41,"node":"n1"}');
  assert.ok(lines[0]?.includes(`lsn: ${formatLsn(marks[0]?.lsn ?? from).replace(/\/.*/, '/')}`));
});

test('a server in recovery cannot be marked', async () => {
  const node = await lab.node('n2');
  await createPrimary(node);
  must(await stopPostgres(node));
  must(await startPostgres(node, { mode: 'standby' }));
  const refused = await markOpening(node, { term: makeTerm(1) });
  assert.equal(refused.ok, false);
});

test('records that are no marks, or cut ones, are not taken for one', () => {
  const lsn = 1n as Lsn;
  const bytes = Buffer.alloc(24 + 2 + 24);
  bytes.writeUInt8(255, 24);
  bytes.writeUInt8(24, 25);
  bytes.writeBigUInt64LE(7n, 26 + 8);
  bytes.writeBigUInt64LE(2n ** 60n, 26 + 16);
  assert.equal(decodeMark({ rmgr: 21, info: 0, bytes, lsn }), null);
  assert.equal(decodeMark({ rmgr: 21, info: 0, bytes: bytes.subarray(0, 24), lsn }), null);
  assert.equal(decodeMark({ rmgr: 10, info: 0, bytes, lsn }), null);
  const foreign = Buffer.from(bytes);
  foreign.writeUInt8(3, 24);
  assert.equal(decodeMark({ rmgr: 21, info: 0, bytes: foreign, lsn }), null, 'a block reference');
});
