import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeTimeline, makeNodeId } from '../../src/core/ids.ts';
import { formatLsn, makeLsn, parseLsn } from '../../src/core/lsn.ts';
import { runProcess } from '../../src/base/process.ts';
import { parseAutoConf, renderAutoConf, setWinning } from '../../src/agent/postgres/auto-conf.ts';
import { parseConninfo, renderConninfo } from '../../src/agent/postgres/conninfo.ts';
import { slotName } from '../../src/core/slot-name.ts';
import { parseControlData, parseControlDataText } from '../../src/agent/postgres/control-data.ts';
import { crc32c } from '../../src/agent/postgres/crc32c.ts';
import { createCollector } from '../../src/agent/postgres/diverged.ts';
import { binary } from '../../src/agent/postgres/instance.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { activeSettings, renderHba, withBlock, writeManagedFiles } from '../../src/agent/postgres/managed-files.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { forkPoint } from '../../src/agent/postgres/rewind.ts';
import { lineageOf, parseHistory, timelineAt } from '../../src/agent/postgres/timeline-history.ts';
import { readWalEnd } from '../../src/agent/postgres/wal-end.ts';
import { applySettings, findOverrides } from '../../src/agent/postgres/settings.ts';
import { createLab, createPrimary, must, settings, sql } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const n1 = await lab.node('n1');
const lsn = (text: string) => parseLsn(text) ?? makeLsn(0n);

test('CRC-32C of the check string is the published value', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
});

test('pg_control read directly says what pg_controldata says; a damaged one is noticed', async () => {
  await createPrimary(n1);
  await killAll(n1.dataDirectory);
  const bytes = readFileSync(join(n1.dataDirectory, 'global', 'pg_control'));
  const direct = parseControlData(bytes);
  const text = await runProcess([binary(n1, 'pg_controldata'), '-D', n1.dataDirectory], { timeoutMs: 5000 });
  assert.ok(text.ok);
  assert.deepEqual(direct, parseControlDataText(text.value.stdout));
  bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40);
  assert.equal(parseControlData(bytes), 'damaged');
  bytes.writeUInt32LE(9999, 8);
  assert.equal(parseControlData(bytes), 'unknown-layout');
});

test('the end of WAL is where pg_waldump finds the first invalid record (Z47)', async () => {
  const end = must(await readWalEnd(n1));
  const control = parseControlData(readFileSync(join(n1.dataDirectory, 'global', 'pg_control')));
  assert.ok(typeof control !== 'string');
  const dump = await runProcess([binary(n1, 'pg_waldump'), '-p', join(n1.dataDirectory, 'pg_wal'), '-s', formatLsn(control.checkpointLsn)], {
    timeoutMs: 10_000,
  });
  assert.ok(dump.ok);
  const at = /.* at ([0-9A-F]+\/[0-9A-F]+)/.exec(dump.value.stderr)?.[1];
  assert.equal(formatLsn(end.lsn), at, dump.value.stderr);
});

test('the end of WAL is the same from any position that was flushed, in the middle of a record too', async () => {
  const end = must(await readWalEnd(n1));
  const control = parseControlData(readFileSync(join(n1.dataDirectory, 'global', 'pg_control')));
  assert.ok(typeof control !== 'string');
  const span = end.lsn - control.checkpointLsn;
  assert.ok(span > 0n);
  for (let part = 0n; part <= 40n; part++) {
    const flushed = makeLsn(control.checkpointLsn + (span * part) / 40n);
    assert.equal(must(await readWalEnd(n1, { flushed })).lsn, end.lsn, `from ${formatLsn(flushed)}`);
  }
});

test('settings that win survive quoting, keep foreign lines and lose duplicates (H25, Z54)', async () => {
  const parsed = parseAutoConf("# c\nwork_mem = '4MB'\nfoo.bar = 'it''s \\\\ here'\nwork_mem = '8MB'\nport = 5433 # x\n");
  assert.deepEqual(
    [...parsed],
    [
      ['foo.bar', "it's \\ here"],
      ['work_mem', '8MB'],
      ['port', '5433'],
    ],
  );
  assert.deepEqual([...parseAutoConf(renderAutoConf(parsed))], [...parsed]);
  assert.equal(must(await setWinning(n1, { synchronous_standby_names: 'ANY 1 ("n-2","N3")' })).changed, true);
  assert.equal(must(await setWinning(n1, { synchronous_standby_names: 'ANY 1 ("n-2","N3")' })).changed, false);
  const shown = await runProcess([binary(n1, 'postgres'), '-D', n1.dataDirectory, '-C', 'synchronous_standby_names'], {
    timeoutMs: 5000,
    ...(n1.os === null ? {} : { uid: n1.os.uid, gid: n1.os.gid }),
  });
  assert.ok(shown.ok);
  assert.equal(shown.value.stdout.trim(), 'ANY 1 ("n-2","N3")');
  must(await setWinning(n1, { synchronous_standby_names: '' }));
});

test('a parameter cannot smuggle in another line, and managed ones are refused (Q43)', async () => {
  for (const parameters of [{ work_mem: "4MB'\nport = 1" }, { 'a b': '1' }, { restart_after_crash: 'on' }]) {
    const refused = await writeManagedFiles(n1, { ...settings, parameters });
    assert.equal(refused.ok ? '' : refused.error.code, 'postgres.bad-parameter');
  }
});

test("the hba block stands at the top, is replaced, and keeps people's lines", () => {
  const once = withBlock('local all all peer\n', ['a']);
  const twice = withBlock(once, ['b']);
  assert.match(twice, /^# BEGIN pgherd.*\nb\n# END pgherd\nlocal all all peer\n$/);
});

test('no hba line of ours lets the superuser or a wide range in (H9)', () => {
  const lines = renderHba(n1, { ...settings, members: [{ host: '10.0.0.1', internalHost: 'fd00::1' }] }, true);
  assert.ok(lines.includes('hostssl replication pgherd_replicator 10.0.0.1/32 scram-sha-256'));
  assert.ok(lines.includes('hostssl replication pgherd_replicator fd00::1/128 scram-sha-256'));
  assert.ok(!lines.some((line) => /trust|0\.0\.0\.0/.test(line)));
  assert.ok(lines.includes('host all,replication pgherd all reject'));
});

test("people's ALTER SYSTEM on a managed setting is found", async () => {
  const { startPostgres } = await import('../../src/agent/postgres/start.ts');
  must(await startPostgres(n1, { mode: 'primary', mayStart: () => true }));
  await sql(n1, (db) => db.query("ALTER SYSTEM SET wal_receiver_timeout = '1h'"));
  assert.deepEqual(
    (await findOverrides(n1)).map((found) => found.name),
    ['wal_receiver_timeout'],
  );
});

test('changed parameters are reloaded; those that need a restart are named; a broken hba line is reported', async () => {
  const applied = must(
    await applySettings(n1, {
      ...settings,
      parameters: { ...settings.parameters, work_mem: '9MB', max_connections: '33' },
      hba: ['host all all 10.0.0.0/8 no-such-method'],
    }),
  );
  assert.deepEqual([applied.reloaded, applied.pendingRestart], [true, ['max_connections']]);
  assert.ok(!applied.errors.some((line) => /max_connections/.test(line)), `what waits for a restart is no error: ${applied.errors.join()}`);
  assert.deepEqual(applied.hbaRefused, [{ line: 'host all all 10.0.0.0/8 no-such-method', why: 'invalid authentication method "no-such-method"' }]);
  const observer = createObserver(n1, { members: () => [] });
  const seen = await observer.observe();
  observer.close();
  assert.deepEqual([seen.pendingRestart, seen.minimumsAfterRestart], [['max_connections'], { max_connections: 33 }], 'what a restart will bring');
  assert.equal(seen.minimums['max_connections'], 20, 'what runs now');
  must(await applySettings(n1, settings));
});

test('a standby keeps what its WAL needs of the settings that it may not have lower than its primary (Z37)', async () => {
  const lower = { ...settings, parameters: { ...settings.parameters, max_connections: '33', max_worker_processes: '20' } };
  const conf = async (atLeast: Readonly<Record<string, number>>): Promise<ReadonlyMap<string, string>> => {
    must(await writeManagedFiles(n1, { ...lower, atLeast }));
    return activeSettings(await readFile(join(n1.dataDirectory, 'pgherd.conf'), 'utf8'));
  };
  const kept = await conf({
    max_connections: 160,
    max_worker_processes: 8,
    max_prepared_transactions: 7,
    max_locks_per_transaction: 64,
    max_wal_senders: 90,
  });
  assert.deepEqual(
    ['max_connections', 'max_worker_processes', 'max_prepared_transactions', 'max_locks_per_transaction', 'max_wal_senders'].map((name) =>
      kept.get(name),
    ),
    ['160', '20', '7', undefined, '90'],
    'also where nobody sets it: the default is lower',
  );
  assert.equal((await conf({ max_connections: 33 })).get('max_connections'), '33', 'once the primary runs with less');
  assert.equal((await conf({})).get('max_connections'), '33', 'a primary');
  must(await applySettings(n1, settings));
});

test('a history of 5000 timelines is read whole; a broken one decides nothing (Q10)', () => {
  const text = Array.from({ length: 5000 }, (_, i) => `${i + 1}\t0/${(i + 16).toString(16)}000\tno recovery target specified\n`).join('\n');
  assert.equal(parseHistory(text)?.length, 5000);
  assert.equal(parseHistory('2\t0/1\tx\n1\t0/2\tx\n'), null);
  assert.equal(parseHistory('one\t0/1\tx\n'), null);
});

test('lineage: which timeline a position belongs to, and what two of them have in common', () => {
  const primary = {
    timeline: makeTimeline(3),
    history: [
      { timeline: makeTimeline(1), forkLsn: lsn('0/100') },
      { timeline: makeTimeline(2), forkLsn: lsn('0/200') },
    ],
  };
  assert.equal(timelineAt(lineageOf(primary.timeline, primary.history), lsn('0/180')), 2);
  assert.equal(forkPoint({ timeline: makeTimeline(1), lsn: lsn('0/180'), history: [] }, primary), lsn('0/100'));
  assert.equal(
    forkPoint(
      { timeline: makeTimeline(2), lsn: lsn('0/180'), history: [{ timeline: makeTimeline(1), forkLsn: lsn('0/90') }] },
      { timeline: makeTimeline(2), history: [{ timeline: makeTimeline(1), forkLsn: lsn('0/100') }] },
    ),
    lsn('0/90'),
    'two timelines of one number',
  );
  const parted = { timeline: makeTimeline(4), lsn: lsn('0/300'), history: [{ timeline: makeTimeline(1), forkLsn: lsn('0/100') }] };
  assert.equal(forkPoint(parted, primary), lsn('0/100'), 'it skipped what the other went through');
  assert.equal(forkPoint({ timeline: makeTimeline(4), lsn: lsn('0/300'), history: [] }, primary), null);
});

test('connection strings survive quoting; slot names are legal', () => {
  const text = renderConninfo({ host: 'h', passfile: "/a b/it's\\x" });
  assert.equal(parseConninfo(text)?.get('passfile'), "/a b/it's\\x");
  assert.equal(parseConninfo('postgres://x'), null);
  assert.equal(slotName(makeNodeId('db-1')), 'pgherd_db_x2d_1');
});

test('a dump line gives transaction, relation and commit time', () => {
  const collector = createCollector();
  collector.line(
    'rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/01948EE8, prev 0/01948EB0, desc: INSERT off 3 flags 0x08, blkref #0: rel 1663/5/16384 blk 0',
  );
  collector.line(
    'rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/01948F28, prev 0/01948EE8, desc: COMMIT 2026-11-21 05:00:00.123456 UTC',
  );
  assert.deepEqual(collector.transactions(), [{ xid: 735, committedAt: '2026-11-21 05:00:00.123456 UTC', relations: ['1663/5/16384'] }]);
});

test('a child is killed with its whole group at the limit, and its output is bounded', async () => {
  const slow = await runProcess(['/bin/sh', '-c', 'sleep 60 & sleep 60'], { timeoutMs: 100 });
  assert.equal(slow.ok ? '' : slow.error.kind, 'timeout');
  const loud = await runProcess(['/bin/sh', '-c', 'yes | head -c 200000'], { timeoutMs: 5000, maxOutputBytes: 1000 });
  assert.equal(loud.ok ? loud.value.stdout.length : -1, 1000);
  const missing = await runProcess(['/no/such/program'], { timeoutMs: 1000 });
  assert.equal(missing.ok ? '' : missing.error.kind, 'spawn');
  const held = await runProcess(['/bin/sh', '-c', 'sleep 2 & echo done'], { timeoutMs: 5000 });
  assert.ok(held.ok && held.value.stdout === 'done\n' && held.value.durationMs < 1500);
});
