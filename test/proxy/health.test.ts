import assert from 'node:assert/strict';
import { type Server, type Socket, createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { makeNodeId } from '../../src/core/ids.ts';
import type { RouteTarget } from '../../src/core/route/decide.ts';
import { type Controls, openControls } from '../../src/proxy/control.ts';
import { watchHealth } from '../../src/proxy/health.ts';
import { buildAuthentication, buildCommandComplete, buildReady } from '../../src/wire/backend.ts';
import { joinBytes } from '../../src/wire/bytes.ts';
import { until } from '../lab/plain-postgres.ts';

/** Speaks as much of the protocol as the question needs, and falls silent when it is told to, without closing anything. */
let silent = false;
const sockets = new Set<Socket>();
const server: Server = createServer((socket) => {
  sockets.add(socket);
  let started = false;
  socket.on('error', () => undefined);
  socket.on('data', (bytes) => {
    if (silent) return;
    if (!started) {
      started = true;
      socket.write(joinBytes([buildAuthentication(0), buildReady('idle')]));
    } else if (bytes[0] === 0x51 || bytes[0] === 0x50) socket.write(joinBytes([buildCommandComplete('SELECT 1'), buildReady('idle')]));
  });
});
const node = makeNodeId('n2');
let target: RouteTarget;
let controls: Controls;
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  target = { node, host: '127.0.0.1', port: typeof address === 'object' && address !== null ? address.port : 0 };
  controls = openControls({ id: 'p1', password: 'x', ca: null, connectMs: 300 });
});
after(() => {
  controls.close();
  for (const socket of sockets) socket.destroy();
  server.close();
});

describe("the proxy's own look at the nodes", () => {
  test('finds a node that falls silent with its connections open, and sees it come back', async () => {
    let changes = 0;
    const health = watchHealth({ controls, clock: realClock, log: silentLogger, targets: () => [target], onChange: () => void changes++ });
    assert.equal(health.down().size, 0);
    await until(() => sockets.size > 0, 5000);
    silent = true;
    await until(() => health.down().has(node), 10_000);
    silent = false;
    await until(() => !health.down().has(node), 10_000);
    assert.equal(changes, 2);
    health.close();
  });
});
