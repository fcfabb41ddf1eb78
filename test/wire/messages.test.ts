import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import * as backend from '../../src/wire/backend.ts';
import { decodeText, encodeText, joinBytes } from '../../src/wire/bytes.ts';
import * as frontend from '../../src/wire/frontend.ts';
import { AUTHENTICATION } from '../../src/wire/protocol.ts';
import { buildCancel, buildSslRequest, buildStartup, findDatabase, findParameter, isReplication, readStartup } from '../../src/wire/startup.ts';
import '../fixed-seed.ts';

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

/** Reads the body of a message that stands in the middle of a larger buffer, and then every shorter cut of it. */
function read<T>(message: Uint8Array, reader: (bytes: Uint8Array, at: number, end: number) => T): T {
  const buffer = joinBytes([new Uint8Array(7).fill(1), message, new Uint8Array(7).fill(1)]);
  for (let end = 12; end < 7 + message.length; end++) reader(buffer, 12, end);
  return reader(buffer, 12, 7 + message.length);
}

describe('text', () => {
  test('is encoded and decoded as the platform does it, for every string', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), (text) => {
        assert.deepEqual(encodeText(text), new TextEncoder().encode(text));
        assert.equal(decodeText(encodeText(text)), text.toWellFormed());
      }),
    );
  });

  test('that is no valid UTF-8 loses only the wrong bytes', () => {
    assert.equal(
      decodeText(hex('61 ff 62 c3 63 e2 82 64 c0 80 ed a0 80 f0 9f 98 80 f4 90 80 80')),
      'a\ufffdb\ufffdc\ufffd\ufffdd' + '\ufffd'.repeat(5) + '😀' + '\ufffd'.repeat(4),
    );
  });
});

describe('the first packet', () => {
  test('of libpq is read', () => {
    const packet = hex('00000020 00030000 7573657200 61707000 646174616261736500 73686f7000 00');
    assert.deepEqual(readStartup(packet, 0, packet.length), {
      kind: 'startup',
      bytes: packet.length,
      startup: {
        major: 3,
        minor: 0,
        parameters: [
          ['user', 'app'],
          ['database', 'shop'],
        ],
      },
    });
  });

  test('asks for more bytes at each cut, and is read when the last has come', () => {
    const startup = {
      major: 3,
      minor: 2,
      parameters: [
        ['user', 'a'],
        ['application_name', 'psql – ü'],
      ] as [string, string][],
    };
    for (const packet of [buildStartup(startup), buildCancel({ processId: 7, secret: hex('01020304') }), buildSslRequest()]) {
      const buffer = joinBytes([new Uint8Array(3), packet, new Uint8Array(3)]);
      for (let cut = 0; cut < packet.length; cut++) assert.equal(readStartup(buffer, 3, 3 + cut).kind, 'more');
      const whole = readStartup(buffer, 3, 3 + packet.length);
      assert.notEqual(whole.kind, 'more');
      if (whole.kind === 'startup') assert.deepEqual(whole.startup, startup);
      if (whole.kind === 'cancel') assert.deepEqual(whole.key, { processId: 7, secret: hex('01020304') });
    }
  });

  const bad: readonly [name: string, packet: Uint8Array][] = [
    ['a TLS handshake without a request', hex('16 03 01')],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
    ['a length that is too large', hex('00002711 00030000')],
    ['a length that is too small', hex('00000004')],
    ['a request for TLS with a body', hex('00000009 04d2162f 00')],
    ['a cancel request without a secret', hex('0000000c 04d2162e 00000001')],
    ['protocol 2', hex('00000009 00020000 00')],
    ['parameters without an end', hex('0000000d 00030000 7573657200')],
    ['something behind the end of the parameters', hex('0000000a 00030000 0000')],
    ['no end of the parameters', hex('00000008 00030000')],
  ];
  for (const [name, packet] of bad)
    test(`is refused: ${name}`, () => {
      assert.equal(readStartup(packet, 0, packet.length).kind, 'bad');
    });

  test('is read or refused, whatever comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const packet = Uint8Array.from([0, 0, 0, bytes.length + 4, ...bytes]);
        const found = readStartup(packet, 0, packet.length);
        assert.ok(found.kind === 'bad' || found.bytes <= packet.length || bytes.length < 4);
      }),
    );
  });

  test('means the last value of a name that repeats, and the user when it names no database', () => {
    const startup = {
      major: 3,
      minor: 0,
      parameters: [
        ['user', 'a'],
        ['user', 'b'],
      ] as [string, string][],
    };
    assert.equal(findParameter(startup, 'user'), 'b');
    assert.equal(findDatabase(startup), 'b');
    assert.equal(findDatabase({ ...startup, parameters: [] }), null);
  });

  test('says whether it is replication', () => {
    for (const [value, expected] of [
      ['true', true],
      ['database', true],
      ['1', true],
      ['off', false],
      ['0', false],
      ['', false],
    ] as const)
      assert.equal(isReplication({ major: 3, minor: 0, parameters: [['replication', value]] }), expected);
    assert.equal(isReplication({ major: 3, minor: 0, parameters: [] }), false);
  });
});

describe('messages of a client', () => {
  const names = (
    message: Uint8Array,
    reader: (bytes: Uint8Array, at: number, end: number, into: frontend.Texts) => boolean,
  ): readonly string[] | null => {
    const texts = frontend.createTexts();
    const buffer = joinBytes([new Uint8Array(7).fill(1), message, new Uint8Array(7).fill(1)]);
    if (!reader(buffer, 12, 7 + message.length, texts)) return null;
    return [decodeText(buffer, texts.firstAt, texts.firstEnd), decodeText(buffer, texts.secondAt, texts.secondEnd)];
  };

  test('give their texts', () => {
    assert.deepEqual(names(frontend.buildQuery('select 1'), frontend.readQuery), ['select 1', '']);
    assert.deepEqual(names(frontend.buildParse({ name: 'n', text: 'select $1', parameterTypes: [23] }), frontend.readParse), ['n', 'select $1']);
    assert.deepEqual(names(frontend.buildBind({ portal: 'p', statement: 's', parameters: ['x', null] }), frontend.readBind), ['p', 's']);
    assert.deepEqual(names(frontend.buildExecute('p', 3), frontend.readExecute), ['p', '']);
    assert.deepEqual(names(frontend.buildDescribe('statement', 's'), frontend.readAbout), ['s', '']);
    assert.deepEqual(names(frontend.buildClose('portal', ''), frontend.readAbout), ['', '']);
  });

  test('that are cut before the end of a text are not read', () => {
    const texts = frontend.createTexts();
    const all: readonly [Uint8Array, (bytes: Uint8Array, at: number, end: number, into: frontend.Texts) => boolean, number][] = [
      [frontend.buildQuery('select 1'), frontend.readQuery, 9],
      [frontend.buildParse({ name: 'n', text: 'select 1' }), frontend.readParse, 11],
      [frontend.buildBind({ portal: 'p', statement: 's' }), frontend.readBind, 4],
      [frontend.buildExecute('p'), frontend.readExecute, 6],
      [frontend.buildClose('portal', 'p'), frontend.readAbout, 3],
    ];
    for (const [message, reader, needed] of all)
      for (let length = 0; length < message.length - 5; length++) assert.equal(reader(message, 5, 5 + length, texts), length >= needed);
  });

  test('of another kind than statement and portal are not read', () => {
    assert.equal(names(hex('44 00000006 58 00'), frontend.readAbout), null);
  });

  test('of SASL keep the difference between no data and empty data', () => {
    const message = frontend.buildSaslInitialResponse('SCRAM-SHA-256', encodeText('n,,n=,r=abc'));
    assert.deepEqual(read(message, frontend.readSaslInitialResponse), { mechanism: 'SCRAM-SHA-256', data: encodeText('n,,n=,r=abc') });
    assert.deepEqual(read(hex('70 0000000a 5800 ffffffff'), frontend.readSaslInitialResponse), { mechanism: 'X', data: null });
    assert.deepEqual(read(hex('70 0000000a 5800 00000000'), frontend.readSaslInitialResponse), { mechanism: 'X', data: new Uint8Array(0) });
    assert.equal(read(hex('70 0000000a 5800 7fffffff'), frontend.readSaslInitialResponse), null);
  });
});

describe('messages of a server', () => {
  test('of the login are read back as they were built', () => {
    const request = read(backend.buildSaslRequest(['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']), backend.readAuthentication);
    assert.equal(request?.code, AUTHENTICATION.sasl);
    assert.deepEqual(backend.readSaslMechanisms(request!.data), ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']);
    assert.equal(backend.readSaslMechanisms(hex('41')), null);
    const key = { processId: -5, secret: hex('deadbeef') };
    assert.deepEqual(read(backend.buildBackendKey(key), backend.readBackendKey), key);
    assert.deepEqual(read(backend.buildParameterStatus('TimeZone', 'UTC'), backend.readParameterStatus), { name: 'TimeZone', value: 'UTC' });
    const negotiation = { minor: 2, unknown: ['_pq_.x'] };
    assert.deepEqual(read(backend.buildNegotiation(negotiation), backend.readNegotiation), negotiation);
  });

  test('of errors give their fields', () => {
    const error = backend.buildError({ severity: 'FATAL', sqlState: '57P01', message: 'going', hint: 'come again' });
    const fields = read(error, backend.readErrorFields);
    assert.deepEqual(
      [...fields!],
      [
        ['S', 'FATAL'],
        ['V', 'FATAL'],
        ['C', '57P01'],
        ['M', 'going'],
        ['H', 'come again'],
      ],
    );
    assert.equal(
      read(error, (bytes, at, end) => backend.hasSqlState(bytes, at, end, '57P01')),
      true,
    );
    for (const other of ['57P02', '57P0', '57P011'])
      assert.equal(
        read(error, (bytes, at, end) => backend.hasSqlState(bytes, at, end, other)),
        false,
      );
  });

  test('of rows give the values, NULL apart from empty', () => {
    assert.deepEqual(read(backend.buildDataRow(['0/15', null, '']), backend.readDataRow), [encodeText('0/15'), null, new Uint8Array(0)]);
    assert.equal(read(hex('44 0000000a 0001 7fffffff'), backend.readDataRow), null);
    assert.equal(read(backend.buildCommandComplete('SELECT 1'), backend.readCommandTag), 'SELECT 1');
  });

  test('are read or refused, whatever comes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
        for (const reader of [
          backend.readAuthentication,
          backend.readBackendKey,
          backend.readCommandTag,
          backend.readDataRow,
          backend.readErrorFields,
          backend.readNegotiation,
          backend.readParameterStatus,
        ])
          reader(bytes, 0, bytes.length);
      }),
    );
  });

  test('hold no second field in a text with a zero character', () => {
    const fields = read(backend.buildError({ severity: 'ERROR', sqlState: 'XX000', message: 'a\0Dinjected' }), backend.readErrorFields);
    assert.equal(fields?.get('M'), 'a');
    assert.equal(fields?.has('D'), false);
  });
});
