/**
 * The spec: what people want of a cluster. Stored under `spec`, edited by `init`, `settings`, `meta edit`.
 * The controller never changes it except to answer a command of a person.
 */
import { type Decoded, type Decoder, bool, list, nullable, number, object, oneOf, record, refine, text, withDefault } from './decode.ts';
import { type ClusterId, type NodeId, parseClusterId, parseNodeId } from './ids.ts';
import { refuseHbaLine } from './hba.ts';
import { checkVips } from './vips.ts';

export const nodeId: Decoder<NodeId> = refine(text, parseNodeId, 'a name of a–z, 0–9, "-" and "_" (at most 63 characters)');
export const clusterId: Decoder<ClusterId> = refine(text, parseClusterId, 'a name of a–z, 0–9, "-" and "_" (at most 63 characters)');

/**
 * Every default with its reason. `pgherd config defaults` prints this table.
 * A limit errs to one of two sides; the comment says which side is worse.
 */
export const DEFAULTS = {
  /** 3 s: shorter loses the lease on a slow disk of the store; longer adds to every unplanned outage. etcd's practical minimum is 2 s. */
  leaseTtlMs: 3000,
  /** Six renewals fit into one TTL, so that two lost ones do not fence a healthy primary. */
  leaseRenewMs: 500,
  /** Must cover the worst time to complete a fence (block, kill, verify). Too small risks two writable nodes, which is worse than fencing early. */
  leaseMarginMs: 500,
  /** How often an agent reports when nothing changes; a change is reported at once. */
  reportIntervalMs: 500,
  probeIntervalMs: 500,
  /** One probe; longer than any healthy local statement, short enough that two failures are seen within 2 s. */
  probeTimeoutMs: 700,
  /** Consecutive failures before one viewpoint calls a node down. */
  probeAttempts: 2,
  /** Viewpoints that must agree. One alone is never enough while others still see the node work. */
  probeViewpoints: 2,
  /**
   * 5 s: a checkpoint on a slow disk holds commits for two or three seconds. Failing over for that would cost more than it saves; waiting longer is that much
   * more outage when the disk never answers.
   */
  writeStallMs: 5000,
  /** An election of the controller; its loss costs this long at most. */
  controllerTtlMs: 2000,
  failover: 'automatic',
  recovery: 'automatic',
  onCrash: 'failover',
  /** A site that is lost should not wait for a person; who pays for traffic between sites sets `manual`. */
  crossLocation: 'automatic',
  /** 1 MiB: bytes that may be lost by an automatic failover in asynchronous mode. */
  maxLagOnFailoverBytes: 1_048_576,
  /** 60 s between automatic failovers; a cascade of promotions is worse than a minute without a primary. Manual ones are exempt. */
  antiFlappingMs: 60_000,
  /** Re-checks of a returned node, then the delay, before it is taken back. */
  recoveryChecks: 3,
  recoveryDelayMs: 5000,
  /** Each rung of the stop ladder: fast for this long, then immediate, then kill. */
  stopFastMs: 10_000,
  statusLineMs: 300_000,
  /** Copies of set-aside data directories that are kept a node. */
  keepSavedDirectories: 2,
  switchoverTimeoutMs: 30_000,
  /** A command that turns hosts off must be wanted; a wrong one turns off the wrong host. */
  fencing: 'off',
  /** With three data nodes or more; with fewer `async`. See `durabilityOf`. */
  durability: 'quorum, k 1, adaptive (async with fewer than 3 data nodes)',
} as const;

export const durability = object(
  {
    mode: withDefault(oneOf('async', 'sync', 'quorum'), 'async'),
    k: withDefault(number({ integer: true, min: 1, max: 8 }), 1),
    strict: withDefault(bool, false),
    minSync: withDefault(number({ integer: true, min: 0, max: 8 }), 0),
  },
  'strict',
);
export type Durability = Decoded<typeof durability>;

const ms = (value: number, bounds: { min: number; max: number }): Decoder<number> => withDefault(number({ integer: true, ...bounds }), value);
const port = number({ integer: true, min: 1, max: 65535 });

export const nodeSpec = object(
  {
    id: nodeId,
    /** Where clients reach this node. */
    host: text,
    /** Replication, probes and agents; null means `host`. */
    internalHost: withDefault(nullable(text), null),
    port: withDefault(port, 5432),
    /** Higher is preferred; 0 means never promoted (not even by hand without --accept-loss). */
    priority: withDefault(number({ integer: true, min: 0, max: 1000 }), 100),
    location: withDefault(nullable(text), null),
    /** A witness holds no data: it votes, it probes, it is never a candidate. */
    kind: withDefault(oneOf('data', 'witness'), 'data'),
    /** Set by `node maintenance`: watched, never promoted, never restarted. */
    maintenance: withDefault(bool, false),
    /** The standby that it streams from (cascading), as long as that one is in order; null: the primary. Changed by `node follow`. */
    upstream: withDefault(nullable(nodeId), null),
    /** Replays this much later than the primary committed; 0: at once. Such a node is never promoted, serves no reads, and no commit waits for it. */
    delayMs: withDefault(number({ integer: true, min: 0, max: 2_147_483_647 }), 0),
    /** For people and their scripts; no rule reads them. */
    tags: withDefault(record(text), {}),
    /**
     * `joining`: `node add` copies the data; it is known to everybody, and counts nowhere. `leaving`: `node remove` takes it out of every count first.
     * Only those two commands change it.
     */
    membership: withDefault(oneOf('full', 'joining', 'leaving'), 'full'),
  },
  'strict',
);
export type NodeSpec = Decoded<typeof nodeSpec>;

/** `interface` null: on each node the one whose network holds the address. Checked by `checkVips`. */
const vip = object({ address: text, interface: withDefault(nullable(text), null) }, 'strict');
export type VipSpec = Decoded<typeof vip>;

export const clusterSpec = object(
  {
    version: withDefault(number({ integer: true, min: 1, max: 1 }), 1),
    name: clusterId,
    failover: withDefault(oneOf('automatic', 'manual'), DEFAULTS.failover),
    recovery: withDefault(oneOf('automatic', 'standby', 'manual'), DEFAULTS.recovery),
    /** After a crash of PostgreSQL on a live host: fail over if a lossless candidate streams, or always restart in place. */
    onCrash: withDefault(oneOf('failover', 'restart'), DEFAULTS.onCrash),
    /** `manual`: a node of another location than the primary's is promoted only by a person who names it. Without locations it changes nothing. */
    crossLocation: withDefault(oneOf('automatic', 'manual'), DEFAULTS.crossLocation),
    maxLagOnFailoverBytes: withDefault(number({ integer: true, min: 0 }), DEFAULTS.maxLagOnFailoverBytes),
    antiFlappingMs: ms(DEFAULTS.antiFlappingMs, { min: 0, max: 86_400_000 }),
    recoveryChecks: withDefault(number({ integer: true, min: 1, max: 100 }), DEFAULTS.recoveryChecks),
    recoveryDelayMs: ms(DEFAULTS.recoveryDelayMs, { min: 0, max: 3_600_000 }),
    /** Null: `durabilityOf` chooses by the number of nodes. */
    durability: withDefault(nullable(durability), null),
    leaseTtlMs: ms(DEFAULTS.leaseTtlMs, { min: 2000, max: 60_000 }),
    leaseRenewMs: ms(DEFAULTS.leaseRenewMs, { min: 100, max: 20_000 }),
    leaseMarginMs: ms(DEFAULTS.leaseMarginMs, { min: 200, max: 20_000 }),
    reportIntervalMs: ms(DEFAULTS.reportIntervalMs, { min: 100, max: 10_000 }),
    probeIntervalMs: ms(DEFAULTS.probeIntervalMs, { min: 100, max: 60_000 }),
    probeTimeoutMs: ms(DEFAULTS.probeTimeoutMs, { min: 100, max: 60_000 }),
    probeAttempts: withDefault(number({ integer: true, min: 1, max: 20 }), DEFAULTS.probeAttempts),
    probeViewpoints: withDefault(number({ integer: true, min: 1, max: 9 }), DEFAULTS.probeViewpoints),
    /** The primary answers, and its disk refuses writes or holds them: after so long it is replaced. */
    writeStallMs: ms(DEFAULTS.writeStallMs, { min: 1000, max: 600_000 }),
    stopFastMs: ms(DEFAULTS.stopFastMs, { min: 500, max: 600_000 }),
    switchoverTimeoutMs: ms(DEFAULTS.switchoverTimeoutMs, { min: 2000, max: 600_000 }),
    keepSavedDirectories: withDefault(number({ integer: true, min: 0, max: 20 }), DEFAULTS.keepSavedDirectories),
    trustedAddresses: withDefault(list(text), []),
    /** `automatic`: a lost primary's host is turned off by the command of server.yaml, which is faster than its lease; `required`: nothing is promoted without. */
    fencing: withDefault(oneOf('off', 'automatic', 'required'), DEFAULTS.fencing),
    postgres: withDefault(
      object(
        {
          /** Written to pgherd's own included file; people's own lines are never touched. */
          parameters: withDefault(record(text), {}),
          /** Complete pg_hba lines for clients, inside the managed block. */
          hba: withDefault(list(text), []),
          checksums: withDefault(bool, true),
        },
        'strict',
      ),
      { parameters: {}, hba: [], checksums: true },
    ),
    /** `write` follows the primary, `read` a healthy standby; see docs/operations/virtual-addresses.md. */
    vips: withDefault(object({ write: withDefault(nullable(vip), null), read: withDefault(nullable(vip), null) }, 'strict'), {
      write: null,
      read: null,
    }),
    nodes: list(nodeSpec),
  },
  'strict',
);
export type ClusterSpec = Decoded<typeof clusterSpec>;

/**
 * What the spec says, or the default: with three data nodes a commit is on the primary and one of two standbys, adaptive, since then one lost host neither
 * loses an acknowledged commit nor stops writes; with two it would have to wait for the only other one, or promise nothing.
 */
export function durabilityOf(spec: Pick<ClusterSpec, 'durability' | 'nodes'>): Durability {
  if (spec.durability !== null) return spec.durability;
  const nodes = spec.nodes.filter((node) => node.kind === 'data' && node.membership === 'full' && node.delayMs === 0).length;
  return { mode: nodes >= 3 ? 'quorum' : 'async', k: 1, strict: false, minSync: 0 };
}

/** `NODE.INCARNATION` must fit into application_name: 63 bytes less the dot and eight digits. Source: PostgreSQL manual 20.8.2 (NAMEDATALEN − 1). */
const LONGEST_VOTER_NODE = 54;

/** What is wrong between the fields of a decoded spec; empty when it is consistent. */
export function checkSpec(spec: ClusterSpec): readonly { readonly path: string; readonly message: string }[] {
  const problems: { path: string; message: string }[] = [];
  const seen = new Set<string>();
  const endpoints = new Set<string>();
  for (const [index, node] of spec.nodes.entries()) {
    if (seen.has(node.id)) problems.push({ path: `nodes[${index}].id`, message: `node "${node.id}" is named twice` });
    seen.add(node.id);
    const endpoint = `${node.host}:${node.port}`;
    if (endpoints.has(endpoint)) problems.push({ path: `nodes[${index}].port`, message: `${endpoint} belongs to two nodes` });
    endpoints.add(endpoint);
  }
  const { mode, k, minSync } = durabilityOf(spec);
  const standbys = spec.nodes.filter((node) => node.kind === 'data' && node.membership === 'full' && node.delayMs === 0).length - 1;
  if (mode !== 'async') {
    if (minSync > k) problems.push({ path: 'durability.minSync', message: `minSync ${minSync} is more than k ${k}` });
    if (k > standbys)
      problems.push({
        path: 'durability.k',
        message: `k ${k} needs ${k} standbys, and the cluster can have ${Math.max(0, standbys)} (delayed ones do not count)`,
      });
    for (const [index, node] of spec.nodes.entries()) {
      if (node.id.length > LONGEST_VOTER_NODE)
        problems.push({
          path: `nodes[${index}].id`,
          message: `with synchronous replication a name has at most ${LONGEST_VOTER_NODE} characters, since PostgreSQL cuts application_name at 63`,
        });
    }
  }
  for (const [index, line] of spec.postgres.hba.entries()) {
    const wrong = refuseHbaLine(line);
    if (wrong !== null) problems.push({ path: `postgres.hba[${index}]`, message: `${wrong}: ${line}` });
  }
  if (!spec.nodes.some((node) => node.kind === 'data')) problems.push({ path: 'nodes', message: 'a cluster needs at least one data node' });
  // Invariant: a primary fences itself before its lease can expire in the store.
  // Because: the own deadline is (send + TTL − margin) and must leave room for at least two renewals.
  // Broken if: renew + margin reaches the TTL; then every late renewal is a fence.
  if (spec.leaseRenewMs * 2 + spec.leaseMarginMs > spec.leaseTtlMs) {
    problems.push({
      path: 'leaseRenewMs',
      message: `two renewals (2 × ${spec.leaseRenewMs} ms) and the margin (${spec.leaseMarginMs} ms) do not fit into the lease TTL (${spec.leaseTtlMs} ms)`,
    });
  }
  return [...problems, ...checkUpstreams(spec), ...checkVips(spec)];
}

/** Upstreams that cannot be, and delays where there is nothing to delay. */
function checkUpstreams(spec: ClusterSpec): readonly { readonly path: string; readonly message: string }[] {
  const problems: { path: string; message: string }[] = [];
  for (const [index, node] of spec.nodes.entries()) {
    const path = `nodes[${index}].upstream`;
    if (node.delayMs > 0 && node.kind === 'witness') problems.push({ path: `nodes[${index}].delayMs`, message: 'a witness replays nothing' });
    if (node.upstream === null) continue;
    const found = findNode(spec, node.upstream);
    if (node.kind === 'witness') problems.push({ path, message: 'a witness streams from nobody' });
    else if (found === null) problems.push({ path, message: `there is no node "${node.upstream}"` });
    else if (found.kind === 'witness') problems.push({ path, message: `${node.upstream} is a witness and holds no data` });
    else if (isInCircle(spec, node)) problems.push({ path, message: `${node.id} would stream from itself, by way of ${node.upstream}` });
  }
  if (spec.nodes.every((node) => node.kind === 'witness' || node.delayMs > 0) && spec.nodes.some((node) => node.delayMs > 0))
    problems.push({ path: 'nodes', message: 'every data node is delayed: none could be the primary' });
  return problems;
}

function isInCircle(spec: ClusterSpec, node: NodeSpec): boolean {
  let at: NodeSpec | null = node;
  for (let hops = 0; hops < spec.nodes.length && at?.upstream != null; hops++) {
    at = findNode(spec, at.upstream);
    if (at?.id === node.id) return true;
  }
  return false;
}

/** False when the policy keeps a promotion from `home`, the primary's location, to this node. Unknown locations are near everywhere. */
export function isNear(spec: Pick<ClusterSpec, 'crossLocation'>, node: Pick<NodeSpec, 'location'>, home: string | null): boolean {
  return spec.crossLocation === 'automatic' || home === null || node.location === null || node.location === home;
}

export function findNode(spec: ClusterSpec, id: NodeId): NodeSpec | null {
  return spec.nodes.find((node) => node.id === id) ?? null;
}

/** False while it is being added or removed: then it is no candidate, no voter, no read target, and is not counted. Unknown nodes are no members. */
export function isMember(spec: ClusterSpec, id: NodeId): boolean {
  return findNode(spec, id)?.membership === 'full';
}

/** The address other members use. */
export function internalHost(node: NodeSpec): string {
  return node.internalHost ?? node.host;
}
