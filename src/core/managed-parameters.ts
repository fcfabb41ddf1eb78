/**
 * PostgreSQL parameters whose values the safety of the cluster rests on: pgherd writes them itself, and checks them by their effect.
 * One that people set would be overwritten, or would win and break a promise; both are worse than a refusal. The server refuses them
 * in a spec, the agent refuses to write them: one list for both.
 */
export const MANAGED_PARAMETERS: readonly string[] = [
  // Replication and recovery: follow, promote and rewind write them.
  'primary_conninfo',
  'primary_slot_name',
  'synchronous_standby_names',
  'restore_command',
  'recovery_target_timeline',
  // `delayMs` of a node: the rules have to know of it.
  'recovery_min_apply_delay',
  'hot_standby',
  'wal_log_hints',
  // A crashed primary must not come back by itself.
  'restart_after_crash',
  // Where the agent finds the server, its files and its socket.
  'port',
  'data_directory',
  'hba_file',
  'ident_file',
  'config_file',
  'external_pid_file',
  'unix_socket_directories',
  'unix_socket_permissions',
  'cluster_name',
  // The roles of the cluster log in with SCRAM verifiers.
  'password_encryption',
];

const LEAST_CONNECTIONS = 10;

/** Why this parameter may not be set for a cluster; null when it may. Names are not case-sensitive, as in PostgreSQL. */
export function refuseParameter(name: string, value: string): string | null {
  const lower = name.toLowerCase();
  if (MANAGED_PARAMETERS.includes(lower)) return `${name} is set by pgherd itself`;
  // PostgreSQL does not start when those kept for superusers (3 by default) are not fewer; agents, probes and proxies need some besides.
  if (lower === 'max_connections' && /^\s*\d+\s*$/.test(value) && Number(value) < LEAST_CONNECTIONS)
    return `max_connections may not be less than ${LEAST_CONNECTIONS}`;
  // `logical` includes what replication needs; `minimal` would end it.
  if (lower === 'wal_level' && value !== 'replica' && value !== 'logical') return `wal_level may be replica or logical, not "${value}"`;
  return null;
}
