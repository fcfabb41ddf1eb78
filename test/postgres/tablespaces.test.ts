/** Tablespaces through a copy, a rewind, a set-aside copy and a removal, on real servers of one host. */
import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { dropDataDirectory } from '../../src/agent/postgres/drop-data.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import type { Instance } from '../../src/agent/postgres/instance.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import { createObserver } from '../../src/agent/postgres/observe.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { rewindTo } from '../../src/agent/postgres/rewind.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { mappingArguments, placeTablespaces, sweepTablespaces, tablespaceBase, tablespaceLinks } from '../../src/agent/postgres/tablespaces.ts';
import { createLab, createPrimary, must, settings, sql, until } from './harness.ts';

const lab = createLab();
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const members = [n1, n2, n3].map((instance) => ({ id: instance.node, host: instance.host, internalHost: null, port: instance.port }));
const ids = members.map((member) => member.id);
const [o1, o3] = [n1, n3].map((instance) => createObserver(instance, { members: () => members })) as [
  ReturnType<typeof createObserver>,
  ReturnType<typeof createObserver>,
];
after(async () => {
  o1.close();
  o3.close();
  await lab.close();
});

const disk = join(lab.root, 'disk');

/** An empty directory, as a person makes one for a tablespace. */
function mount(name: string): string {
  const path = join(disk, name);
  mkdirSync(path, { recursive: true, mode: 0o755 });
  if (n1.os !== null) chownSync(path, n1.os.uid, n1.os.gid);
  return path;
}

const only = async (instance: Instance): Promise<readonly [string, string]> => {
  const [first] = [...(await tablespaceLinks(instance.dataDirectory))];
  assert.ok(first !== undefined, `${instance.node} has no tablespace`);
  return first;
};
const count = async (instance: Instance): Promise<unknown> =>
  (await sql(instance, (db) => db.query('SELECT count(*)::int AS n FROM public.apart')))[0]?.['n'];
const files = (directory: string): number => readdirSync(directory, { recursive: true }).length;
const clone = (instance: Instance, source: Instance, upstream = n1): ReturnType<typeof cloneFrom> =>
  cloneFrom(instance, { upstream, source, settings, systemIdentifier: null, keepSaved: 1 });
async function standby(instance: Instance, upstream: Instance): Promise<void> {
  must(await startPostgres(instance, { mode: 'standby' }));
  must(await followUpstream(instance, { upstream }));
}

test('a place: the same path where it is an empty directory, or can be made beside others; else one of the node', async () => {
  const [empty, used, made] = [mount('empty'), mount('used'), join(disk, 'made')];
  writeFileSync(join(used, 'file'), '');
  const found = [empty, used, made, join(disk, 'not', 'mounted'), join(n3.dataDirectory, 'inside')].map((location, index) => ({
    oid: `${100 + index}`,
    location,
  }));
  const placed = await placeTablespaces(n3, found);
  const own = (oid: string): string => join(tablespaceBase(n3), oid);
  assert.deepEqual(
    placed.map((one) => one.to),
    [empty, own('101'), made, own('103'), own('104')],
  );
  assert.ok(!existsSync(join(disk, 'not')), 'what stands for a disk that is not mounted is not made');
  assert.deepEqual(
    mappingArguments([
      { oid: '1', from: '/a=b', to: '/c' },
      { oid: '2', from: '/d', to: '/d' },
    ]),
    ['--tablespace-mapping=/a\\=b=/c'],
  );
  assert.equal((await placeTablespaces(n3, found.slice(1, 2)))[0]?.to, `${own('101')}.1`, 'one that is there already is not taken');
  assert.equal((await sweepTablespaces(n3)).length, 4, 'nobody uses them');
});

test('on a host where the path belongs to the primary, each copy gets a place of its own, also a copy of a copy', async () => {
  await createPrimary(n1);
  const path = mount('ts1');
  await sql(n1, async (db) => {
    await db.query(`CREATE TABLESPACE apart LOCATION '${path}'`);
    await db.query('CREATE TABLE public.apart TABLESPACE apart AS SELECT generate_series(1, 5000) AS id');
  });
  must(await ensureSlots(n1, { members: ids }));
  const cloned = must(await clone(n2, n1));
  const [oid, target] = await only(n2);
  assert.deepEqual(cloned.tablespaces, [{ oid, from: path, to: target }]);
  assert.equal(target, join(tablespaceBase(n2), oid));
  await standby(n2, n1);
  must(await ensureSlots(n2, { members: ids }));
  must(await clone(n3, n2));
  assert.equal((await only(n3))[1], join(tablespaceBase(n3), oid));
  await standby(n3, n1);
  await sql(n1, (db) => db.query('INSERT INTO public.apart SELECT generate_series(1, 5000)'));
  for (const node of [n2, n3]) await until(`${node.node} has the rows`, async () => (await count(node)) === 10_000);
  const places = await Promise.all([n1, n2, n3].map(async (node) => realpathSync((await only(node))[1])));
  assert.equal(new Set(places).size, 3, 'no two servers write into one directory');
});

test('copied again: the copy that is set aside keeps its tablespace, what nobody keeps any more goes', async () => {
  const [oid, first] = await only(n3);
  must(await stopPostgres(n3));
  const saved = must(await clone(n3, n1)).savedPath;
  const second = (await only(n3))[1];
  assert.equal(second, `${first}.1`);
  assert.ok(saved !== null && existsSync(join(saved, 'pg_tblspc', oid)) && files(first) > 0);
  must(await clone(n3, n1));
  assert.ok(files(second) > 0, 'of the copy that is kept now');
  must(await clone(n3, n1));
  assert.ok(!readdirSync(tablespaceBase(n3)).includes(`${oid}.1`) || (await only(n3))[1] === second, 'of a copy that was pruned');
  assert.equal(readdirSync(tablespaceBase(n3)).length, 2, 'one in use, one kept');
  await standby(n3, n1);
  await until('n3 has the rows', async () => (await count(n3)) === 10_000);
});

test('a former primary is rewound with its tablespace where it was', async () => {
  const path = (await only(n1))[1];
  must(await stopPostgres(n3));
  must(await detachStandby(n2));
  must(await promotePostgres(n2, { requiredLsn: null, mayPromote: () => true }));
  must(await ensureSlots(n2, { members: ids }));
  await sql(n2, (db) => db.query('INSERT INTO public.apart SELECT generate_series(1, 7)'));
  await sql(n1, (db) => db.query('DELETE FROM public.apart'));
  assert.deepEqual((await killAll(n1.dataDirectory)).survivors, []);
  must(await rewindTo(n1, { upstream: n2, settings, keepSaved: 1 }));
  assert.equal((await only(n1))[1], path);
  await standby(n1, n2);
  await until('n1 has what the new primary has', async () => (await o1.observe()).timeline === 2 && (await count(n1)) === 10_007);
});

test('one that lacks a tablespace of the new primary is not rewound into its directory, but copied', async () => {
  must(await stopPostgres(n1));
  const path = mount('ts2');
  await sql(n2, async (db) => {
    await db.query(`CREATE TABLESPACE later LOCATION '${path}'`);
    await db.query('CREATE TABLE public.later TABLESPACE later AS SELECT generate_series(1, 10) AS id');
  });
  const before = files(path);
  const refused = await rewindTo(n1, { upstream: n2, settings, keepSaved: 1 });
  assert.equal(refused.ok ? '' : refused.error.code, 'rewind.tablespaces');
  assert.equal(files(path), before);
  const cloned = must(await clone(n1, n2, n2));
  assert.equal(cloned.tablespaces.length, 2);
  await standby(n1, n2);
  assert.deepEqual(await sql(n1, (db) => db.query('SELECT count(*)::int AS n FROM public.later')), [{ n: 10 }]);
  assert.equal(files(path), before);
});

test('a node that leaves takes its own tablespaces with it; those on paths of people stay', async () => {
  must(await dropDataDirectory(n3));
  const [kept] = readdirSync(tablespaceBase(n3));
  assert.ok(kept !== undefined && readdirSync(tablespaceBase(n3)).length === 1, 'that of the copy which is set aside');
  assert.ok(!existsSync(n3.dataDirectory));
  must(await stopPostgres(n2));
  const refused = await dropDataDirectory(n2);
  assert.equal(refused.ok ? '' : refused.error.code, 'drop-data.tablespaces', 'n2 has one where a person made it');
});
