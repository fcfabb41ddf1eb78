/** Whose commits PostgreSQL acknowledges without its synchronous standbys: a `synchronous_commit` below `on` that somebody set. */
import { basename } from 'node:path';
import type { WeakCommit } from '../../core/report.ts';
import type { Failure, Result } from '../../core/result.ts';
import { isWeakCommit } from '../../core/cluster/weak-commits.ts';
import type { Instance } from './instance.ts';
import { withLocalSql } from './sql.ts';

/** A report is written twice a second; who has more of them knows why. */
const MAX_LISTED = 50;

/**
 * Everybody's first (a line of a file that is not pgherd's own; what the cluster's settings say is in the spec), then databases and roles by name. Both
 * catalogs may be read by everybody. What a session sets for itself stands nowhere.
 *
 * The line is read from the files, since our own sessions have a value of their own (sql.ts): the last one wins, at the next reload at the latest.
 * A role's or a database's value counts only where it logs in there. *Source:* PostgreSQL manual, pg_file_settings, pg_db_role_setting (`name=value`, the name
 * as PostgreSQL spells it, the value as it was given). Errors: those of withLocalSql.
 */
export function findWeakCommits(instance: Instance): Promise<Result<readonly WeakCommit[], Failure>> {
  return withLocalSql(instance, {}, async (sql) => {
    const [line] = await sql.query(
      "SELECT setting, sourcefile FROM pg_file_settings WHERE lower(name) = 'synchronous_commit' AND error IS NULL ORDER BY seqno DESC LIMIT 1",
    );
    const owned = await sql.query(`SELECT d.datname AS database, r.rolname AS role, substr(c, 20) AS value
      FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
      WHERE c LIKE 'synchronous\\_commit=%' AND (s.setdatabase = 0 OR d.oid IS NOT NULL) AND (s.setrole = 0 OR r.oid IS NOT NULL)
      ORDER BY d.datname NULLS FIRST, r.rolname NULLS FIRST`);
    const file = line === undefined ? null : basename(String(line['sourcefile']));
    const all: readonly WeakCommit[] = [
      ...(line === undefined || file === null || file === 'pgherd.conf'
        ? []
        : [{ database: null, role: null, value: String(line['setting']), file }]),
      ...owned.map((row) => ({ database: nameOf(row['database']), role: nameOf(row['role']), value: String(row['value']), file: null })),
    ];
    return all.filter((one) => isWeakCommit(one.value)).slice(0, MAX_LISTED);
  });
}

function nameOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
