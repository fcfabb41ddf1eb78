/** Database roles and the heartbeat table; idempotent, on a primary only. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { failure } from './failure.ts';
import { HEARTBEAT_DATABASE, type Instance, ROLES } from './instance.ts';
import { type Sql, quoteLiteral, withLocalSql } from './sql.ts';

/** PostgreSQL's own default. Source: src/include/common/scram-common.h. */
const SCRAM_ITERATIONS = 4096;

/** The functions that pg_rewind's source connection calls. Source: PostgreSQL manual, pg_rewind, "Notes". */
const REWIND_FUNCTIONS = [
  'pg_ls_dir(text, boolean, boolean)',
  'pg_stat_file(text, boolean)',
  'pg_read_binary_file(text)',
  'pg_read_binary_file(text, bigint, bigint, boolean)',
  'pg_control_checkpoint()',
  'pg_control_system()',
];

/**
 * Makes what is missing: roles `postgres` (superuser, no password), `pgherd_replicator`, `pgherd_probe`, `pgherd_proxy`, database `pgherd` with the
 * heartbeat table and the function that proxies ask.
 * Passwords go over the private socket as SCRAM verifiers, so that no log can hold them. They are set anew only when they do not match.
 * Errors: those of withLocalSql; `postgres.not-primary`.
 */
export async function setupRoles(
  instance: Instance,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  const roles = await withLocalSql(instance, options, async (sql) => {
    const [first] = await sql.query('SELECT pg_is_in_recovery() AS recovery');
    if (first?.['recovery'] !== false) return null;
    const made = [
      await ensureRole(sql, 'postgres', 'SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS', null),
      await ensureRole(sql, ROLES.replication, 'REPLICATION', instance.secrets.replication),
      await ensureRole(sql, ROLES.probe, '', instance.secrets.probe),
      await ensureRole(sql, ROLES.proxy, '', instance.secrets.proxy),
      await grantRewind(sql),
    ];
    const found = await sql.query('SELECT 1 FROM pg_database WHERE datname = $1', [HEARTBEAT_DATABASE]);
    if (found.length === 0) await sql.query(`CREATE DATABASE ${HEARTBEAT_DATABASE} CONNECTION LIMIT 50`);
    return made.includes(true) || found.length === 0;
  });
  if (!roles.ok) return roles;
  if (roles.value === null)
    return err(
      failure(
        'postgres.not-primary',
        `roles of ${instance.node} cannot be made`,
        'the server is in recovery',
        'they come with replication',
        '',
        true,
      ),
    );
  const own = await withLocalSql(instance, { ...options, database: HEARTBEAT_DATABASE }, async (sql) => {
    const made = [await ensureHeartbeat(sql), await ensureLoginSecret(sql)];
    return made.includes(true);
  });
  return own.ok ? ok({ changed: roles.value || own.value }) : own;
}

async function ensureRole(sql: Sql, name: string, attributes: string, password: string | null): Promise<boolean> {
  const [row] = await sql.query('SELECT rolpassword, rolcanlogin, rolreplication, rolsuper FROM pg_authid WHERE rolname = $1', [name]);
  const right =
    row !== undefined &&
    row['rolcanlogin'] === true &&
    (password === null || (typeof row['rolpassword'] === 'string' && matchesVerifier(password, row['rolpassword']))) &&
    (!attributes.includes('REPLICATION') || row['rolreplication'] === true);
  if (right) return false;
  const secret = password === null ? '' : ` PASSWORD ${quoteLiteral(scramVerifier(password, randomBytes(16)))}`;
  await sql.query(`${row === undefined ? 'CREATE' : 'ALTER'} ROLE ${name} LOGIN ${attributes}${secret}`);
  return true;
}

async function grantRewind(sql: Sql): Promise<boolean> {
  const missing: string[] = [];
  for (const name of REWIND_FUNCTIONS) {
    const [row] = await sql.query('SELECT has_function_privilege($1, $2, $3) AS has', [ROLES.replication, `pg_catalog.${name}`, 'EXECUTE']);
    if (row?.['has'] !== true) missing.push(name);
  }
  const [stats] = await sql.query("SELECT pg_has_role($1, 'pg_read_all_stats', 'MEMBER') AS has", [ROLES.replication]);
  // For the size of the source: the check of free space before a clone.
  if (stats?.['has'] !== true) await sql.query(`GRANT pg_read_all_stats TO ${ROLES.replication}`);
  // From 15 on the rewinding node may ask for the checkpoint itself (Z42).
  await sql.query(
    `DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_checkpoint') AND NOT pg_has_role('${ROLES.replication}', 'pg_checkpoint', 'MEMBER') THEN GRANT pg_checkpoint TO ${ROLES.replication}; END IF; END $$`,
  );
  for (const name of missing) await sql.query(`GRANT EXECUTE ON FUNCTION pg_catalog.${name} TO ${ROLES.replication}`);
  return missing.length > 0 || stats?.['has'] !== true;
}

/** One row a probing node; the table stays a page long, and autovacuum has nothing to do thanks to HOT updates. */
async function ensureHeartbeat(sql: Sql): Promise<boolean> {
  const [row] = await sql.query("SELECT to_regclass('pgherd.heartbeat') IS NOT NULL AS there");
  if (row?.['there'] === true) return false;
  await sql.query(`BEGIN;
    CREATE SCHEMA IF NOT EXISTS pgherd;
    CREATE TABLE IF NOT EXISTS pgherd.heartbeat (node text PRIMARY KEY, at timestamptz NOT NULL) WITH (fillfactor = 50);
    REVOKE ALL ON SCHEMA pgherd FROM PUBLIC;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    REVOKE ALL ON DATABASE ${HEARTBEAT_DATABASE} FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${HEARTBEAT_DATABASE} TO ${ROLES.probe};
    GRANT USAGE ON SCHEMA pgherd TO ${ROLES.probe};
    GRANT SELECT, INSERT, UPDATE ON pgherd.heartbeat TO ${ROLES.probe};
    COMMIT`);
  return true;
}

/**
 * What a proxy may ask: the login secret of a user, so that it can check a client's proof itself and log in as that user with the key that the
 * proof gives. No password is kept anywhere, and the role of the proxies can read nothing else.
 * Left out: users who may not log in, whose password has expired, and pgherd's own roles.
 */
async function ensureLoginSecret(sql: Sql): Promise<boolean> {
  const [row] = await sql.query("SELECT to_regprocedure('pgherd.login_secret(text)') IS NOT NULL AS there");
  if (row?.['there'] === true) return false;
  await sql.query(`BEGIN;
    CREATE FUNCTION pgherd.login_secret(name text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS
      $$ SELECT rolpassword FROM pg_authid
         WHERE rolname = name AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) AND rolname !~ '^pgherd(_|$)' $$;
    REVOKE ALL ON FUNCTION pgherd.login_secret(text) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION pgherd.login_secret(text) TO ${ROLES.proxy};
    GRANT CONNECT ON DATABASE ${HEARTBEAT_DATABASE} TO ${ROLES.proxy};
    GRANT USAGE ON SCHEMA pgherd TO ${ROLES.proxy};
    COMMIT`);
  return true;
}

/** `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. Passwords here are base64url, so SASLprep changes nothing. Source: RFC 5803, PostgreSQL scram-common.c. */
export function scramVerifier(password: string, salt: Buffer, iterations = SCRAM_ITERATIONS): string {
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256');
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const stored = createHash('sha256').update(hmac('Client Key')).digest();
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${stored.toString('base64')}:${hmac('Server Key').toString('base64')}`;
}

function matchesVerifier(password: string, verifier: string): boolean {
  const match = /^SCRAM-SHA-256\$(\d+):([^$]+)\$/.exec(verifier);
  return (
    match?.[1] !== undefined && match[2] !== undefined && scramVerifier(password, Buffer.from(match[2], 'base64'), Number(match[1])) === verifier
  );
}
