/** Dummy "servers" for the guard's tests: a process tree whose executable is called postgres and whose working directory is a data directory. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdtempSync, mkdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { monoMs } from '../../src/base/clock.ts';
import { type ProcessId, findProcesses, isAlive, readProcess } from '../../src/agent/guard/kill-tree.ts';

export interface Rig {
  readonly root: string;
  readonly stateDirectory: string;
  readonly dataDirectory: string;
  startServer(children: number): Promise<ProcessId>;
  /** Remember a process that the test started otherwise. */
  adopt(pid: number): void;
  cleanup(): Promise<void>;
}

export function createRig(): Rig {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-guard-')));
  const stateDirectory = join(root, 'agent');
  const dataDirectory = join(root, 'data');
  mkdirSync(stateDirectory);
  mkdirSync(dataDirectory);
  const shell = join(root, 'postgres');
  copyFileSync('/bin/dash', shell);
  chmodSync(shell, 0o755);
  const pipe = join(root, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const started: ProcessId[] = [];
  const children: ChildProcess[] = [];
  const adopt = (pid: number): void => {
    const info = readProcess(pid);
    if (info !== null) started.push({ pid, startTime: info.startTime });
  };
  return {
    root,
    stateDirectory,
    dataDirectory,
    adopt,
    startServer: async (count) => {
      // Each process waits in the opening of a pipe that nobody writes to, without a child of another name; all ignore what a server may ignore.
      const wait = `trap '' TERM INT QUIT HUP; read nothing < ${pipe}`;
      const script = `trap '' TERM INT QUIT HUP; i=0; while [ $i -lt ${count} ]; do ${shell} -c "${wait}" & i=$((i+1)); done; read nothing < ${pipe}`;
      const child = spawn(shell, ['-c', script], { cwd: dataDirectory, stdio: 'ignore', detached: true });
      children.push(child);
      const pid = child.pid ?? 0;
      const id = { pid, startTime: readProcess(pid)?.startTime ?? 0 };
      started.push(id);
      await until(() => findProcesses({ dataDirectory, postmaster: id }).length >= 1 + count, 5000, 'the dummy server runs');
      return id;
    },
    cleanup: async () => {
      // Whoever started the guard of this state directory, and even if the test failed before it knew.
      const lock = join(stateDirectory, 'run', 'guard.lock');
      if (existsSync(lock)) adopt((JSON.parse(readFileSync(lock, 'utf8')) as { pid: number }).pid);
      for (const info of findProcesses({ dataDirectory, postmaster: started[0] ?? null })) started.push(info);
      for (const id of started) if (isAlive(id)) process.kill(id.pid, 'SIGKILL');
      await until(() => started.every((id) => !isAlive(id)), 5000, 'everything of the test is gone');
      rmSync(root, { recursive: true, force: true });
    },
  };
}

/** For clients whose answers are looked at: a busy machine may keep a guard from answering for longer than an agent waits. */
export const PATIENT = { answerMs: 5000 } as const;

/** Polls until the condition holds; fails with `what` at the limit. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs: number, what: string): Promise<void> {
  const end = monoMs() + limitMs;
  while (!(await condition())) {
    if (monoMs() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Starts an agent that arms its guard (agent-process.ts) and resolves when it did; rejects when the guard refused. */
export function startArmedAgent(rig: Rig, postmaster: ProcessId, options: { readonly forMs: number; readonly table?: string }): Promise<number> {
  const script = fileURLToPath(new URL('./agent-process.ts', import.meta.url));
  const table = options.table === undefined ? [] : [options.table];
  const argv = [
    '--no-warnings',
    script,
    rig.stateDirectory,
    rig.dataDirectory,
    String(postmaster.pid),
    String(postmaster.startTime),
    String(options.forMs),
    ...table,
  ];
  const agent = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  agent.unref();
  return new Promise((resolve, reject) => {
    agent.once('spawn', () => rig.adopt(agent.pid ?? -1));
    agent.once('error', reject);
    agent.once('exit', (code) => reject(new Error(`the agent ended with ${code} before it was armed`)));
    agent.stdout.once('data', (chunk: Buffer) => {
      agent.stdout.destroy();
      if (String(chunk).includes('armed') && agent.pid !== undefined) resolve(agent.pid);
      else reject(new Error(`the agent said ${String(chunk)}`));
    });
  });
}
