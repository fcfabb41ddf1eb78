import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type ServerEvents,
  type ServerFindings,
  type Traffic,
  createTraffic,
  isBetween,
  isIdle,
  mayWait,
  walkClient,
  walkServer,
} from '../../src/proxy/traffic.ts';
import { BARE, buildCommandComplete, buildError, buildParameterStatus, buildReady } from '../../src/wire/backend.ts';
import { buildMessage, joinBytes } from '../../src/wire/bytes.ts';
import { buildBind, buildExecute, buildParse, buildQuery, buildSync, buildTerminate } from '../../src/wire/frontend.ts';
import { createGather } from '../../src/wire/gather.ts';
import { BACKEND, FRONTEND } from '../../src/wire/protocol.ts';

const BATCH = joinBytes([buildParse({ name: '', text: 'select 1' }), buildBind({ portal: '', statement: '' }), buildExecute('')]);
const copyIn = buildMessage(BACKEND.copyInResponse, Uint8Array.of(0, 0, 0));
const copyData = buildMessage(FRONTEND.copyData, Uint8Array.of(1, 2, 3));
const copyDone = buildMessage(FRONTEND.copyDone);

function fromClient(traffic: Traffic, bytes: Uint8Array, hold = false): number {
  return walkClient(traffic, bytes, bytes.length, { hold, onMessage: () => undefined, gather: null });
}

const IGNORE: ServerEvents = { onMessage: () => undefined, onReady: () => undefined };

function fromServer(traffic: Traffic, bytes: Uint8Array): ServerFindings {
  const findings: ServerFindings = { goodbyeAt: -1, ready: false };
  assert.equal(walkServer(traffic, bytes, bytes.length, findings, IGNORE), true);
  return findings;
}

describe('the state of a session from its headers', () => {
  test('a query is under way until ReadyForQuery', () => {
    const traffic = createTraffic();
    assert.ok(isIdle(traffic));
    fromClient(traffic, buildQuery('select 1'));
    assert.ok(!isIdle(traffic));
    assert.ok(fromServer(traffic, joinBytes([buildCommandComplete('SELECT 1'), buildReady('idle')])).ready);
    assert.ok(isIdle(traffic));
  });

  test('an open transaction is between statements, but not idle', () => {
    const traffic = createTraffic();
    fromClient(traffic, buildQuery('begin'));
    fromServer(traffic, buildReady('open'));
    assert.ok(isBetween(traffic) && !isIdle(traffic) && !mayWait(traffic));
    fromClient(traffic, buildQuery('commit'));
    fromServer(traffic, buildReady('idle'));
    assert.ok(isIdle(traffic));
  });

  test('messages without their Sync are not idle, and what follows cannot wait', () => {
    const traffic = createTraffic();
    fromClient(traffic, BATCH);
    assert.ok(!isIdle(traffic) && !mayWait(traffic));
    fromClient(traffic, buildSync());
    assert.ok(mayWait(traffic));
    fromServer(traffic, joinBytes([BARE.parseComplete, BARE.bindComplete, buildCommandComplete('SELECT 1'), buildReady('idle')]));
    assert.ok(isIdle(traffic));
  });

  test('a pipeline is idle only after its last answer', () => {
    const traffic = createTraffic();
    fromClient(traffic, joinBytes([BATCH, buildSync(), buildQuery('select 1'), BATCH, buildSync()]));
    fromServer(traffic, buildReady('idle'));
    fromServer(traffic, buildReady('idle'));
    assert.ok(!isIdle(traffic));
    fromServer(traffic, buildReady('idle'));
    assert.ok(isIdle(traffic));
  });

  test('COPY FROM in the simple protocol: the data may not wait', () => {
    const traffic = createTraffic();
    fromClient(traffic, buildQuery('copy t from stdin'));
    fromServer(traffic, copyIn);
    assert.ok(!mayWait(traffic));
    fromClient(traffic, joinBytes([copyData, copyDone]));
    fromServer(traffic, joinBytes([buildCommandComplete('COPY 1'), buildReady('idle')]));
    assert.ok(isIdle(traffic));
  });

  test('COPY FROM in the extended protocol: the Sync that the server throws away is not waited for', () => {
    const traffic = createTraffic();
    fromClient(traffic, joinBytes([BATCH, buildSync()]));
    fromServer(traffic, copyIn);
    fromClient(traffic, joinBytes([copyData, buildSync(), copyDone, buildSync()]));
    fromServer(traffic, joinBytes([buildCommandComplete('COPY 1'), buildReady('idle')]));
    assert.ok(isIdle(traffic));
  });

  test('an error nobody asked for is a goodbye; so is the end of the server in the middle of a statement', () => {
    const idle = createTraffic();
    assert.equal(fromServer(idle, buildError({ severity: 'FATAL', sqlState: '57P05', message: 'idle' })).goodbyeAt, 0);
    const busy = createTraffic();
    fromClient(busy, buildQuery('select 1'));
    const row = buildMessage(BACKEND.dataRow, Uint8Array.of(0, 0));
    assert.equal(fromServer(busy, joinBytes([row, buildError({ severity: 'FATAL', sqlState: '57P01', message: 'stop' })])).goodbyeAt, row.length);
    const failing = createTraffic();
    fromClient(failing, buildQuery('select 1'));
    assert.equal(
      fromServer(failing, joinBytes([buildError({ severity: 'ERROR', sqlState: '22012', message: 'x' }), buildReady('idle')])).goodbyeAt,
      -1,
    );
  });

  test('what is no message of the protocol is found', () => {
    assert.equal(fromClient(createTraffic(), Uint8Array.of(0x51, 0, 0, 0, 1)), -1);
    assert.equal(fromClient(createTraffic(), Uint8Array.of(0x01, 0, 0, 0, 4)), -1);
    assert.equal(walkServer(createTraffic(), Uint8Array.of(0x5a, 0xff, 0, 0, 0), 5, { goodbyeAt: -1, ready: false }, IGNORE), false);
  });
});

describe('a hold', () => {
  test('lets nothing new begin while the session is idle', () => {
    assert.equal(fromClient(createTraffic(), buildQuery('select 1'), true), 0);
  });

  test('lets a transaction go on to its end, and no further', () => {
    const traffic = createTraffic();
    fromClient(traffic, buildQuery('begin'));
    fromServer(traffic, buildReady('open'));
    const commit = buildQuery('commit');
    assert.equal(fromClient(traffic, joinBytes([commit, buildQuery('begin')]), true), commit.length);
    fromServer(traffic, buildReady('idle'));
    assert.equal(fromClient(traffic, buildQuery('begin'), true), 0);
  });

  test('finishes a message and a batch that have begun', () => {
    const all = joinBytes([BATCH, buildSync(), buildQuery('select 2')]);
    const whole = BATCH.length + 5;
    for (let cut = 1; cut < whole; cut++) {
      const traffic = createTraffic();
      fromClient(traffic, all.subarray(0, cut));
      assert.equal(fromClient(traffic, all.subarray(cut), true), whole - cut, `cut at ${cut}`);
    }
  });
});

describe('the borders of chunks', () => {
  const conversation: readonly ['client' | 'server', Uint8Array][] = [
    [
      'client',
      joinBytes([
        buildParse({ name: 's', text: 'select $1' }),
        buildBind({ portal: '', statement: 's', parameters: ['x'] }),
        buildExecute(''),
        buildSync(),
      ]),
    ],
    ['server', joinBytes([BARE.parseComplete, BARE.bindComplete, buildCommandComplete('SELECT 1'), buildReady('idle')])],
    ['client', buildQuery('begin; select 1')],
    ['server', joinBytes([buildCommandComplete('BEGIN'), buildReady('open')])],
    ['client', buildQuery('copy t from stdin')],
    ['server', copyIn],
    ['client', joinBytes([copyData, copyDone])],
    ['server', joinBytes([buildCommandComplete('COPY 1'), buildReady('open')])],
    ['client', buildQuery('rollback')],
    ['server', buildReady('idle')],
    ['client', buildTerminate()],
  ];

  test('leave command tags and parameters whole for those who read them', () => {
    const answer = joinBytes([buildParameterStatus('client_encoding', 'UTF8'), buildCommandComplete('ROLLBACK'), buildReady('idle')]);
    for (let cut = 1; cut < answer.length; cut++) {
      const traffic = createTraffic();
      fromClient(traffic, buildQuery('rollback'));
      const seen: string[] = [];
      const events: ServerEvents = {
        onMessage: (_type, bytes, at, end) => seen.push(at < 0 ? 'cut' : Buffer.from(bytes.slice(at, end)).toString('latin1')),
        onReady: () => seen.push('ready'),
      };
      for (const piece of [answer.slice(0, cut), answer.slice(cut)])
        walkServer(traffic, piece, piece.length, { goodbyeAt: -1, ready: false }, events);
      assert.deepEqual(seen, ['client_encoding\0UTF8\0', 'ROLLBACK\0', 'ready'], `cut at ${cut}`);
    }
  });

  test('change nothing, wherever they are', () => {
    for (let part = 0; part < conversation.length; part++) {
      for (let cut = 1; cut < (conversation[part]?.[1].length ?? 0); cut++) {
        const traffic = createTraffic();
        const seen: string[] = [];
        const gather = createGather(1000);
        for (const [index, [who, bytes]] of conversation.entries()) {
          for (const piece of index === part ? [bytes.slice(0, cut), bytes.slice(cut)] : [bytes]) {
            if (who === 'server') fromServer(traffic, piece);
            else {
              const onMessage = (type: number, chunk: Uint8Array, at: number, end: number): void => {
                if (type === FRONTEND.query || type === FRONTEND.parse) seen.push(Buffer.from(chunk.slice(at, end)).toString('latin1'));
              };
              walkClient(traffic, piece, piece.length, { hold: false, onMessage, gather });
            }
          }
        }
        assert.ok(traffic.terminated && isIdle(traffic), `part ${part} cut at ${cut}`);
        assert.deepEqual(seen, ['s\0select $1\0\0\0', 'begin; select 1\0', 'copy t from stdin\0', 'rollback\0'], `part ${part} cut at ${cut}`);
      }
    }
  });
});
