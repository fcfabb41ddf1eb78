/** A plain PostgreSQL for the measuring clients' own tests: made, started, stopped and removed here. */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { monoMs, realClock } from '../../src/base/clock.ts';
import type { Login } from '../../src/demo/history.ts';

const BIN =
  ['18', '17', '16', '15', '14', '13'].map((version) => `/usr/lib/postgresql/${version}/bin`).find((path) => existsSync(`${path}/initdb`)) ?? '';
export const login: Login = { database: 'postgres', user: 'postgres', password: 'only-in-this-test' };

/** A start takes under a second; the tests beside it may take all processors for a while. */
const START_LIMIT_MS = 60_000;

export interface PlainPostgres {
  readonly port: number;
  readonly directory: string;
  pid(): number;
  restartAsStandby(): Promise<void>;
  query(sql: string): Promise<readonly Record<string, unknown>[]>;
  signal(name: NodeJS.Signals): void;
  remove(): Promise<void>;
}

/** With `standbyOf` a copy of that one, which streams from it. */
export async function startPlainPostgres(port: number, options: { readonly standbyOf?: PlainPostgres } = {}): Promise<PlainPostgres> {
  const root = mkdtempSync(join(tmpdir(), 'pgherd-plain-'));
  const directory = join(root, 'data');
  const user = process.getuid?.() === 0 ? postgresUser() : null;
  const as = user ?? {};
  if (user !== null) chownSync(root, user.uid, user.gid);
  chmodSync(root, 0o755);
  const passwordFile = join(root, 'password');
  writeFileSync(passwordFile, login.password, { mode: 0o644 });
  const upstream = options.standbyOf;
  if (upstream === undefined)
    execFileSync(`${BIN}/initdb`, ['-D', directory, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', passwordFile, '-N'], {
      ...as,
      cwd: root,
      stdio: 'ignore',
    });
  else
    execFileSync(
      `${BIN}/pg_basebackup`,
      ['-D', directory, '-R', '-X', 'stream', '-c', 'fast', '-h', '127.0.0.1', '-p', String(upstream.port), '-U', login.user],
      {
        ...as,
        cwd: root,
        stdio: 'ignore',
        env: { PGPASSWORD: login.password },
      },
    );
  const start = (): void => {
    const settings = ['-c', `port=${port}`, '-c', 'listen_addresses=127.0.0.1', '-c', `unix_socket_directories=${root}`, '-c', 'fsync=off'];
    spawn(`${BIN}/postgres`, ['-D', directory, ...settings], { ...as, cwd: root, stdio: 'ignore', detached: true }).unref();
  };
  const pid = (): number => Number(readFileSync(join(directory, 'postmaster.pid'), 'utf8').split('\n')[0]);
  const query = (sql: string): Promise<readonly Record<string, unknown>[]> => ask(port, sql);
  const stop = async (): Promise<void> => {
    if (!existsSync(join(directory, 'postmaster.pid'))) return;
    const postmaster = pid();
    process.kill(postmaster, 'SIGCONT');
    process.kill(postmaster, 'SIGINT');
    await until(() => !existsSync(`/proc/${postmaster}`), 10_000);
  };
  const answers = (): Promise<boolean> =>
    query('select 1').then(
      () => true,
      () => false,
    );
  const remove = async (): Promise<void> => {
    await stop();
    rmSync(root, { recursive: true, force: true });
  };
  start();
  try {
    await until(answers, START_LIMIT_MS);
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    port,
    directory,
    pid,
    query,
    signal: (name) => void process.kill(pid(), name),
    restartAsStandby: async () => {
      await stop();
      writeFileSync(join(directory, 'standby.signal'), '');
      start();
      await until(answers, START_LIMIT_MS);
    },
    remove,
  };
}

async function ask(port: number, sql: string): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ host: '127.0.0.1', port, ...login, connectionTimeoutMillis: 2000, query_timeout: 5000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

function postgresUser(): { uid: number; gid: number } {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid] = (line ?? '').split(':');
  return { uid: Number(uid), gid: Number(gid) };
}

/** Polls until the condition holds; fails after `limitMs`. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs: number): Promise<void> {
  const end = monoMs() + limitMs;
  while (!(await condition())) {
    if (monoMs() > end) throw new Error(`still not so after ${limitMs} ms: ${condition.toString().slice(0, 200)}`);
    await realClock.sleep(20);
  }
}
