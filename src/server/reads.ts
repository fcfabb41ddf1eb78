/** What people look at: computed from the server's watch, with a word when that watch is old. */
import { explainCluster } from '../core/cluster/explain.ts';
import { showCluster, showLag, showLsn } from '../core/cluster/describe.ts';
import { decodeJson, encodeJson } from '../core/decode.ts';
import { makeClusterId } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { type ClusterEvent, clusterEvent, termRecord } from '../core/state.ts';
import { proxyAck } from '../core/traffic.ts';
import { clusterKeys } from '../store/keys.ts';
import type { KeyValue } from '../store/store.ts';
import type { Problem } from '../api/errors.ts';
import type { ClusterSummary, EventRow, ExplainAnswer, LagRow, LsnRow, ShowAnswer } from '../api/schema.ts';
import { type Handler, type ServerContext, storeFailure, viewOf } from './context.ts';
import { WATCH_STALE_MS } from './freshness.ts';
import { eventRow, historyRow } from './rows.ts';
import { type ServerView, listClusters } from './view.ts';

export const show: Handler<'show'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  return found.ok ? ok(describe(context, found.value)) : found;
};

/** `show`, with what only the server knows: unreadable keys, and whether its own knowledge is fresh. */
export function describe(context: ServerContext, { view, unreadable }: ServerView): ShowAnswer {
  const shown = toPlain<ShowAnswer>({ ...showCluster(view, context.clock.now()), proxies: showProxies(context, view.spec.name) });
  const problems: Problem[] = [...unreadable, ...shown.problems];
  const age = context.cache.ageMs();
  if (age !== null && age <= WATCH_STALE_MS) return { ...shown, problems };
  problems.unshift({
    code: 'store.stale',
    text: age === null ? 'the store has not answered yet' : `the store has not answered for ${Math.round(age / 1000)} s: this is what was known then`,
    remedy: 'See `pgherd store status`. Running clusters go on, but nothing fails over while the store is away.',
  });
  return { ...shown, state: 'unknown', problems };
}

/**
 * What each proxy says of itself. The key lives under the proxy's lease: `seenMs` is how long ago the store confirmed that it is there. An entry that
 * cannot be read is left out here; the controller names it.
 */
function showProxies(context: ServerContext, cluster: string): ShowAnswer['proxies'] {
  const age = context.cache.ageMs();
  const prefix = clusterKeys(makeClusterId(cluster)).proxies;
  return context.cache.list(prefix).flatMap(({ kv }) => {
    const decoded = decodeJson(proxyAck, kv.value);
    if (!decoded.ok) return [];
    const { id, host, term } = decoded.value;
    return [{ id, host: host === '' ? null : host, term, seenMs: age === null ? null : Math.round(age) }];
  });
}

export const clusters: Handler<'clusters'> = async (context) => {
  const rows: ClusterSummary[] = [];
  for (const cluster of listClusters(context.cache)) {
    const found = await viewOf(context, cluster);
    if (!found.ok) {
      rows.push({ cluster, state: 'unknown', term: 0, primary: null, nodes: 0, nodesLive: 0, problems: 1, frozen: false });
      continue;
    }
    const shown = describe(context, found.value);
    rows.push({
      cluster,
      state: shown.state,
      term: shown.term,
      primary: shown.primary,
      nodes: shown.nodes.length,
      nodesLive: Object.keys(found.value.view.reports).length,
      problems: shown.problems.length,
      frozen: shown.frozen,
    });
  }
  return ok(rows);
};

export const lsn: Handler<'lsn'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  return found.ok ? ok(toPlain<LsnRow[]>(showLsn(found.value.view))) : found;
};

export const lag: Handler<'lag'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  return found.ok ? ok(toPlain<LagRow[]>(showLag(found.value.view))) : found;
};

export const explain: Handler<'explain'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  return found.ok ? ok(toPlain<ExplainAnswer>(explainCluster(found.value.view, context.clock.now()))) : found;
};

/** The same value as JSON carries it; the schema of the route's answer checks it on its way out. */
function toPlain<T>(value: unknown): T {
  return JSON.parse(encodeJson(value)) as T;
}

/** The full list under `history/`; what cannot be read is left out. */
export const history: Handler<'history'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const records = context.cache.list(clusterKeys(makeClusterId(params.cluster)).history).flatMap(({ kv }) => {
    const decoded = decodeJson(termRecord, kv.value);
    return decoded.ok ? [decoded.value] : [];
  });
  // Terms of the state are newer than the list when its key was lost to a restore.
  const known = new Set(records.map((record) => record.term));
  const all = [...records, ...found.value.view.state.terms.filter((record) => !known.has(record.term))];
  return ok(all.sort((a, b) => a.term - b.term).map(historyRow));
};

export const events: Handler<'events'> = async (context, { params, query }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const prefix = clusterKeys(makeClusterId(params.cluster)).events;
  const listing = await context.store.list(prefix);
  if (!listing.ok) return err(storeFailure(listing.error, 'reading the events'));
  return ok(
    listing.value.kvs
      .map((kv) => toEventRow(prefix, kv))
      .filter((row) => query.after === undefined || row.id > query.after)
      .slice(-query.limit),
  );
};

/** An event that cannot be read is still a line: that something happened is known. */
export function toEventRow(prefix: string, kv: KeyValue): EventRow {
  const id = kv.key.slice(prefix.length);
  const decoded = decodeJson(clusterEvent, kv.value);
  return eventRow(
    id,
    decoded.ok
      ? decoded.value
      : ({
          atWallMs: 0,
          level: 'warn',
          rule: 'server.unreadable',
          node: null,
          term: 0,
          text: 'an event that cannot be read',
          detail: {},
        } as unknown as ClusterEvent),
  );
}
