import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

test('in network namespaces of their own the addresses do what is said of them (see kernel-namespace.ts)', () => {
  const script = fileURLToPath(new URL('./kernel-namespace.ts', import.meta.url));
  // The namespaces live as long as these processes: nothing is left behind, whatever happens.
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const run = spawnSync('unshare', ['--net', '--kill-child', '--fork', process.execPath, '--no-warnings', '--test-timeout=15000', script], {
    encoding: 'utf8',
    timeout: 60_000,
    killSignal: 'SIGKILL',
    env,
  });
  assert.equal(run.status, 0, `needs root and unshare(1)\n${run.stdout}\n${run.stderr}\n${run.error?.message ?? ''}`);
  assert.match(run.stdout, /fail 0/);
});
