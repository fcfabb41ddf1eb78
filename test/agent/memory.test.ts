import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openMemory } from '../../src/agent/memory.ts';
import type { MemoryPort } from '../../src/agent/ports.ts';
import type { TextStorage } from '../../src/base/files.ts';
import { makeTerm } from '../../src/core/ids.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'pgherd-memory-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

async function open(file: string, storage?: TextStorage): Promise<MemoryPort> {
  const memory = await openMemory(file, storage);
  assert.ok(memory.ok, memory.ok ? '' : memory.error.cause);
  return memory.value;
}

/** A disk that counts writes, and fails them on request. */
function disk(): { readonly storage: TextStorage; readonly writes: () => number; fail: boolean } {
  let text: string | null = null;
  let writes = 0;
  const self = {
    fail: false,
    writes: () => writes,
    storage: {
      read: () => text,
      write: async (next: string) => {
        writes++;
        await Promise.resolve();
        if (self.fail) throw new Error('ENOSPC');
        text = next;
      },
    },
  };
  return self;
}

test('what was said at once is all there when the agent starts again', async () => {
  const file = join(directory, 'memory.json');
  const memory = await open(file);
  assert.deepEqual([memory.highestTerm(), memory.vote(), memory.openedTerm(), memory.unopened()], [0, null, 0, false]);
  await Promise.all([
    memory.sawTerm(makeTerm(4)),
    memory.refuse(makeTerm(3)),
    memory.setOpened(makeTerm(2)),
    memory.setUnopened(true),
    memory.finish('g/1'),
  ]);
  const again = await open(file);
  assert.deepEqual([again.highestTerm(), again.refusedTerms(), again.openedTerm(), again.unopened()], [4, [3], 2, true]);
  assert.deepEqual([...again.finished()], ['g/1']);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('terms only rise, and what is known already costs no write', async () => {
  const { storage, writes } = disk();
  const memory = await open('-', storage);
  await memory.sawTerm(makeTerm(4));
  await memory.setOpened(makeTerm(4));
  assert.equal(writes(), 2);
  for (const term of [3, 4]) await Promise.all([memory.sawTerm(makeTerm(term)), memory.setOpened(makeTerm(term)), memory.setUnopened(false)]);
  assert.deepEqual([writes(), memory.highestTerm(), memory.openedTerm()], [2, 4, 4]);
});

test('the same said twice at once resolves when it is on disk', async () => {
  const { storage, writes } = disk();
  const memory = await open('-', storage);
  await Promise.all([memory.setOpened(makeTerm(2)), memory.setOpened(makeTerm(2)).then(() => assert.equal(memory.openedTerm(), 2))]);
  assert.equal(writes(), 1);
});

test('what could not be written is not remembered, and the next write is made', async () => {
  const broken = disk();
  const memory = await open('-', broken.storage);
  broken.fail = true;
  await assert.rejects(memory.setOpened(makeTerm(2)), /ENOSPC/);
  assert.equal(memory.openedTerm(), 0);
  broken.fail = false;
  await memory.setOpened(makeTerm(2));
  assert.equal((await open('-', broken.storage)).openedTerm(), 2);
  // The file may have been replaced before the write failed: what is to hold is written although it seems to hold.
  broken.fail = true;
  await assert.rejects(memory.setUnopened(true), /ENOSPC/);
  broken.fail = false;
  const before = broken.writes();
  await memory.setUnopened(false);
  await memory.setUnopened(false);
  assert.equal(broken.writes(), before + 1);
});

test('a damaged file stops the start and is left as it is', async () => {
  const file = join(directory, 'damaged.json');
  writeFileSync(file, '{"version":1');
  const memory = await openMemory(file);
  assert.ok(!memory.ok);
  assert.equal(memory.error.code, 'agent.memory-damaged');
  assert.equal(readFileSync(file, 'utf8'), '{"version":1');
});
