/** What else can stand before PostgreSQL, from Debian's packages, set up for the same task: HAProxy passes bytes on, PgBouncer pools by session, pgpool-II splits. */
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Login } from '../src/demo/history.ts';
import { findFreePorts } from '../src/demo/ports.ts';

export interface Rival {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
}

export interface RivalOptions {
  readonly directory: string;
  readonly address: string;
  readonly primary: number;
  readonly standby: number;
  readonly login: Login;
}

interface Files {
  readonly directory: string;
  readonly port: number;
  readonly spare: number;
}

interface Program {
  readonly name: string;
  readonly program: string;
  readonly config: (options: RivalOptions, files: Files) => string;
  /** Other files of the same folder. */
  readonly more?: (options: RivalOptions) => Readonly<Record<string, string>>;
  readonly args: (directory: string) => readonly string[];
}

/** They refuse to run as root, or should not. Source: Debian, user `nobody`. */
const NOBODY = 65_534;

const PROGRAMS: readonly Program[] = [
  {
    name: 'haproxy',
    program: '/usr/sbin/haproxy',
    config: ({ address, primary }, { port }) =>
      `global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\nlisten pg\n bind ${address}:${port}\n server s ${address}:${primary}\n`,
    args: (directory) => ['-db', '-f', join(directory, 'config')],
  },
  {
    name: 'pgbouncer',
    program: '/usr/sbin/pgbouncer',
    config: ({ address, primary }, { directory, port }) =>
      [
        `[databases]\n* = host=${address} port=${primary}\n[pgbouncer]\nlisten_addr=${address}\nlisten_port=${port}`,
        `auth_type=scram-sha-256\nauth_file=${join(directory, 'users')}\npool_mode=session\nmax_client_conn=200\ndefault_pool_size=100\nunix_socket_dir=\n`,
      ].join('\n'),
    more: ({ login }) => ({ users: `"${login.user}" "${login.password}"\n` }),
    args: (directory) => [join(directory, 'config')],
  },
  {
    name: 'pgpool',
    program: '/usr/sbin/pgpool',
    config: ({ address, primary, standby, login }, { directory, port, spare }) =>
      [
        "backend_clustering_mode = 'streaming_replication'",
        `listen_addresses = '${address}'\nport = ${port}\npcp_port = ${spare}`,
        `socket_dir = '${directory}'\npcp_socket_dir = '${directory}'\nwd_ipc_socket_dir = '${directory}'\nlogdir = '${directory}'\npid_file_name = '${directory}/pid'`,
        ...[primary, standby].flatMap((one, index) => [
          `backend_hostname${index} = '${address}'\nbackend_port${index} = ${one}\nbackend_weight${index} = 1`,
          `backend_flag${index} = 'DISALLOW_TO_FAILOVER'`,
        ]),
        `enable_pool_hba = on\npool_passwd = 'users'\nnum_init_children = 40\nmax_pool = 1\nload_balance_mode = on`,
        `sr_check_period = 0\nsr_check_user = '${login.user}'\nsr_check_password = '${login.password}'\nsr_check_database = '${login.database}'`,
        'health_check_period = 0\nfailover_on_backend_error = off\nmemory_cache_enabled = off\n',
      ].join('\n'),
    more: ({ address, login }) => ({
      users: `${login.user}:TEXT${login.password}\n`,
      hba: `host all all ${address}/32 scram-sha-256\n`,
      pcp: '',
    }),
    args: (directory) => ['-n', '-f', join(directory, 'config'), '-a', join(directory, 'hba'), '-F', join(directory, 'pcp')],
  },
];

/** Those that are installed; `missing` names the others. Their pids go to `pids` at once, so that they are ended in any case. */
export async function startRivals(
  options: RivalOptions,
  pids: number[],
): Promise<{ readonly rivals: readonly Rival[]; readonly missing: readonly string[] }> {
  const ports = await findFreePorts(options.address, { preferred: 17_433, count: PROGRAMS.length * 2 });
  const rivals: Rival[] = [];
  const missing: string[] = [];
  for (const [index, { name, program, config, more, args }] of PROGRAMS.entries()) {
    const [port = 0, spare = 0] = ports.slice(index * 2);
    if (!existsSync(program)) {
      missing.push(name);
      continue;
    }
    const directory = join(options.directory, name);
    mkdirSync(directory);
    const files = { ...more?.(options), config: config(options, { directory, port, spare }) };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text, { mode: 0o600 });
    const isRoot = process.getuid?.() === 0;
    if (isRoot) for (const path of [directory, ...Object.keys(files).map((file) => join(directory, file))]) chownSync(path, NOBODY, NOBODY);
    chmodSync(directory, 0o700);
    const child = spawn(program, [...args(directory)], { stdio: 'ignore', cwd: directory, ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}) });
    if (child.pid === undefined) {
      missing.push(name);
      continue;
    }
    pids.push(child.pid);
    rivals.push({ name, port, pid: child.pid });
  }
  return { rivals, missing };
}
