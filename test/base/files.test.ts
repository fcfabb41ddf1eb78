import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { readTextIfThere, writeFileAtomic, writeFileAtomicSync } from '../../src/base/files.ts';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgherd-files-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('atomic files (Q26)', () => {
  const writers = { writeFileAtomic, writeFileAtomicSync: async (...args: Parameters<typeof writeFileAtomicSync>) => writeFileAtomicSync(...args) };
  for (const [name, write] of Object.entries(writers)) {
    test(`${name} replaces the content and leaves one file, readable by its owner only`, async () => {
      const file = join(directory, 'identity.json');
      await write(file, 'old');
      await write(file, 'new');
      assert.equal(await readFile(file, 'utf8'), 'new');
      assert.equal((await stat(file)).mode & 0o777, 0o600);
      assert.deepEqual(await readdir(directory), ['identity.json']);
    });

    test(`${name} gives the mode that was asked for, whatever the umask`, async () => {
      const file = join(directory, 'public.crt');
      await write(file, 'x', { mode: 0o644 });
      assert.equal((await stat(file)).mode & 0o777, 0o644);
    });

    test(`${name} that fails leaves the old content and no temporary file`, async () => {
      const file = join(directory, 'taken');
      await mkdir(join(file, 'inside'), { recursive: true });
      await assert.rejects(write(file, 'x'), /EISDIR|ENOTEMPTY/);
      assert.deepEqual(await readdir(directory), ['taken']);
    });
  }

  test('writes at the same time leave one whole content', async () => {
    const file = join(directory, 'state');
    const contents = Array.from({ length: 20 }, (_, i) => String(i).repeat(10_000));
    await Promise.all(contents.map((content) => writeFileAtomic(file, content)));
    assert.ok(contents.includes(await readFile(file, 'utf8')));
    assert.deepEqual(await readdir(directory), ['state']);
  });

  test('a missing file reads as null, a directory in its place is an error', () => {
    assert.equal(readTextIfThere(join(directory, 'nothing')), null);
    assert.throws(() => readTextIfThere(directory), /EISDIR/);
  });
});
