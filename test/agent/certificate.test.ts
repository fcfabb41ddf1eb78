import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { settingsForRestart } from '../../src/agent/reload.ts';
import { keepCertificate } from '../../src/agent/certificate/keeper.ts';
import { joinServer } from '../../src/api/join-client.ts';
import { type Clock, monoMs, wallMs } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { agentConfig } from '../../src/core/agent-config.ts';
import { makeWallMs } from '../../src/core/ids.ts';
import { eventually, expectOk, startTestServer } from '../server/harness.ts';

const DAY_MS = 86_400_000;

/** A clock whose days a test turns; each sleep ends when the next day is turned to. */
function calendar(): { readonly clock: Clock; turn(days: number): void } {
  let days = 0;
  let wakers: (() => void)[] = [];
  return {
    clock: {
      now: () => ({ mono: monoMs(), wall: makeWallMs(wallMs() + days * DAY_MS) }),
      sleep: (_ms, signal) =>
        new Promise((resolve) => {
          wakers.push(resolve);
          signal?.addEventListener('abort', () => resolve(), { once: true });
        }),
    },
    turn: (to) => {
      days = to;
      for (const wake of wakers.splice(0)) wake();
      wakers = [];
    },
  };
}

test('an agent renews its certificate before it ends, and says so when that does not work', async (t) => {
  const server = await startTestServer(t);
  expectOk(
    await server.admin.call('createCluster', {
      body: { name: 'demo', nodes: [{ id: 'n1', host: '127.0.0.1' }] },
    }),
  );
  const stateDirectory = join(server.directory, 'n1');
  const { token } = expectOk(await server.admin.call('addJoinToken', { body: { cluster: 'demo' } }));
  const joined = expectOk(await joinServer({ token, node: 'n1', hosts: ['127.0.0.1'], stateDirectory }));
  const first = readFileSync(joined.files.cert, 'utf8');
  const { clock, turn } = calendar();
  const log: string[] = [];
  let loaded = 0;
  const keeper = keepCertificate({
    stateDirectory,
    cert: joined.files.cert,
    clock,
    log: createLogger({ role: 'agent', stream: { write: (line) => void log.push(line) } }),
    onRenewed: async () => {
      loaded += 1;
    },
  });
  t.after(() => keeper.stop());
  turn(270);
  await eventually('a look', async () => (log.length === 0 ? true : null));
  assert.deepEqual([loaded, readFileSync(joined.files.cert, 'utf8') === first], [0, true], '95 days are left');
  turn(276);
  await eventually('the renewal', async () => (loaded === 1 ? true : null));
  assert.notEqual(readFileSync(joined.files.cert, 'utf8'), first);
  assert.deepEqual(keeper.problems(), []);
  await server.server.stop();
  turn(340);
  await eventually('the alarm', async () => (keeper.problems().length === 1 ? true : null));
  assert.equal(keeper.problems()[0]?.code, 'certificate.expires');
  assert.match(keeper.problems()[0]?.text ?? '', /ends in 2[45] days/);
  assert.match(log.join(''), /cannot be renewed at https:/);
  turn(400);
  await eventually('the end', async () => (/has expired/.test(keeper.problems()[0]?.text ?? '') ? true : null));
});

test('a reload names every setting that needs a restart, and the log level does not', () => {
  const config = (change: object) => {
    const decoded = agentConfig(
      {
        cluster: 'demo',
        node: 'n1',
        host: 'h',
        dataDirectory: '/d',
        stateDirectory: '/s',
        store: { endpoints: ['https://x:2379'], ca: null, cert: null, key: null },
        ...change,
      },
      '',
    );
    assert.ok(decoded.ok);
    return decoded.value;
  };
  assert.deepEqual(settingsForRestart(config({}), config({ log: { level: 'debug' } })), []);
  assert.deepEqual(settingsForRestart(config({}), config({ port: 5440, firewall: 'off', log: { level: 'debug' } })), ['port', 'firewall']);
});
