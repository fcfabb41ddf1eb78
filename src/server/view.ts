/** The ClusterView of one cluster from the server's cache. Bad bytes become a problem in words, never a crash. */
import type { Now } from '../core/ids.ts';
import { type ClusterId, type NodeId, makeNodeId, makeRevision, parseClusterId } from '../core/ids.ts';
import { type Decoder, decodeJson, formatDecodeError, integer, object } from '../core/decode.ts';
import { type Member, type NodeReport, member, nodeReport } from '../core/report.ts';
import { type ClusterSpec, clusterSpec } from '../core/spec.ts';
import { type ClusterState, type Task, clusterState, task, writeLease } from '../core/state.ts';
import type { ClusterView, SeenReport } from '../core/view.ts';
import { initialState } from '../core/cluster/goals.ts';
import { ROOT, clusterKeys } from '../store/keys.ts';
import type { Problem } from '../api/errors.ts';
import type { Cached, StoreCache } from './cache.ts';

export interface ServerView {
  readonly view: ClusterView;
  readonly members: Readonly<Record<NodeId, Member>>;
  /** Values in the store that cannot be read. */
  readonly unreadable: readonly Problem[];
}

/** The names of all clusters that have a spec, sorted. */
export function listClusters(cache: StoreCache): readonly ClusterId[] {
  const found: ClusterId[] = [];
  for (const { kv } of cache.list(ROOT)) {
    const [name = '', rest = ''] = kv.key.slice(ROOT.length).split('/', 2);
    const id = rest === 'spec' ? parseClusterId(name) : null;
    if (id !== null) found.push(id);
  }
  return found;
}

/**
 * Null when the cluster has no spec, or one that cannot be read (then `meta` shows the raw value).
 * A state that cannot be read is replaced by the initial one, and named in `unreadable`.
 */
export function buildView(cache: StoreCache, cluster: ClusterId, now: Now): ServerView | null {
  const keys = clusterKeys(cluster);
  const unreadable: Problem[] = [];
  const read = <T>(decoder: Decoder<T>, cached: Cached | null): T | null => {
    if (cached === null) return null;
    const decoded = decodeJson(decoder, cached.kv.value);
    if (decoded.ok) return decoded.value;
    unreadable.push({
      code: 'store.unreadable',
      text: `${cached.kv.key} in the store cannot be read: ${formatDecodeError(decoded.error)}`,
      remedy: 'Compare the versions of server and agents; restore the key from a backup of the store if it was damaged.',
    });
    return null;
  };

  const spec: ClusterSpec | null = read(clusterSpec, cache.get(keys.spec));
  if (spec === null) return null;
  const stateKey = cache.get(keys.state);
  const state: ClusterState = read(clusterState, stateKey) ?? initialState(cache.incarnation(), now);
  const reports: Record<string, SeenReport> = {};
  const members: Record<string, Member> = {};
  for (const cached of cache.list(keys.nodes)) {
    const [node = '', what = ''] = cached.kv.key.slice(keys.nodes.length).split('/', 2);
    if (what === 'member') {
      const found = read(member, cached);
      if (found !== null) members[makeNodeId(node)] = found;
    } else if (what === 'report') {
      const found: NodeReport | null = read(nodeReport, cached);
      if (found !== null) reports[makeNodeId(node)] = { report: found, ageMs: Math.max(0, now.mono - cached.seenAt), alive: true };
    }
  }
  const lease = read(writeLease, cache.get(keys.writeLease));
  const goneAt = cache.goneAt(keys.writeLease);
  const view: ClusterView = {
    spec,
    state,
    stateRevision: stateKey?.kv.modRevision ?? makeRevision(0),
    reports: reports as Readonly<Record<NodeId, SeenReport>>,
    members: members as Readonly<Record<NodeId, Member>>,
    writeLease: lease === null ? null : { term: lease.term, holder: lease.holder },
    writeLeaseGoneMs: lease === null && goneAt !== null ? Math.max(0, now.mono - goneAt) : 0,
    fenceResult: null,
    tasks: readTasks(cache, cluster, read).filter((one) => one.status === 'pending' || one.status === 'running'),
    proxyAcks: readAcks(cache, keys.proxies, read),
    watchedMs: cache.watchedMs(),
    incarnation: cache.incarnation(),
  };
  return { view, members: members as Readonly<Record<NodeId, Member>>, unreadable };
}

/** All tasks of a cluster, oldest first. */
export function listTasks(cache: StoreCache, cluster: ClusterId): readonly Task[] {
  return readTasks(cache, cluster, (decoder, cached) => {
    const decoded = cached === null ? null : decodeJson(decoder, cached.kv.value);
    return decoded?.ok === true ? decoded.value : null;
  });
}

type Read = <T>(decoder: Decoder<T>, cached: Cached | null) => T | null;

function readTasks(cache: StoreCache, cluster: ClusterId, read: Read): readonly Task[] {
  const tasks = cache.list(clusterKeys(cluster).tasks).map((cached) => read(task, cached));
  return tasks.filter((one) => one !== null).sort((a, b) => a.createdWallMs - b.createdWallMs || (a.id < b.id ? -1 : 1));
}

const ack = object({ epoch: integer });

function readAcks(cache: StoreCache, prefix: string, read: Read): Readonly<Record<string, number>> {
  const acks: Record<string, number> = {};
  for (const cached of cache.list(prefix)) {
    const found = read(ack, cached);
    if (found !== null) acks[cached.kv.key.slice(prefix.length).split('/')[0] ?? ''] = found.epoch;
  }
  return acks;
}
