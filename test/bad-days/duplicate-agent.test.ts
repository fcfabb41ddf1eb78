import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import { eventually } from '../server/harness.ts';
import { freePort, startAgentProcess, temporaryDirectory } from './agent-process.ts';
import { startSmallHerd } from './small-herd.ts';

test('a second agent under a living node’s name is refused before it touches anything; a killed agent comes back under its own (Z40)', async (t) => {
  // The lease outlives the start of an agent on the slowest machine: what is shown here is who gets it, not how fast.
  const herd = await startSmallHerd(t, ['n1'], { leaseTtlMs: 60_000 });
  const directory = temporaryDirectory(t);
  // What somebody does who copies a host: certificates, secret and configuration, with directories and ports of its own.
  const stateDirectory = join(directory, 'agent');
  cpSync(herd.places.state('n1'), stateDirectory, { recursive: true, filter: (path) => !/\/(run|log|saved)$|lock|memory/.test(path) });
  const config = parse(readFileSync(herd.places.agentConfig('n1'), 'utf8')) as Record<string, unknown>;
  const file = join(directory, 'agent.yaml');
  const listen = { host: '127.0.0.1', port: await freePort() };
  writeFileSync(file, stringify({ ...config, stateDirectory, dataDirectory: join(directory, 'data'), port: await freePort(), listen }));
  const before = await herd.show();
  const second = startAgentProcess(t, file);
  assert.equal(await second.end(), 1, second.log());
  assert.match(second.log(), /agent\.duplicate-node.*another agent is node \\"n1\\".*127\.0\.0\.1, data directory/);
  const after = await herd.show();
  assert.deepEqual([after?.state, after?.primary, after?.term], ['healthy', 'n1', before?.term]);

  const first = herd.agent('n1');
  assert.ok(first !== null);
  process.kill(first.pid, 'SIGKILL');
  await first.gone;
  rmSync(`${herd.places.logs}/n1.log`);
  herd.startAgent('n1');
  await eventually(
    'it takes its lease over',
    () => (/taking over the write lease/.test(readFileSync(`${herd.places.logs}/n1.log`, 'utf8')) ? true : null),
    50_000,
  );
  assert.doesNotMatch(readFileSync(`${herd.places.logs}/n1.log`, 'utf8'), /still reported/);
});
