import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { findProcesses } from '../../src/agent/postgres/postmaster.ts';
import { createLab, must, settings } from '../postgres/harness.ts';
import { startAgentProcess, temporaryDirectory, writeAgentYaml } from './agent-process.ts';

async function occupy(t: TestContext, port: number): Promise<number> {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

test('an agent whose port is taken ends with 1, and names address, port and setting', async (t) => {
  const directory = temporaryDirectory(t);
  const port = await occupy(t, 0);
  const agent = startAgentProcess(t, await writeAgentYaml(directory, { listen: { host: '127.0.0.1', port } }));
  assert.equal(await agent.end(), 1, agent.log());
  assert.match(agent.log(), new RegExp(`agent\\.listen.*127\\.0\\.0\\.1:${port}; change .listen. in agent\\.yaml`));
});

test('a PostgreSQL whose port is taken does not start, says so, stays down whole, and starts once the port is free', async (t) => {
  const lab = createLab();
  t.after(() => lab.close());
  const instance = await lab.node('n1');
  must(await runInitdb(instance, { checksums: false, settings }));
  const busy = createServer();
  busy.listen(instance.port, '127.0.0.1');
  await once(busy, 'listening');
  const refused = await startPostgres(instance, { mode: 'primary', mayStart: () => true });
  busy.close();
  await once(busy, 'close');
  assert.ok(!refused.ok);
  assert.equal(refused.error.code, 'start.failed');
  assert.match(refused.error.cause, /Address already in use/);
  assert.deepEqual([refused.error.retryable, findProcesses(instance.dataDirectory)], [true, []]);
  must(await startPostgres(instance, { mode: 'primary', mayStart: () => true }));
});
