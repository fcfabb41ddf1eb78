/** What the controller knows of one cluster: listed once, then watched. Values are decoded when they arrive. */
import { type Decoder, decodeShared, formatDecodeError, integer, object } from '../core/decode.ts';
import { initialState } from '../core/cluster/goals.ts';
import { type MonoMs, type NodeId, type Now, type Revision, makeRevision, parseNodeId } from '../core/ids.ts';
import { type Member, type NodeReport, member, nodeReport } from '../core/report.ts';
import { type ClusterSpec, clusterSpec } from '../core/spec.ts';
import { type ClusterState, type Task, type WriteLease, clusterState, task, writeLease } from '../core/state.ts';
import type { ClusterView, SeenReport } from '../core/view.ts';
import type { ClusterKeys } from '../store/keys.ts';
import type { KeyValue } from '../store/store.ts';

interface Held<T> {
  readonly value: T;
  readonly revision: Revision;
}

interface SeenAt {
  readonly report: NodeReport;
  readonly at: MonoMs;
  readonly alive: boolean;
}

export interface Unreadable {
  readonly key: string;
  readonly revision: Revision;
  readonly message: string;
}

export interface ClusterCache {
  /** Everything again, after a first or a lost watch: what is not listed is gone. */
  replace(kvs: readonly KeyValue[], revision: Revision, now: Now): void;
  put(kv: KeyValue, now: Now): void;
  remove(key: string, revision: Revision, now: Now): void;
  /** The watch is over: from now on nothing is known to be fresh. */
  lost(): void;
  /** The newest revision seen. */
  revision(): Revision;
  /** Revisions to compare a write with; 0 for a key that does not exist. */
  revisionOf(key: string): Revision;
  /** Values that could not be read, each once; emptied by the call. */
  takeUnreadable(): readonly Unreadable[];
  /** Null while there is no spec, while spec or state cannot be read, or before the first listing. */
  view(now: Now, incarnation: string): ClusterView | null;
}

const ack = object({ epoch: integer });
const NONE = makeRevision(0);

export function createClusterCache(keys: ClusterKeys): ClusterCache {
  let spec: Held<ClusterSpec | null> | null = null;
  let state: Held<ClusterState | null> | null = null;
  let lease: Held<WriteLease | null> | null = null;
  let leaseGoneAt: MonoMs | null = null;
  let watchedSince: MonoMs | null = null;
  let newest = NONE;
  const reports = new Map<NodeId, SeenAt>();
  const members = new Map<NodeId, Member>();
  const tasks = new Map<string, Held<Task>>();
  const acks = new Map<string, number>();
  let unreadable: Unreadable[] = [];

  function read<T>(decoder: Decoder<T>, kv: KeyValue): T | null {
    const decoded = decodeShared(decoder, kv.value);
    if (decoded.ok) return decoded.value;
    if (unreadable.length < 20) unreadable.push({ key: kv.key, revision: kv.modRevision, message: formatDecodeError(decoded.error) });
    return null;
  }

  function put(kv: KeyValue, now: Now): void {
    if (kv.modRevision > newest) newest = kv.modRevision;
    if (kv.key === keys.spec) {
      // As for the state: our own write may come before the watch delivers an older one.
      if (spec === null || kv.modRevision > spec.revision) spec = { value: read(clusterSpec, kv), revision: kv.modRevision };
    } else if (kv.key === keys.state) {
      // Our own write is put in before the watch delivers it: an older one must not undo it.
      if (state === null || kv.modRevision > state.revision) state = { value: read(clusterState, kv), revision: kv.modRevision };
    } else if (kv.key === keys.writeLease) {
      lease = { value: read(writeLease, kv), revision: kv.modRevision };
      leaseGoneAt = null;
    } else if (kv.key.startsWith(keys.tasks)) putTask(kv);
    else if (kv.key.startsWith(keys.nodes)) putReport(kv, now);
    else if (kv.key.startsWith(keys.proxies) && kv.key.endsWith('/ack')) {
      const found = read(ack, kv);
      if (found !== null) acks.set(proxyOf(kv.key), found.epoch);
    }
  }

  function putTask(kv: KeyValue): void {
    const id = kv.key.slice(keys.tasks.length);
    const known = tasks.get(id);
    if (known !== undefined && known.revision >= kv.modRevision) return;
    const found = read(task, kv);
    if (found !== null) tasks.set(id, { value: found, revision: kv.modRevision });
    else tasks.delete(id);
  }

  function putReport(kv: KeyValue, now: Now): void {
    const [name = '', what = ''] = kv.key.slice(keys.nodes.length).split('/', 2);
    const node = parseNodeId(name);
    if (node === null) return;
    if (what === 'member') {
      const registered = read(member, kv);
      if (registered !== null) members.set(node, registered);
      return;
    }
    if (what !== 'report') return;
    const found = read(nodeReport, kv);
    if (found !== null) reports.set(node, { report: found, at: now.mono, alive: true });
    else bury(node);
  }

  /** The last report is kept: where a dead primary's WAL ended is what a failover is measured by. */
  function bury(node: NodeId): void {
    const known = reports.get(node);
    if (known !== undefined) reports.set(node, { ...known, alive: false });
  }

  function proxyOf(key: string): string {
    return key.slice(keys.proxies.length).split('/')[0] ?? '';
  }

  function remove(key: string, revision: Revision, now: Now): void {
    if (revision > newest) newest = revision;
    if (key === keys.spec) spec = null;
    else if (key === keys.state) state = null;
    else if (key === keys.writeLease) {
      if (lease !== null) leaseGoneAt = now.mono;
      lease = null;
    } else if (key.startsWith(keys.tasks)) tasks.delete(key.slice(keys.tasks.length));
    else if (key.startsWith(keys.proxies)) acks.delete(proxyOf(key));
    else if (key.startsWith(keys.nodes)) {
      const [name = '', what = ''] = key.slice(keys.nodes.length).split('/', 2);
      const node = parseNodeId(name);
      if (node !== null && what === 'report') bury(node);
      if (node !== null && what === 'member') members.delete(node);
    }
  }

  function replace(kvs: readonly KeyValue[], revision: Revision, now: Now): void {
    newest = revision;
    watchedSince = now.mono;
    const present = new Set(kvs.map((kv) => kv.key));
    if (!present.has(keys.spec)) spec = null;
    if (!present.has(keys.state)) state = null;
    if (!present.has(keys.writeLease)) {
      lease = null;
      // It may have come and gone meanwhile.
      leaseGoneAt = now.mono;
    }
    for (const node of reports.keys()) if (!present.has(keys.report(node))) bury(node);
    for (const node of members.keys()) if (!present.has(keys.member(node))) members.delete(node);
    for (const id of tasks.keys()) if (!present.has(keys.task(id))) tasks.delete(id);
    acks.clear();
    for (const kv of kvs) put(kv, now);
  }

  function view(now: Now, incarnation: string): ClusterView | null {
    if (watchedSince === null || spec === null || spec.value === null || (state !== null && state.value === null)) return null;
    // A lease whose value cannot be read is a held lease: nothing is promoted over it.
    const leaseValue =
      lease === null ? null : (lease.value ?? { term: (state?.value ?? initialState(incarnation, now)).term, holder: spec.value.nodes[0]?.id });
    const seen: Record<string, SeenReport> = {};
    for (const [node, one] of reports) seen[node] = { report: one.report, ageMs: Math.max(0, now.mono - one.at), alive: one.alive };
    return {
      spec: spec.value,
      state: state?.value ?? initialState(incarnation, now),
      stateRevision: state?.revision ?? NONE,
      reports: seen as ClusterView['reports'],
      members: Object.fromEntries(members) as ClusterView['members'],
      writeLease: leaseValue === null || leaseValue.holder === undefined ? null : { term: leaseValue.term, holder: leaseValue.holder },
      writeLeaseGoneMs: lease === null && leaseGoneAt !== null ? Math.max(0, now.mono - leaseGoneAt) : 0,
      fenceResult: null,
      tasks: [...tasks.values()]
        .map((held) => held.value)
        .filter((one) => one.status === 'pending' || one.status === 'running')
        .sort((a, b) => a.createdWallMs - b.createdWallMs || (a.id < b.id ? -1 : 1)),
      proxyAcks: Object.fromEntries(acks),
      watchedMs: Math.max(0, now.mono - watchedSince),
      incarnation,
    };
  }

  return {
    replace,
    put,
    remove,
    lost: () => {
      watchedSince = null;
    },
    revision: () => newest,
    revisionOf: (key) => {
      if (key === keys.spec) return spec?.revision ?? NONE;
      if (key === keys.state) return state?.revision ?? NONE;
      if (key === keys.writeLease) return lease?.revision ?? NONE;
      return tasks.get(key.slice(keys.tasks.length))?.revision ?? NONE;
    },
    takeUnreadable: () => {
      const taken = unreadable;
      unreadable = [];
      return taken;
    },
    view,
  };
}
