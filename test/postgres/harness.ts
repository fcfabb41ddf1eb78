/** Real PostgreSQL in temporary directories that belong to the database's OS user; everything is ended and removed, also on failure. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realClock, monoMs } from '../../src/base/clock.ts';
import { makeClusterId, makeNodeId } from '../../src/core/ids.ts';
import { type Failure, type Result, describeFailure } from '../../src/core/result.ts';
import { findUser } from '../../src/agent/postgres/os-user.ts';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { type Instance, findBinDirectory, socketDirectoryOf } from '../../src/agent/postgres/instance.ts';
import { killAll } from '../../src/agent/postgres/kill-all.ts';
import type { ManagedSettings } from '../../src/agent/postgres/managed-files.ts';
import { findPostmaster, findProcesses } from '../../src/agent/postgres/postmaster.ts';
import { setupRoles } from '../../src/agent/postgres/setup-roles.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { type Sql, withLocalSql } from '../../src/agent/postgres/sql.ts';

export const settings: ManagedSettings = {
  parameters: { shared_buffers: '16MB', max_connections: '20', fsync: 'off' },
  hba: [],
  members: [{ host: '127.0.0.1', internalHost: null }],
};

export interface Lab {
  readonly root: string;
  node(name: string): Promise<Instance>;
  close(): Promise<void>;
}

export function createLab(): Lab {
  const root = mkdtempSync(join(tmpdir(), 'pgh-'));
  chmodSync(root, 0o755);
  const instances: Instance[] = [];
  const os = process.getuid?.() === 0 ? findUser('postgres') : null;
  if (process.getuid?.() === 0 && os === null) throw new Error('no OS user postgres');
  return {
    root,
    node: async (name) => {
      const base = join(root, name);
      mkdirSync(base, { mode: 0o755 });
      if (os !== null) chownSync(base, os.uid, os.gid);
      const stateDirectory = join(base, 'agent');
      const instance: Instance = {
        cluster: makeClusterId('t'),
        node: makeNodeId(name),
        dataDirectory: join(base, 'data'),
        stateDirectory,
        binDirectory: findBinDirectory() ?? '/usr/bin',
        port: await freePort(),
        host: '127.0.0.1',
        internalHost: null,
        os,
        socketDirectory: socketDirectoryOf(stateDirectory),
        publicSocketDirectory: null,
        secrets: { replication: 'rep-secret', probe: 'probe-secret', proxy: 'proxy-secret' },
        tls: null,
      };
      instances.push(instance);
      return instance;
    },
    close: async () => {
      for (const instance of instances) {
        const outcome = await killAll(instance.dataDirectory);
        if (outcome.survivors.length > 0) throw new Error(`processes left in ${instance.dataDirectory}`);
      }
      rmSync(root, { recursive: true, force: true });
    },
  };
}

/** A port of 22000–22999 that is free now. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = 22_000 + ((process.pid * 7 + nextPort++) % 1000);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error('no free port');
}
let nextPort = 0;

export function must<T>(result: Result<T, Failure>): T {
  if (!result.ok) throw new Error(describeFailure(result.error));
  return result.value;
}

export async function createPrimary(instance: Instance): Promise<void> {
  must(await runInitdb(instance, { checksums: true, settings }));
  must(await startPostgres(instance, { mode: 'primary', mayStart: () => true }));
  must(await setupRoles(instance));
}

export function sql<T>(instance: Instance, run: (sql: Sql) => Promise<T>): Promise<T> {
  return withLocalSql(instance, {}, run).then(must);
}

/** Polls until `check` is true; fails after `limitMs`. */
export async function until(what: string, check: () => Promise<boolean> | boolean, limitMs = 10_000): Promise<void> {
  const deadline = monoMs() + limitMs;
  while (!(await check())) {
    if (monoMs() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await realClock.sleep(5);
  }
}

/**
 * A signal to every process of a server. The postmaster first: after its SIGSTOP it forks no more, so that the list that
 * is read next is whole. A child that ends by itself between the list and the signal is not missed.
 */
export function signalServer(dataDirectory: string, name: 'SIGSTOP' | 'SIGCONT'): void {
  const send = (pid: number): void => {
    try {
      process.kill(pid, name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  const postmaster = findPostmaster(dataDirectory);
  if (postmaster !== null) send(postmaster.pid);
  for (const member of findProcesses(dataDirectory)) send(member.pid);
}
