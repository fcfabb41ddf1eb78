import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { root } from './sources.ts';

const dist = join(root, 'dist');

function run(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000, cwd: root });
}

/** Bytes of a file of the bundle with everything that it loads at once. */
function loadedBytes(file: string, seen = new Set<string>()): number {
  if (seen.has(file)) return 0;
  seen.add(file);
  const text = readFileSync(join(dist, file), 'utf8');
  const next = [...text.matchAll(/(?:^import|^\} from|from) ?"\.\/([^"]+)"/gm)].map((match) => match[1] ?? '');
  return statSync(join(dist, file)).size + next.reduce((sum, one) => sum + loadedBytes(one, seen), 0);
}

describe('the bundle', () => {
  before(() => {
    const { status, stderr } = run(join(root, 'scripts/build.mjs'));
    assert.equal(status, 0, stderr);
  });

  test('runs, and says the version of package.json', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    const { status, stdout, stderr } = run(join(dist, 'pgherd.mjs'), '--version');
    assert.equal(status, 0, stderr);
    assert.ok(stdout.includes(version), stdout);
  });

  test('holds a guard that starts by itself: without a state directory it explains its use', () => {
    const { status, stderr } = run(join(dist, 'guard.mjs'));
    assert.notEqual(status, 0);
    assert.match(stderr, /usage/i);
  });

  test('loads little for the guard, and no role before it is asked for', () => {
    assert.ok(loadedBytes('guard.mjs') < 100_000, `guard.mjs loads ${loadedBytes('guard.mjs')} bytes`);
    assert.ok(loadedBytes('pgherd.mjs') < 100_000, `pgherd.mjs loads ${loadedBytes('pgherd.mjs')} bytes`);
  });

  test('is not built again when nothing changed', () => {
    assert.match(run(join(root, 'scripts/build.mjs')).stderr, /nothing changed/);
  });
});
