import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { type RoleProcess, startRole } from '../../src/demo/children.ts';
import { until } from '../lab/plain-postgres.ts';
import { sqlStateOf } from './stage.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const START_MS = 30_000;

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer();
      return new Promise<typeof server>((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

describe('pgherd proxy, as a process', () => {
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-proxy-'));
  let role: RoleProcess;
  let ports: readonly number[];
  before(async () => {
    ports = await freePorts(5);
    const [write, read, split, admin, nobody] = ports;
    writeFileSync(join(directory, 'secret'), 'x\n', { mode: 0o600 });
    const listen = `{ host: 127.0.0.1, write: ${write}, read: ${read}, split: ${split}, admin: ${admin} }`;
    const store = `{ endpoints: ['http://127.0.0.1:${nobody}'], ca: null, cert: null, key: null }`;
    writeFileSync(
      join(directory, 'proxy.yaml'),
      `cluster: c\nid: p1\nlisten: ${listen}\nstore: ${store}\nsecretFile: ${join(directory, 'secret')}\nadminUsers: [boss]\n`,
    );
    role = startRole({
      inside: [],
      argv: [process.execPath, MAIN, 'proxy', '--config', join(directory, 'proxy.yaml')],
      cwd: directory,
      logFile: join(directory, 'log'),
    });
    await until(() => role.exit() !== null || readFileSync(role.logFile, 'utf8').includes('the admin port is open'), START_MS);
    assert.equal(role.exit(), null, readFileSync(role.logFile, 'utf8'));
  });
  after(async () => {
    if (role.exit() === null) process.kill(role.pid, 'SIGKILL');
    await role.gone;
    rmSync(directory, { recursive: true, force: true });
  });

  test('starts without a store, and refuses clients with a reason instead of letting them hang', async () => {
    for (const port of ports.slice(0, 4)) {
      const client = new Client({ host: '127.0.0.1', port, user: 'x', password: 'x', database: 'x' });
      client.on('error', () => undefined);
      assert.equal(await sqlStateOf(client.connect()), '57P03');
    }
  });

  test('SIGHUP takes over the log level, and SIGTERM ends it with 0', async () => {
    writeFileSync(join(directory, 'proxy.yaml'), `${readFileSync(join(directory, 'proxy.yaml'), 'utf8')}log: { level: debug }\n`);
    process.kill(role.pid, 'SIGHUP');
    await until(() => readFileSync(role.logFile, 'utf8').includes('configuration reloaded'), START_MS);
    process.kill(role.pid, 'SIGTERM');
    await role.gone;
    assert.deepEqual(role.exit(), { code: 0, signal: null });
  });
});
