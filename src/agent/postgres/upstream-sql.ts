/** Connections to another member's PostgreSQL as one of the two network roles. */
import { readIfThere } from './files.ts';
import type { Endpoint } from './conninfo.ts';
import { HEARTBEAT_DATABASE, type Instance, ROLES } from './instance.ts';
import type { SqlTarget } from './sql.ts';

/** The certificate's authority is checked where the cluster has certificates; its name is not: members are known by address. Throws errors of system calls. */
export async function memberTarget(instance: Instance, endpoint: Endpoint, purpose: 'replication' | 'probe'): Promise<SqlTarget> {
  const ca = instance.tls?.ca == null ? null : await readIfThere(instance.tls.ca);
  return {
    host: endpoint.host,
    port: endpoint.port,
    user: purpose === 'replication' ? ROLES.replication : ROLES.probe,
    database: purpose === 'replication' ? 'postgres' : HEARTBEAT_DATABASE,
    password: purpose === 'replication' ? instance.secrets.replication : instance.secrets.probe,
    ...(instance.tls === null ? {} : { tls: { ca } }),
  };
}
