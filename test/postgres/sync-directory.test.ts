import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { syncArguments, syncsByFilesystem } from '../../src/agent/postgres/sync-directory.ts';

const directory = mkdtempSync(join(tmpdir(), 'pgherd-sync-'));
after(() => rmSync(directory, { recursive: true }));

const write = (name: string, text: string): void => writeFileSync(join(directory, name), text);
const SYNCFS = syncsByFilesystem() ? ['-c', 'recovery_init_sync_method=syncfs'] : [];

describe('a data directory on its way to the disk', () => {
  test('is synced by filesystem only by a kernel that tells of pages it could not write', () => {
    assert.deepEqual(['4.19.0-21-amd64', '5.7.19', '5.8.0', '5.10.0-8-amd64', '6.18.44-fc', 'strange'].map(syncsByFilesystem), [
      false,
      false,
      true,
      true,
      true,
      false,
    ]);
  });

  test('before a recovery: from PostgreSQL 14 on, unless people have chosen', () => {
    write('postgresql.conf', '#recovery_init_sync_method = fsync\nport = 5432\n');
    for (const [version, expected] of [
      ['13', []],
      ['14', SYNCFS],
      ['18', SYNCFS],
      ['', []],
    ] as const) {
      write('PG_VERSION', `${version}\n`);
      assert.deepEqual(syncArguments(directory), expected, version);
    }
    write('PG_VERSION', '15\n');
    write('postgresql.conf', "port = 5432\n  Recovery_Init_Sync_Method = 'fsync'\n");
    assert.deepEqual(syncArguments(directory), []);
    write('postgresql.conf', '');
    for (const name of ['postgresql.auto.conf', 'pgherd.conf']) {
      write(name, "recovery_init_sync_method = 'fsync'\n");
      assert.deepEqual(syncArguments(directory), [], name);
      write(name, '');
    }
    assert.deepEqual(syncArguments(directory), SYNCFS);
  });
});
