import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { text } from 'node:stream/consumers';
import { type TestContext, describe, it } from 'node:test';
import { processesBelow } from '../../src/demo/children.ts';
import { until } from './plain-postgres.ts';

const PROGRAM = 'dist/pgherd.mjs';
/** A whole tour takes under a minute on an idle machine of two cores; the tests beside it may take most of them. */
const TOUR_LIMIT_MS = 300_000;

interface Run {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  readonly code: Promise<number | null>;
}

/** Whatever becomes of the test, the demo is told to end, and removes what it made. */
function demo(t: TestContext, ...args: readonly string[]): Run {
  const child = spawn(process.execPath, [PROGRAM, 'demo', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    out += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    err += chunk;
  });
  const code = new Promise<number | null>((resolve) => child.once('close', resolve));
  t.after(async () => {
    if (child.exitCode === null) child.kill('SIGINT');
    await code;
  });
  return { child, out: () => out, err: () => err, code };
}

const demoDirectories = (): readonly string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('pgherd-demo-'));

describe('pgherd demo', { skip: existsSync(PROGRAM) ? false : 'the program is not built', concurrency: false }, () => {
  it('runs the guided tour, prints one line of JSON and leaves nothing behind', { timeout: TOUR_LIMIT_MS }, async (t) => {
    const before = demoDirectories();
    const run = demo(t, '--once', '--json');
    const code = await run.code;
    const lines = run.out().trim().split('\n');
    assert.equal(lines.length, 1, `only the line of JSON is on standard output: ${run.out()}\n${run.err()}`);
    const result = JSON.parse(lines[0] ?? '') as { ok: boolean; steps: { name: string; ok: boolean }[] };
    assert.deepEqual(
      result.steps.map((step) => [step.name, step.ok]),
      ['create', 'read-write-split', 'crash', 'failover', 'rejoin', 'switchover', 'add-node'].map((name) => [name, true]),
      `${lines[0]}\n${run.err()}`,
    );
    for (const step of result.steps) assert.deepEqual(Object.keys(step), ['name', 'ok', 'outageMs', 'clientErrors', 'lostRows', 'detail']);
    assert.deepEqual([code, result.ok], [0, true]);
    assert.deepEqual(demoDirectories(), before);
  });

  it('lives until Ctrl+C and then removes everything', { timeout: TOUR_LIMIT_MS }, async (t) => {
    const before = demoDirectories();
    const run = demo(t);
    await until(() => /Ctrl\+C stops and removes/.test(run.out()) || run.child.exitCode !== null, TOUR_LIMIT_MS);
    const directory = demoDirectories().find((name) => !before.includes(name)) ?? '';
    await until(() => /healthy · term 1/.test(run.out()), TOUR_LIMIT_MS);
    // What the demo says to type, typed.
    const command = `. ${tmpdir()}/${directory}/env && pgherd psql -- -Atc 'SELECT current_user || current_database()'`;
    const typed = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'inherit'] });
    const said = await text(typed.stdout);
    run.child.kill('SIGINT');
    assert.equal(await run.code, 0, run.err());
    assert.match(said, /^appapp$/m);
    assert.deepEqual(demoDirectories(), before);
    assert.deepEqual(processesBelow(`${tmpdir()}/${directory}`), []);
  });

  it('stops what it has started when it is interrupted on the way', { timeout: TOUR_LIMIT_MS }, async (t) => {
    const before = demoDirectories();
    const run = demo(t);
    await until(() => /n1 joined/.test(run.out()), TOUR_LIMIT_MS);
    run.child.kill('SIGINT');
    assert.equal(await run.code, 130, run.err());
    assert.deepEqual(demoDirectories(), before);
  });

  it('refuses a number of nodes that makes no cluster', async (t) => {
    const run = demo(t, '--nodes', '1');
    assert.equal(await run.code, 2);
  });
});
