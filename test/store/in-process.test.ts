/** The server's way to its own store, against handlers that behave badly. That it keeps the store's promises is in the contract suite. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import type { UntypedHandleCall } from '@grpc/grpc-js';
import { type InProcess, createInProcess } from '../../src/store/embedded/in-process.ts';
import { status } from '../../src/store/grpc-status.ts';
import { KV, RangeRequestSchema, Watch, WatchRequestSchema } from '../../src/store/proto/gen/rpc_pb.ts';
import { methodOf } from '../../src/store/proto/services.ts';

const RANGE = methodOf(KV.method.range);
const WATCH = methodOf(Watch.method.watch);
const URL = 'http://127.0.0.1:1';

interface Served {
  readonly request?: unknown;
  write(message: unknown): boolean;
  end(): void;
  emit(name: string, value?: unknown): void;
  on(name: string, handler: (value: never) => void): void;
}

const serving = (handlers: Record<string, (call: Served, callback: (error: object | null, value?: unknown) => void) => void>): InProcess =>
  createInProcess(handlers as unknown as Record<string, UntypedHandleCall>);
const ask = (of: InProcess, limitMs = 1000, signal?: AbortSignal) =>
  of
    .open(URL)
    .unary({ method: RANGE, request: create(RangeRequestSchema), metadata: {}, limitMs, ...(signal === undefined ? {} : { signal }) })
    .then((attempt) => (attempt.kind === 'failed' ? [attempt.error.code, attempt.sent] : attempt.kind));
/** What a stream told its client, in order. */
function listen(of: InProcess): { readonly told: unknown[]; write(): void; cancel(): void } {
  const told: unknown[] = [];
  const stream = of.open(URL).stream(
    WATCH,
    {},
    {
      onMessage: (message) => told.push(message),
      onEnd: (error) => told.push(error === null ? 'end' : error.code),
    },
  );
  return { told, write: () => stream.write(create(WatchRequestSchema)), cancel: stream.cancel };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('the own store without a socket', () => {
  test('an answer and a refusal come back as they were given', async () => {
    assert.equal(await ask(serving({ Range: (_call, callback) => callback(null, {}) })), 'answer');
    assert.deepEqual(await ask(serving({ Range: (_call, callback) => callback({ code: status.NOT_FOUND, details: 'no' }) })), [
      status.NOT_FOUND,
      true,
    ]);
  });

  test('a call without an answer ends at its limit, when it is given up, and when the store is closed; what was sent may have been applied', async () => {
    const silent = serving({ Range: () => undefined });
    assert.deepEqual(await ask(silent, 20), [status.DEADLINE_EXCEEDED, true]);
    const giving = new AbortController();
    const given = ask(silent, 1000, giving.signal);
    giving.abort();
    assert.deepEqual(await given, [status.CANCELLED, true]);
    const under = ask(silent, 60_000);
    silent.close();
    assert.deepEqual(await under, [status.UNAVAILABLE, true]);
  });

  test('what is asked of a closed store, or too late, was not sent', async () => {
    const asked: unknown[] = [];
    const one = serving({ Range: (call) => asked.push(call) });
    assert.deepEqual(await ask(one, 0), [status.DEADLINE_EXCEEDED, false]);
    assert.deepEqual(await ask(one, 1000, AbortSignal.abort()), [status.CANCELLED, false]);
    one.close();
    assert.deepEqual(await ask(one), [status.UNAVAILABLE, false]);
    assert.equal((await one.open(URL).ready(10))?.code, status.UNAVAILABLE);
    assert.equal(asked.length, 0);
  });

  test('a method that it does not serve is refused', async () => {
    const none = serving({});
    assert.deepEqual(await ask(none), [status.UNIMPLEMENTED, true]);
    const { told } = listen(none);
    await turn();
    assert.deepEqual(told, [status.UNIMPLEMENTED]);
  });

  test('messages arrive in order, and never while the store sends them', async () => {
    let inside = true;
    const seen: boolean[] = [];
    const one = serving({
      Watch: (call) => {
        call.on('data', () => {
          inside = true;
          assert.equal(call.write('a'), true);
          assert.equal(call.write('b'), true);
          inside = false;
        });
      },
    });
    const stream = one.open(URL).stream(WATCH, {}, { onMessage: (message) => seen.push(inside || message === undefined), onEnd: () => undefined });
    stream.write(create(WatchRequestSchema));
    await turn();
    assert.deepEqual(seen, [false, false]);
    const { told, write } = listen(one);
    write();
    await turn();
    assert.deepEqual(told, ['a', 'b']);
  });

  test('a stream ends once, with the reason; the store hears of a client that leaves', async () => {
    const gone: string[] = [];
    const calls: Served[] = [];
    const one = serving({
      Watch: (call) => {
        calls.push(call);
        call.on('cancelled', () => gone.push('cancelled'));
        call.on('close', () => gone.push('close'));
      },
    });
    const ended = listen(one);
    calls[0]?.emit('error', { code: status.OUT_OF_RANGE, details: 'compacted' });
    calls[0]?.end();
    const left = listen(one);
    left.cancel();
    calls[1]?.write('nobody listens');
    const cut = listen(one);
    one.close();
    await turn();
    assert.deepEqual([ended.told, left.told, cut.told], [[status.OUT_OF_RANGE], [], [status.UNAVAILABLE]]);
    assert.deepEqual(gone, ['close', 'cancelled', 'close', 'close']);
  });
});
