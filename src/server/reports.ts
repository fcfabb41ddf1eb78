/** Reports straight from the store, also of clusters that have no spec yet (agents join before `init`). */
import { decodeJson } from '../core/decode.ts';
import type { ClusterId } from '../core/ids.ts';
import { type NodeReport, nodeReport } from '../core/report.ts';
import { clusterKeys } from '../store/keys.ts';
import type { ServerContext } from './context.ts';

/** Node → its report. Empty when the store does not answer; reports that cannot be read are left out. */
export async function readReports(context: ServerContext, cluster: ClusterId): Promise<ReadonlyMap<string, NodeReport>> {
  const keys = clusterKeys(cluster);
  const listing = await context.store.list(keys.nodes);
  const found = new Map<string, NodeReport>();
  for (const kv of listing.ok ? listing.value.kvs : []) {
    if (!kv.key.endsWith('/report')) continue;
    const decoded = decodeJson(nodeReport, kv.value);
    if (decoded.ok) found.set(decoded.value.node, decoded.value);
  }
  return found;
}
