/** Three members of Debian's etcd on the lab's hosts, with TLS between all and a login: the store that people use who must survive the loss of a host. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '../src/base/pki.ts';
import { type RoleProcess, runOnce, sendSignal, startRole, waitUntil } from '../src/demo/children.ts';

export interface EtcdHost {
  readonly name: string;
  readonly address: string;
  readonly inside: readonly string[];
  /** Where it keeps its data; default: below the directory of all. */
  readonly data?: string;
}

export interface LabEtcd {
  readonly names: readonly string[];
  readonly endpoints: readonly string[];
  /** As server.yaml names it. */
  readonly store: {
    readonly engine: 'etcd';
    readonly endpoints: readonly string[];
    readonly ca: string;
    readonly username: string;
    readonly passwordFile: string;
  };
  /** Starts a member that is not running. */
  start(name: string): void;
  /** SIGKILL, and waits for its end. */
  kill(name: string): Promise<void>;
  running(name: string): boolean;
  /** The member that leads; null while there is none. */
  leader(): Promise<string | null>;
  /** Makes this member the leader; throws when it does not become it. */
  moveLeader(name: string): Promise<void>;
  /** True when every running member answers and knows a leader, within the limit. */
  waitHealthy(limitMs: number): Promise<boolean>;
}

const ETCD = '/usr/bin/etcd';
const CLIENT_PORT = 2379;
const PEER_PORT = 2380;
const START_MS = 30_000;
const COMMAND_MS = 5000;
const MOVE_MS = 20_000;
const USER = 'pgherd';
/** What pgherd may touch: everything below its own root, nothing else. */
const PREFIX = '/pgherd/';

/** Certificates, members, users; the cluster answers and asks for a login when this resolves. Throws with the reason in words. */
export async function startEtcd(directory: string, hosts: readonly EtcdHost[]): Promise<LabEtcd> {
  if (!existsSync(ETCD)) throw new Error('etcd is not installed: run scripts/setup, or apt-get install etcd-server etcd-client');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const ca = join(directory, 'ca.crt');
  const passwordFile = join(directory, 'password');
  const secrets = { root: randomBytes(18).toString('base64url'), user: randomBytes(18).toString('base64url') };
  await writeCertificates(directory, hosts);
  writeFileSync(passwordFile, `${secrets.user}\n`, { mode: 0o600 });
  const endpoints = hosts.map(({ address }) => `https://${address}:${CLIENT_PORT}`);
  const running = new Map<string, RoleProcess>();
  const alive = (name: string): RoleProcess | null => {
    const role = running.get(name);
    return role === undefined || role.exit() !== null ? null : role;
  };
  const find = (name: string): EtcdHost => {
    const host = hosts.find((one) => one.name === name);
    if (host === undefined) throw new Error(`there is no member "${name}": ${hosts.map((one) => one.name).join(', ')}`);
    return host;
  };
  let login = '';
  /** Asked from the member's own host, so that a pulled cable elsewhere does not matter. */
  const control = (host: EtcdHost, args: readonly string[], input = ''): ReturnType<typeof runOnce> =>
    runOnce({
      inside: host.inside,
      // The password comes over a pipe or the environment, never in an argv.
      argv: ['sh', '-c', 'printf %s "$SECRET" | exec etcdctl "$@"', 'etcdctl', ...args],
      cwd: directory,
      env: {
        ETCDCTL_API: '3',
        ETCDCTL_CACERT: ca,
        ETCDCTL_ENDPOINTS: `https://${host.address}:${CLIENT_PORT}`,
        ETCDCTL_DIAL_TIMEOUT: '1s',
        ETCDCTL_COMMAND_TIMEOUT: '2s',
        SECRET: input,
        ...(login === '' ? {} : { ETCDCTL_USER: login }),
      },
      limitMs: COMMAND_MS,
    });
  /** Ids are kept as text: they have 64 bits. */
  const statusOf = async (host: EtcdHost): Promise<{ readonly id: string; readonly leads: boolean; readonly led: boolean } | null> => {
    const asked = await control(host, ['endpoint', 'status', '-w', 'json']);
    const id = /"member_id":(\d+)/.exec(asked.stdout)?.[1];
    if (asked.code !== 0 || id === undefined) return null;
    const leader = /"leader":(\d+)/.exec(asked.stdout)?.[1] ?? '0';
    return { id, leads: leader === id, led: leader !== '0' };
  };
  const etcd: LabEtcd = {
    names: hosts.map(({ name }) => name),
    endpoints,
    store: { engine: 'etcd', endpoints, ca, username: USER, passwordFile },
    start: (name) => {
      const host = find(name);
      const argv = [ETCD, ...memberArguments(directory, host, hosts)];
      running.set(
        name,
        startRole({
          inside: host.inside,
          argv,
          cwd: directory,
          logFile: join(directory, `${name}.log`),
          env: { ETCD_UNSUPPORTED_ARCH: process.arch },
        }),
      );
    },
    kill: async (name) => {
      const role = alive(name);
      if (role === null) return;
      sendSignal(role.pid, 'SIGKILL');
      await role.gone;
    },
    running: (name) => alive(name) !== null,
    leader: async () => {
      for (const host of hosts) if (alive(host.name) !== null && (await statusOf(host))?.leads === true) return host.name;
      return null;
    },
    moveLeader: async (name) => {
      const host = find(name);
      const moved = await waitUntil(
        async () => {
          const leader = await etcd.leader();
          if (leader === null || leader === name) return leader === name;
          const id = (await statusOf(host))?.id;
          if (id !== undefined) await control(find(leader), ['move-leader', BigInt(id).toString(16)]);
          return false;
        },
        MOVE_MS,
        200,
      );
      if (!moved) throw new Error(`${name} did not become the leader of etcd within ${MOVE_MS} ms`);
    },
    waitHealthy: (limitMs) =>
      waitUntil(
        async () => {
          const living = hosts.filter(({ name }) => alive(name) !== null);
          const all = await Promise.all(living.map(statusOf));
          return living.length > hosts.length / 2 && all.every((one) => one?.led === true);
        },
        limitMs,
        200,
      ),
  };
  for (const { name } of hosts) etcd.start(name);
  if (!(await etcd.waitHealthy(START_MS))) throw new Error(`etcd did not become healthy within ${START_MS} ms; its logs lie in ${directory}`);
  const first = hosts[0];
  if (first === undefined) throw new Error('etcd needs at least one host');
  await addUsers((args, input) => control(first, args, input), secrets);
  login = `root:${secrets.root}`;
  return etcd;
}

/** One authority for clients and members, which is not pgherd's: so it is where etcd was there before. */
async function writeCertificates(directory: string, hosts: readonly EtcdHost[]): Promise<void> {
  const authority = await createAuthority();
  writeFileSync(join(directory, 'ca.crt'), authority.cert, { mode: 0o644 });
  for (const { name, address } of hosts) {
    const { cert, key } = await issueCertificate(authority, { kind: 'server', name, hosts: [address, '127.0.0.1', 'localhost'] });
    writeFileSync(join(directory, `${name}.crt`), cert);
    writeFileSync(join(directory, `${name}.key`), key, { mode: 0o600 });
  }
}

function memberArguments(directory: string, host: EtcdHost, all: readonly EtcdHost[]): readonly string[] {
  const at = (file: string): string => join(directory, file);
  const client = `https://${host.address}:${CLIENT_PORT}`;
  const peer = `https://${host.address}:${PEER_PORT}`;
  const options: Readonly<Record<string, string>> = {
    name: host.name,
    'data-dir': host.data ?? at(`${host.name}.data`),
    'listen-client-urls': client,
    'advertise-client-urls': client,
    'listen-peer-urls': peer,
    'initial-advertise-peer-urls': peer,
    'initial-cluster': all.map(({ name, address }) => `${name}=https://${address}:${PEER_PORT}`).join(','),
    // The same for a return: etcd goes by its data directory then.
    'initial-cluster-state': 'new',
    'initial-cluster-token': directory,
    'cert-file': at(`${host.name}.crt`),
    'key-file': at(`${host.name}.key`),
    'peer-cert-file': at(`${host.name}.crt`),
    'peer-key-file': at(`${host.name}.key`),
    'peer-trusted-ca-file': at('ca.crt'),
    'peer-client-cert-auth': 'true',
    'pre-vote': 'true',
    'log-level': 'warn',
  };
  return Object.entries(options).map(([name, value]) => `--${name}=${value}`);
}

async function addUsers(
  control: (args: readonly string[], input?: string) => ReturnType<typeof runOnce>,
  secrets: { readonly root: string; readonly user: string },
): Promise<void> {
  const steps: readonly (readonly [readonly string[], string?])[] = [
    [['user', 'add', 'root', '--interactive=false'], secrets.root],
    [['role', 'add', 'root']],
    [['user', 'grant-role', 'root', 'root']],
    [['user', 'add', USER, '--interactive=false'], secrets.user],
    [['role', 'add', USER]],
    [['role', 'grant-permission', USER, 'readwrite', PREFIX, '--prefix=true']],
    [['user', 'grant-role', USER, USER]],
    [['auth', 'enable']],
  ];
  for (const [args, input] of steps) {
    const done = await control(args, input);
    if (done.code !== 0) throw new Error(`etcdctl ${args.slice(0, 3).join(' ')}: ${done.stderr.trim()}`);
  }
}
