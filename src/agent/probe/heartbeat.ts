import { quoteLiteral } from '../postgres/sql.ts';

/**
 * The write of every look: one row for each member that looks, in the database `pgherd`. One message without parameters: with them it is five, which an idle agent
 * pays for several times a second.
 */
export function heartbeatOf(node: string): string {
  return `INSERT INTO pgherd.heartbeat AS h (node, at) SELECT ${quoteLiteral(node)}, clock_timestamp() WHERE NOT pg_is_in_recovery()
  ON CONFLICT (node) DO UPDATE SET at = EXCLUDED.at RETURNING 1 AS wrote`;
}
