import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { type Doorman, openDoorman } from '../../src/proxy/doorman.ts';
import { openRawBinding } from '../../src/proxy/io/raw-handle.ts';
import { Port } from '../../src/proxy/port.ts';
import { openRules } from '../../src/proxy/rules.ts';
import { joinBytes } from '../../src/wire/bytes.ts';
import { buildQuery, buildSaslInitialResponse, buildSaslResponse } from '../../src/wire/frontend.ts';
import { buildCancel, buildSslRequest, buildStartup } from '../../src/wire/startup.ts';
import { until } from '../lab/plain-postgres.ts';

/** xorshift32: the same bytes in each run. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

const VALID: readonly Uint8Array[] = [
  buildStartup({
    major: 3,
    minor: 0,
    parameters: [
      ['user', 'somebody'],
      ['database', 'db'],
    ],
  }),
  joinBytes([
    buildStartup({ major: 3, minor: 2, parameters: [['user', 'x']] }),
    buildSaslInitialResponse('SCRAM-SHA-256', new TextEncoder().encode('n,,n=,r=abc')),
  ]),
  joinBytes([
    buildStartup({ major: 3, minor: 0, parameters: [['user', 'x']] }),
    buildSaslInitialResponse('SCRAM-SHA-256', new TextEncoder().encode('n,,n=,r=abc')),
    buildSaslResponse(new TextEncoder().encode('c=biws,r=abc,p=AAAA')),
  ]),
  buildSslRequest(),
  buildCancel({ processId: 1, secret: Uint8Array.of(1, 2, 3, 4) }),
  buildQuery('select 1'),
];

const LOGIN_MS = 300;
let port: Port;
let doorman: Doorman;
before(async () => {
  const rules = openRules({ log: silentLogger });
  port = new Port({
    kind: 'write',
    io: openRawBinding(),
    ca: null,
    log: silentLogger,
    connectMs: 100,
    waitMs: 300,
    rules,
    positions: null,
    onHeld: () => undefined,
    pooling: null,
  });
  const opened = await openDoorman({
    port,
    host: '127.0.0.1',
    number: 0,
    io: openRawBinding(),
    tls: null,
    ca: null,
    secrets: { find: () => Promise.resolve(null) },
    rules,
    limits: { maxClients: 50, loginMs: LOGIN_MS, connectMs: 100 },
    log: silentLogger,
    everybody: () => [...port.sessions],
  });
  assert.ok(opened.ok);
  doorman = opened.value;
});
after(() => {
  doorman.close();
  port.close();
});

/** Bytes that came back; resolves when the proxy has closed the connection. */
function talk(bytes: Uint8Array, pauseAt: number): Promise<number> {
  return new Promise((resolve) => {
    let heard = 0;
    const socket = connect(doorman.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.length;
    });
    socket.once('close', () => resolve(heard));
    socket.write(bytes.subarray(0, pauseAt));
    setImmediate(() => socket.write(bytes.subarray(pauseAt)));
  });
}

describe('hostile clients', () => {
  test('mutated logins end in time, cost bounded memory, and nobody gets in', async () => {
    const next = random(20_261_121);
    const heap = process.memoryUsage().rss;
    for (let round = 0; round < 40; round++) {
      const talks = Array.from({ length: 25 }, () => {
        const bytes = Uint8Array.from(VALID[next() % VALID.length] ?? []);
        for (let n = next() % 6; n > 0; n--) bytes[next() % bytes.length] = next();
        const cut = next() % 4 === 0 ? bytes.subarray(0, next() % bytes.length) : bytes;
        return talk(cut, next() % (cut.length + 1));
      });
      await Promise.all(talks);
    }
    assert.equal(port.sessions.size, 0);
    assert.ok(process.memoryUsage().rss - heap < 150 * 1024 * 1024, `${process.memoryUsage().rss - heap} bytes more than before`);
  });

  test('a length of a gigabyte reserves nothing', async () => {
    for (const head of [
      Uint8Array.of(0x3f, 0xff, 0xff, 0xff),
      Uint8Array.of(0, 0, 0x27, 0x10, 0, 3, 0, 0),
      Uint8Array.of(0x51, 0x3f, 0xff, 0xff, 0xfe),
    ])
      await talk(head, head.length);
    assert.equal(port.sessions.size, 0);
  });

  test('silent ones keep nobody else out', async () => {
    const silent = Array.from({ length: 100 }, () => talk(new Uint8Array(0), 0));
    const started = monoMs();
    assert.ok((await talk(VALID[1] ?? new Uint8Array(0), 3)) > 0, 'the login goes on');
    await Promise.all(silent);
    assert.ok(monoMs() - started < 20 * LOGIN_MS);
    await until(() => port.sessions.size === 0, 1000);
  });
});
