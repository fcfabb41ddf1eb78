import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

function run(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 60_000 });
}

describe('the program', () => {
  test('explains a role to who asks', () => {
    for (const role of ['server', 'agent']) {
      const { status, stdout } = run(role, '--help');
      assert.equal(status, 0);
      assert.match(stdout, new RegExp(`^Usage: pgherd ${role} \\[--config FILE\\]`));
    }
  });

  test('refuses an argument that a role does not know, with exit code 2', () => {
    const { status, stderr } = run('agent', '--confg', 'x');
    assert.equal(status, 2);
    assert.match(stderr, /unknown argument "--confg"/);
    assert.equal(run('server', '--config').status, 2);
  });

  test('ends with exit code 2 and names the file when a role has no configuration', () => {
    for (const role of ['server', 'agent']) {
      const { status, stderr } = run(role, '--config=/nonexistent/pgherd.yaml');
      assert.equal(status, 2, stderr);
      assert.match(stderr, /\/nonexistent\/pgherd\.yaml/);
      assert.match(stderr, /cannot be read/);
    }
  });

  test('takes "agent join" for a verb of a person, not for the role', () => {
    const { status, stdout } = run('agent', 'join', '--help');
    assert.equal(status, 0);
    assert.match(stdout, /--token-file|agent join/);
  });

  test('ends a guard that was told no state directory with an exit code other than 0', () => {
    assert.notEqual(run('guard').status, 0);
  });
});
