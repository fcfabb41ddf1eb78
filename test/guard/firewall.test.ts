import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FIREWALL_OFF } from '../../src/agent/firewall/firewall.ts';
import { firewallTable, isTableName, parseExpires, renderMembers } from '../../src/agent/firewall/rules.ts';
import { makeClusterId, makeMonoMs, makeNodeId } from '../../src/core/ids.ts';

const table = firewallTable({ cluster: makeClusterId('de-mo'), node: makeNodeId('n_1'), port: 5432 });

test('two pairs of cluster and node never share a table', () => {
  const other = firewallTable({ cluster: makeClusterId('de-mo_n'), node: makeNodeId('1'), port: 5432 });
  assert.notEqual(table.name, other.name);
  assert.equal(isTableName(table.name), true);
  assert.equal(isTableName('inet filter'), false);
  assert.equal(isTableName('inet pgherd_a.b open; flush ruleset'), false);
});

test('host names and garbage among the members open nothing', () => {
  const text = renderMembers(table, ['10.0.0.1', 'db1.example', '::1', '1.2.3.4; flush ruleset', '10.0.0.1'], 1500);
  assert.match(text, /members4 \{ 10\.0\.0\.1 timeout 1500ms \}/);
  assert.match(text, /members6 \{ ::1 timeout 1500ms \}/);
  assert.doesNotMatch(text, /example|ruleset/);
});

test('the remaining time of a listed element is read in every unit', () => {
  assert.equal(parseExpires('elements = { 5432 timeout 1s500ms expires 1s496ms }'), 1496);
  assert.equal(parseExpires('elements = { 5432 timeout 1m expires 1m2s3ms, 5433 expires 4ms }'), 62_003);
  assert.equal(parseExpires('set open {\n}'), null);
});

test('a firewall that is off answers like one that is on', async () => {
  assert.equal((await FIREWALL_OFF.apply({ kind: 'timed', until: makeMonoMs(1) })).ok, true);
});

test('in a network namespace of its own the rules hold (see firewall-namespace.ts)', () => {
  const script = fileURLToPath(new URL('./firewall-namespace.ts', import.meta.url));
  // The namespace lives as long as this process: nothing is left behind, whatever happens.
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const run = spawnSync('unshare', ['--net', '--kill-child', '--fork', process.execPath, '--no-warnings', '--test-timeout=15000', script], {
    encoding: 'utf8',
    timeout: 40_000,
    killSignal: 'SIGKILL',
    env,
  });
  assert.equal(run.status, 0, `needs root and unshare(1)\n${run.stdout}\n${run.stderr}\n${run.error?.message ?? ''}`);
  assert.match(run.stdout, /fail 0/);
});
