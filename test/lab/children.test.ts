import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { killBelow, processTree, processesBelow, runOnce, startRole } from '../../src/demo/children.ts';
import { placesBelow } from '../../src/demo/herd.ts';
import { createWriteMeter, summariseShow } from '../../src/demo/live.ts';
import { findFreePorts } from '../../src/demo/ports.ts';
import type { HistoryEvent } from '../../src/demo/history.ts';
import { until } from './plain-postgres.ts';

describe('child processes of the demo', () => {
  let directory = '';
  before(() => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-children-')));
  });
  after(async () => {
    await killBelow(directory);
    rmSync(directory, { recursive: true, force: true });
  });
  const role = (script: string) =>
    startRole({ inside: [], argv: [process.execPath, '-e', script], cwd: directory, logFile: join(directory, 'role.log') });

  it('write both outputs into a log that only we can read', async () => {
    const quick = role(`console.log('out'); console.error('err')`);
    await quick.gone;
    assert.match(readFileSync(quick.logFile, 'utf8'), /out[\s\S]*err/);
    assert.deepEqual(quick.exit(), { code: 0, signal: null });
  });
  it('are found below their directory with the children they left behind, and ended', async () => {
    const marker = join(directory, 'ready');
    const script = `require('child_process').spawn(process.execPath, ['-e', 'setInterval(()=>{},1000)'], { detached: true, stdio: 'ignore' }).unref(); require('fs').writeFileSync('ready', ''); setInterval(()=>{},1000)`;
    const parent = role(script);
    await until(() => existsSync(marker), 5000);
    assert.equal(processTree(parent.pid).length, 2);
    assert.equal(processesBelow(directory).length, 2);
    process.kill(parent.pid, 'SIGKILL');
    await parent.gone;
    assert.equal(processesBelow(directory).length, 1, 'the orphan is still found');
    assert.deepEqual(await killBelow(directory), []);
    assert.deepEqual(processesBelow(directory), []);
  });
  it('that are frozen are ended too', async () => {
    const frozen = role('setInterval(()=>{},1000)');
    process.kill(frozen.pid, 'SIGSTOP');
    assert.deepEqual(await killBelow(directory), []);
    await frozen.gone;
  });
  it('of another directory with the same beginning are left alone', () => {
    writeFileSync(join(directory, 'x'), '');
    assert.deepEqual(processesBelow(directory.slice(0, -1)), []);
  });
  it('that run once have a limit, and their whole group ends', async () => {
    const result = await runOnce({ inside: [], argv: [process.execPath, '-e', 'setInterval(()=>{},1000)'], cwd: directory, limitMs: 300 });
    assert.equal(result.code, 124);
    assert.deepEqual(processesBelow(directory), []);
  });
  it('that cannot be started say so by their code', async () => {
    const result = await runOnce({ inside: [], argv: ['/nowhere/at/all'], cwd: directory, limitMs: 1000 });
    assert.equal(result.code, 127);
  });
});

describe('the demo', () => {
  it('finds as many free ports as it was asked for', async () => {
    const ports = await findFreePorts('127.0.0.1', { preferred: 26_700, count: 3 });
    assert.equal(new Set(ports).size, 3);
  });
  it('keeps the path of a socket within what the kernel allows', () => {
    const path = `${placesBelow('/tmp/pgherd-demo-abcdef').state('n1')}/run/.s.PGSQL.65535.lock`;
    assert.ok(Buffer.byteLength(path) <= 107, path);
  });
  it('tells gaps in acknowledgements as outages, and the change of node', () => {
    const meter = createWriteMeter();
    const ack = (node: string, atMs: number): HistoryEvent => ({ kind: 'ack', client: 'recorder', n: 1, node, timeline: 1, sentMs: atMs, atMs });
    for (const event of [ack('n1', 0), ack('n1', 10), ack('n2', 510), ack('n2', 520)]) meter.see(event);
    assert.deepEqual(meter.lines(525), [
      'writing a row every 10 ms: n2 acknowledges; 4 rows, 0 errors',
      '  outage: 500 ms without an acknowledged write, then n2 instead of n1',
    ]);
  });
  it('says the state in one line, and that nobody answers', () => {
    const node = { state: 'running', streaming: false, wantedRole: null, timeline: 1, lsn: null, replayLagBytes: null, problems: [] };
    const show = {
      state: 'healthy',
      term: 1,
      timeline: 1,
      primary: 'n1',
      problems: [],
      nodes: [
        { ...node, id: 'n1', role: 'primary' },
        { ...node, id: 'n2', role: 'standby', streaming: true },
        { ...node, id: 'n3', role: 'standby', state: 'cloning' },
      ],
    };
    assert.equal(summariseShow(show), 'healthy · term 1 · n1 primary, n2 streaming, n3 cloning');
    assert.equal(summariseShow(null), 'the server does not answer');
  });
});
