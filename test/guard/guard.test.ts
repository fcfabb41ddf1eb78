import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { monoMs, now } from '../../src/base/clock.ts';
import { type MonoMs, addMono } from '../../src/core/ids.ts';
import { type GuardClient, adoptable, createGuardClient, readBootId } from '../../src/agent/guard/guard-client.ts';
import { bootMs } from '../../src/agent/lease/boot-clock.ts';
import { readTogether } from '../../src/agent/lease/pause.ts';
import { findProcesses, isAlive, killTree, parseStat, readProcess, pauseAfter } from '../../src/agent/guard/kill-tree.ts';
import type { Armed } from '../../src/agent/guard/protocol.ts';
import { takeLock } from '../../src/agent/guard/lock.ts';
import { PATIENT, type Rig, createRig, startArmedAgent, until } from './harness.ts';

let rig: Rig;
let clients: GuardClient[];

beforeEach(() => {
  rig = createRig();
  clients = [];
});
afterEach(async () => {
  for (const client of clients) client.close();
  await rig.cleanup();
});

function openClient(onGone?: () => void, entry?: string, answers: { readonly answerMs?: number } = PATIENT): GuardClient {
  const client = createGuardClient({
    ...answers,
    stateDirectory: rig.stateDirectory,
    onStarted: (pid) => rig.adopt(pid),
    ...(onGone === undefined ? {} : { onGone }),
    ...(entry === undefined ? {} : { entry }),
  });
  clients.push(client);
  return client;
}

function armedUntil(deadline: MonoMs, more: Partial<Armed> = {}): Armed {
  return {
    term: 3,
    leaseId: '77',
    deadline,
    dataDirectory: rig.dataDirectory,
    postmaster: null,
    table: null,
    addresses: [],
    at: null,
    lease: null,
    ...more,
  };
}

/** *Source:* proc(5), SigPnd and ShdPnd of /proc/PID/status. */
const hasPendingSignal = (pid: number): boolean => /^(SigPnd|ShdPnd):\s*0*[1-9a-f]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

const left = (): number => findProcesses({ dataDirectory: rig.dataDirectory, postmaster: null }).length;

test('a stat line with blanks and parentheses in the command is parsed', () => {
  const fields = Array.from({ length: 30 }, (_, i) => String(i + 4));
  assert.deepEqual(parseStat(`42 (a) b (c) S 1 ${fields.slice(1).join(' ')}`), { pid: 42, ppid: 1, state: 'S', startTime: 22, command: 'a) b (c' });
});

test('the complete kill leaves no process of a stopped server (SIGSTOP) and takes under 300 ms', async () => {
  const took: number[] = [];
  // A host that is busy with other tests may be slow once; the limit is for one that is not.
  for (let attempt = 0; attempt < 5 && !took.some((ms) => ms < 300); attempt++) {
    const postmaster = await rig.startServer(5);
    for (const info of findProcesses({ dataDirectory: rig.dataDirectory, postmaster })) process.kill(info.pid, 'SIGSTOP');
    const outcome = await killTree({ dataDirectory: rig.dataDirectory, postmaster }, { limitMs: 5000 });
    assert.equal(outcome.complete, true);
    assert.ok(outcome.killed.length >= 6);
    assert.equal(left(), 0);
    took.push(outcome.durationMs);
  }
  assert.ok(
    took.some((ms) => ms < 300),
    `took ${took.join(', ')} ms`,
  );
});

test('looks for what is left are a few milliseconds apart at first, and seldom for what waits in the kernel', () => {
  assert.deepEqual([0, 12, 100, 800, 60_000].map(pauseAfter), [3, 3, 25, 200, 250]);
  let looks = 0;
  for (let elapsed = 0; elapsed < 2000; elapsed += pauseAfter(elapsed) + 8) looks += 1;
  assert.ok(looks < 30, `${looks} looks in one round of two seconds`);
});

test('orphaned backends of a dead postmaster are found by their working directory (Z27)', async () => {
  const postmaster = await rig.startServer(3);
  process.kill(postmaster.pid, 'SIGKILL');
  await until(() => !isAlive(postmaster), 2000, 'the postmaster is gone');
  assert.ok(left() >= 3);
  const outcome = await killTree({ dataDirectory: rig.dataDirectory, postmaster }, { limitMs: 2000 });
  assert.equal(outcome.complete, true);
  assert.equal(left(), 0);
});

test('a process with the pid of a former postmaster is not killed (Z26, Q16)', async () => {
  const other = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
  rig.adopt(other.pid ?? 0);
  const real = readProcess(other.pid ?? 0);
  assert.ok(real);
  const outcome = await killTree(
    { dataDirectory: rig.dataDirectory, postmaster: { pid: real.pid, startTime: real.startTime - 1 } },
    { limitMs: 500 },
  );
  assert.deepEqual(outcome.killed, []);
  assert.equal(isAlive(real), true);
});

test("a person's shell in the data directory is left alone", async () => {
  const shell = spawn('/bin/sleep', ['1000'], { cwd: rig.dataDirectory, stdio: 'ignore' });
  rig.adopt(shell.pid ?? 0);
  const outcome = await killTree({ dataDirectory: rig.dataDirectory, postmaster: null }, { limitMs: 500 });
  assert.deepEqual([outcome.complete, outcome.killed], [true, []]);
});

test('only one of two lock takers gets the lock, and a stale lock is taken over', () => {
  const path = join(rig.root, 'lock');
  writeFileSync(path, JSON.stringify({ bootId: 'another boot', pid: 1, startTime: 1 }));
  assert.equal(takeLock(path, 'b'), true);
  assert.equal(takeLock(path, 'b'), false);
});

test('the guard fences at the deadline without any message, records it, and puts standby.signal back (Q4)', async () => {
  const postmaster = await rig.startServer(3);
  const client = openClient();
  assert.equal((await client.ensure()).ok, true);
  const deadline = addMono(monoMs(), 1000);
  assert.equal(await client.arm(armedUntil(deadline, { postmaster })), true);
  await until(() => left() === 0, 6000, 'the guard killed the server');
  assert.ok(monoMs() >= deadline, 'not before the deadline');
  await until(async () => (await client.status())?.phase === 'fenced', 3000, 'the fence is recorded');
  const record = JSON.parse(readFileSync(join(rig.stateDirectory, 'fenced.json'), 'utf8'));
  assert.equal(record.term, 3);
  assert.equal(record.complete, true);
  assert.equal(existsSync(join(rig.dataDirectory, 'standby.signal')), true);
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), 5000), { term: 4 })), false, 'a new lease needs the acknowledgement first');
  assert.equal(await client.acknowledge(), true);
  assert.equal(existsSync(join(rig.stateDirectory, 'fenced.json')), false);
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), 5000), { term: 4 })), true);
  assert.equal(await client.disarm(), true);
});

test('a renewal moves the deadline, a late or older arm does not', async () => {
  const postmaster = await rig.startServer(1);
  const client = openClient();
  const begin = monoMs();
  assert.equal(await client.arm(armedUntil(addMono(begin, 5000), { postmaster })), true);
  assert.equal(await client.arm(armedUntil(addMono(begin, 4000), { postmaster })), true);
  assert.equal((await client.status())?.armed?.deadline, begin + 5000);
  assert.equal(await client.arm(armedUntil(addMono(begin, 5000), { postmaster, term: 2 })), false);
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), -1), { postmaster })), false);
  assert.equal(await client.disarm(), true);
  assert.equal(isAlive(postmaster), true);
});

test('an agent that found a pause shortens the deadline; nothing else does', async () => {
  const postmaster = await rig.startServer(1);
  const client = openClient();
  const begin = monoMs();
  assert.equal(await client.shorten(armedUntil(addMono(begin, 5000))), false, 'nothing is armed, and nothing is armed by it');
  assert.equal(await client.arm(armedUntil(addMono(begin, 60_000), { postmaster })), true);
  assert.equal(await client.shorten(armedUntil(addMono(begin, 1000), { leaseId: '78' })), false, 'another lease');
  assert.equal(await client.shorten(armedUntil(addMono(begin, 90_000))), true);
  assert.equal((await client.status())?.armed?.deadline, begin + 60_000, 'it never lengthens');
  assert.equal(await client.shorten(armedUntil(addMono(begin, 30_000))), true);
  assert.equal((await client.status())?.armed?.deadline, begin + 30_000);
  assert.equal(await client.arm(armedUntil(addMono(begin, 50_000), { postmaster })), true, 'a renewal after the pause counts in full');
  assert.equal((await client.status())?.armed?.deadline, begin + 50_000);
  assert.equal(await client.shorten(armedUntil(addMono(begin, -1))), true, 'the store let the lease expire during the pause');
  await until(() => left() === 0, 6000, 'the guard killed the server');
});

test('an arm that waits for its guard when it is disarmed arms nothing, then or when the guard is lost', async () => {
  const client = openClient();
  const arming = client.arm(armedUntil(addMono(monoMs(), 30_000)));
  assert.equal(await client.disarm(), true);
  assert.equal(await arming, false);
  const status = await client.status();
  assert.deepEqual([status?.phase, status?.armed], ['idle', null]);
});

test('a renewal that was sent before a pause is taken without the time of the pause', async () => {
  const client = openClient();
  assert.equal((await client.ensure()).ok, true);
  const { mono, boot, wall } = readTogether(now, bootMs);
  const at = (uncountedMs: number) => ({ mono, boot: boot - uncountedMs, wall: wall - uncountedMs });
  assert.equal(await client.arm(armedUntil(addMono(mono, 15_000), { at: at(20_000) })), false, 'the deadline passed during the pause');
  assert.equal(await client.arm(armedUntil(addMono(mono, 30_000), { at: at(20_000) })), true);
  const deadline = (await client.status())?.armed?.deadline ?? 0;
  assert.ok(deadline < mono + 10_200 && deadline > mono + 9800, `${deadline - mono} ms`);
  assert.equal(await client.disarm(), true);
});

test('the guard of a paused machine finds the pause by its own clocks and fences, though the agent says nothing', async () => {
  const postmaster = await rig.startServer(2);
  const client = openClient(undefined, fileURLToPath(new URL('./paused-guard.ts', import.meta.url)));
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), 15_000), { postmaster })), true);
  assert.ok(left() >= 3);
  writeFileSync(join(rig.stateDirectory, 'paused'), '');
  await until(() => left() === 0, 6000, 'the guard killed the server');
  await until(async () => (await client.status())?.phase === 'fenced', 3000, 'the fence is recorded');
});

test('a killed guard is back at once and still fences at the deadline that it knew', async () => {
  const postmaster = await rig.startServer(1);
  let gone = 0;
  const client = openClient(() => gone++);
  const first = await client.ensure();
  assert.ok(first.ok);
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), 5000), { postmaster })), true);
  process.kill(first.value.pid, 'SIGKILL');
  await until(async () => gone >= 1 && (await client.status())?.phase === 'armed', 4800, 'a new guard is armed');
  assert.notEqual((await client.status())?.pid, first.value.pid);
  await until(() => left() === 0, 10_000, 'the new guard killed the server');
});

test('a frozen guard does not acknowledge, so that the renewal does not count', async () => {
  const client = openClient(undefined, undefined, {});
  const status = await client.ensure();
  assert.ok(status.ok);
  process.kill(status.value.pid, 'SIGSTOP');
  const begin = monoMs();
  assert.equal(await client.arm(armedUntil(addMono(begin, 5000))), false);
  assert.ok(monoMs() - begin < 2500);
  process.kill(status.value.pid, 'SIGCONT');
});

test('the guard outlives its agent: killed or frozen, the server is fenced; a restarted agent adopts before that', async () => {
  const postmaster = await rig.startServer(2);
  for (const fate of ['SIGKILL', 'SIGSTOP'] as const) {
    process.kill(await startArmedAgent(rig, postmaster, { forMs: 3000 }), fate);
    const next = openClient();
    const status = await next.ensure();
    assert.ok(status.ok);
    rig.adopt(status.value.pid);
    const adopted = adoptable(status.value, readBootId());
    assert.equal(adopted?.term, 3);
    assert.equal(adoptable(status.value, 'another boot'), null);
    if (fate === 'SIGKILL') {
      assert.equal(await next.arm({ ...armedUntil(addMono(monoMs(), 60_000)), postmaster }), true);
      assert.equal(await next.disarm(), true);
      assert.equal(isAlive(postmaster), true);
      continue;
    }
    await until(() => left() === 0, 8000, 'the guard of the frozen agent killed the server');
  }
});

test('a second guard of one state directory goes away', async () => {
  const client = openClient();
  await client.ensure();
  const entry = fileURLToPath(new URL('../../src/agent/guard/guard-main.ts', import.meta.url));
  const second = spawn(process.execPath, ['--no-warnings', entry, '--state', rig.stateDirectory], { stdio: 'ignore' });
  rig.adopt(second.pid ?? 0);
  const code = await new Promise((resolve) => second.on('exit', resolve));
  assert.equal(code, 3);
});

test('a guard that is armed does not quit on request or by SIGTERM; an idle one does', async () => {
  const client = openClient();
  const status = await client.ensure();
  assert.ok(status.ok);
  const id = { pid: status.value.pid, startTime: readProcess(status.value.pid)?.startTime ?? 0 };
  assert.equal(await client.arm(armedUntil(addMono(monoMs(), 20_000))), true);
  process.kill(id.pid, 'SIGTERM');
  // The kernel has handed it over, and one round of the guard's loop, which looks at signals last, lies behind it.
  await until(() => !hasPendingSignal(id.pid), 5000, 'the signal arrived');
  await client.status();
  assert.equal((await client.status())?.phase, 'armed');
  assert.equal(await client.disarm(), true);
  assert.equal(await client.quit(), true);
  await until(() => !isAlive(id), 2000, 'the guard is gone');
});

test('a state directory whose socket path is too long is refused with the reason', async () => {
  const stateDirectory = join(rig.root, 'x'.repeat(100));
  mkdirSync(stateDirectory);
  const client = createGuardClient({ stateDirectory });
  const result = await client.ensure();
  assert.equal(result.ok, false);
  assert.match(result.ok ? '' : result.error.cause, /longer than 107 bytes/);
});
