/** What the servers themselves say of their roles, over their private sockets: not what pgherd believes. */
import { monoMs } from '../base/clock.ts';
import { waitUntil } from './children.ts';
import type { Herd } from './herd.ts';
import { quote } from './recorder.ts';

/** False also when the server is gone, hung, starting or stopping. */
export async function isWritable(herd: Herd, node: string): Promise<boolean> {
  if (herd.postmaster(node) === null) return false;
  try {
    const rows = await herd.sql(node, 'select pg_is_in_recovery() as standby');
    return rows[0]?.['standby'] === false;
  } catch {
    // Starting, stopping or hung: not writable as far as anybody can see.
    return false;
  }
}

/** The one node that is out of recovery; null when there is none, or more than one. */
export async function writableNode(herd: Herd): Promise<string | null> {
  const nodes = herd.plan.nodes.map(({ node }) => node);
  const writable = await Promise.all(nodes.map((node) => isWritable(herd, node)));
  const found = nodes.filter((_, index) => writable[index]);
  return found.length === 1 ? (found[0] ?? null) : null;
}

/** True when the present primary itself sees the node streaming. */
export async function isStreaming(herd: Herd, node: string): Promise<boolean> {
  const primary = await writableNode(herd);
  if (primary === null || primary === node) return false;
  try {
    const rows = await herd.sql(
      primary,
      `select 1 from pg_stat_replication where split_part(application_name, '.', 1) = ${quote(node)} and state = 'streaming'`,
    );
    return rows.length > 0;
  } catch {
    // The primary changed between the two looks.
    return false;
  }
}

/** Milliseconds from `fromMs` until the present primary sees the node streaming; null after `limitMs`. */
export async function waitStreaming(
  herd: Herd,
  options: { readonly node: string; readonly fromMs: number; readonly limitMs: number },
): Promise<number | null> {
  const { node, fromMs, limitMs } = options;
  const seen = await waitUntil(() => isStreaming(herd, node), limitMs - (monoMs() - fromMs), 50);
  return seen ? Math.round(monoMs() - fromMs) : null;
}
