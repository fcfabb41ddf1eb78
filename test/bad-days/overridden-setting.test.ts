import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { createOverrideWatch } from '../../src/agent/overridden-settings.ts';
import { eventually } from '../server/harness.ts';
import { parseAutoConf } from '../../src/agent/postgres/auto-conf.ts';
import { quoteLiteral } from '../../src/agent/postgres/sql.ts';
import { createLab } from '../postgres/harness.ts';
import { startSmallHerd } from './small-herd.ts';

test('ALTER SYSTEM of settings that the cluster rests on is taken back while the server runs, and at its next start; what people set besides is told, and left alone', async (t) => {
  const herd = await startSmallHerd(t, ['n1']);
  const findProblem = async () => (await herd.show())?.nodes[0]?.problems.find((one) => one.code === 'settings.overridden') ?? null;
  const autoConf = (): string => readFileSync(join(herd.places.data('n1'), 'postgresql.auto.conf'), 'utf8');
  assert.equal(await findProblem(), null);
  // A server that is started with this lets nobody in, not even to take the value away again.
  await herd.sql('n1', 'ALTER SYSTEM SET hot_standby = off');
  await herd.sql('n1', 'ALTER SYSTEM SET restart_after_crash = on');
  await eventually('the values are taken back', () => (/hot_standby|restart_after_crash = 'on'/.test(autoConf()) ? null : true), 20_000);
  assert.match(autoConf(), /^restart_after_crash = 'off'$/m);
  assert.match(readFileSync(join(herd.places.state('n1'), 'saved-settings.json'), 'utf8'), /"hot_standby": "off"/);

  await herd.sql('n1', 'ALTER SYSTEM SET wal_keep_size = 0');
  const told = await eventually('the problem is shown', findProblem, 20_000);
  assert.match(told.text, /wal_keep_size is 0 by ALTER SYSTEM and not 64MB/);
  assert.match(autoConf(), /^wal_keep_size = '0'$/m, 'the value is left alone');
  await herd.sql('n1', 'ALTER SYSTEM RESET wal_keep_size');
  await eventually('the problem is gone', async () => ((await findProblem()) === null ? true : null), 20_000);

  await herd.sql('n1', "ALTER SYSTEM SET synchronous_standby_names = '*'");
  const foreign = await eventually('a synchronous set that is not ours is told', findProblem, 20_000);
  assert.match(foreign.text, /synchronous_standby_names is "\*" by ALTER SYSTEM, and not by pgherd/);
  await herd.sql('n1', 'ALTER SYSTEM RESET synchronous_standby_names');

  const stopped = await herd.verb(['cluster', 'stop', '--yes']);
  assert.equal(stopped.code, 0, stopped.stderr);
  appendFileSync(join(herd.places.data('n1'), 'postgresql.auto.conf'), "hot_standby = 'off'\nport = '1'\n");
  const started = await herd.verb(['cluster', 'start'], 60_000);
  assert.equal(started.code, 0, started.stderr);
  assert.doesNotMatch(autoConf(), /^(hot_standby|port)/m);
});

test('a standby that somebody sends under another name, elsewhere or without its slot comes back to what it was told', async (t) => {
  const herd = await startSmallHerd(t, ['n1', 'n2']);
  const streams = async (): Promise<true | null> => {
    const rows = await herd.sql('n1', "SELECT state FROM pg_stat_replication WHERE application_name LIKE 'n2.%'");
    return rows[0]?.['state'] === 'streaming' ? true : null;
  };
  const winning = (): ReadonlyMap<string, string> => parseAutoConf(readFileSync(join(herd.places.data('n2'), 'postgresql.auto.conf'), 'utf8'));
  await eventually('n2 streams', streams, 20_000);
  const told = winning();
  const conninfo = told.get('primary_conninfo') ?? '';
  assert.match(conninfo, /application_name=n2\.[0-9a-f]{8}/);
  const changes = {
    primary_conninfo: [conninfo.replace(/application_name=\S+/, 'application_name=by_hand'), conninfo.replace(/port=\d+/, 'port=1'), ''],
    primary_slot_name: [''],
  };
  for (const [name, values] of Object.entries(changes))
    for (const value of values) {
      await herd.sql('n2', `ALTER SYSTEM SET ${name} = ${quoteLiteral(value)}`);
      await herd.sql('n2', 'SELECT pg_reload_conf()');
      const back = (): Promise<true | null> => (winning().get(name) === told.get(name) ? streams() : Promise.resolve(null));
      await eventually(`${name} = '${value}' is taken back`, back, 30_000);
    }
});

test('a newer look replaces an older finding, and other problems stay', async (t) => {
  const lab = createLab();
  t.after(() => lab.close());
  const instance = await lab.node('n1');
  mkdirSync(instance.dataDirectory);
  writeFileSync(join(instance.dataDirectory, 'pgherd.conf'), "hot_standby = 'on'\n");
  const watch = createOverrideWatch({
    instance,
    log: createLogger({ role: 'agent', level: 'error', stream: { write: () => undefined } }),
    mayMend: () => false,
  });
  const old = { code: 'settings.overridden', text: 'from the last start', remedy: '' };
  const other = { code: 'settings.refused', text: 'something else', remedy: '' };
  assert.deepEqual(watch.merge([old, other]), [old, other], 'before the first look');
  const look = async (content: string, codes: readonly string[]) => {
    writeFileSync(join(instance.dataDirectory, 'postgresql.auto.conf'), content);
    watch.look();
    await eventually(content, () =>
      JSON.stringify(watch.merge([old, other]).map((one) => `${one.code} ${one.text.slice(0, 11)}`)) === JSON.stringify(codes) ? true : null,
    );
  };
  await look("hot_standby = 'off'\n", ['settings.refused something e', 'settings.overridden hot_standby']);
  await look('', ['settings.refused something e']);
});
