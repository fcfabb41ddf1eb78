/** Patroni from Debian's package, with three etcd members on the nodes' hosts, TLS and a login, as the lab runs them for pgherd. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { type LabEtcd, startEtcd } from '../../lab/etcd.ts';
import { waitUntil } from '../../src/demo/children.ts';
import { accessLines, dataDirectory, newSecret, openHosts, socketDirectory, wordsOf, writeOwned } from './peer.ts';
import { binDirectory, makeOwned, writableNodes } from './servers.ts';
import type { Cluster, NodePlace, Place, System } from './types.ts';

const PROGRAM = '/usr/bin/patroni';
const CONTROL = '/usr/bin/patronictl';
const SCOPE = 'bench';
const REST_PORT = 8008;
/** initdb takes seconds; the first look at etcd may be a loop_wait late. */
const FIRST_PRIMARY_MS = 60_000;
const SWITCHOVER_MS = 60_000;

interface Timing {
  readonly ttl: number;
  readonly loop_wait: number;
  readonly retry_timeout: number;
  /** Seconds that a crashed primary may take to start again before another takes over; 0: another takes over at once. */
  readonly primary_start_timeout: number;
}

/** Source: Patroni's manual, dynamic configuration: the defaults, and the lowest values that it names as possible. */
const DEFAULTS: Timing = { ttl: 30, loop_wait: 10, retry_timeout: 10, primary_start_timeout: 300 };
const FASTEST: Timing = { ttl: 20, loop_wait: 1, retry_timeout: 3, primary_start_timeout: 0 };

interface Variant {
  readonly name: string;
  readonly timing: Timing;
  readonly synchronous: boolean;
}

const VARIANTS: readonly Variant[] = [
  { name: 'default', timing: DEFAULTS, synchronous: false },
  { name: 'fastest', timing: FASTEST, synchronous: false },
  { name: 'fastest-sync', timing: FASTEST, synchronous: true },
];

export const PATRONI: readonly System[] = VARIANTS.map((variant) => ({
  id: `patroni-${variant.name}`,
  product: 'patroni',
  variant: variant.name,
  durability: variant.synchronous ? 'synchronous, 1 standby' : 'asynchronous',
  syncStandbys: variant.synchronous ? 1 : 0,
  settings: [
    ...Object.entries(variant.timing).map(([key, value]) => `${key} ${value}`),
    ...(variant.synchronous ? ['synchronous_mode on'] : []),
    'use_pg_rewind, use_slots',
    "etcd: 3 members on the nodes' hosts, its leader not on the primary's",
  ].join(', '),
  rejoin: 'itself',
  remark: null,
  version: () => {
    if (!existsSync(PROGRAM)) throw new Error('patroni is not installed');
    const patroni = execFileSync(PROGRAM, ['--version'], { encoding: 'utf8' }).trim();
    return `${patroni}, etcd ${/Version: (\S+)/.exec(execFileSync('/usr/bin/etcd', ['--version'], { encoding: 'utf8' }))?.[1] ?? 'of unknown version'}`;
  },
  start: (place) => start(place, variant),
}));

async function start(place: Place, variant: Variant): Promise<Cluster> {
  const hosts = openHosts(place);
  const etcd = await startEtcd(
    join(place.directory, 'etcd'),
    place.nodes.map(({ node, address, inside }) => ({ name: node, address, inside })),
  );
  const secrets = { superuser: newSecret(), replication: newSecret() };
  for (const node of place.nodes) writeNode(node, { etcd, variant, secrets });
  const startAgent = (node: NodePlace): void => void hosts.startDaemon(node, node.node, [PROGRAM, configOf(node)]);
  const cluster: Cluster = {
    ...hosts,
    boot: (name) => {
      etcd.start(name);
      startAgent(hosts.find(name));
    },
    switchover: async (to) => {
      const node = hosts.find(to);
      const done = await hosts.run(node, [CONTROL, '-c', configOf(node), 'switchover', SCOPE, '--candidate', to, '--force'], SWITCHOVER_MS);
      return { why: done.code === 0 ? null : wordsOf(done), durationMs: done.durationMs };
    },
  };
  const [first, ...others] = place.nodes;
  if (first === undefined) throw new Error('Patroni needs at least one node');
  // The first primary is the same node in every run, and etcd is led from another host.
  startAgent(first);
  if (!(await waitUntil(async () => (await writableNodes(cluster)).length > 0, FIRST_PRIMARY_MS, 200)))
    throw new Error(`Patroni on ${first.node} made no primary within ${FIRST_PRIMARY_MS} ms; the end of its log: ${hosts.tail(first.node)}`);
  for (const node of others) startAgent(node);
  await etcd.moveLeader(others[0]?.node ?? first.node);
  return cluster;
}

function configOf(node: NodePlace): string {
  return join(node.directory, 'patroni.yml');
}

function writeNode(
  node: NodePlace,
  options: { readonly etcd: LabEtcd; readonly variant: Variant; readonly secrets: { readonly superuser: string; readonly replication: string } },
): void {
  const { etcd, variant, secrets } = options;
  makeOwned(socketDirectory(node));
  const ca = join(node.directory, 'etcd-ca.crt');
  writeOwned(ca, readFileSync(etcd.store.ca, 'utf8'));
  const config = {
    scope: SCOPE,
    // The only part of etcd that the lab's login may touch.
    namespace: '/pgherd/',
    name: node.node,
    restapi: { listen: `${node.address}:${REST_PORT}`, connect_address: `${node.address}:${REST_PORT}` },
    etcd3: {
      hosts: etcd.endpoints.map((endpoint) => new URL(endpoint).host),
      protocol: 'https',
      cacert: ca,
      username: etcd.store.username,
      password: readFileSync(etcd.store.passwordFile, 'utf8').trim(),
    },
    bootstrap: {
      dcs: {
        ...variant.timing,
        ...(variant.synchronous ? { synchronous_mode: true } : {}),
        postgresql: { use_pg_rewind: true, use_slots: true },
      },
      initdb: [{ encoding: 'UTF8' }, 'data-checksums'],
    },
    postgresql: {
      listen: `${node.address}:${node.port}`,
      connect_address: `${node.address}:${node.port}`,
      data_dir: dataDirectory(node),
      bin_dir: binDirectory(),
      pgpass: join(node.directory, 'pgpass'),
      authentication: {
        superuser: { username: 'postgres', password: secrets.superuser },
        replication: { username: 'replicator', password: secrets.replication },
      },
      parameters: { unix_socket_directories: socketDirectory(node) },
      pg_hba: accessLines({ superuser: 'postgres', replicator: 'replicator' }),
    },
  };
  writeOwned(configOf(node), stringify(config));
}
