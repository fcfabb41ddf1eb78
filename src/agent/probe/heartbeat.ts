/** The write of every look: one row for each member that looks, in the database `postgres`. Values: the member's id. */
export const HEARTBEAT = `INSERT INTO pgherd.heartbeat AS h (node, at) SELECT $1, clock_timestamp() WHERE NOT pg_is_in_recovery()
  ON CONFLICT (node) DO UPDATE SET at = EXCLUDED.at RETURNING 1 AS wrote`;
