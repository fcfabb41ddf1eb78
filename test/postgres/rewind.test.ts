import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { waitingForArchive } from '../../src/agent/postgres/archive-rest.ts';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { makeTerm } from '../../src/core/ids.ts';
import { markOpening } from '../../src/agent/postgres/opening-mark.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { rewindTo } from '../../src/agent/postgres/rewind.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
const members = [n1, n2].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const ids = members.map((member) => member.id);
const observer = createObserver(n1, { members: () => members });
after(async () => {
  observer.close();
  await lab.close();
});

/** n2 is promoted without n1 knowing; n1 has written more meanwhile. */
async function fork(primary: typeof n1, standby: typeof n1): Promise<void> {
  must(await detachStandby(standby));
  must(await promotePostgres(standby, { requiredLsn: null, mayPromote: () => true }));
  must(await ensureSlots(standby, { members: ids }));
  await sql(standby, (db) => db.query("INSERT INTO public.t VALUES ('new side')"));
  await sql(primary, async (db) => {
    await db.query("INSERT INTO public.t VALUES ('only on the old primary')");
    await db.query('CREATE TABLE public.lost AS SELECT generate_series(1, 100) AS id');
  });
}

/** Complete segments that wait for an archive which works again by the time of the rewind. Returns the archive. */
async function leaveUnarchived(instance: typeof n1): Promise<string> {
  const archive = join(lab.root, 'archive');
  mkdirSync(archive);
  chmodSync(archive, 0o777);
  const set = (command: string): Promise<unknown> => sql(instance, (db) => db.query(`ALTER SYSTEM SET archive_command = '${command}'`));
  await sql(instance, (db) => db.query("ALTER SYSTEM SET archive_mode = 'on'"));
  await set('false');
  must(await stopPostgres(instance));
  must(await startPostgres(instance, { mode: 'primary', mayStart: () => true }));
  for (let count = 0; count < 2; count++) await sql(instance, (db) => db.query("SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()"));
  await set(`cp %p ${archive}/%f`);
  assert.ok((await waitingForArchive(instance)).length >= 2);
  return archive;
}

test('a crashed and diverged primary is rewound; what only it had is kept and named before anything is rewound (H21, Q11, Z42)', async () => {
  await createPrimary(n1);
  await sql(n1, (db) => db.query('CREATE TABLE public.t (v text)'));
  must(await ensureSlots(n1, { members: ids }));
  must(await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await followUpstream(n2, { upstream: n1 }));
  await fork(n1, n2);
  must(await markOpening(n1, { term: makeTerm(7) }));
  await sql(n1, (db) => db.query("INSERT INTO public.t VALUES ('a client of term 7')"));
  const archived = await leaveUnarchived(n1);
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
  const rewound = must(await rewindTo(n1, { upstream: n2, settings, keepSaved: 2 }));
  assert.ok(rewound.divergedPath !== null && rewound.summary !== null);
  assert.equal(rewound.summary.note, '');
  assert.deepEqual(rewound.unarchived, []);
  assert.ok(readdirSync(archived).length >= 2, 'what the archiver had not done when it ended is archived before the rewind (Z49)');
  assert.ok(rewound.summary.committed >= 2, JSON.stringify(rewound.summary.transactions.length));
  assert.ok(
    rewound.summary.relations.includes('postgres.public.t') && rewound.summary.relations.includes('postgres.public.lost'),
    rewound.summary.relations.join(),
  );
  assert.deepEqual(
    rewound.summary.openings.map(({ term, node }) => [term, node]),
    [[7, 'n1']],
    'who threw it away knows that it had clients (Z53)',
  );
  assert.match(
    readFileSync(join(rewound.divergedPath, 'summary.txt'), 'utf8'),
    /n1 opened term 7 for clients at [0-9A-F]+\/[0-9A-F]+\.[\s\S]*postgres\.public\.lost/,
  );
  assert.ok(readdirSync(rewound.divergedPath).some((name) => /^[0-9A-F]{24}$/.test(name)));
  must(await startPostgres(n1, { mode: 'standby' }));
  must(await followUpstream(n1, { upstream: n2 }));
  await until('it has the surviving history', async () => (await observer.observe()).timeline === 2);
  const rows = await sql(n1, (db) => db.query("SELECT v, to_regclass('public.lost') AS lost FROM public.t"));
  assert.deepEqual(rows, [{ v: 'new side', lost: null }]);
});

test("after a rewind the managed files are this node's own, and its old slots are gone (Q42, Z67)", async () => {
  assert.match(readFileSync(join(n1.dataDirectory, 'pgherd.conf'), 'utf8'), new RegExp(`port = '${n1.port}'`));
  assert.deepEqual(await sql(n1, (db) => db.query('SELECT slot_name FROM pg_replication_slots')), []);
  assert.ok(existsSync(join(n1.dataDirectory, 'standby.signal')));
});

test('a cleanly stopped primary that is not diverged keeps nothing and needs no rewind', async () => {
  must(await stopPostgres(n1));
  const rewound = must(await rewindTo(n1, { upstream: n2, settings, keepSaved: 2 }));
  assert.deepEqual([rewound.contained, rewound.divergedPath], [true, null]);
  must(await startPostgres(n1, { mode: 'standby' }));
  must(await followUpstream(n1, { upstream: n2 }));
});

test('a cleanly stopped but diverged primary is rewound too', async () => {
  await fork(n2, n1);
  must(await stopPostgres(n2));
  const rewound = must(await rewindTo(n2, { upstream: n1, settings, keepSaved: 2 }));
  assert.ok(!rewound.contained && rewound.summary?.relations.includes('postgres.public.lost'));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await followUpstream(n2, { upstream: n1 }));
});

test('nothing is rewound onto a standby, and the directory stays whole (Z50)', async () => {
  must(await stopPostgres(n2));
  must(await stopPostgres(n1));
  must(await startPostgres(n1, { mode: 'standby' }));
  const refused = await rewindTo(n2, { upstream: n1, settings, keepSaved: 2 });
  assert.equal(refused.ok ? '' : refused.error.code, 'rewind.source-in-recovery');
  must(await startPostgres(n2, { mode: 'standby' }));
});

test('a directory whose rewind was interrupted is never started (Z48, Q23)', async () => {
  must(await stopPostgres(n2));
  writeFileSync(`${n2.dataDirectory}.pgherd.incomplete`, 'rewind\n');
  const started = await startPostgres(n2, { mode: 'standby' });
  assert.equal(started.ok ? '' : started.error.code, 'start.incomplete');
  const other = createObserver(n2, { members: () => members });
  assert.equal((await other.observe()).state, 'incomplete');
  other.close();
});

test('an interrupted clone is cleaned up by the next one, the data of an interrupted rewind is set aside', async () => {
  must(await stopPostgres(n1));
  must(await startPostgres(n1, { mode: 'primary', mayStart: () => true }));
  const cloned = must(await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  assert.ok(cloned.savedPath !== null);
  const abort = new AbortController();
  abort.abort();
  const stopped = await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1, signal: abort.signal });
  assert.equal(stopped.ok ? '' : stopped.error.code, 'postgres.cancelled');
});

test('a clone from another database cluster is refused', async () => {
  const refused = await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: '1', keepSaved: 1 });
  assert.equal(refused.ok ? '' : refused.error.code, 'clone.wrong-system');
});
