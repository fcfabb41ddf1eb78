import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { createOverrideWatch } from '../../src/agent/overridden-settings.ts';
import { eventually } from '../server/harness.ts';
import { createLab } from '../postgres/harness.ts';
import { startSmallHerd } from './small-herd.ts';

test('ALTER SYSTEM of a managed setting is told in the report while the server runs, and is gone after RESET; the value is left alone', async (t) => {
  const herd = await startSmallHerd(t, ['n1']);
  const find = async () => {
    const shown = await herd.show();
    return { problem: shown?.nodes[0]?.problems.find((one) => one.code === 'settings.overridden') ?? null, shown };
  };
  assert.equal((await find()).problem, null);
  await herd.sql('n1', 'ALTER SYSTEM SET wal_log_hints = off');
  const problem = await eventually('the problem is shown', async () => (await find()).problem, 20_000);
  assert.match(problem.text, /wal_log_hints is off by ALTER SYSTEM and not on/);
  await herd.sql('n1', 'ALTER SYSTEM RESET wal_log_hints');
  await eventually('the problem is gone', async () => ((await find()).problem === null ? true : null), 20_000);
});

test('a newer look replaces an older finding, and other problems stay', async (t) => {
  const lab = createLab();
  t.after(() => lab.close());
  const instance = await lab.node('n1');
  mkdirSync(instance.dataDirectory);
  writeFileSync(join(instance.dataDirectory, 'pgherd.conf'), "hot_standby = 'on'\n");
  const watch = createOverrideWatch(instance, createLogger({ role: 'agent', level: 'error', stream: { write: () => undefined } }));
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
