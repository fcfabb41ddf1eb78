/**
 * The classification against a real server: what it calls a read must leave no trace on a primary, and must not be refused by a standby for being a
 * standby. Texts come from a grammar that puts volatile functions, writing parts and unsafe relations wherever an expression or source can stand.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { followUpstream } from '../../src/agent/postgres/follow.ts';
import { ensureSlots } from '../../src/agent/postgres/slots.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { type Sql, openSql, LOCAL_LIMITS, localTarget, sqlStateOf } from '../../src/agent/postgres/sql.ts';
import { ROUTE } from '../../src/wire/classification.ts';
import { RULES_SQL, RULES_VERSION_SQL } from '../../src/wire/rules-sql.ts';
import { type RulesReport, buildRules } from '../../src/wire/rules.ts';
import { createLab, createPrimary, must, settings, until } from '../postgres/harness.ts';
import { outcome } from './classify-support.ts';
import '../fixed-seed.ts';

const lab = createLab();
const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
const open: Sql[] = [];
after(async () => {
  for (const db of open) db.destroy();
  await lab.close();
});

const connect = async (node: typeof n1): Promise<Sql> => {
  const db = await openSql(localTarget(node), LOCAL_LIMITS);
  open.push(db);
  await db.query('SET search_path = public');
  return db;
};

const OBJECTS = `
CREATE TABLE t (a int, b text, c numeric);
INSERT INTO t SELECT i, 'b' || i, i FROM generate_series(1, 5) i;
CREATE UNLOGGED TABLE unlogged_t (a int);
CREATE TABLE parent (a int) PARTITION BY RANGE (a);
CREATE UNLOGGED TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9);
CREATE TABLE trace (what text);
CREATE SEQUENCE s;
CREATE FUNCTION write_it(x int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trace VALUES ('write_it'); RETURN x; END $$;
CREATE FUNCTION sly(t) RETURNS int LANGUAGE sql AS $$ SELECT nextval('s')::int $$;
CREATE FUNCTION "Odd Name"(int) RETURNS int LANGUAGE sql AS $$ SELECT nextval('s')::int $$;
CREATE FUNCTION fine(x int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT x $$;
CREATE FUNCTION twofold(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE FUNCTION twofold(text) RETURNS int LANGUAGE sql AS $$ SELECT nextval('s')::int $$;
CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS $$ SELECT nextval('s')::int $$;
CREATE AGGREGATE sly_sum(int) (sfunc = step, stype = int, initcond = '0');
CREATE FUNCTION minus(int, text) RETURNS int LANGUAGE sql AS $$ SELECT nextval('s')::int $$;
CREATE OPERATOR <~-~> (leftarg = int, rightarg = text, function = minus);
CREATE VIEW bad_view AS SELECT a, nextval('s') AS n FROM t;
CREATE VIEW worse_view AS SELECT n FROM bad_view WHERE a > 0;
CREATE VIEW good_view AS SELECT v.a, upper(t.b) AS b FROM t JOIN (VALUES (1, 2), (3, 4)) v(a, n) ON v.a = t.a;
CREATE TABLE guarded (a int);
INSERT INTO guarded VALUES (1), (2);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (write_it(a) > 0);
CREATE FUNCTION check_it(int) RETURNS boolean LANGUAGE sql AS $$ SELECT nextval('s') > 0 $$;
CREATE DOMAIN checked AS int CHECK (check_it(VALUE));
CREATE TYPE pair AS (x int, y int);
CREATE FUNCTION to_pair(int) RETURNS pair LANGUAGE sql AS $$ SELECT nextval('s')::int, $1 $$;
CREATE CAST (int AS pair) WITH FUNCTION to_pair(int);
CREATE ROLE reader; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader; GRANT USAGE ON SEQUENCE s TO reader;`;

/** What a text may not change: sequence, tables, and what the session holds. */
const TRACES = `SELECT concat_ws(' ', (SELECT last_value::text || is_called FROM public.s), (SELECT count(*) FROM public.trace),
  (SELECT concat(count(*), sum(a), string_agg(b, '' ORDER BY b)) FROM public.t), (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory'),
  (SELECT count(*) FROM pg_catalog.pg_class), pg_catalog.pg_my_temp_schema(), (SELECT count(*) FROM pg_catalog.pg_listening_channels()),
  (SELECT count(*) FROM pg_catalog.pg_cursors), (SELECT count(*) FROM pg_catalog.pg_prepared_statements), pg_catalog.current_setting('my.v', true)) AS traces`;

let report: RulesReport;
let primary: Sql;
let standby: Sql;

async function readRules(db: Sql): Promise<RulesReport> {
  const rows = await db.query(RULES_SQL);
  return buildRules(rows.map((row) => [String(row['kind']), String(row['name']), String(row['detail'])]));
}

const route = (text: string): string => outcome(text, { rules: report.rules }).route;

/** What a standby says only because it is one. */
const REFUSED_BY_STANDBY = /^(25|55000|55P02|0A000)/;

/** Runs a text that was called a read on both servers. What is wrong with it otherwise (syntax, types) is of no interest. */
async function checkRead(text: string): Promise<'ran' | 'failed'> {
  const before = (await primary.query(TRACES))[0]?.['traces'];
  let ran: 'ran' | 'failed' = 'ran';
  let refusal: string | null = null;
  try {
    await primary.query(text);
  } catch (cause) {
    const state = sqlStateOf(cause);
    assert.ok(state !== null, `${JSON.stringify(text)}: ${String(cause)}`);
    ran = 'failed';
    refusal = state;
  }
  assert.equal((await primary.query(TRACES))[0]?.['traces'], before, `called a read, but it left a trace: ${JSON.stringify(text)}`);
  try {
    await standby.query(text);
  } catch (cause) {
    const state = sqlStateOf(cause);
    assert.ok(
      state !== null && (state === refusal || !REFUSED_BY_STANDBY.test(state)),
      `called a read, but a standby says ${state}: ${JSON.stringify(text)}`,
    );
  }
  return ran;
}

test('the catalog of a real server gives rules that trust it and know what is unsafe in it', async () => {
  await createPrimary(n1);
  must(await ensureSlots(n1, { members: [n1.node, n2.node] }));
  must(await cloneFrom(n2, { upstream: n1, settings, systemIdentifier: null, keepSaved: 1 }));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await followUpstream(n2, { upstream: n1 }));
  primary = await connect(n1);
  const version = async (): Promise<unknown> => (await primary.query(RULES_VERSION_SQL))[0]?.['concat_ws'];
  const before = await version();
  assert.equal(await version(), before);
  await primary.query(OBJECTS);
  assert.notEqual(await version(), before);
  await primary.query('SET ROLE reader');
  report = await readRules(primary);
  await primary.query('RESET ROLE');
  assert.deepEqual(report.distrust, []);
  for (const name of ['bad_view', 'worse_view', 'guarded', 'checked']) assert.ok(report.suspects.includes(name), name);
  assert.ok(!report.suspects.includes('good_view'));
  standby = await connect(n2);
  const [row] = await primary.query('SELECT pg_current_wal_flush_lsn()::text AS at');
  await until('the standby has the objects', async () => {
    const [behind] = await standby.query('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done', [row?.['at']]);
    return behind?.['done'] === true;
  });
});

test('functions that are called harmless run on a standby', async () => {
  const names = await primary.query(`SELECT p.proname AS name, count(*) OVER () AS all FROM pg_proc p WHERE p.pronargs = 0 AND p.prokind = 'f'
    AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype, 'language_handler'::regtype, 'fdw_handler'::regtype)`);
  let ran = 0;
  for (const { name } of names) {
    const text = `SELECT * FROM pg_catalog."${String(name)}"()`;
    if (route(text) === 'any' && (await checkRead(text)) === 'ran') ran++;
  }
  assert.ok(ran > 20, `${ran} ran`);
});

const reads = [
  "SELECT a, upper(b), fine(a), count(*) OVER (PARTITION BY c) FROM t WHERE a IN (1, 2) OR b LIKE ('b%') ORDER BY 1 LIMIT 2",
  'WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r',
  'SELECT * FROM good_view, LATERAL (SELECT 1) x, generate_series(1, 2) AS g(i)',
  'SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, c',
  "SELECT extract(year FROM now()), substring(b FROM 1 FOR 1), trim(both ' ' FROM b), position('b' IN b), overlay(b PLACING 'x' FROM 1) FROM t",
  'SELECT a, sum(c) FILTER (WHERE a > 1), percentile_cont(0.5) WITHIN GROUP (ORDER BY c) FROM t GROUP BY ROLLUP (a), CUBE (b), GROUPING SETS ((a), ())',
  "SELECT $$nextval('s')$$, E'\\'', 'it''s', U&'\\0061', B'01', x'ff', N'n' -- nextval('s')",
  'SELECT "a", "T1"."b" FROM t "T1" NATURAL LEFT JOIN (SELECT 1 AS a) z',
  'VALUES (1, fine(2)); TABLE t; SELECT 1',
  'EXPLAIN (ANALYZE, COSTS off) SELECT * FROM t WHERE a = ANY (ARRAY[1, 2])',
  "SELECT interval '1 day' + now(), timestamp with time zone '2000-01-01', '1'::numeric(10, 2), CAST('x' AS varchar(3)), now() AT TIME ZONE 'UTC'",
  'SELECT * FROM t CROSS JOIN LATERAL (SELECT t.a + 1 AS n) l WHERE EXISTS (SELECT 1) AND NOT (a IS NULL) FETCH FIRST (2) ROWS ONLY',
  "SELECT current_setting('my.v', true), current_user, localtimestamp(0)",
  'SELECT j.a FROM json_to_recordset(\'[{"a":1}]\') AS j(a int), ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS r(x, y)',
  'SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()',
  'SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace',
];
for (const text of reads)
  test(`is a read, and runs on both: ${text.slice(0, 60)}`, async () => {
    assert.equal(route(text), 'any', outcome(text, { rules: report.rules }).word);
    assert.equal(await checkRead(text), 'ran');
  });

/** Every way found so far to make something happen from within a query. */
const harms = [
  "nextval('s')",
  "public.nextval /**/ ('s')",
  '"nextval"(\'s\')',
  "NEXTVAL\n('s')",
  'write_it(1)',
  'public.write_it(1)',
  '"Odd Name"(1)',
  'public."Odd Name"(1)',
  "twofold('x'::text)",
  '(SELECT sly_sum(a) FROM t)',
  "(1 <~-~> 'x')",
  "(1 OPERATOR(public.<~-~>) 'x')",
  '(SELECT t.sly FROM t LIMIT 1)',
  '(SELECT (t).sly FROM t LIMIT 1)',
  '(SELECT sly(t) FROM t LIMIT 1)',
  '(SELECT n FROM bad_view LIMIT 1)',
  '(SELECT max(n) FROM worse_view)',
  '(TABLE guarded LIMIT 1)',
  "'1'::checked",
  'CAST(1 AS public.checked)',
  "checked '1'",
  '(1::pair).x',
  '(SELECT count(*) FROM unlogged_t)',
  '(SELECT count(*) FROM parent)',
  'pg_advisory_lock(1)::text',
  "set_config('my.v', 'x', false)",
  'txid_current()',
  'pg_current_xact_id()',
  'lo_create(0)',
  '(SELECT last_value FROM s)',
  'setseed(0.1)::text',
  'pg_export_snapshot()',
  'pg_is_in_recovery()',
  '(SELECT a FROM t LIMIT 1 FOR UPDATE)',
  '(SELECT a FROM t LIMIT 1 FOR KEY SHARE)',
  "query_to_xml('select nextval(''s'')', true, true, '')",
  "table_to_xml('bad_view', true, true, '')",
  "currval('s')",
];

test('each way to do harm is seen where it stands alone', async () => {
  for (const harm of harms) assert.notEqual(route(`SELECT ${harm}`), 'any', harm);
});

const { text: statement } = fc.letrec<Record<'expression' | 'source' | 'select' | 'list' | 'with' | 'text' | 'filler', string>>((tie) => {
  const e = tie('expression');
  const pick = (...parts: (string | fc.Arbitrary<string>)[]): fc.Arbitrary<string> =>
    fc.tuple(...parts.map((part) => (typeof part === 'string' ? fc.constant(part) : part))).map((all) => all.join(''));
  const label = fc.constantFrom('x', '"y z"', 'fine', 'nextval', 'update', 'with', 'join');
  return {
    filler: fc.constantFrom(' ', '\n', ' /* c */ ', ' -- c\n', '/* /* nextval( */ */'),
    // Numbers everywhere, so that most of what comes out has the right types.
    expression: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      {
        arbitrary: fc.constantFrom(
          '1',
          '2',
          '3',
          'NULL',
          '$$1$$::int',
          "length(E'\\'')",
          'fine(1)',
          'twofold(1)',
          'length(current_user)',
          "'4'::numeric(3)::int",
        ),
        weight: 12,
      },
      { arbitrary: fc.constantFrom(...harms), weight: 2 },
      pick('(', e, ')'),
      pick('fine(', e, ')'),
      pick('coalesce(', e, ', ', e, ')'),
      pick('(', e, tie('filler'), fc.constantFrom('+', '*', '-', '&', '|', '+ -', '- +'), tie('filler'), e, ')'),
      pick('(', e, ' ', fc.constantFrom('=', '<>', '<', 'IS DISTINCT FROM', 'IN (1) OR 1 =', 'IS NULL AND 1 ='), ' ', e, ')::int'),
      pick('CASE WHEN 1 = ', e, ' THEN ', e, ' ELSE ', e, ' END'),
      pick('(SELECT ', e, fc.constantFrom('', ' FROM t LIMIT 1', ' AS x', ' FOR UPDATE'), ')'),
      pick('EXISTS (', tie('select'), ')::int'),
      pick('(ARRAY[', e, ', ', e, '])[1]'),
      pick('(ARRAY[1, 2])[', e, ']'),
      pick('cardinality((ARRAY[1, 2])[1:', e, '])'),
      pick('CAST(', e, ' AS ', fc.constantFrom('numeric(5)', 'int', 'public.checked'), ')::int'),
      pick('(', e, ')::', fc.constantFrom('int', 'numeric(5)::int', 'checked')),
      pick('(SELECT count(*) FILTER (WHERE 1 = ', e, ')::int FROM t)'),
      pick('(SELECT sum(1) OVER (ORDER BY ', e, ' ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)::int FROM t LIMIT 1)'),
      pick("length(substring('abc' FROM ", e, ' FOR 1))'),
      pick("extract(year FROM date '2000-01-01' + ", e, ')::int'),
      pick('(ROW(', e, ', 2) IS NULL)::int'),
    ),
    source: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      { arbitrary: fc.constantFrom('t', 'good_view', 'generate_series(1, 2) AS g(i)', 'ONLY (t)'), weight: 8 },
      {
        arbitrary: fc.constantFrom('bad_view', 'guarded', 'write_it(1)', "nextval('s') AS x(a)", 'unlogged_t', 'ROWS FROM (write_it(1)) x(a)'),
        weight: 2,
      },
      pick('(SELECT ', e, ')', fc.constantFrom(' AS ', ' '), label, fc.constantFrom('', '(a)')),
      pick('(VALUES (', e, ')) ', fc.constantFrom('AS ', ''), label, '(a)'),
      pick('generate_series(1, ', e, ')', fc.constantFrom('', ' AS'), ' ', label, fc.constantFrom('', '(a)')),
      pick('generate_series(1, ', e, ') WITH ORDINALITY', fc.constantFrom('', ' AS'), ' ', label, fc.constantFrom('', '(a)', '(a, b)')),
      pick('t AS l ', fc.constantFrom('JOIN', 'LEFT JOIN'), ' (SELECT ', e, ' AS n) r ON (1 = ', e, ')'),
      pick('t AS l CROSS JOIN LATERAL (SELECT ', e, ' + l.a) AS r(n)'),
      pick('t TABLESAMPLE system (', e, ')'),
      pick('ROWS FROM (generate_series(1, 2), generate_series(1, ', e, ')) ', label, '(a, b)'),
      pick("json_to_record('{}') AS ", label, '(a int, b numeric(3, 1))'),
    ),
    list: fc.oneof({ depthSize: 'small' }, e, pick(e, fc.constantFrom(' AS ', ' '), label), pick(e, ', ', tie('list'))),
    select: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      { arbitrary: pick('SELECT ', e), weight: 3 },
      { arbitrary: pick('SELECT ', tie('list'), ' FROM ', tie('source')), weight: 3 },
      pick('SELECT DISTINCT ON (', e, ') ', e, ' FROM ', tie('source'), ' WHERE ', e, ' IS NOT NULL'),
      pick('SELECT ', e, ' FROM t GROUP BY a, ROLLUP (b) HAVING ', e, ' IS NOT NULL LIMIT ', e, ' OFFSET 0'),
      pick('VALUES (', e, '), (', e, ')'),
      pick('(SELECT ', e, ')', fc.constantFrom(' UNION ALL ', ' EXCEPT '), '(SELECT ', e, ')'),
      pick('(SELECT a FROM t) ORDER BY 1, ', e),
      pick(tie('with'), 'SELECT ', e),
      pick(tie('with'), '(SELECT a FROM t) ORDER BY 1, ', e),
      pick('SELECT a FROM t ORDER BY a, fine(', e, ')', fc.constantFrom(' FOR UPDATE', ' FOR SHARE OF t', ' FETCH FIRST (1) ROWS ONLY', '')),
      pick('SELECT ', e, ' INTO x'),
    ),
    with: fc.oneof(
      pick(
        'WITH ',
        fc.constantFrom('', 'RECURSIVE '),
        label,
        fc.constantFrom('', '(a)'),
        ' AS ',
        fc.constantFrom('', 'MATERIALIZED ', 'NOT MATERIALIZED '),
        '(',
        tie('select'),
        ') ',
      ),
      pick('WITH a AS (', tie('select'), '), ', label, fc.constantFrom('', '(n)'), ' AS (', tie('select'), ') '),
      pick('WITH w AS (', fc.constantFrom("INSERT INTO trace VALUES ('x')", 'UPDATE t SET a = a', 'DELETE FROM t WHERE false'), ' RETURNING 1) '),
    ),
    text: fc.oneof(
      { withCrossShrink: true },
      tie('select'),
      pick(fc.constantFrom('EXPLAIN ', 'EXPLAIN ANALYZE ', 'EXPLAIN (ANALYZE, TIMING off) '), tie('select')),
      pick(tie('select'), '; ', tie('select')),
      pick(fc.constantFrom('BEGIN; ', "SELECT 1; SET my.v = 'x'; ", 'LISTEN c; ', 'TABLE t; ', 'PREPARE p AS '), tie('select')),
    ),
  };
});

test('of generated texts, those that are called reads leave no trace on a primary and run on a standby', async () => {
  let [reads, ran] = [0, 0];
  for (const text of fc.sample(statement, { numRuns: 9000, seed: 20260807 })) {
    if (text.length > 2000 || route(text) !== 'any') continue;
    reads++;
    if ((await checkRead(text)) === 'ran') ran++;
  }
  // Enough of them are reads, and enough of these run, for the test to mean something.
  assert.ok(reads > 2000 && ran > reads / 4, `${reads} reads, ${ran} ran`);
});

test('of texts that are torn and glued together, those that are called reads leave no trace', async () => {
  const piece = fc.constantFrom(
    ...[
      "'",
      '"',
      '$$',
      '$a$',
      '/*',
      '*/',
      '--',
      '\n',
      '\\',
      "E'",
      "U&'",
      "N'",
      'e1',
      '1e',
      ' ',
      '(',
      ')',
      ',',
      ';',
      '.',
      '::',
      ':',
      '[',
      ']',
      '||',
      '-',
      '/',
      '*',
      '$1',
      '1',
      'a',
      't',
    ],
    ...[
      ' AS ',
      ' WITH ',
      ' SELECT ',
      ' FROM ',
      ' FOR ',
      ' WITH ORDINALITY ',
      ' JOIN ',
      ' LATERAL ',
      ' ON ',
      ' x ',
      " 'b' ",
      ' x(a) ',
      ' (SELECT 1) ',
      ' t ',
      ' INTO ',
      ' OVER ',
      ' BY ',
      ' ROWS ',
    ],
  );
  const harm = fc.constantFrom(
    "nextval('s')",
    " nextval('s')",
    " (SELECT nextval('s'))",
    " x.nextval('s')",
    ' UPDATE t SET a = 1',
    '; DELETE FROM t',
  );
  const text = fc.tuple(
    fc.constantFrom('SELECT ', 'SELECT 1 ', "SELECT 'x", 'WITH x AS (SELECT 1) '),
    fc.array(piece, { maxLength: 5 }),
    harm,
    fc.array(piece, { maxLength: 3 }),
  );
  let reads = 0;
  for (const [start, before, middle, behind] of fc.sample(text, { numRuns: 20_000, seed: 7 })) {
    const whole = `${start}${before.join('')}${middle}${behind.join('')}`;
    if (outcome(whole, { rules: report.rules }).into.route !== ROUTE.any) continue;
    reads++;
    await checkRead(whole);
  }
  assert.ok(reads > 500, `${reads} reads`);
});
