/**
 * Runs the test files with a bounded number of processes, then looks at what the run left behind.
 * Every child carries a mark in its environment and a temporary directory of its own, so that only what THIS run
 * started is found, and ended. Usage: run-tests.ts [--started-ago S] [--failed STEP,…] [--file-limit S] -- [FILE …]
 */
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, globSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Tests start real servers, each with several processes; more at once than this makes them miss their own time limits. */
const CONCURRENCY = 2;
/** One test, in ms. The slowest (real failovers, several in a row) take about a minute. */
const TEST_TIMEOUT_MS = 300_000;
/** One file, in ms: what a test left open (a client, a server) keeps its process alive for ever, and the runner waits for it. */
const FILE_LIMIT_MS = 600_000;
/** Processes that were told to end may need a moment. */
const SETTLE_MS = 3000;
const MARK = 'PGHERD_TEST_RUN';

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  options: {
    'started-ago': { type: 'string', default: '0' },
    failed: { type: 'string', default: '' },
    'file-limit': { type: 'string', default: String(FILE_LIMIT_MS / 1000) },
  },
  allowPositionals: true,
});
const startedAt = performance.now() - Number(values['started-ago']) * 1000;
const failures = values.failed.split(',').filter((step) => step !== '');
/** When each process of a test file was seen first. */
const seenAt = new Map<number, number>();
process.chdir(root);
process.exitCode = await main();

async function main(): Promise<number> {
  const files = positionals.length > 0 ? positionals : globSync('test/**/*.test.ts').sort();
  // Short: paths of unix sockets below it must stay under 108 bytes. Open to all: PostgreSQL runs as another user.
  const temporary = mkdtempSync('/tmp/pgt.');
  chmodSync(temporary, 0o1777);
  const mark = `${process.pid}-${Math.round(startedAt)}`;
  const namespacesBefore = new Set(listNamespaces());

  const code = await runNode(files, temporary, mark);
  const counts = readCounts(join(temporary, 'run.tap'));
  rmSync(join(temporary, 'run.tap'), { force: true });
  if (code !== 0) failures.push('tests');
  const leaks = await findLeaks(temporary, mark, namespacesBefore);
  if (leaks.length > 0) failures.push('leaks');
  for (const leak of leaks) console.log(`left behind: ${leak}`);
  rmSync(temporary, { recursive: true, force: true });

  const seconds = Math.round((performance.now() - startedAt) / 1000);
  console.log(
    `test: ${files.length} files, ${Math.floor(seconds / 60)} min ${seconds % 60} s${failures.length > 0 ? `; FAILED: ${failures.join(', ')}` : ''}`,
  );
  // A step or a leak that failed is no test, but must show in the closing line too.
  const extra = failures.filter((step) => step !== 'tests').length;
  const failed = counts.failed + extra + (code !== 0 && counts.failed === 0 ? 1 : 0);
  console.log(`${counts.passed} passed, ${failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}`);
  return failures.length > 0 ? 1 : 0;
}

function runNode(files: readonly string[], temporary: string, mark: string): Promise<number> {
  const args = [
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    '--test-reporter=tap',
    `--test-reporter-destination=${join(temporary, 'run.tap')}`,
    ...files,
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, TMPDIR: temporary, [MARK]: mark } });
  // Ctrl+C reaches the child too; this process stays to clean up.
  process.on('SIGINT', () => {});
  const watching = setInterval(() => endSlowFiles(child.pid ?? 0, Number(values['file-limit']) * 1000), 1000);
  return new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  }).finally(() => clearInterval(watching));
}

/** Ends the processes of test files that run too long; the runner counts each as a failed file and goes on with the next. */
function endSlowFiles(runner: number, limitMs: number): void {
  const now = performance.now();
  for (const name of readProc(runner, `task/${runner}/children`).split(' ')) {
    const pid = Number(name);
    if (name === '' || !Number.isInteger(pid)) continue;
    const since = seenAt.get(pid) ?? now;
    seenAt.set(pid, since);
    if (now - since < limitMs) continue;
    console.log(`test: ended after ${Math.round((now - since) / 1000)} s: ${readProc(pid, 'cmdline').split('\0').at(-2)}`);
    seenAt.delete(pid);
    endProcess(pid);
  }
}

function readCounts(tapFile: string): { passed: number; failed: number; skipped: number } {
  const tail = readFileSync(tapFile, 'utf8').slice(-2000);
  const count = (name: string): number => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(tail)?.[1] ?? 0);
  return { passed: count('pass'), failed: count('fail') + count('cancelled'), skipped: count('skipped') + count('todo') };
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
