import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createApiClient } from '../../src/api/client.ts';
import { eventually, startTestServer, temporaryDirectory, expectOk } from './harness.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

interface Role {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly log: () => string;
}

function startRole(t: TestContext, file: string): Role {
  const child = spawn(process.execPath, [MAIN, 'server', '--config', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '' },
  });
  let out = '';
  let log = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return { child, out: () => out, log: () => log };
}

async function writeConfig(t: TestContext, extra = ''): Promise<{ readonly file: string; readonly data: string }> {
  const directory = await temporaryDirectory(t);
  const file = join(directory, 'server.yaml');
  const data = join(directory, 'data');
  writeFileSync(file, `listen: { port: 0 }\ndataDirectory: ${data}\nstore: { engine: embedded, listen: { port: 0 } }\n${extra}`);
  return { file, data };
}

test('the role starts with controllers, shows its token on standard output only, reloads on SIGHUP and stops on SIGTERM with 0', async (t) => {
  const { file, data } = await writeConfig(t);
  const role = startRole(t, file);
  const url = await eventually('listening', () => /"url":"(https:[^"]+)"/.exec(role.log())?.[1] ?? null, 20_000);
  const token = /pgh_\S+/.exec(role.out())?.[0] ?? '';
  assert.ok(token !== '' && !role.log().includes(token));
  const ca = readFileSync(join(data, 'ca', 'ca.crt'), 'utf8');
  const client = createApiClient({ server: url, token, ca });
  expectOk(await client.call('createCluster', { body: { name: 'demo', nodes: [{ id: 'n1', host: '127.0.0.1' }] } }));
  await eventually('a controller is elected', () => (role.log().includes('watching the cluster demo') ? true : null), 10_000);

  writeFileSync(file, `${readFileSync(file, 'utf8')}log: { level: debug }\n`);
  role.child.kill('SIGHUP');
  await eventually('reloaded', () => (role.log().includes('configuration reloaded') ? true : null));
  role.child.kill('SIGTERM');
  const [code] = (await once(role.child, 'exit')) as [number | null];
  assert.equal(code, 0, role.log());
});

test('a wrong configuration ends with 2 and names the line and the nearest key (H51)', async (t) => {
  const { file } = await writeConfig(t, 'controler: true\n');
  const role = startRole(t, file);
  const [code] = (await once(role.child, 'exit')) as [number | null];
  assert.equal(code, 2);
  assert.match(role.log(), /server\.yaml:4:1.*controler.*controller/s);
});

test('a port in use ends with 1, and leaves no half-started store behind', async (t) => {
  const busy = await startTestServer(t);
  const { file, data } = await writeConfig(t);
  writeFileSync(file, readFileSync(file, 'utf8').replace('listen: { port: 0 }', `listen: { port: ${new URL(busy.server.url).port} }`));
  const role = startRole(t, file);
  const [code] = (await once(role.child, 'exit')) as [number | null];
  assert.equal(code, 1);
  assert.match(role.log(), /cannot listen on 127\.0\.0\.1/);
  assert.ok(readFileSync(join(data, 'users.json'), 'utf8').includes('admin'));
});

test('a client that connects and stays silent blocks nobody (Z75)', async (t) => {
  const server = await startTestServer(t);
  const silent = Array.from({ length: 50 }, () => connect(Number(new URL(server.server.url).port), '127.0.0.1'));
  t.after(() => {
    for (const socket of silent) socket.destroy();
  });
  await Promise.all(silent.map((socket) => once(socket, 'connect')));
  expectOk(await server.admin.call('clusters', { timeoutMs: 2000 }));
});

test('an unreachable server is said as such, with exit class 4', async () => {
  const client = createApiClient({ server: 'https://127.0.0.1:24999', token: 'pgh_x', timeoutMs: 2000 });
  const answer = await client.call('clusters');
  assert.ok(!answer.ok);
  assert.deepEqual([answer.error.code, answer.error.exit], ['server.unreachable', 4]);
  assert.match(answer.error.what, /can not connect to the pgherd server at https:\/\/127\.0\.0\.1:24999/);
});
