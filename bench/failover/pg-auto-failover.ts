/** pg_auto_failover from Debian's packages: its monitor on the server's host, pg_autoctl on every node. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from '../../src/demo/children.ts';
import { type Host, type PeerHosts, dataDirectory, openHosts, socketDirectory, wordsOf } from './peer.ts';
import { ask } from '../../src/demo/ask.ts';
import { binDirectory, makeOwned, postgresMajor, writableNodes } from './servers.ts';
import { type Cluster, NETWORK, NODES, type NodePlace, type Place, SERVER, type System } from './types.ts';

const PROGRAM = '/usr/bin/pg_autoctl';
const MONITOR_PORT = 26_440;
/** Source: Debian's PostgreSQL, the default of unix_socket_directories. */
const MONITOR_SOCKETS = '/var/run/postgresql';
const STEP_MS = 60_000;
const SWITCHOVER_MS = 90_000;
/** initdb, and a first report to the monitor. */
const UP_MS = 60_000;

interface Variant {
  readonly name: string;
  /** Settings of the monitor's PostgreSQL, below `pgautofailover.`. Empty: its defaults. */
  readonly monitor: Readonly<Record<string, string>>;
  /** Seconds after which a primary that hears nobody stops by itself. Null: the default. */
  readonly partitionSeconds: number | null;
  readonly words: string;
}

const VARIANTS: readonly Variant[] = [
  {
    name: 'default',
    monitor: {},
    partitionSeconds: null,
    // Source: pg_auto_failover's manual, configuration.
    words:
      'health_check_period 5 s, health_check_timeout 5 s, health_check_max_retries 2, health_check_retry_delay 2 s, node_considered_unhealthy_timeout 20 s, network_partition_timeout 20 s, primary_demote_timeout 30 s',
  },
  {
    name: 'fastest',
    monitor: {
      health_check_period: '1s',
      health_check_timeout: '1s',
      health_check_max_retries: '1',
      health_check_retry_delay: '500ms',
      node_considered_unhealthy_timeout: '2s',
      // Longer than a primary that is cut off needs to stop by itself: that is its partition timeout and a round of its loop.
      primary_demote_timeout: '4s',
    },
    partitionSeconds: 2,
    words: '',
  },
];

export const PG_AUTO_FAILOVER: readonly System[] = VARIANTS.map((variant) => ({
  id: `pg_auto_failover-${variant.name}`,
  product: 'pg_auto_failover',
  variant: variant.name,
  durability: 'quorum, any 1 of 2 standbys',
  syncStandbys: NODES.length - 1,
  settings:
    variant.partitionSeconds === null
      ? `${variant.words}; monitor on a host of its own`
      : `${Object.entries(variant.monitor)
          .map(([key, value]) => `${key} ${value}`)
          .join(', ')}, network_partition_timeout ${variant.partitionSeconds} s; monitor on a host of its own`,
  rejoin: 'itself',
  remark:
    'number_sync_standbys 1 is its own default with three nodes; its connections between nodes are without passwords (--auth trust) and without TLS',
  version: () => {
    if (!existsSync(PROGRAM)) throw new Error('pg_autoctl is not installed');
    return execFileSync(PROGRAM, ['--version'], { encoding: 'utf8' }).split('\n')[0] ?? '';
  },
  start: (place) => start(place, variant),
}));

async function start(place: Place, variant: Variant): Promise<Cluster> {
  const hosts = openHosts(place);
  const extension = `/usr/share/postgresql/${postgresMajor()}/extension/pgautofailover.control`;
  if (!existsSync(extension)) throw new Error(`${extension} is missing: apt-get install postgresql-${postgresMajor()}-auto-failover`);
  const monitor = await startMonitor(place, hosts, variant);
  for (const node of place.nodes) makeOwned(socketDirectory(node));
  const [first, ...others] = place.nodes;
  if (first === undefined) throw new Error('pg_auto_failover needs at least one node');
  await addNode(first, { hosts, monitor, variant });
  // Before the copies are made, so that they have it, too.
  appendFileSync(join(dataDirectory(first), 'pg_hba.conf'), `host app app ${NETWORK} scram-sha-256\n`);
  await hosts.sql(first.node, 'select pg_reload_conf()');
  for (const node of others) await addNode(node, { hosts, monitor, variant });
  return {
    ...hosts,
    boot: (name) => void startKeeper(hosts.find(name), hosts),
    switchover: async (to) => {
      const node = hosts.find(to);
      const done = await hosts.run(hostOf(node), [PROGRAM, 'perform', 'promotion', '--pgdata', dataDirectory(node), '--name', to], SWITCHOVER_MS);
      return { why: done.code === 0 ? null : wordsOf(done), durationMs: done.durationMs };
    },
  };
}

/** Its connection string, once it answers. */
async function startMonitor(place: Place, hosts: PeerHosts, variant: Variant): Promise<string> {
  const address = place.network.address(SERVER);
  const host: Host = { inside: place.network.inside(SERVER), directory: join(place.directory, 'monitor') };
  makeOwned(host.directory);
  const data = dataDirectory(host);
  const argv = [PROGRAM, 'create', 'monitor', '--pgdata', data, '--pgport', String(MONITOR_PORT), '--hostname', address];
  await hosts.mustRun(host, [...argv, '--pgctl', join(binDirectory(), 'pg_ctl'), '--auth', 'trust', '--no-ssl'], STEP_MS);
  const settings = Object.entries(variant.monitor).map(([key, value]) => `pgautofailover.${key} = '${value}'\n`);
  // Its socket is in the distribution's folder, as pg_autoctl looks for it there; only PostgreSQL's user and root may use it.
  appendFileSync(join(data, 'postgresql.conf'), `\nunix_socket_permissions = 0700\n${settings.join('')}`);
  hosts.startDaemon(host, 'monitor', [PROGRAM, 'run', '--pgdata', data]);
  const question = { directory: MONITOR_SOCKETS, port: MONITOR_PORT, user: 'postgres', database: 'pg_auto_failover' };
  const answers = await waitUntil(
    () =>
      ask({ ...question, text: 'select * from pgautofailover.formation' }).then(
        (rows) => rows.length > 0,
        () => false,
      ),
    UP_MS,
    200,
  );
  if (!answers) throw new Error(`the monitor did not answer within ${UP_MS} ms; the end of its log: ${hosts.tail('monitor')}`);
  return `postgres://autoctl_node@${address}:${MONITOR_PORT}/pg_auto_failover?sslmode=disable`;
}

async function addNode(
  node: NodePlace,
  { hosts, monitor, variant }: { readonly hosts: PeerHosts; readonly monitor: string; readonly variant: Variant },
): Promise<void> {
  const data = dataDirectory(node);
  const argv = [
    PROGRAM,
    'create',
    'postgres',
    '--pgdata',
    data,
    '--pghost',
    socketDirectory(node),
    '--pgport',
    String(node.port),
    '--hostname',
    node.address,
    '--name',
    node.node,
  ];
  const more = [
    '--username',
    'postgres',
    '--dbname',
    'postgres',
    '--monitor',
    monitor,
    '--auth',
    'trust',
    '--no-ssl',
    '--pgctl',
    join(binDirectory(), 'pg_ctl'),
  ];
  await hosts.mustRun(hostOf(node), [...argv, ...more], STEP_MS);
  if (variant.partitionSeconds !== null)
    await hosts.mustRun(
      hostOf(node),
      [PROGRAM, 'config', 'set', '--pgdata', data, 'timeout.network_partition_timeout', String(variant.partitionSeconds)],
      STEP_MS,
    );
  startKeeper(node, hosts);
  const up = await waitUntil(async () => hosts.postmaster(node.node) !== null && (await writableNodes(hosts)).length > 0, UP_MS, 200);
  if (!up) throw new Error(`${node.node} did not come up within ${UP_MS} ms; the end of its log: ${hosts.tail(node.node)}`);
}

/** Its PostgreSQL makes its socket where the node's name for it, `--pghost`, says. Source: pg_auto_failover, src/bin/pg_autoctl/pgctl.c. */
function hostOf(node: NodePlace): Host {
  return { ...node, env: { PG_REGRESS_SOCK_DIR: socketDirectory(node) } };
}

function startKeeper(node: NodePlace, hosts: PeerHosts): void {
  hosts.startDaemon(hostOf(node), node.node, [PROGRAM, 'run', '--pgdata', dataDirectory(node)]);
}
