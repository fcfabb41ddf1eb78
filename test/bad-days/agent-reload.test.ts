import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { eventually } from '../server/harness.ts';
import { startAgentProcess, temporaryDirectory, writeAgentYaml } from './agent-process.ts';

test('SIGHUP changes the log level, names what needs a restart, and a wrong file changes nothing', async (t) => {
  const file = await writeAgentYaml(temporaryDirectory(t));
  const agent = startAgentProcess(t, file);
  const says = (text: string): Promise<true> => eventually(text, () => (agent.log().includes(text) ? true : null), 20_000);
  await says('the store does not');
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, `${before}log: { level: error }\nosUser: somebody\n`);
  agent.child.kill('SIGHUP');
  await says('these settings take effect at the next start of the agent: osUser');
  writeFileSync(file, `${before}logg: 1\n`);
  agent.child.kill('SIGHUP');
  await says('reload failed; the old configuration stays in force');
  assert.match(agent.log(), /logg: unknown key \(did you mean \\"log\\"\?\)/);
  assert.doesNotMatch(agent.log(), /"configuration reloaded"/, 'info is not logged any more');
  assert.equal(agent.child.exitCode, null);
  writeFileSync(file, before);
  agent.child.kill('SIGHUP');
  await says('"configuration reloaded"');
});
