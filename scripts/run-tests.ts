/**
 * Runs the test files with a bounded number of processes, then looks at what the run left behind.
 * Every child carries a mark in its environment and a temporary directory of its own, so that only what THIS run
 * started is found, and ended.
 * A file with limits in time that fails while the machine is disturbed runs once more. Usage: run-tests.ts [--started-ago S] [--failed STEP,…] [--file-limit S] -- [FILE …]
 */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, globSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type MachineWatch, watchMachine } from './machine-watch.ts';
import type { OutcomeLine } from './outcome-reporter.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Tests start real servers, each with several processes; more at once than this makes them miss their own time limits. */
const CONCURRENCY = 2;
/** One test, in ms. The slowest (real failovers, several in a row) take about a minute. */
const TEST_TIMEOUT_MS = 300_000;
/** One file, in ms: what a test left open (a client, a server) keeps its process alive for ever, and the runner waits for it. */
const FILE_LIMIT_MS = 600_000;
/** Where a failure has nothing to do with how quick the machine is: it counts at once. */
const TIMELESS = ['test/core/', 'test/sim/', 'test/tidy/', 'test/wire/'];
/** More failed files than this are no accident. */
const MAX_REPEATED = 6;
/** Processes that were told to end may need a moment. */
const SETTLE_MS = 3000;
const MARK = 'PGHERD_TEST_RUN';

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  options: {
    'started-ago': { type: 'string', default: '0' },
    failed: { type: 'string', default: '' },
    // For the runner's own test: every machine counts as disturbed.
    disturbed: { type: 'boolean', default: false },
    'file-limit': { type: 'string', default: String(FILE_LIMIT_MS / 1000) },
  },
  allowPositionals: true,
});
const startedAt = performance.now() - Number(values['started-ago']) * 1000;
const failures = values.failed.split(',').filter((step) => step !== '');
/** By process, in the order of their starts. */
const running = new Map<number, FileRun>();
process.chdir(root);
process.exitCode = await main();

async function main(): Promise<number> {
  const files = positionals.length > 0 ? positionals : globSync('test/**/*.test.ts').sort();
  // Short: paths of unix sockets below it must stay under 108 bytes. Open to all: PostgreSQL runs as another user.
  const temporary = mkdtempSync('/tmp/pgt.');
  chmodSync(temporary, 0o1777);
  const mark = `${process.pid}-${Math.round(startedAt)}`;
  const namespacesBefore = new Set(listNamespaces());

  // Ctrl+C reaches the children too; this process stays to clean up.
  process.on('SIGINT', () => {});
  const machine = watchMachine({ always: values.disturbed });
  const outcome = await runFiles(files, { concurrency: CONCURRENCY, temporary, mark });
  const { counts, notes } = await repeatDisturbed(outcome, machine, { temporary, mark });
  machine.stop();
  if (counts.failed > 0) failures.push('tests');
  const leaks = await findLeaks(temporary, mark, namespacesBefore);
  if (leaks.length > 0) failures.push('leaks');
  for (const leak of leaks) console.log(`left behind: ${leak}`);
  rmSync(temporary, { recursive: true, force: true });

  const seconds = Math.round((performance.now() - startedAt) / 1000);
  console.log(
    `test: ${files.length} files, ${Math.floor(seconds / 60)} min ${seconds % 60} s${failures.length > 0 ? `; FAILED: ${failures.join(', ')}` : ''}`,
  );
  // A step or a leak that failed is no test, but must show in the closing line too.
  const failed = counts.failed + failures.filter((step) => step !== 'tests').length;
  for (const note of notes) console.log(note);
  console.log(`${counts.passed} passed, ${failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`);
  return failures.length > 0 ? 1 : 0;
}

/** What was seen of a test file's process; performance.now. */
interface FileRun {
  readonly file: string;
  readonly fromMs: number;
  readonly toMs: number;
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

interface Outcome {
  readonly counts: Counts;
  /** How many tests of each file failed. */
  readonly failed: ReadonlyMap<string, number>;
}

interface Room {
  readonly temporary: string;
  readonly mark: string;
}

/** A failed test counts unless its machine was disturbed: then its file runs once more, alone, and that run counts. Both are printed. */
async function repeatDisturbed(
  first: Outcome,
  machine: MachineWatch,
  room: Room,
): Promise<{ readonly counts: Counts; readonly notes: readonly string[] }> {
  const isTimed = (file: string): boolean => !TIMELESS.some((folder) => relative(root, file).startsWith(folder));
  const timed = [...first.failed.keys()].filter(isTimed);
  let counts = first.counts;
  const notes: string[] = [];
  if (timed.length > MAX_REPEATED) return { counts, notes };
  for (const file of timed) {
    const run = lastRunOf(file);
    const why = run === null ? null : machine.disturbance(run);
    if (why === null) continue;
    console.log(`test: ${file} failed while ${why}; it runs once more, alone`);
    const second = await runFiles([file], { concurrency: 1, ...room });
    const tookBack = (first.failed.get(file) ?? 0) - second.counts.failed;
    counts = { ...counts, passed: counts.passed + tookBack, failed: counts.failed - tookBack };
    notes.push(`test: ${file} failed while ${why}, and ${second.counts.failed === 0 ? 'passed' : 'failed again'} when it ran once more`);
  }
  return { counts, notes };
}

async function runFiles(files: readonly string[], { concurrency, temporary, mark }: Room & { readonly concurrency: number }): Promise<Outcome> {
  const outcome = join(temporary, 'outcome');
  const args = [
    '--test',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${join(root, 'scripts/outcome-reporter.ts')}`,
    `--test-reporter-destination=${outcome}`,
    ...files,
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, TMPDIR: temporary, [MARK]: mark } });
  const watching = setInterval(() => watchFiles(child.pid ?? 0, Number(values['file-limit']) * 1000), 1000);
  const code = await new Promise<number>((done, reject) => {
    child.once('error', reject);
    child.once('exit', (exit) => done(exit ?? 1));
  }).finally(() => clearInterval(watching));
  const { counts, failed } = readOutcome(outcome);
  rmSync(outcome, { force: true });
  // A runner that fails without a failed test is a failure too.
  return { counts: code !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts, failed };
}

/** Notes when the processes of test files run, and ends those that run too long; the runner counts each as a failed file and goes on with the next. */
function watchFiles(runner: number, limitMs: number): void {
  const now = performance.now();
  for (const name of readProc(runner, `task/${runner}/children`).split(' ')) {
    const pid = Number(name);
    if (name === '' || !Number.isInteger(pid)) continue;
    const file = resolve(readProc(pid, 'cmdline').split('\0').at(-2) ?? '');
    const fromMs = running.get(pid)?.fromMs ?? now;
    running.set(pid, { file, fromMs, toMs: now });
    if (now - fromMs < limitMs) continue;
    console.log(`test: ended after ${Math.round((now - fromMs) / 1000)} s: ${file}`);
    endProcess(pid);
  }
}

/** The last run of a file; null for one that was over before anybody looked. */
function lastRunOf(file: string): FileRun | null {
  return [...running.values()].findLast((one) => one.file === file) ?? null;
}

function readOutcome(file: string): Outcome {
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const failed = new Map<string, number>();
  for (const text of readFileSync(file, 'utf8').trim().split('\n')) {
    const line: OutcomeLine | null = text === '' ? null : JSON.parse(text);
    if (line === null) continue;
    if ('failedIn' in line) failed.set(line.failedIn, (failed.get(line.failedIn) ?? 0) + 1);
    else counts = line;
  }
  return { counts, failed };
}

/** What is left, in words. Processes of this run are ended, so that the next run starts clean. */
async function findLeaks(temporary: string, mark: string, namespacesBefore: ReadonlySet<string>): Promise<readonly string[]> {
  const limit = performance.now() + SETTLE_MS;
  let processes = findProcesses(temporary, mark);
  while (processes.length > 0 && performance.now() < limit) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    processes = findProcesses(temporary, mark);
  }
  const leaks = processes.map(({ pid, command }) => `process ${pid}: ${command}`);
  for (const { pid } of processes) endProcess(pid);
  for (const name of listNamespaces()) if (!namespacesBefore.has(name)) leaks.push(`network namespace ${name} (ip netns delete ${name})`);
  for (const name of readdirSync(temporary)) leaks.push(`temporary file ${name}`);
  return leaks;
}

interface Found {
  readonly pid: number;
  readonly command: string;
}

/** Processes with the run's mark in their environment, or that work in or were told of its temporary directory. */
function findProcesses(temporary: string, mark: string): readonly Found[] {
  const found: Found[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const command = readProc(pid, 'cmdline').replaceAll('\0', ' ').trim();
    const state = /^State:\s+(\S)/m.exec(readProc(pid, 'status'))?.[1];
    // Zombies have ended already; whoever should reap them is not our matter.
    if (command === '' || state === 'Z') continue;
    const marked = readProc(pid, 'environ').includes(`${MARK}=${mark}`);
    if (marked || command.includes(temporary) || workingDirectory(pid).startsWith(temporary)) found.push({ pid, command: command.slice(0, 160) });
  }
  return found;
}

/** Empty when the process is gone meanwhile, or belongs to somebody else. */
function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

function workingDirectory(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ESRCH')) throw cause;
  }
}

/** Empty where there is no `ip`, or nothing may be seen. */
function listNamespaces(): readonly string[] {
  const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8', timeout: 5000 });
  return (stdout ?? '')
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name !== '');
}
