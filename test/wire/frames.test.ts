import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { buildCommandComplete, buildDataRow, buildError, buildReady } from '../../src/wire/backend.ts';
import { buildMessage, joinBytes } from '../../src/wire/bytes.ts';
import { FRAME, beginChunk, createFrameWalker, passFrames, stepFrame } from '../../src/wire/frames.ts';
import { buildBind, buildClose, buildExecute, buildParse, buildQuery, buildSync, buildTerminate } from '../../src/wire/frontend.ts';
import { appendGather, clearGather, createGather } from '../../src/wire/gather.ts';
import { BACKEND, BACKEND_LIMITS, FRONTEND_LIMITS, LOGIN_LIMITS, MAX_LARGE_BYTES, MAX_SMALL_BYTES } from '../../src/wire/protocol.ts';
import '../fixed-seed.ts';

interface Seen {
  readonly type: string;
  readonly length: number;
  readonly first: number;
  /** The whole message, put together from the chunks by the offsets that the walker gave. */
  readonly bytes: string;
}

/** Walks over the stream in the given chunks; each lies at an odd offset of a larger buffer, as in a shared read buffer. */
function walk(chunks: readonly Uint8Array[], limits: Int32Array): { seen: readonly Seen[]; bad: boolean; have: number } {
  const walker = createFrameWalker();
  const gather = createGather(1 << 20);
  const seen: Seen[] = [];
  for (const chunk of chunks) {
    const buffer = new Uint8Array(chunk.length + 10).fill(0xff);
    buffer.set(chunk, 3);
    const end = 3 + chunk.length;
    beginChunk(walker, 3);
    for (;;) {
      const from = walker.at;
      const found = stepFrame(walker, buffer, end, limits);
      appendGather(gather, buffer, from, walker.at);
      if (found === FRAME.bad) return { seen, bad: true, have: walker.have };
      if (found === FRAME.more) {
        assert.equal(walker.at, end);
        break;
      }
      const whole = gather.bytes.slice(0, gather.length);
      if (walker.startAt >= 0) assert.deepEqual(buffer.slice(walker.startAt, walker.at), whole);
      if (walker.bodyAt >= 0) assert.deepEqual(buffer.slice(walker.bodyAt, walker.at), whole.slice(5));
      seen.push({ type: String.fromCharCode(walker.type), length: walker.length, first: walker.first, bytes: Buffer.from(whole).toString('hex') });
      clearGather(gather);
    }
  }
  return { seen, bad: false, have: walker.have };
}

function expected(messages: readonly Uint8Array[]): readonly Seen[] {
  return messages.map((message) => ({
    type: String.fromCharCode(message[0]!),
    length: message.length - 1,
    first: message[5] ?? -1,
    bytes: Buffer.from(message).toString('hex'),
  }));
}

const client = [
  buildQuery('select 1'),
  buildParse({ name: 's1', text: 'select $1', parameterTypes: [23] }),
  buildBind({ portal: '', statement: 's1', parameters: ['7', null] }),
  buildExecute(''),
  buildClose('statement', 's1'),
  buildSync(),
  buildTerminate(),
];

describe('the walk over messages', () => {
  test('finds each message whole at every border of two chunks', () => {
    const stream = joinBytes(client);
    for (let cut = 0; cut <= stream.length; cut++) {
      const { seen, bad, have } = walk([stream.subarray(0, cut), stream.subarray(cut)], FRONTEND_LIMITS);
      assert.deepEqual({ seen, bad, have }, { seen: expected(client), bad: false, have: 0 });
    }
  });

  test('finds each message in chunks of one byte', () => {
    const server = [buildDataRow(['a', null, '']), buildError({ severity: 'ERROR', sqlState: '25006', message: 'no' }), buildReady('failed')];
    const stream = joinBytes(server);
    const { seen } = walk(
      Array.from(stream, (_, i) => stream.subarray(i, i + 1)),
      BACKEND_LIMITS,
    );
    assert.deepEqual(seen, expected(server));
  });

  test('finds the same messages however the stream is cut', () => {
    const message = fc
      .tuple(fc.constantFrom(...'BCDEFHPQSXcdf'), fc.uint8Array({ maxLength: 40 }))
      .map(([type, body]) => buildMessage(type.charCodeAt(0), body));
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), fc.array(fc.nat({ max: 600 }), { maxLength: 12 }), (messages, cuts) => {
        const stream = joinBytes(messages);
        const borders = [0, ...cuts.map((cut) => Math.min(cut, stream.length)).sort((a, b) => a - b), stream.length];
        const chunks = borders.slice(1).map((to, i) => stream.subarray(borders[i], to));
        assert.deepEqual(walk(chunks, FRONTEND_LIMITS).seen, expected(messages));
      }),
    );
  });

  test('goes over arbitrary bytes without an exception, and never past the end of a chunk', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 8 }), (chunks) => {
        walk(chunks, FRONTEND_LIMITS);
        walk(chunks, BACKEND_LIMITS);
      }),
      { numRuns: 500 },
    );
  });

  const header = (type: string, length: number): Uint8Array => {
    const bytes = new Uint8Array(5);
    bytes[0] = type.charCodeAt(0);
    new DataView(bytes.buffer).setUint32(1, length);
    return bytes;
  };
  const cases: readonly [name: string, bytes: Uint8Array, limits: Int32Array, bad: boolean][] = [
    ['a length below its own four bytes', header('Q', 3), FRONTEND_LIMITS, true],
    ['a negative length', header('Q', 0xffff_ffff), FRONTEND_LIMITS, true],
    ['the longest statement', header('Q', MAX_LARGE_BYTES), FRONTEND_LIMITS, false],
    ['a statement that is longer', header('Q', MAX_LARGE_BYTES + 1), FRONTEND_LIMITS, true],
    ['the longest Sync that a server takes', header('S', MAX_SMALL_BYTES), FRONTEND_LIMITS, false],
    ['a Sync that is longer', header('S', MAX_SMALL_BYTES + 1), FRONTEND_LIMITS, true],
    ['an unknown type', header('!', 4), FRONTEND_LIMITS, true],
    ['an unknown type of which nothing else has come', Uint8Array.of(0x21), FRONTEND_LIMITS, true],
    ['a password after the login', header('p', 8), FRONTEND_LIMITS, true],
    ['a statement before the login', header('Q', 8), LOGIN_LIMITS, true],
    ['a password before the login', header('p', 8), LOGIN_LIMITS, false],
    ['the plain text of a postmaster that cannot fork', Buffer.from('Ecould not fork new process'), BACKEND_LIMITS, true],
  ];
  for (const [name, bytes, limits, bad] of cases)
    test(`${bad ? 'stops at' : 'goes on over'} ${name}`, () => {
      assert.equal(walk([bytes], limits).bad, bad);
    });
});

describe('passing over rows', () => {
  const rows = [['a'], [null], ['x'.repeat(300)], []].map(buildDataRow);
  const copied = buildMessage(BACKEND.copyData, Uint8Array.of(1, 2, 3));
  const stream = joinBytes([...rows, buildCommandComplete('SELECT 4'), copied, ...rows, copied, buildReady('idle'), ...rows]);

  /** Types of what is not a row; null where the stream is bad. */
  function others(chunks: readonly Uint8Array[], pass: boolean): readonly (number | null)[] {
    const walker = createFrameWalker();
    const seen: (number | null)[] = [];
    for (const chunk of chunks) {
      beginChunk(walker, 0);
      for (;;) {
        if (pass) passFrames(walker, chunk, chunk.length, BACKEND.dataRow, BACKEND.copyData);
        const found = stepFrame(walker, chunk, chunk.length, BACKEND_LIMITS);
        if (found === FRAME.more) break;
        if (found === FRAME.bad) return [...seen, null];
        if (walker.type !== BACKEND.dataRow && walker.type !== BACKEND.copyData) seen.push(walker.type);
      }
    }
    return seen;
  }

  test('finds what stands between them, wherever the chunks end', () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const chunks = [stream.slice(0, cut), stream.slice(cut)];
      assert.deepEqual(others(chunks, true), [BACKEND.commandComplete, BACKEND.readyForQuery], `cut at ${cut}`);
    }
  });

  test('leaves impossible lengths to the step', () => {
    for (const length of [0, 3, 0x3fffffff, 0xffffffff]) {
      const bad = joinBytes([...rows, Uint8Array.of(BACKEND.dataRow, length >>> 24, length >>> 16, length >>> 8, length)]);
      assert.deepEqual(others([bad], true), [null]);
      assert.deepEqual(others([bad], false), [null]);
    }
  });
});

describe('a gather', () => {
  test('takes no more than its limit, and says how much it took', () => {
    const gather = createGather(10);
    assert.equal(appendGather(gather, new Uint8Array(8), 0, 8), 8);
    assert.equal(appendGather(gather, new Uint8Array(8), 0, 8), 2);
    assert.equal(appendGather(gather, new Uint8Array(8), 0, 8), 0);
    assert.equal(gather.length, 10);
  });

  test('gives the memory of a large message back', () => {
    const gather = createGather(1 << 20);
    appendGather(gather, new Uint8Array(100_000), 0, 100_000);
    clearGather(gather);
    assert.equal(gather.bytes.length, 0);
  });
});
