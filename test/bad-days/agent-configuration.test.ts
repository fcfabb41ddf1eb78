import assert from 'node:assert/strict';
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startAgentProcess, temporaryDirectory, writeAgentYaml } from './agent-process.ts';

test('a misspelt key in agent.yaml ends the agent with 2, the line and the nearest key (H51)', async (t) => {
  const directory = temporaryDirectory(t);
  const file = await writeAgentYaml(directory);
  appendFileSync(file, 'firewal: off\n');
  const agent = startAgentProcess(t, file);
  assert.equal(await agent.end(), 2);
  assert.match(agent.log(), /agent\.yaml:\d+:1: firewal.*firewall/s);
});

test('a value of agent.yaml that is none, and one from the environment, are refused by name', async (t) => {
  const directory = temporaryDirectory(t);
  const file = await writeAgentYaml(directory, { port: 70000 });
  const wrong = startAgentProcess(t, file);
  assert.equal(await wrong.end(), 2);
  assert.match(wrong.log(), /agent\.yaml:\d+:\d+: port.*65535/s);
  const fromEnvironment = startAgentProcess(t, await writeAgentYaml(directory), { PGHERD_AGENT_LISTEN__PORT: 'none' });
  assert.equal(await fromEnvironment.end(), 2);
  assert.match(fromEnvironment.log(), /PGHERD_AGENT_LISTEN__PORT/);
});

test('an agent without its cluster secret does not start, and says how to join', async (t) => {
  const directory = temporaryDirectory(t);
  const file = await writeAgentYaml(directory);
  rmSync(join(directory, 'agent', 'cluster.secret'));
  const agent = startAgentProcess(t, file);
  assert.equal(await agent.end(), 1);
  assert.match(agent.log(), /cluster\.secret.*pgherd agent join/s);
});

test('a certificate file that is not there is named with its setting, instead of a store that seems silent', async (t) => {
  const directory = temporaryDirectory(t);
  const ca = join(directory, 'ca.crt');
  writeFileSync(ca, 'anything');
  const store = { endpoints: ['https://127.0.0.1:9'], ca, cert: join(directory, 'agent.crt'), key: join(directory, 'agent.key') };
  const agent = startAgentProcess(t, await writeAgentYaml(directory, { store }));
  assert.equal(await agent.end(), 1);
  assert.match(agent.log(), /agent\.crt \(store\.cert in agent\.yaml\)/);
  assert.doesNotMatch(agent.log(), / {4}at /, 'no stack trace');
});

test('an agent whose store gives no endpoint, or one that is no address, is refused before it starts', async (t) => {
  const directory = temporaryDirectory(t);
  for (const endpoints of [[], ['not an address']]) {
    const file = await writeAgentYaml(directory, { store: { endpoints, ca: null, cert: null, key: null } });
    const agent = startAgentProcess(t, file);
    assert.equal(await agent.end(), 2, agent.log());
    assert.match(agent.log(), /store\.endpoints/);
  }
});
