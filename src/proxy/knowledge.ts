/** What the proxy knows of its cluster: state, members and reports, listed once and watched from there; the primary's agent is asked while the store is silent. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type Decoder, decodeShared, formatDecodeError } from '../core/decode.ts';
import { type MonoMs, type NodeId, type Revision, type Term, addMono, makeNodeId, makeRevision, makeTerm } from '../core/ids.ts';
import { type Member, type NodeReport, member, nodeReport } from '../core/report.ts';
import type { RouteFacts, RouteTarget } from '../core/route/decide.ts';
import { type ClusterState, clusterState } from '../core/state.ts';
import { type TrafficWishes, trafficWishes } from '../core/traffic.ts';
import type { ClusterKeys } from '../store/keys.ts';
import { followPrefix } from '../store/follow.ts';
import type { KeyValue, Store } from '../store/store.ts';
import type { Asker } from './agent-asker.ts';

/** The store confirms about every second; after this silence the primary's agent is asked. */
const SILENCE_MS = 1500;
/** The primary's own right ends within 3 s, so several questions fit. */
const ASK_INTERVAL_MS = 500;

export interface Knowledge {
  /** What the store and the agents say, as of now. */
  facts(): Omit<RouteFacts, 'weights' | 'down'>;
  /** What people want of the traffic; null: nobody has said anything. */
  wishes(): TrafficWishes | null;
  /** Nodes that the published route names for reads, with their addresses. */
  readers(): readonly RouteTarget[];
  close(): void;
}

export interface KnowledgeOptions {
  readonly store: Store;
  readonly keys: ClusterKeys;
  readonly clock: Clock;
  readonly log: Logger;
  /** Null: agents are not asked, and a silent store closes the way to the primary. Closed with the knowledge. */
  readonly asker: Asker | null;
  /** After each change of state, members or reports, and when the primary's agent answered. */
  readonly onChange: () => void;
}

/** Starts at once. */
export function watchKnowledge(options: KnowledgeOptions): Knowledge {
  const { store, keys, clock, log, asker } = options;
  const stopping = new AbortController();
  const members = new Map<NodeId, Member>();
  const reports = new Map<NodeId, NodeReport>();
  let state: ClusterState | null = null;
  let wishes: TrafficWishes | null = null;
  let stateRevision: Revision = makeRevision(0);
  let incarnation: string | null = null;
  /** Terms compare within one database cluster: one that was made anew under the same name counts from the beginning. */
  let newest: { readonly system: string | null; readonly term: Term } = { system: null, term: makeTerm(0) };
  let freshAt: MonoMs | null = null;
  let confirmed: { readonly node: NodeId; readonly term: Term; readonly until: MonoMs } | null = null;

  /** Bad bytes are logged, and the last good value stays. */
  function decode<T>(decoder: Decoder<T>, kv: KeyValue): T | null {
    const decoded = decodeShared(decoder, kv.value);
    if (decoded.ok) return decoded.value;
    log.error({ key: kv.key, revision: kv.modRevision }, `cannot read ${kv.key}: ${formatDecodeError(decoded.error)}; the last good value stays`);
    return null;
  }

  function noteOpened(term: Term): void {
    const system = state?.systemIdentifier ?? newest.system;
    if (system !== newest.system || term > newest.term) newest = { system, term };
  }

  function take(kv: KeyValue): void {
    if (kv.key === keys.state) {
      if (kv.modRevision < stateRevision) return;
      state = decode(clusterState, kv) ?? state;
      if (state !== null) noteOpened(state.primaryTerm);
      stateRevision = kv.modRevision;
    } else if (kv.key === keys.traffic) wishes = decode(trafficWishes, kv) ?? wishes;
    else if (kv.key.startsWith(keys.nodes)) {
      const found = kv.key.endsWith('/member') ? decode(member, kv) : null;
      if (found !== null) members.set(found.node, found);
      const report = kv.key.endsWith('/report') ? decode(nodeReport, kv) : null;
      if (report === null) return;
      reports.set(report.node, report);
      if (report.open && report.leaseTerm !== null) noteOpened(report.leaseTerm);
    }
  }

  function drop(key: string): void {
    if (key === keys.state) {
      state = null;
      stateRevision = makeRevision(0);
    } else if (key === keys.traffic) wishes = null;
    else if (key.startsWith(keys.nodes)) {
      const node = makeNodeId(key.slice(keys.nodes.length).split('/')[0] ?? '');
      if (key.endsWith('/member')) members.delete(node);
      else if (key.endsWith('/report')) reports.delete(node);
    }
  }

  const run = (): Promise<void> =>
    followPrefix({
      store,
      prefix: keys.prefix,
      clock,
      log,
      signal: stopping.signal,
      onListing: (listing, sentAt) => {
        freshAt = sentAt;
        ({ incarnation } = listing);
        // Revisions compare within one store only (§4.10); a restored one, and one that it was moved to, counts anew. A listing is never older than what was seen.
        stateRevision = makeRevision(0);
        members.clear();
        reports.clear();
        if (!listing.kvs.some((kv) => kv.key === keys.state)) drop(keys.state);
        if (!listing.kvs.some((kv) => kv.key === keys.traffic)) drop(keys.traffic);
        for (const kv of listing.kvs) take(kv);
        options.onChange();
      },
      onBatch: (batch) => {
        for (const event of batch.events) {
          if (event.kind === 'put') take(event.kv);
          else drop(event.key);
        }
        options.onChange();
      },
      onAlive: (sentAt) => {
        freshAt = sentAt;
      },
      // What is known stays; how old it is tells the doors when to close.
      onLost: () => undefined,
    });

  const ageMs = (): number => (freshAt === null ? Infinity : clock.now().mono - freshAt);
  async function ask(): Promise<void> {
    while (!stopping.signal.aborted) {
      await clock.sleep(ASK_INTERVAL_MS, stopping.signal);
      const writer: NodeId | null = state?.route.writer ?? null;
      const target = writer === null ? undefined : members.get(writer);
      if (asker === null || target === undefined || ageMs() < SILENCE_MS) continue;
      const sentAt = clock.now().mono;
      const answer = await asker.ask(target);
      if (answer === null || !answer.primary) continue;
      noteOpened(answer.term);
      confirmed = { node: answer.node, term: answer.term, until: addMono(sentAt, answer.validMs) };
      options.onChange();
    }
  }

  for (const part of [run(), ask()])
    part.catch((cause: unknown) => {
      log.error({ cause: String(cause) }, 'the watch of the cluster broke');
      throw cause;
    });
  return {
    facts: () => {
      const forMs = confirmed === null ? 0 : confirmed.until - clock.now().mono;
      return {
        state,
        incarnation,
        newestTerm: newest.term,
        members,
        reports,
        ageMs: ageMs(),
        confirmed: confirmed === null || forMs <= 0 ? null : { ...confirmed, forMs },
      };
    },
    wishes: () => wishes,
    readers: () =>
      (state?.route.readers ?? []).flatMap((node) => {
        const found = members.get(node);
        return found === undefined ? [] : [{ node, host: found.host, port: found.port }];
      }),
    close: () => {
      stopping.abort();
      asker?.close();
    },
  };
}
