import assert from 'node:assert/strict';
import { test } from 'node:test';
import pg from 'pg';
import { createLogger } from '../../src/base/log.ts';
import { makeNodeId } from '../../src/core/ids.ts';
import { type DiskDoors, createDiskWatch } from '../../src/agent/probe/disk-watch.ts';
import { createOwnWrites, diskErrorOf } from '../../src/agent/probe/own-writes.ts';
import { createPendingWrites } from '../../src/agent/probe/pending-writes.ts';
import type { Row, Sql } from '../../src/agent/postgres/sql.ts';
import { createFakeClock } from '../guard/fakes.ts';

const log = createLogger({ role: 'agent', level: 'error', stream: { write: () => undefined } });

function serverError(code: string, message: string): Error {
  return Object.assign(new pg.DatabaseError(message, message.length, 'error'), { code });
}

/** A server of which the test says how it answers writes and looks at its waits; every connection is counted. */
function fakeServer() {
  const server = {
    write: (): Promise<readonly Row[]> => Promise.resolve([]),
    waits: 'IO/WALSync',
    opened: 0,
    closed: 0,
    refuses: false,
    open: async (): Promise<Sql> => {
      if (server.refuses) throw new Error('connection refused');
      server.opened += 1;
      let isOpen = true;
      const close = (): void => {
        if (isOpen) server.closed += 1;
        isOpen = false;
      };
      return {
        query: (text) => (text.startsWith('INSERT') ? server.write() : Promise.resolve([{ waits: server.waits }])),
        isOpen: () => isOpen,
        close,
        destroy: close,
      };
    },
  };
  return server;
}

function rig() {
  const clock = createFakeClock();
  const server = fakeServer();
  let changes = 0;
  const writes = createOwnWrites({
    instance: { socketDirectory: '/nowhere', port: 1 },
    node: makeNodeId('n1'),
    clock,
    log,
    onChange: () => {
      changes += 1;
    },
    doors: { open: server.open },
  });
  /** The loop's calls: one each half second. */
  const run = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 500) {
      writes.look(true);
      await clock.pass(500);
    }
  };
  return { clock, server, writes, run, changes: () => changes };
}

test('a primary that takes writes is well, and costs one connection', async () => {
  const { writes, server, run } = rig();
  assert.equal(writes.current(), null);
  await run(10_000);
  assert.deepEqual(writes.current(), { state: 'ok', forMs: 0, detail: '' });
  assert.deepEqual([server.opened, writes.problems(null)], [1, []]);
});

test('writes that nothing answers are stuck since the first was sent, and use up no connections (I6)', async () => {
  const { writes, server, run } = rig();
  await run(2500);
  server.write = () => new Promise(() => undefined);
  await run(60_000);
  const seen = writes.current();
  assert.equal(seen?.state, 'stuck');
  assert.match(seen?.detail ?? '', /IO\/WALSync/);
  assert.ok((seen?.forMs ?? 0) > 55_000, `${seen?.forMs} ms`);
  assert.ok(server.opened - server.closed <= 3, `${server.opened - server.closed} connections are open`);
  assert.deepEqual(
    writes.problems(null).map((one) => one.code),
    ['disk.stuck'],
  );
});

test('the disk goes on: what waited is answered, and the next write says so', async () => {
  const { writes, server, run } = rig();
  await run(2500);
  const waiting: ((rows: readonly Row[]) => void)[] = [];
  server.write = () => new Promise((resolve) => waiting.push(resolve));
  await run(10_000);
  assert.equal(writes.current()?.state, 'stuck');
  server.write = () => Promise.resolve([]);
  for (const answer of waiting) answer([]);
  await run(2000);
  assert.equal(writes.current()?.state, 'ok');
  assert.equal(server.opened - server.closed, 1);
});

test('one slow write is no problem to tell people of', async () => {
  const { writes, server, run } = rig();
  await run(2500);
  server.write = () => new Promise(() => undefined);
  await run(2000);
  assert.equal(writes.current()?.state, 'stuck');
  assert.deepEqual(writes.problems(null), []);
});

test("a write that waits for somebody's lock says nothing of the disk", async () => {
  const { writes, server, run } = rig();
  server.write = () => new Promise(() => undefined);
  server.waits = 'Lock/relation';
  await run(10_000);
  assert.equal(writes.current()?.state, 'ok');
});

test('errors of the disk refuse writes; other errors come from a server that lives', async () => {
  const { writes, server, run } = rig();
  server.write = () => Promise.reject(serverError('53100', 'could not extend file "base/5/1": No space left on device'));
  await run(4000);
  assert.equal(writes.current()?.state, 'refused');
  assert.deepEqual(
    writes.problems(null).map((one) => one.code),
    ['disk.full'],
  );
  server.write = () => Promise.reject(serverError('25006', 'cannot execute INSERT in a read-only transaction'));
  await run(1000);
  assert.equal(writes.current()?.state, 'ok');
  assert.equal(diskErrorOf(serverError('42501', 'could not open file "base/5/1": Read-only file system')), 'disk.read-only');
  assert.equal(diskErrorOf(serverError('42501', 'permission denied for table heartbeat')), null);
  assert.equal(diskErrorOf(serverError('58030', 'could not fsync file "base/5/1": Input/output error')), 'disk.error');
});

test('a server that lets nobody in says nothing of its disk; a node that is not open is not asked', async () => {
  const { writes, server, run } = rig();
  server.refuses = true;
  await run(5000);
  assert.equal(writes.current(), null);
  server.refuses = false;
  await run(2500);
  assert.equal(writes.current()?.state, 'ok');
  writes.look(false);
  assert.equal(writes.current(), null);
  assert.equal(server.opened - server.closed, 0);
});

test('what was found stays after the node was fenced, until the disk was looked at since', async () => {
  const { writes, server, run, clock } = rig();
  await run(2500);
  server.write = () => new Promise(() => undefined);
  await run(6000);
  const before = clock.now().mono;
  await clock.pass(1000);
  writes.look(false);
  assert.equal(writes.current(), null);
  assert.equal(writes.problems(null)[0]?.code, 'disk.stuck');
  assert.equal(writes.problems(before)[0]?.code, 'disk.stuck', 'that look was begun before');
  await clock.pass(1000);
  assert.deepEqual(writes.problems(clock.now().mono), []);
  assert.deepEqual(writes.problems(null), []);
});

test('a connection whose other end is gone is given up after a minute, and tried anew', async () => {
  const clock = createFakeClock();
  const server = fakeServer();
  const pending = createPendingWrites(clock);
  for (let count = 0; count < 2; count++) pending.leave(await server.open(), clock.now().mono, new Promise(() => undefined));
  assert.equal(pending.mayWrite(), false);
  await clock.pass(61_000);
  assert.equal(pending.mayWrite(), true);
  assert.equal(server.closed, 2);
});

function watch(doors: DiskDoors) {
  const clock = createFakeClock();
  const codes: string[] = [];
  const made = createDiskWatch({
    instance: { dataDirectory: '/nowhere' },
    clock,
    log,
    onChange: () => codes.push(made.problems()[0]?.code ?? 'well'),
    doors,
  });
  const run = async (ms: number, server: 'running' | 'not-running' = 'running'): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 500) {
      made.look(server);
      await clock.pass(500);
    }
  };
  return { made, codes, run };
}

const ROOM = 10 ** 12;

test('the disk is named by what is wrong with it: full, read-only, broken, stuck', async () => {
  const answers: [Awaited<ReturnType<DiskDoors['write']>>, number][] = [
    [null, 67_108_863],
    [{ kind: 'refused', detail: "dd: failed to open 'x': Read-only file system" }, ROOM],
    [{ kind: 'refused', detail: "dd: fsync failed for 'x': Input/output error" }, ROOM],
    [{ kind: 'late', detail: '' }, ROOM],
    [null, ROOM],
  ];
  let [write, free] = answers[0] ?? [null, 0];
  const { codes, run } = watch({ write: () => Promise.resolve(write), free: () => Promise.resolve(free) });
  for (const [nextWrite, nextFree] of answers) {
    [write, free] = [nextWrite, nextFree];
    await run(1500);
  }
  assert.deepEqual(codes, ['disk.full', 'disk.read-only', 'disk.error', 'disk.stuck', 'well']);
});

test('what is not of the disk is no finding: no directory yet, no right to write there', async () => {
  const { made, run } = watch({
    write: () => Promise.resolve({ kind: 'refused', detail: 'No such file or directory' }),
    free: () => Promise.reject(new Error('gone')),
  });
  await run(30_000);
  assert.deepEqual(made.problems(), []);
});

test('a look that never ends is a finding itself, and no second one is begun', async () => {
  let begun = 0;
  const { made, run } = watch({
    write: () => {
      begun += 1;
      return new Promise(() => undefined);
    },
    free: () => Promise.resolve(ROOM),
  });
  await run(60_000);
  assert.equal(begun, 1);
  assert.equal(made.problems()[0]?.code, 'disk.stuck');
});

test('beside a server that is gone the disk is looked at each second, else each thirty', async () => {
  let looks = 0;
  const { run } = watch({
    write: () => {
      looks += 1;
      return Promise.resolve(null);
    },
    free: () => Promise.resolve(ROOM),
  });
  await run(60_000);
  assert.equal(looks, 2);
  await run(10_000, 'not-running');
  assert.ok(looks >= 11, `${looks} looks`);
});
