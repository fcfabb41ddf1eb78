/** The traffic of a cluster: which nodes serve what, what people want of it, and how far each proxy follows. */
import { formatWall } from '../base/clock.ts';
import { decodeJson, encodeJson, formatDecodeError } from '../core/decode.ts';
import { type NodeId, makeClusterId, makeRevision } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { findNode } from '../core/spec.ts';
import { type ProxyAck, type TrafficWishes, proxyAck, trafficWishes, weightOf } from '../core/traffic.ts';
import { bytesBetween } from '../core/lsn.ts';
import { clusterKeys } from '../store/keys.ts';
import { type ApiFailure, makeApiFailure } from '../api/errors.ts';
import type { TrafficAnswer } from '../api/schema.ts';
import { type ApiResult, type Handler, type ServerContext, storeFailure, viewOf } from './context.ts';
import type { ServerView } from './view.ts';

/** Lost races before we give up: two people never race this often. */
const MAX_RACES = 8;

/** Linearizable, so that whoever waits for the proxies does not see what was before. */
export const traffic: Handler<'traffic'> = async (context, { params }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const stored = await readWishes(context, params.cluster);
  return stored.ok ? describe(context, params.cluster, found.value, stored.value.wishes) : stored;
};

export const putTraffic: Handler<'putTraffic'> = async (context, { params, body, caller }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const { spec } = found.value.view;
  const unknown = Object.keys(body.weights ?? {}).find((node) => findNode(spec, node as NodeId)?.kind !== 'data');
  if (unknown !== undefined)
    return err(
      makeApiFailure('node.not-found', {
        what: `there is no data node "${unknown}" in cluster "${params.cluster}"`,
        cause: `data nodes: ${spec.nodes
          .filter((node) => node.kind === 'data')
          .map((node) => node.id)
          .join(', ')}`,
        remedy: 'See `pgherd lb list`.',
      }),
    );
  const key = clusterKeys(makeClusterId(params.cluster)).traffic;
  for (let race = 0; race < MAX_RACES; race++) {
    const stored = await readWishes(context, params.cluster);
    if (!stored.ok) return stored;
    const { wishes, revision } = stored.value;
    const next: TrafficWishes = {
      version: 1,
      weights: { ...wishes?.weights, ...body.weights },
      paused: body.paused ?? wishes?.paused ?? false,
      by: caller.name,
      sinceWallMs: context.clock.now().wall,
    };
    const written = await context.store.txn([{ target: 'mod', key, op: '=', revision }], [{ kind: 'put', key, value: encodeJson(next) }]);
    if (!written.ok) return err(storeFailure(written.error, 'changing the traffic'));
    if (written.value.succeeded) return describe(context, params.cluster, found.value, next);
  }
  return err(
    makeApiFailure('spec.conflict', {
      what: `the traffic of "${params.cluster}" is being changed by somebody else all the time`,
      remedy: 'Try again.',
    }),
  );
};

interface Stored {
  readonly wishes: TrafficWishes | null;
  readonly revision: ReturnType<typeof makeRevision>;
}

async function readWishes(context: ServerContext, cluster: string): Promise<ApiResult<Stored>> {
  const read = await context.store.get(clusterKeys(makeClusterId(cluster)).traffic);
  if (!read.ok) return err(storeFailure(read.error, 'reading the traffic'));
  if (read.value === null) return ok({ wishes: null, revision: makeRevision(0) });
  const decoded = decodeJson(trafficWishes, read.value.value);
  if (decoded.ok) return ok({ wishes: decoded.value, revision: read.value.modRevision });
  return err(unreadable(read.value.key, formatDecodeError(decoded.error)));
}

function unreadable(key: string, cause: string): ApiFailure {
  return makeApiFailure('server.internal', {
    what: `${key} in the store cannot be read`,
    cause,
    remedy: 'Compare the versions of server and proxies; remove the key if it was damaged: every proxy then serves all nodes alike.',
  });
}

async function describe(
  context: ServerContext,
  cluster: string,
  { view, members }: ServerView,
  wishes: TrafficWishes | null,
): Promise<ApiResult<TrafficAnswer>> {
  const keys = clusterKeys(makeClusterId(cluster));
  const listing = await context.store.list(keys.proxies);
  if (!listing.ok) return err(storeFailure(listing.error, 'reading what the proxies say'));
  const acks = listing.value.kvs.flatMap((kv): readonly ProxyAck[] => {
    const decoded = decodeJson(proxyAck, kv.value);
    return decoded.ok ? [decoded.value] : [];
  });
  const { route, primary } = view.state;
  const end = primary === null ? null : (view.reports[primary]?.report.postgres.flushLsn ?? null);
  return ok({
    paused: wishes?.paused ?? false,
    by: wishes?.by ?? null,
    since: wishes === null ? null : formatWall(wishes.sinceWallMs),
    hold: route.hold,
    epoch: route.epoch,
    backends: view.spec.nodes
      .filter((node) => node.kind === 'data')
      .map(({ id }) => {
        const replayed = view.reports[id]?.report.postgres.replayedLsn ?? null;
        return {
          node: id,
          host: members[id]?.host ?? null,
          port: members[id]?.port ?? null,
          weight: weightOf(wishes, id),
          writes: route.writer === id,
          reads: route.readers.includes(id) && weightOf(wishes, id) > 0,
          lagBytes: end === null || replayed === null || route.writer === id ? null : Math.max(0, bytesBetween({ from: replayed, to: end })),
        };
      }),
    proxies: acks.map(({ id, host, epoch, term, paused }) => ({ id, host, epoch, term, paused })),
  });
}
