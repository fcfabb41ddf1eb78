import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createHistoryReader } from '../../src/agent/postgres/timeline-history.ts';
import { parseUnlessUnchanged } from '../../src/agent/postgres/unchanged-file.ts';
import { realClock } from '../../src/base/clock.ts';
import { makeTimeline } from '../../src/core/ids.ts';
import { formatLsn } from '../../src/core/lsn.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'pgherd-unchanged-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function counted(path: string): { readonly read: () => Promise<string | null>; readonly parsed: () => number } {
  let parsed = 0;
  const read = parseUnlessUnchanged(path, (text) => {
    parsed++;
    return text;
  });
  return { read, parsed: () => parsed };
}

test('a file that was just written is read each time: a second write in the same tick of the kernel would look the same', async () => {
  const path = join(directory, 'young');
  const { read, parsed } = counted(path);
  for (let n = 0; n < 200; n++) {
    writeFileSync(path, String(n).padStart(4, '0'));
    assert.equal(await read(), String(n).padStart(4, '0'));
  }
  assert.equal(parsed(), 200);
});

test('a file that lies still is read once; whatever happens to it is seen', async () => {
  const path = join(directory, 'old');
  const { read, parsed } = counted(path);
  assert.equal(await read(), null);
  writeFileSync(path, 'one');
  await realClock.sleep(1100);
  assert.equal(await read(), 'one');
  const before = parsed();
  for (let n = 0; n < 5; n++) assert.equal(await read(), 'one');
  assert.equal(parsed(), before);
  writeFileSync(path, 'two');
  assert.equal(await read(), 'two');
  writeFileSync(`${path}.new`, 'six');
  // Whoever sets the time of the content back cannot set back the time of the change.
  utimesSync(`${path}.new`, 1, 1);
  renameSync(`${path}.new`, path);
  assert.equal(await read(), 'six');
  rmSync(path);
  assert.equal(await read(), null);
});

test('the history of a timeline is that of the file as it is: after a clone another one has the same name', async () => {
  const pgWal = join(directory, 'pg_wal');
  mkdirSync(pgWal);
  const read = createHistoryReader(directory);
  const file = join(pgWal, '00000003.history');
  const forks = async (): Promise<string> => (await read(makeTimeline(3))).map((fork) => `${fork.timeline}@${formatLsn(fork.forkLsn)}`).join(' ');
  assert.equal(await forks(), '', 'no file yet');
  writeFileSync(file, '1\t0/100\tno recovery target specified\n2\t0/200\tno recovery target specified\n');
  await realClock.sleep(1100);
  for (const look of ['first', 'second']) assert.equal(await forks(), '1@0/100 2@0/200', look);
  rmSync(pgWal, { recursive: true });
  mkdirSync(pgWal);
  writeFileSync(file, '1\t0/100\tno recovery target specified\n');
  assert.equal(await forks(), '1@0/100');
  assert.deepEqual([await read(makeTimeline(1)), await read(null)], [[], []]);
});
