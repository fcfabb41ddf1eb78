import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeDisturbance } from '../../scripts/machine-watch.ts';
import { root } from './sources.ts';

function runFile(body: string, ...options: readonly string[]): { status: number | null; output: string } {
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-runner-'));
  try {
    const file = join(directory, 'one.test.ts');
    writeFileSync(file, `import { test } from 'node:test';\n${body}\n`);
    // Without this variable: else the inner runner reports to the outer one, in a format for machines.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'scripts/run-tests.ts'), ...options, '--', file], {
      encoding: 'utf8',
      timeout: 60_000,
      env,
    });
    return { status, output: `${stdout}${stderr}` };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

test('the test runner fails a run that leaves a process or a file behind, and ends the process', () => {
  const { status, output } = runFile(`
    import { spawn } from 'node:child_process';
    import { mkdtempSync } from 'node:fs';
    import { tmpdir } from 'node:os';
    import { join } from 'node:path';
    test('leaks', () => {
      mkdtempSync(join(tmpdir(), 'left-'));
      spawn('sleep', ['600'], { detached: true, stdio: 'ignore' }).unref();
    });
  `);
  assert.equal(status, 1, output);
  const pid = /left behind: process (\d+): sleep 600/.exec(output)?.[1];
  assert.ok(pid !== undefined, output);
  assert.equal(existsSync(`/proc/${pid}/cwd/.`), false);
  assert.match(output, /left behind: temporary file left-/);
  assert.match(output, /1 passed, 1 failed\n$/);
});

test('the test runner counts passed and failed tests in its last line', () => {
  const { status, output } = runFile(`test('works', () => {}); test('breaks', () => { throw new Error('no'); });`);
  assert.equal(status, 1);
  assert.match(output, /1 passed, [12] failed\n$/);
});

test('the test runner repeats a file only where the machine was disturbed', () => {
  const calm = [
    { stolenPercent: 1, referenceMs: 40 },
    { stolenPercent: 2, referenceMs: 60 },
  ];
  assert.equal(describeDisturbance(calm), null);
  assert.equal(describeDisturbance([]), null);
  assert.match(describeDisturbance([...calm, { stolenPercent: 30, referenceMs: 50 }]) ?? '', /^11\.0 % of the processors were stolen/);
  assert.match(describeDisturbance([...calm, { stolenPercent: 0, referenceMs: 400 }]) ?? '', /400 ms of processor time$/);
});

test('the test runner believes the second run of a file that failed on a disturbed machine, and says so', () => {
  const body = (again: string): string => `
    import { existsSync, writeFileSync } from 'node:fs';
    const mark = import.meta.filename + '.mark';
    test('fails at first', async () => {
      await new Promise((resolve) => setTimeout(resolve, 5000));
      if (existsSync(mark)) { ${again} return; }
      writeFileSync(mark, '');
      throw new Error('too slow');
    });`;
  const better = runFile(body(''), '--disturbed');
  assert.equal(better.status, 0, better.output);
  assert.match(better.output, /Error: too slow/);
  assert.match(better.output, /one\.test\.ts failed while .*, and passed when it ran once more\n1 passed, 0 failed\n$/);
  const worse = runFile(body(`throw new Error('broken');`), '--disturbed');
  assert.equal(worse.status, 1, worse.output);
  assert.match(worse.output, /and failed again when it ran once more\n0 passed, 1 failed\n$/);
});

test('the test runner ends a file that a test keeps open for ever, and fails the run', () => {
  const { status, output } = runFile(`test('works', () => {}); setInterval(() => {}, 1000);`, '--file-limit', '3');
  assert.equal(status, 1, output);
  assert.match(output, /test: ended after [3-9] s: .*one\.test\.ts/);
  assert.match(output, /1 passed, [12] failed\n$/);
});
