import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../server/harness.ts';
import { join } from 'node:path';
import { mkdirSync } from 'node:fs';
import { freePort, startAgentProcess, temporaryDirectory, writeAgentYaml } from './agent-process.ts';

test('a second agent of one state directory ends with 1 and names it; the first one goes on (H51)', async (t) => {
  const directory = temporaryDirectory(t);
  const file = await writeAgentYaml(directory);
  const first = startAgentProcess(t, file);
  await eventually('the first one runs', () => (first.log().includes('"agent starts"') && first.log().includes('store') ? true : null), 20_000);
  const second = startAgentProcess(t, await writeAgentYaml(directory, { listen: { host: '127.0.0.1', port: await freePort() } }));
  assert.equal(await second.end(), 1);
  assert.match(second.log(), /another agent works in .*\/agent: its lock is held by a living process/);
  assert.equal(first.child.exitCode, null);
});

test('a second agent of one data directory is refused, though its state directory is another one', async (t) => {
  const directory = temporaryDirectory(t);
  const other = join(directory, 'other');
  mkdirSync(other);
  const change = { kind: 'data', dataDirectory: join(directory, 'data') };
  const first = startAgentProcess(t, await writeAgentYaml(directory, change));
  await eventually('the first one runs', () => (first.log().includes('the store does not') ? true : null), 20_000);
  const second = startAgentProcess(t, await writeAgentYaml(other, { ...change, node: 'n2' }));
  assert.equal(await second.end(), 1);
  assert.match(second.log(), /another agent works in .*\/data: .*dataDirectory of its own/);
  assert.equal(first.child.exitCode, null);
});
