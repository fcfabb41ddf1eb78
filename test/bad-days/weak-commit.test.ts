import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../server/harness.ts';
import { startSmallHerd } from './small-herd.ts';

test('who opted out of what durability promises is named by the doctor, and a file that does it for everybody by show too', async (t) => {
  const herd = await startSmallHerd(t, ['n1', 'n2'], { durability: { mode: 'quorum', k: 1 } });
  const doctor = async (): Promise<string> => (await herd.verb(['doctor', '--remote', '--json'])).stdout;
  const primary = (await herd.show())?.primary ?? 'n1';
  assert.doesNotMatch(await doctor(), /synchronous_commit/);
  await herd.sql(primary, 'CREATE ROLE batch LOGIN');
  await herd.sql(primary, 'ALTER ROLE batch SET synchronous_commit = off');
  await eventually('the role is named', async () => (/is below \\"on\\" for role batch \(off\)/.test(await doctor()) ? true : null), 30_000);
  const shown = async (): Promise<boolean> => (await herd.show())?.problems.some((one) => one.code === 'cluster.weak-commit') === true;
  assert.equal(await shown(), false, 'a role may choose for itself');
  await herd.sql(primary, 'ALTER SYSTEM SET synchronous_commit = local');
  await eventually('everybody is told', async () => ((await shown()) ? true : null), 30_000);
  assert.match(await doctor(), /synchronous_commit is local by postgresql.auto.conf on n\d/);
  await herd.sql(primary, 'ALTER SYSTEM RESET synchronous_commit');
  await eventually('it is over', async () => ((await shown()) ? null : true), 30_000);
});
