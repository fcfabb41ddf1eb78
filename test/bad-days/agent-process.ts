/** A real agent process with a configuration of its own, in a directory that is removed afterwards. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';

export const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'pgh-bad-'));
  chmodSync(directory, 0o755);
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A witness's agent.yaml (no PostgreSQL, no guard) with a store that nobody serves; `change` replaces fields. */
export async function writeAgentYaml(directory: string, change: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const stateDirectory = join(directory, 'agent');
  mkdirSync(stateDirectory, { recursive: true });
  writeFileSync(join(stateDirectory, 'cluster.secret'), 'secret\n', { mode: 0o600 });
  const file = join(directory, 'agent.yaml');
  const config = {
    cluster: 'demo',
    node: 'n1',
    kind: 'witness',
    host: '127.0.0.1',
    dataDirectory: join(directory, 'data'),
    stateDirectory,
    listen: { host: '127.0.0.1', port: await freePort() },
    store: { endpoints: ['http://127.0.0.1:9'], ca: null, cert: null, key: null },
    firewall: 'off',
    guard: false,
    ...change,
  };
  writeFileSync(file, stringify(config));
  return file;
}

export interface AgentProcess {
  readonly child: ChildProcess;
  readonly log: () => string;
  /** Exit code; rejects when it has not ended by itself after `limitMs`. */
  end(limitMs?: number): Promise<number | null>;
}

export function startAgentProcess(t: TestContext, file: string, env: Readonly<Record<string, string>> = {}): AgentProcess {
  const child = spawn(process.execPath, [MAIN, 'agent', '--config', file], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let log = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
  const exited = once(child, 'exit');
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
  });
  return {
    child,
    log: () => log,
    end: async (limitMs = 30_000) => {
      const ended = await Promise.race([exited, new Promise<null>((resolve) => setTimeout(() => resolve(null), limitMs).unref())]);
      if (ended === null) throw new Error(`the agent did not end within ${limitMs} ms:\n${log}`);
      return child.exitCode;
    },
  };
}
