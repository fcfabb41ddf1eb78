/**
 * The questions whose answers become the rules of a database (rules.ts). To be asked on the primary, in the database in question, by any user.
 * Works with PostgreSQL 13 and newer. Source: manual, chapter "System Catalogs".
 */

/**
 * Rows of (kind, name, detail); every row is one fact. Kinds:
 * `harmless` name of a function without a volatile overload · `volatile` name of a function with one, detail `c` when all such overloads are internal or in C ·
 * `attribute` volatile function that can be called like a column · `relation` one that only a primary can or should read: unlogged, foreign, a sequence (on a standby it is ahead by the values that are logged in advance), the
 * server's own views · `view` detail is its query ·
 * `policy` of a table, detail is the expression · `domain` detail is its check · `type` one that a volatile function casts to ·
 * `operator` with a volatile function · `implicit` something that a text does not show and that no standby could do: a volatile cast or comparison, SERIALIZABLE · `trigger` function of a trigger.
 */
export const RULES_SQL = `
WITH RECURSIVE suspect AS (
  SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.provolatile = 'v'
  UNION
  SELECT a.aggfnoid FROM pg_catalog.pg_aggregate a
  JOIN pg_catalog.pg_proc s ON s.provolatile = 'v' AND s.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
    a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
), functions AS (
  SELECT p.proname::text AS name, s.oid IS NOT NULL AS volatile, l.lanname IN ('internal', 'c') AS c, p.pronargs, p.pronargdefaults, p.proargtypes[0] AS argument
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang LEFT JOIN suspect s ON s.oid = p.oid
), apart AS (
  SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'p') OR c.relkind IN ('f', 'S')
  UNION
  SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN apart a ON a.oid = i.inhrelid
)
SELECT 'harmless' AS kind, name, '' AS detail FROM functions GROUP BY name HAVING NOT bool_or(volatile)
UNION ALL
SELECT 'volatile', name, CASE WHEN bool_and(c OR NOT volatile) THEN 'c' ELSE '' END FROM functions GROUP BY name HAVING bool_or(volatile)
UNION ALL
SELECT DISTINCT 'attribute', f.name, '' FROM functions f JOIN pg_catalog.pg_type t ON t.oid = f.argument
WHERE f.volatile AND f.pronargs >= 1 AND f.pronargs - f.pronargdefaults <= 1 AND (t.typtype = 'c' OR (t.typtype = 'p' AND t.typname IN
  ('record', 'any', 'anyelement', 'anynonarray', 'anycompatible', 'anycompatiblenonarray')))
UNION ALL
SELECT 'relation', c.relname::text, '' FROM pg_catalog.pg_class c JOIN apart a ON a.oid = c.oid
UNION ALL
SELECT 'relation', c.relname::text, '' FROM pg_catalog.pg_class c
WHERE c.relkind = 'v' AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relname NOT IN
  ('pg_group', 'pg_indexes', 'pg_matviews', 'pg_policies', 'pg_roles', 'pg_rules', 'pg_shadow', 'pg_stats', 'pg_tables', 'pg_user', 'pg_views')
UNION ALL
SELECT 'view', c.relname::text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c
WHERE c.relkind = 'v' AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace
UNION ALL
SELECT 'policy', c.relname::text, pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL AND c.relrowsecurity
UNION ALL
SELECT 'domain', t.typname::text, pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid = k.contypid
WHERE k.contype = 'c'
UNION ALL
SELECT 'type', t.typname::text, '' FROM pg_catalog.pg_cast c JOIN suspect s ON s.oid = c.castfunc JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
WHERE c.castcontext <> 'i'
UNION ALL
SELECT 'implicit', 'cast to ' || pg_catalog.format_type(c.casttarget, NULL), '' FROM pg_catalog.pg_cast c JOIN suspect s ON s.oid = c.castfunc
WHERE c.castcontext = 'i'
UNION ALL
SELECT DISTINCT CASE WHEN o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '~', '!~', '~~', '!~~', '~~*', '!~~*') THEN 'implicit' ELSE 'operator' END,
  CASE WHEN o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '~', '!~', '~~', '!~~', '~~*', '!~~*') THEN 'operator ' ELSE '' END || o.oprname::text, ''
FROM pg_catalog.pg_operator o JOIN suspect s ON s.oid = o.oprcode
UNION ALL
SELECT 'implicit', 'default_transaction_isolation = serializable', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_settings
  WHERE name = 'default_transaction_isolation' AND reset_val = 'serializable') OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) AS c(line)
  WHERE (s.setdatabase = 0 OR d.datname = pg_catalog.current_database()) AND c.line = 'default_transaction_isolation=serializable')
UNION ALL
SELECT DISTINCT 'trigger', p.proname::text, '' FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND l.lanname NOT IN ('internal', 'c')
UNION ALL
SELECT DISTINCT 'trigger', p.proname::text, '' FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.provolatile = 'v' AND l.lanname NOT IN ('internal', 'c') AND d.classid IN
  ('pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
   'pg_catalog.pg_rewrite'::pg_catalog.regclass)`;

/**
 * One text that changes whenever an answer to RULES_SQL may have changed: cheap enough to be asked every few seconds. Counts of what was written into the catalogs
 * by any transaction; two changes that cancel each other out would need the same sum of transaction numbers.
 */
export const RULES_VERSION_SQL = `SELECT pg_catalog.concat_ws(',', ${[
  'pg_proc',
  'pg_aggregate',
  'pg_class',
  'pg_inherits',
  'pg_rewrite',
  'pg_policy',
  'pg_constraint',
  'pg_type',
  'pg_cast',
  'pg_operator',
  'pg_trigger',
  'pg_db_role_setting',
]
  .map((catalog) => `(SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(xmin::text::bigint)) FROM pg_catalog.${catalog})`)
  .join(', ')})`;
