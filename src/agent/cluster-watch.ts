/**
 * What the agent knows of the cluster: spec and state, listed once and watched from there, and the members' addresses, which are read when the spec
 * names one that is not known, and now and then. Reports are left out: with n nodes each agent would read all n, several times a second.
 */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type Decoder, decodeShared, formatDecodeError } from '../core/decode.ts';
import { type MonoMs, type NodeId, type Revision, makeNodeId, makeRevision } from '../core/ids.ts';
import { type Member, member } from '../core/report.ts';
import { type ClusterSpec, clusterSpec } from '../core/spec.ts';
import { type ClusterState, clusterState } from '../core/state.ts';
import type { ClusterKeys } from '../store/keys.ts';
import type { KeyValue, Store, Watcher } from '../store/store.ts';

export interface ClusterKnowledge {
  readonly spec: ClusterSpec | null;
  readonly state: ClusterState | null;
  /** mod_revision of `state`; 0 when it does not exist, and until the store itself gave one: what was remembered may be another store's. */
  readonly stateRevision: Revision;
  /** The store that counts `stateRevision`; null before it answered for the first time. */
  readonly incarnation: string | null;
  /** The newest revision of `state` that this agent, or a former run of it, read in that store; more than `stateRevision` only when it was set back. */
  readonly newestRevision: Revision;
  readonly members: ReadonlyMap<NodeId, Member>;
  /** The store confirmed at this time that nothing newer exists; null: never. */
  readonly freshAt: MonoMs | null;
}

export interface ClusterWatch {
  current(): ClusterKnowledge;
  close(): void;
}

/** Kept on disk, so that an agent that is restarted while the store is lost can go on (§4.7): it needs the electorate and the members. */
export interface RememberedCluster {
  readonly spec: ClusterSpec | null;
  readonly state: ClusterState | null;
  readonly members: readonly Member[];
  /** The newest revision of `state` that was read, and in which store; null: none was. */
  readonly newest: { readonly incarnation: string; readonly revision: Revision } | null;
}

/** Between two tries to list while the store does not answer. */
const RETRY_MS = 200;
/** A member that comes back with another address is found after at most this long; its old address answers nothing meanwhile. */
const MEMBERS_EVERY_MS = 10_000;
/** While a member of the spec is not known. */
const MEMBERS_MISSING_MS = 500;

/** Starts at once; `onChange` after each change of spec, state or members. */
export function watchCluster(options: {
  readonly store: Store;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly log: Logger;
  /** What was known when a former run of this agent ended; null: nothing. */
  readonly remembered: RememberedCluster | null;
  readonly onChange: (what: 'spec' | 'state' | 'members' | 'fresh') => void;
}): ClusterWatch {
  const { store, keys, clock, log, onChange } = options;
  const stopping = new AbortController();
  let spec = options.remembered?.spec ?? null;
  let state = options.remembered?.state ?? null;
  let stateRevision = makeRevision(0);
  let incarnation: string | null = null;
  let newest = options.remembered?.newest ?? null;
  let freshAt: MonoMs | null = null;
  const members = new Map<NodeId, Member>((options.remembered?.members ?? []).map((one) => [one.node, one]));
  let watcher: Watcher | null = null;
  /** Between two looks at the members; a new spec ends it. */
  let sleeping = new AbortController();

  /** Bad bytes are logged and the last good value stays: a crash here would fence a healthy primary. */
  function decode<T>(decoder: Decoder<T>, kv: KeyValue): T | null {
    const decoded = decodeShared(decoder, kv.value);
    if (decoded.ok) return decoded.value;
    log.error({ key: kv.key, revision: kv.modRevision }, `cannot read ${kv.key}: ${formatDecodeError(decoded.error)}; the last good value stays`);
    return null;
  }

  function take(kv: KeyValue): void {
    if (kv.key === keys.spec) {
      spec = decode(clusterSpec, kv) ?? spec;
      sleeping.abort();
      onChange('spec');
    } else if (kv.key === keys.state) {
      // An older revision can come after a newer one only from a re-listing that lost a race; it must not undo it.
      if (kv.modRevision < stateRevision) return;
      const decoded = decode(clusterState, kv);
      if (decoded === null) return;
      state = decoded;
      stateRevision = kv.modRevision;
      if (incarnation !== null && (newest === null || kv.modRevision > newest.revision)) newest = { incarnation, revision: kv.modRevision };
      onChange('state');
    }
  }

  /** Reads the members' addresses; answers when to look again. */
  async function readMembers(): Promise<number> {
    const listed = await store.list(keys.nodes);
    if (!listed.ok) return MEMBERS_MISSING_MS;
    let changed = false;
    const found = new Set<NodeId>();
    for (const kv of listed.value.kvs.filter((one) => one.key.endsWith('/member'))) {
      found.add(makeNodeId(kv.key.slice(keys.nodes.length).split('/')[0] ?? ''));
      const decoded = decode(member, kv);
      if (decoded === null) continue;
      changed ||= JSON.stringify(members.get(decoded.node)) !== JSON.stringify(decoded);
      members.set(decoded.node, decoded);
    }
    for (const id of [...members.keys()].filter((one) => !found.has(one))) {
      members.delete(id);
      changed = true;
    }
    if (changed) onChange('members');
    return (spec?.nodes ?? []).every((node) => found.has(node.id)) ? MEMBERS_EVERY_MS : MEMBERS_MISSING_MS;
  }

  async function followMembers(): Promise<void> {
    while (!stopping.signal.aborted) {
      const wait = await readMembers();
      sleeping = new AbortController();
      await clock.sleep(wait, AbortSignal.any([sleeping.signal, stopping.signal]));
    }
  }

  function drop(key: string): void {
    if (key === keys.state) {
      state = null;
      stateRevision = makeRevision(0);
      onChange('state');
    } else if (key === keys.spec) {
      spec = null;
      onChange('spec');
    }
  }

  /** Null when the store does not answer. */
  async function whichStore(): Promise<string | null> {
    const status = await store.status();
    if (status.ok) return status.value.incarnation;
    log.debug({ error: status.error.kind }, `the store does not say which one it is: ${status.error.message}`);
    return null;
  }

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      const sentAt = clock.now().mono;
      const before = await whichStore();
      if (before === null) {
        await clock.sleep(RETRY_MS, stopping.signal);
        continue;
      }
      const listed = await store.list(keys.orders);
      if (!listed.ok) {
        log.debug({ error: listed.error.kind }, `listing the cluster failed: ${listed.error.message}`);
        await clock.sleep(RETRY_MS, stopping.signal);
        continue;
      }
      // A move of the store between the two answers: the listing may be of either.
      if ((await whichStore()) !== before) continue;
      if (incarnation !== before) stateRevision = makeRevision(0);
      incarnation = before;
      if (newest?.incarnation !== before) newest = null;
      freshAt = sentAt;
      // Invariant: revisions are compared only within one store (§4.10). Because: a restored or re-deployed store counts anew, and its state
      // would be taken for an old one for ever; agents refuse lower terms by themselves. Broken if: an older listing came after a newer one,
      // which the one loop that lists excludes.
      if (listed.value.revision < stateRevision) stateRevision = makeRevision(0);
      const present = new Set(listed.value.kvs.map((kv) => kv.key));
      if (state !== null && !present.has(keys.state)) drop(keys.state);
      if (spec !== null && !present.has(keys.spec)) drop(keys.spec);
      for (const kv of listed.value.kvs) take(kv);
      await watchFrom(listed.value.revision);
    }
  }

  function watchFrom(revision: Revision): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        watcher?.close();
        watcher = null;
        resolve();
      };
      stopping.signal.addEventListener('abort', end, { once: true });
      watcher = store.watch(keys.orders, revision, {
        onBatch: (batch) => {
          for (const event of batch.events) {
            if (event.kind === 'put') take(event.kv);
            else drop(event.key);
          }
        },
        onAlive: (sentAt) => {
          freshAt = sentAt;
          onChange('fresh');
        },
        onEnd: (reason, message) => {
          log.info({ reason }, `the watch ended: ${message}; listing again`);
          stopping.signal.removeEventListener('abort', end);
          end();
        },
      });
      if (stopping.signal.aborted) end();
    });
  }

  Promise.all([run(), followMembers()]).catch((cause: unknown) => {
    log.error({ cause: String(cause) }, 'the watch of the cluster broke');
    throw cause;
  });
  return {
    current: () => ({ spec, state, stateRevision, incarnation, newestRevision: newest?.revision ?? makeRevision(0), members, freshAt }),
    close: () => stopping.abort(),
  };
}
