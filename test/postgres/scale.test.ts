/** What adding and removing a node does to real servers: a copy of a standby, its end by a stray process, and the end of a directory. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { directoryState, incompleteReason, markIncomplete } from '../../src/agent/postgres/data-directory.ts';
import { dropDataDirectory } from '../../src/agent/postgres/drop-data.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import { type Instance, binary } from '../../src/agent/postgres/instance.ts';
import { replicationRoom } from '../../src/agent/postgres/managed-files.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { endStrayBackups, isBackupInto } from '../../src/agent/postgres/stray-backup.ts';
import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const members = [n1, n2, n3].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const [o1, o3] = [n1, n3].map((instance) => createObserver(instance, { members: () => members })) as [
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
];
after(async () => {
  o1.close();
  o3.close();
  await lab.close();
});

const clone = (instance: Instance, source: Instance, more: { readonly maxRateKb?: number } = {}): ReturnType<typeof cloneFrom> =>
  cloneFrom(instance, { upstream: n1, source, settings, systemIdentifier: null, keepSaved: 1, ...more });

test('a copy of a standby under writes streams from the primary, from its own slot, without a row missing', async () => {
  await createPrimary(n1);
  must(await ensureSlots(n1, { members: members.map((member) => member.id) }));
  must(await clone(n2, n1));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await followUpstream(n2, { upstream: n1 }));
  await sql(n1, (db) => db.query('CREATE TABLE public.rows (id int)'));
  let writing = true;
  let written = 0;
  const writer = sql(n1, async (db) => {
    while (writing) {
      await db.query('INSERT INTO public.rows SELECT generate_series(1, 100)');
      // The slot must keep what the copy needs: old segments are recycled meanwhile.
      if (written % 2000 === 0) await db.query('CHECKPOINT');
      written += 100;
    }
  });
  const progress: number[] = [];
  const cloned = must(
    await cloneFrom(n3, {
      upstream: n1,
      source: n2,
      settings,
      systemIdentifier: null,
      keepSaved: 1,
      onProgress: (one) => progress.push(one.doneBytes),
    }),
  );
  assert.ok(cloned.bytes > 1_000_000 && progress.length > 0);
  must(await startPostgres(n3, { mode: 'standby' }));
  must(await followUpstream(n3, { upstream: n1 }));
  writing = false;
  await writer;
  assert.equal((await o3.observe()).streamingFrom, 'n1');
  const [slot] = await sql(n1, (db) => db.query("SELECT active FROM pg_replication_slots WHERE slot_name = 'pgherd_n3'"));
  assert.equal(slot?.['active'], true);
  await until('all rows are there', async () => {
    const [row] = await sql(n3, (db) => db.query('SELECT count(*)::int AS n FROM public.rows'));
    return row?.['n'] === written;
  });
});

test('the report counts walsenders and slots, as far as they go', async () => {
  const { replication } = await o1.observe();
  assert.ok(replication !== null);
  assert.equal(replication.maxWalSenders, replicationRoom(3));
  assert.ok(replication.slots >= 2 && replication.maxSlots >= replication.slots);
});

test('room for walsenders does not change with each node that comes or goes', () => {
  assert.deepEqual([1, 2, 3, 4, 11, 12].map(replicationRoom), [32, 32, 32, 32, 32, 64]);
});

test('a base backup that outlived its agent is ended before the directory is used again; others are not', async () => {
  must(await stopPostgres(n3, { from: 'fast' }));
  const target = join(lab.root, 'n3', 'elsewhere');
  const start = (directory: string): ReturnType<typeof spawn> =>
    spawn(
      binary(n1, 'pg_basebackup'),
      ['-D', directory, '-X', 'none', '--max-rate=32', '--no-password', '-h', n1.socketDirectory, '-p', String(n1.port), '-U', 'pgherd'],
      { stdio: 'ignore' },
    );
  const stray = start(target);
  const ended = new Promise<NodeJS.Signals | null>((resolve) => stray.once('exit', (_code, signal) => resolve(signal)));
  await until('it copies', () => existsSync(join(target, 'backup_label')) || existsSync(target));
  assert.equal(await endStrayBackups(`${target}-other`), 0);
  assert.equal(await endStrayBackups(target), 1);
  assert.equal(await ended, 'SIGKILL');
});

test('only pg_basebackup, and only into exactly this directory, is a stray', () => {
  assert.equal(isBackupInto(['/usr/bin/pg_basebackup', '-D', '/data/main/', '-X', 'stream'], '/data/main'), true);
  assert.equal(isBackupInto(['/usr/bin/pg_basebackup', '-D', '/data/main2'], '/data/main'), false);
  assert.equal(isBackupInto(['vi', '-D', '/data/main'], '/data/main'), false);
  assert.equal(isBackupInto(['/usr/bin/pg_basebackup', '-D'], '/data/main'), false);
  assert.equal(isBackupInto([], '/data/main'), false);
});

test('a running directory is not removed', async () => {
  must(await startPostgres(n3, { mode: 'standby' }));
  const refused = await dropDataDirectory(n3);
  assert.equal(refused.ok ? '' : refused.error.code, 'drop-data.running');
  must(await stopPostgres(n3, { from: 'fast' }));
});

test('one with tablespaces elsewhere, or that is no data directory, is left to a person (H44)', async () => {
  symlinkSync('/tmp', join(n3.dataDirectory, 'pg_tblspc', '16999'));
  const tablespaces = await dropDataDirectory(n3);
  assert.equal(tablespaces.ok ? '' : tablespaces.error.code, 'drop-data.tablespaces');
  const other: Instance = { ...n3, dataDirectory: join(lab.root, 'n3', 'letters') };
  mkdirSync(other.dataDirectory);
  writeFileSync(join(other.dataDirectory, 'letter.txt'), 'dear anna');
  const foreign = await dropDataDirectory(other);
  assert.equal(foreign.ok ? '' : foreign.error.code, 'drop-data.not-postgres');
  assert.deepEqual(readdirSync(other.dataDirectory), ['letter.txt']);
});

test('a stopped directory is removed; so is the half of a copy; a third time there is nothing to do', async () => {
  const link = join(n3.dataDirectory, 'pg_tblspc', '16999');
  rmSync(link);
  must(await dropDataDirectory(n3));
  assert.equal(await directoryState(n3), 'absent');
  assert.equal(await incompleteReason(n3), null, 'no mark stays');
  await markIncomplete(n3, 'clone');
  mkdirSync(n3.dataDirectory);
  if (n3.os !== null) chownSync(n3.dataDirectory, n3.os.uid, n3.os.gid);
  writeFileSync(join(n3.dataDirectory, 'base.tar'), 'half');
  assert.equal(await directoryState(n3), 'incomplete');
  must(await dropDataDirectory(n3));
  assert.equal(await directoryState(n3), 'absent');
  must(await dropDataDirectory(n3));
});
