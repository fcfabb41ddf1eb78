/** One bounded look at another member's PostgreSQL, over a fresh connection, with a write where it is a primary. */
import { openSql, sqlStateOf, describeSqlError, type Sql, type SqlTarget } from '../postgres/sql.ts';
import { HEARTBEAT_DATABASE, ROLES } from '../postgres/instance.ts';

export interface ProbeTarget {
  readonly host: string;
  readonly port: number;
  /** The member that probes; its own row of the heartbeat table is written. */
  readonly from: string;
  readonly password: string;
  /** For everything together: connect, authenticate, ask, write. */
  readonly timeoutMs: number;
}

export interface ProbeAnswer {
  /** `blocked`: a server answers, but lets nobody in now (starting, shutting down, no connection left, role missing). */
  readonly verdict: 'primary' | 'standby' | 'blocked' | 'down';
  readonly error: string | null;
}

/**
 * A server that answers with these lives, whatever it says.
 * Source: PostgreSQL manual, appendix A: 57P03 cannot_connect_now, 53300 too_many_connections, class 28 invalid authorization, 3D000 unknown database.
 */
const ALIVE = /^(57P03|53300|28|3D000)/;

/**
 * Never throws, and answers within `timeoutMs` plus a few milliseconds whatever the other side does: a half-open connection, a stopped
 * server and a disk that hangs all end as `down` (Q19, I6). The write is a row of our own with `synchronous_commit=local`, so that a
 * missing synchronous standby does not look like a hung primary.
 */
export async function probeMember(target: ProbeTarget): Promise<ProbeAnswer> {
  const deadline = AbortSignal.timeout(target.timeoutMs);
  let sql: Sql | null = null;
  const late = new Promise<ProbeAnswer>((resolve) => {
    deadline.addEventListener('abort', () => resolve({ verdict: 'down', error: `no answer within ${target.timeoutMs} ms` }), { once: true });
  });
  const look = async (): Promise<ProbeAnswer> => {
    try {
      const limits = { connectMs: target.timeoutMs, statementMs: target.timeoutMs };
      const opened = await openSql(sqlTarget(target), limits, { applicationName: 'pgherd_probe' });
      sql = opened;
      if (deadline.aborted) {
        opened.destroy();
        return { verdict: 'down', error: 'too late' };
      }
      const rows = await opened.query('SELECT pg_catalog.pg_is_in_recovery() AS recovery');
      if (rows[0]?.['recovery'] === true) return { verdict: 'standby', error: null };
      await opened.query(
        'INSERT INTO pgherd.heartbeat (node, at) VALUES ($1, pg_catalog.now()) ON CONFLICT (node) DO UPDATE SET at = excluded.at',
        [target.from],
      );
      return { verdict: 'primary', error: null };
    } catch (cause) {
      const state = sqlStateOf(cause);
      const error = describeSqlError(cause);
      return { verdict: state !== null && ALIVE.test(state) ? 'blocked' : 'down', error };
    }
  };
  try {
    return await Promise.race([look(), late]);
  } finally {
    (sql as Sql | null)?.destroy();
  }
}

function sqlTarget(target: ProbeTarget): SqlTarget {
  return { host: target.host, port: target.port, user: ROLES.probe, database: HEARTBEAT_DATABASE, password: target.password };
}
