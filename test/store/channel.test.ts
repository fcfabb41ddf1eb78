/** The gRPC channel against servers that behave badly, made of Node's HTTP/2. That it speaks to real ones is in the contract suite. */
import assert from 'node:assert/strict';
import { type Http2Server, type ServerHttp2Stream, constants, createServer } from 'node:http2';
import { type AddressInfo, type Server, createServer as createTcpServer } from 'node:net';
import { afterEach, describe, test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import { realClock } from '../../src/base/clock.ts';
import { type Channel, openChannel } from '../../src/store/channel.ts';
import { createFrameReader, frame, statusOf } from '../../src/store/grpc-frames.ts';
import { status } from '../../src/store/grpc-status.ts';
import { KV, RangeRequestSchema, RangeResponseSchema, Watch, WatchRequestSchema } from '../../src/store/proto/gen/rpc_pb.ts';
import { methodOf } from '../../src/store/proto/services.ts';

const RANGE = methodOf(KV.method.range);
const WATCH = methodOf(Watch.method.watch);
const ANSWER = frame(toBinary(RangeResponseSchema, create(RangeResponseSchema, { count: 42n })));
const OK_TRAILERS = { 'grpc-status': '0' };

type Answer = (stream: ServerHttp2Stream) => void;
const open: { close(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

async function serve(answer: Answer, port = 0): Promise<{ readonly port: number; readonly server: Http2Server; stop(): void }> {
  const server = createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => undefined);
    session.once('close', () => sessions.delete(session));
  });
  server.on('stream', (stream) => {
    stream.on('error', () => undefined);
    answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const stop = (): void => {
    for (const session of sessions) session.destroy();
    server.close();
  };
  open.push({ close: stop });
  return { port: (server.address() as AddressInfo).port, server, stop };
}

function connectTo(port: number): Channel {
  const channel = openChannel(`http://127.0.0.1:${port}`, null, realClock);
  open.push(channel);
  return channel;
}

/** Headers, the bytes in these pieces, and the trailers. */
function answerWith(pieces: readonly Buffer[], trailers: Record<string, string> = OK_TRAILERS): Answer {
  return (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    for (const piece of pieces) stream.write(piece);
    stream.end();
  };
}

const call = (channel: Channel, limitMs = 2000, signal?: AbortSignal) =>
  channel.unary({ method: RANGE, request: create(RangeRequestSchema), metadata: {}, limitMs, ...(signal === undefined ? {} : { signal }) });

async function codeOf(channel: Channel, limitMs = 2000): Promise<{ code: number; sent: boolean; details: string }> {
  const answer = await call(channel, limitMs);
  assert.ok(answer.kind === 'failed', JSON.stringify(answer.kind));
  return { code: answer.error.code, sent: answer.sent, details: answer.error.details };
}

describe('a unary call', () => {
  test('reads an answer that comes byte by byte', async () => {
    const { port } = await serve(answerWith([...ANSWER].map((byte) => Buffer.from([byte]))));
    const channel = connectTo(port);
    assert.equal(await channel.ready(2000), null);
    const answer = await call(channel);
    assert.ok(answer.kind === 'answer');
    assert.equal(answer.value.count, 42n);
  });

  test('does not take a standstill of its own process for the silence of the server', async () => {
    const { port } = await serve(answerWith([ANSWER]));
    const channel = connectTo(port);
    await channel.ready(2000);
    assert.equal((await call(channel)).kind, 'answer');
    const late = call(channel, 50);
    const until = realClock.now().mono + 200;
    while (realClock.now().mono < until);
    assert.equal((await late).kind, 'answer');
  });

  test('gives the status of an answer that is headers only, with its text', async () => {
    const { port } = await serve((stream) =>
      stream.respond({ ':status': 200, 'grpc-status': '5', 'grpc-message': 'etcdserver: requested lease not found %25' }, { endStream: true }),
    );
    const channel = connectTo(port);
    await channel.ready(2000);
    const { code, sent, details } = await codeOf(channel);
    assert.deepEqual([code, sent], [status.NOT_FOUND, true]);
    assert.match(details, /requested lease not found %/);
  });

  test('prefers the status of the trailers to the message before them', async () => {
    const { port } = await serve(answerWith([ANSWER], { 'grpc-status': '14', 'grpc-message': 'leader changed' }));
    const channel = connectTo(port);
    await channel.ready(2000);
    assert.equal((await codeOf(channel)).code, status.UNAVAILABLE);
  });

  test('takes what is no gRPC, an answer without a message, compressed and endless messages as failures', async () => {
    const cases: readonly [Answer, number][] = [
      [(stream) => stream.respond({ ':status': 503 }, { endStream: true }), status.UNAVAILABLE],
      [(stream) => stream.respond({ ':status': 404 }, { endStream: true }), status.UNIMPLEMENTED],
      [answerWith([]), status.INTERNAL],
      [answerWith([Buffer.from([1, 0, 0, 0, 0])]), status.INTERNAL],
      [answerWith([Buffer.from([0, 255, 255, 255, 255])]), status.INTERNAL],
      [answerWith([frame(Buffer.from([0xff, 0xff, 0xff]))]), status.INTERNAL],
    ];
    for (const [answer, code] of cases) {
      const { port } = await serve(answer);
      const channel = connectTo(port);
      await channel.ready(2000);
      assert.equal((await codeOf(channel)).code, code);
    }
  });

  test('ends by its own limit, and the server hears of it', async () => {
    let reset: (code: number | undefined) => void = () => undefined;
    const heard = new Promise<number | undefined>((resolve) => {
      reset = resolve;
    });
    const { port } = await serve((stream) => stream.once('close', () => reset(stream.rstCode)));
    const channel = connectTo(port);
    await channel.ready(2000);
    assert.deepEqual((({ code, sent }) => [code, sent])(await codeOf(channel, 60)), [status.DEADLINE_EXCEEDED, true]);
    assert.equal(await heard, constants.NGHTTP2_CANCEL);
  });

  test('is given up by its signal, also by one that is aborted already', async () => {
    const { port } = await serve(() => undefined);
    const channel = connectTo(port);
    await channel.ready(2000);
    const early = await call(channel, 2000, AbortSignal.abort());
    assert.ok(early.kind === 'failed' && early.error.code === status.CANCELLED);
    const abort = new AbortController();
    const given = call(channel, 2000, abort.signal);
    abort.abort();
    const late = await given;
    assert.ok(late.kind === 'failed' && late.error.code === status.CANCELLED);
  });

  test('that was under way when the connection broke may have been applied; the next was never sent', async () => {
    const served = await serve((stream) => stream.session?.destroy());
    const channel = connectTo(served.port);
    await channel.ready(2000);
    let lost = 0;
    channel.onceLost(() => lost++);
    const under = await codeOf(channel);
    assert.deepEqual([under.code, under.sent], [status.UNAVAILABLE, true]);
    assert.equal(lost, 1);
    const next = await codeOf(channel);
    assert.deepEqual([next.code, next.sent], [status.UNAVAILABLE, false]);
    assert.match(next.details, /^No connection established/);
    served.stop();
  });
});

describe('a connection', () => {
  test('that is refused says why at once, and comes back by itself when the server does', async () => {
    const served = await serve(answerWith([ANSWER]));
    served.stop();
    const channel = connectTo(served.port);
    const refused = await channel.ready(2000);
    assert.equal(refused?.code, status.UNAVAILABLE);
    assert.match(refused.details, /ECONNREFUSED/);
    const { port } = await serve(answerWith([ANSWER]), served.port);
    assert.equal(port, served.port);
    let ready = await channel.ready(1000);
    for (let round = 0; round < 100 && ready !== null; round++) {
      await realClock.sleep(20);
      ready = await channel.ready(1000);
    }
    assert.equal(ready, null);
    assert.equal((await call(channel)).kind, 'answer');
  });

  test('to a process that accepts and says nothing is never ready', async () => {
    const silent: Server = createTcpServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    open.push({ close: () => void silent.close() });
    const channel = connectTo((silent.address() as AddressInfo).port);
    assert.equal((await channel.ready(80))?.code, status.DEADLINE_EXCEEDED);
    channel.close();
    assert.equal((await channel.ready(80))?.code, status.UNAVAILABLE);
  });

  test('whose server says good-bye finishes its calls, and the next call makes a new one', async () => {
    let sessions = 0;
    const served = await serve((stream) => {
      if (sessions > 1) return answerWith([ANSWER])(stream);
      stream.session?.goaway();
      setImmediate(() => answerWith([ANSWER])(stream));
    });
    served.server.on('session', () => sessions++);
    const channel = connectTo(served.port);
    await channel.ready(2000);
    assert.equal((await call(channel)).kind, 'answer');
    assert.equal(await channel.ready(2000), null);
    assert.equal((await call(channel)).kind, 'answer');
    assert.equal(sessions, 2);
  });
});

describe('a stream', () => {
  test('delivers in order, tells its end once, and nothing after it was cancelled', async () => {
    const { port } = await serve((stream) => {
      stream.respond({ ':status': 200 }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers(OK_TRAILERS));
      let chunks = 0;
      stream.on('data', () => {
        chunks += 1;
        stream.write(frame(Buffer.alloc(0)));
        if (chunks === 2) stream.end();
      });
    });
    const channel = connectTo(port);
    await channel.ready(2000);
    const seen: string[] = [];
    await new Promise<void>((resolve) => {
      const stream = channel.stream(
        WATCH,
        {},
        {
          onMessage: () => {
            seen.push('message');
            stream.write(create(WatchRequestSchema));
          },
          onEnd: (error) => {
            seen.push(`end ${error === null ? 'ok' : error.code}`);
            resolve();
          },
        },
      );
      stream.write(create(WatchRequestSchema));
    });
    assert.deepEqual(seen, ['message', 'message', 'end ok']);
    const second = channel.stream(WATCH, {}, { onMessage: () => seen.push('late'), onEnd: () => seen.push('late end') });
    second.write(create(WatchRequestSchema));
    second.cancel();
    await realClock.sleep(50);
    assert.equal(seen.length, 3);
  });

  test('without a connection ends with the cause', async () => {
    const channel = connectTo(1);
    const error = await new Promise((resolve) => void channel.stream(WATCH, {}, { onMessage: () => undefined, onEnd: resolve }));
    assert.equal((error as { code: number } | null)?.code, status.UNAVAILABLE);
  });
});

test('frames are cut anywhere', () => {
  const messages = [Buffer.from('a'), Buffer.alloc(0), Buffer.from('x'.repeat(300))];
  const bytes = Buffer.concat(messages.map(frame));
  for (let cut = 0; cut <= bytes.length; cut++) {
    const seen: string[] = [];
    const reader = createFrameReader((message) => seen.push(message.toString()));
    assert.equal(reader.push(bytes.subarray(0, cut)), null);
    assert.equal(reader.push(bytes.subarray(cut)), null);
    assert.deepEqual(seen, messages.map(String));
  }
});

test('a status that is no number is unknown, and one that is missing is none', () => {
  assert.equal(statusOf({ 'grpc-status': 'x' })?.code, status.UNKNOWN);
  assert.equal(statusOf({}), null);
  assert.equal(statusOf({ 'grpc-status': '2', 'grpc-message': '%zz' })?.details, '%zz');
});
