/** repmgr from Debian's package: repmgrd on every node with automatic failover, and ssh between the nodes for its switchover. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from '../../src/demo/children.ts';
import { quote } from '../../src/demo/recorder.ts';
import { type PeerHosts, accessLines, dataDirectory, newSecret, openHosts, socketDirectory, wordsOf, writeOwned } from './peer.ts';
import { binDirectory, makeOwned, writableNodes } from './servers.ts';
import { type Cluster, NODES, type NodePlace, type Place, type System } from './types.ts';

const REPMGR = '/usr/bin/repmgr';
const REPMGRD = '/usr/bin/repmgrd';
const SSHD = '/usr/sbin/sshd';
const SSH_PORT = 2222;
const STEP_MS = 60_000;
const SWITCHOVER_MS = 90_000;
const UP_MS = 20_000;

interface Variant {
  readonly name: string;
  /** repmgr.conf, seconds. */
  readonly timing: Readonly<Record<'monitor_interval_secs' | 'reconnect_attempts' | 'reconnect_interval', number>>;
}

const VARIANTS: readonly Variant[] = [
  // Source: repmgr's manual, "repmgrd setup and configuration".
  { name: 'default', timing: { monitor_interval_secs: 2, reconnect_attempts: 6, reconnect_interval: 10 } },
  { name: 'fastest', timing: { monitor_interval_secs: 1, reconnect_attempts: 3, reconnect_interval: 1 } },
];

export const REPMGR_SYSTEMS: readonly System[] = VARIANTS.map((variant) => ({
  id: `repmgr-${variant.name}`,
  product: 'repmgr',
  variant: variant.name,
  durability: 'asynchronous',
  syncStandbys: 0,
  settings: [...Object.entries(variant.timing).map(([key, value]) => `${key} ${value}`), 'failover automatic', 'use_replication_slots'].join(', '),
  rejoin: 'by-hand',
  remark:
    'nothing takes a failed primary back: a host that returns starts PostgreSQL at boot, as Debian does it, and that server is a primary again until a person ends it; it is watched for five seconds here',
  version: () => {
    if (!existsSync(REPMGR) || !existsSync(SSHD)) throw new Error('repmgr or sshd is not installed');
    return execFileSync(REPMGR, ['--version'], { encoding: 'utf8' }).trim();
  },
  start: (place) => start(place, variant),
}));

async function start(place: Place, variant: Variant): Promise<Cluster> {
  const hosts = openHosts(place);
  const password = newSecret();
  const keys = await makeKeys(place, hosts);
  for (const node of place.nodes) writeNode(node, { variant, password, keys });
  const [first, ...others] = place.nodes;
  if (first === undefined) throw new Error('repmgr needs at least one node');
  await makePrimary(first, { hosts, password });
  for (const node of others) {
    const source = ['-h', first.address, '-p', String(first.port), '-U', 'repmgr', '-d', 'repmgr'];
    await hosts.mustRun(node, [REPMGR, '-f', configOf(node), ...source, 'standby', 'clone', '--fast-checkpoint'], STEP_MS);
    writeServerSettings(node);
    await startPostgres(node, hosts);
    await hosts.mustRun(node, [REPMGR, '-f', configOf(node), 'standby', 'register', '--wait-sync=20'], STEP_MS);
  }
  for (const node of place.nodes) {
    hosts.startDaemon(node, `${node.node}-sshd`, [SSHD, '-D', '-e', '-f', join(node.directory, 'sshd.conf')]);
    startMonitor(node, hosts);
  }
  if (!(await waitUntil(() => allWatched(place, hosts), UP_MS, 200)))
    throw new Error(`repmgrd did not watch every node within ${UP_MS} ms; the end of its log on ${first.node}: ${hosts.tail(first.node)}`);
  return {
    ...hosts,
    boot: (name) => {
      const node = hosts.find(name);
      hosts.startDaemon(node, `${name}-sshd`, [SSHD, '-D', '-e', '-f', join(node.directory, 'sshd.conf')]);
      // What fails here is seen by the probes: nothing is writable on that node then.
      void startPostgres(node, hosts).then(
        () => startMonitor(node, hosts),
        (error: unknown) => place.say(`${name}: ${error instanceof Error ? error.message : String(error)}`),
      );
    },
    switchover: async (to) => {
      const node = hosts.find(to);
      const done = await hosts.run(node, [REPMGR, '-f', configOf(node), 'standby', 'switchover', '--siblings-follow'], SWITCHOVER_MS);
      return { why: done.code === 0 ? null : wordsOf(done), durationMs: done.durationMs };
    },
  };
}

async function makePrimary(node: NodePlace, { hosts, password }: { readonly hosts: PeerHosts; readonly password: string }): Promise<void> {
  await hosts.mustRun(node, [`${binDirectory()}/initdb`, '-D', dataDirectory(node), '-U', 'postgres', '-E', 'UTF8', '-k'], STEP_MS);
  writeOwned(join(dataDirectory(node), 'pg_hba.conf'), `${accessLines({ superuser: 'repmgr', replicator: 'repmgr' }).join('\n')}\n`);
  writeServerSettings(node);
  await startPostgres(node, hosts);
  await hosts.sql(node.node, `create role repmgr superuser replication login password ${quote(password)}`);
  await hosts.sql(node.node, 'create database repmgr owner repmgr');
  await hosts.mustRun(node, [REPMGR, '-f', configOf(node), 'primary', 'register'], STEP_MS);
  if (!(await waitUntil(async () => (await writableNodes(hosts)).includes(node.node), UP_MS)))
    throw new Error(`${node.node} did not become a primary`);
}

/** Each server says itself whether its repmgrd runs. */
async function allWatched(place: Place, hosts: PeerHosts): Promise<boolean> {
  const answers = await Promise.all(place.nodes.map(({ node }) => hosts.sql(node, 'select repmgr.repmgrd_is_running() as runs', 'repmgr')));
  return answers.every((rows) => rows[0]?.['runs'] === true);
}

function startPostgres(node: NodePlace, hosts: PeerHosts): Promise<unknown> {
  const log = join(node.directory, 'postgres.log');
  return hosts.mustRun(node, [`${binDirectory()}/pg_ctl`, '-D', dataDirectory(node), '-l', log, '-w', 'start'], STEP_MS);
}

function startMonitor(node: NodePlace, hosts: PeerHosts): void {
  hosts.startDaemon(node, node.node, [REPMGRD, '-f', configOf(node), '--daemonize=false', '--no-pid-file']);
}

function configOf(node: NodePlace): string {
  return join(node.directory, 'repmgr.conf');
}

/** Last in the file, so that they win over those of the server that was cloned. */
function writeServerSettings(node: NodePlace): void {
  appendFileSync(
    join(dataDirectory(node), 'postgresql.conf'),
    [
      '',
      `listen_addresses = '${node.address}'`,
      `port = ${node.port}`,
      `unix_socket_directories = '${socketDirectory(node)}'`,
      "shared_preload_libraries = 'repmgr'",
      'wal_log_hints = on',
      '',
    ].join('\n'),
  );
}

function writeNode(node: NodePlace, options: { readonly variant: Variant; readonly password: string; readonly keys: Keys }): void {
  const { variant, password, keys } = options;
  makeOwned(socketDirectory(node));
  const passfile = join(node.directory, 'pgpass');
  writeOwned(passfile, `*:*:*:repmgr:${password}\n`);
  const command = (verb: string): string => `${REPMGR} -f ${configOf(node)} ${verb} --log-to-file`;
  const settings: Readonly<Record<string, string | number>> = {
    node_id: (NODES as readonly string[]).indexOf(node.node) + 1,
    node_name: node.node,
    conninfo: `host=${node.address} port=${node.port} user=repmgr dbname=repmgr connect_timeout=2`,
    data_directory: dataDirectory(node),
    pg_bindir: binDirectory(),
    passfile,
    use_replication_slots: 'yes',
    ssh_options: `-q -o ConnectTimeout=10 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i ${keys.user} -p ${SSH_PORT}`,
    failover: 'automatic',
    promote_command: command('standby promote'),
    follow_command: `${command('standby follow')} --upstream-node-id=%n`,
    ...variant.timing,
  };
  writeOwned(
    configOf(node),
    Object.entries(settings)
      .map(([key, value]) => `${key}=${typeof value === 'number' ? value : `'${value}'`}\n`)
      .join(''),
  );
  writeOwned(
    join(node.directory, 'sshd.conf'),
    [
      `ListenAddress ${node.address}:${SSH_PORT}`,
      `HostKey ${keys.host}`,
      `AuthorizedKeysFile ${keys.user}.pub`,
      'PidFile none',
      'UsePAM no',
      'StrictModes no',
      `SetEnv PGPASSFILE=${passfile}`,
      '',
    ].join('\n'),
  );
}

interface Keys {
  readonly host: string;
  readonly user: string;
}

/** One pair for the hosts and one for PostgreSQL's user: all nodes are this machine, and the keys end with the run. */
async function makeKeys(place: Place, hosts: PeerHosts): Promise<Keys> {
  const directory = join(place.directory, 'ssh');
  makeOwned(directory);
  const keys = { host: join(directory, 'host'), user: join(directory, 'user') };
  for (const file of Object.values(keys))
    await hosts.mustRun({ inside: [], directory }, ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', file], STEP_MS);
  if (readFileSync(`${keys.user}.pub`, 'utf8') === '') throw new Error(`ssh-keygen wrote no key into ${directory}`);
  return keys;
}
