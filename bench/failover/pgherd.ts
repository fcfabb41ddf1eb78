/** pgherd itself, as the lab runs it: default settings, agents on the nodes' hosts, server and embedded store on a host of their own, or etcd. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LabEtcd, startEtcd } from '../../lab/etcd.ts';
import { PROGRAM, ROOT } from '../../lab/stage.ts';
import { describeFailure } from '../../src/core/result.ts';
import { waitUntil } from '../../src/demo/children.ts';
import { type Herd, openHerd } from '../../src/demo/herd.ts';
import { startHerd } from '../../src/demo/processes.ts';
import { wordsOf } from './peer.ts';
import { type Cluster, NETWORK, NODES, type Place, SERVER, type System } from './types.ts';

const SWITCHOVER_MS = 60_000;
/** Until both standbys of a fresh cluster count, by what pgherd promises. */
const PROTECTION_MS = 30_000;

interface Variant {
  readonly name: string;
  readonly durability: Readonly<Record<string, unknown>>;
  readonly store: 'embedded' | 'etcd';
}

const QUORUM = { mode: 'quorum', k: 1 };
const VARIANTS: readonly Variant[] = [
  { name: 'async', durability: { mode: 'async' }, store: 'embedded' },
  { name: 'quorum', durability: QUORUM, store: 'embedded' },
  { name: 'async-etcd', durability: { mode: 'async' }, store: 'etcd' },
  { name: 'quorum-etcd', durability: QUORUM, store: 'etcd' },
];

export const PGHERD: readonly System[] = VARIANTS.map((variant) => ({
  id: `pgherd-${variant.name}`,
  product: 'pgherd',
  variant: variant.name,
  durability: variant.durability === QUORUM ? 'quorum, any 1 of 2 standbys' : 'asynchronous',
  syncStandbys: variant.durability === QUORUM ? NODES.length - 1 : 0,
  settings:
    variant.store === 'embedded'
      ? 'defaults; embedded store with the server on a host of its own'
      : "defaults; server on a host of its own, etcd: 3 members on the nodes' hosts, its leader not on the primary's",
  rejoin: 'itself',
  remark: null,
  version: () => (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version,
  start: (place) => start(place, variant),
}));

async function start(place: Place, variant: Variant): Promise<Cluster> {
  const { directory, network } = place;
  const etcd =
    variant.store === 'embedded'
      ? null
      : await startEtcd(
          join(directory, 'etcd'),
          place.nodes.map(({ node, address, inside }) => ({ name: node, address, inside })),
        );
  const herd = openHerd({
    directory,
    program: [process.execPath, PROGRAM],
    cluster: 'bench',
    server: { address: network.address(SERVER), apiPort: 8433, storePort: 2379, inside: network.inside(SERVER) },
    ...(etcd === null ? {} : { store: etcd.store }),
    nodes: place.nodes.map(({ node, address, port, inside }) => ({ node, address, port, agentPort: 8432, inside })),
    firewall: 'auto',
    clientNetwork: NETWORK,
    spec: { durability: variant.durability },
  });
  const failure = await startHerd(herd, { say: place.say, signal: place.signal });
  if (failure !== null) throw new Error(describeFailure(failure));
  if (variant.durability === QUORUM) await waitPromised(herd);
  if (etcd !== null) await leadElsewhere(herd, etcd);
  return {
    login: herd.login,
    targets: herd.targets,
    logs: herd.places.logs,
    sql: (node, text, database) => herd.sql(node, text, database),
    postmaster: (node) => herd.postmaster(node),
    boot: (node) => {
      etcd?.start(node);
      herd.startAgent(node);
    },
    switchover: async (to) => {
      const done = await herd.verb(['switchover', '--to', to, '--yes'], SWITCHOVER_MS);
      return { why: done.code === 0 ? null : wordsOf(done), durationMs: done.durationMs };
    },
  };
}

/** PostgreSQL may already wait for both while the promise is not yet written. */
async function waitPromised(herd: Herd): Promise<void> {
  let last = '';
  const promised = await waitUntil(
    async () => {
      last = (await herd.verb(['show', '--json'], 5000)).stdout;
      return votersOf(last) === NODES.length - 1;
    },
    PROTECTION_MS,
    200,
  );
  if (!promised) throw new Error(`within ${PROTECTION_MS} ms pgherd did not count on both standbys: ${last.slice(-1000)}`);
}

/** How many standbys may confirm a commit, by `show --json`; 0 when none or when the text was cut off. */
function votersOf(shown: string): number {
  try {
    const { sync } = JSON.parse(shown) as { sync?: { k?: unknown; voters?: unknown } };
    return sync?.k === 1 && Array.isArray(sync.voters) ? sync.voters.length : 0;
  } catch {
    // Cut off by its limit: as good as no answer.
    return 0;
  }
}

async function leadElsewhere(herd: Herd, etcd: LabEtcd): Promise<void> {
  const primary = (await herd.show())?.primary;
  await etcd.moveLeader(NODES.find((node) => node !== primary) ?? '');
}
