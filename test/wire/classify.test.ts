import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ACCESS, ISOLATION, ROUTE } from '../../src/wire/classification.ts';
import { NO_RULES, buildRules } from '../../src/wire/rules.ts';
import { ENCODING, HINT } from '../../src/wire/scan.ts';
import { outcome, rows, testRules } from './classify-support.ts';
import '../fixed-seed.ts';

describe('a read', () => {
  for (const text of [
    'select 1',
    'SELECT a, "B".c, $1 FROM t WHERE x = $2 AND y IN (1, 2) ORDER BY z DESC LIMIT 10',
    'select lower(x), count(*) filter (where a), row_number() over (partition by b) from t',
    "select 'it''s; insert into t'",
    "select E'\\'; delete from t; --'",
    "select E'a' -- comment\n 'b\\' nextval(1)' ",
    'select $$ nextval($1) $$, $tag$ $$ ; drop table t $tag$',
    "select U&'d\\0061t' uescape '!'",
    "select N'x', B'01', X'ff'",
    'select /* insert /* nested */ nextval(1) */ 1 -- ; update',
    'values (1, lower($1))',
    'table t',
    '(select 1) union all (select 2 order by 1)',
    ';; select 1 ;',
    'select 1; select 2',
    'with a as (select 1), b(x, y) as materialized (select 2, 3), recursive as (select 1) select * from a, b',
    'with recursive t(n) as (select 1 union all select n + 1 from t) select n from t',
    'select * from (values (1, 2)) as v(a, b)',
    "select * from json_to_record('{}') as x(a int, b varchar(10))",
    "select x::numeric(10, 2), cast(y as varchar(3)), z::geometry(Point, 4326), timestamp with time zone 'now' from t",
    "select extract(year from now()), substring(x from 1 for 2), trim(both 'x' from y), overlay(a placing b from 1)",
    'select coalesce(a, b), nullif(a, b), greatest(1, 2), case when (a) then (b) else (c) end',
    'select 1 where exists (select 1) and x = any (array[1, 2]) and not (a or (b))',
    'select a from t left join (select 1) s using (a) natural join u cross join lateral (select 2) w',
    'select a, sum from t group by rollup (a), cube (b), grouping sets ((a), (b))',
    'select insert_count, t.update, t.delete from t',
    'select 1 as update, 2 as insert',
    'select a from t for read only',
    "select current_user, localtimestamp(0), current_setting('app.tenant')",
    'select * from good_view, tenants',
    "select '5'::positive",
    'explain select 1',
    'explain (analyze, buffers, format json) select lower(x) from t',
    'explain analyze verbose with a as (select 1) table a',
    'explain (select 1)',
    'copy t to stdout',
    'copy public.t (a, b) to stdout with (format csv, header)',
    'copy (select lower(a) from t) to stdout csv',
    'select "update" from "insert"',
    'select a[1:2], b[lower(x)] from t',
    'select 表.列 from 表',
    'select 1e5, 1.5e-3, .5, 0x1f, 1_000',
    "select a @> b, c ->> 'd', e ? f, -g, @ h from t where i !~* 'j'",
    'select * from (values (1, 2)) v(a, b) join (select 1) "W"(c) on (true)',
    'select * from s.generate_series(1, 2) g(n), lateral lower(x) with ordinality l(y, n)',
    'select distinct on (a) a, lower(b) from t',
    'select x from t fetch first (1) rows only',
    'select random() from t order by random()',
    'select like(a, b) from t where a like (b)',
  ])
    test(text, () => {
      const { route, effects, reason, word } = outcome(text);
      assert.deepEqual({ route, effects, reason, word }, { route: 'any', effects: '', reason: 'none', word: '' });
    });
});

describe('no read, because it', () => {
  const cases: readonly [text: string, reason: string, word: string, effects: string][] = [
    ['insert into t (a) values (1)', 'writes', 'insert', 'write'],
    ['update t set (a, b) = (1, 2)', 'writes', 'update', 'write'],
    ['DELETE FROM t USING (select 1) u', 'writes', 'DELETE', 'write'],
    ['merge into t using s on (true) when not matched then insert (a) values (1)', 'writes', 'merge', 'write'],
    ['with x as (update t set a = 1 returning *) select * from x', 'writes', 'update', 'write'],
    ['with x as (select 1) insert into t select * from x', 'writes', 'insert', 'write'],
    ['with a as (select 1), b as (delete from t returning 1) table b', 'writes', 'delete', 'write'],
    ['select * into u from t', 'writes', 'into', 'write'],
    ['select 1; delete from t', 'writes', 'delete', 'write'],
    ['explain analyze insert into t values (1)', 'writes', 'insert', 'write'],
    ['explain (analyze) (with x as (delete from t returning *) select 1)', 'writes', 'delete', 'write'],
    ['copy (insert into t values (1) returning *) to stdout', 'writes', 'insert', 'write'],
    ['copy t from stdin', 'writes', '', 'write'],
    ['truncate t', 'writes', 'truncate', 'write'],
    ['select * from t for update', 'locksRows', 'update', 'write'],
    ['select * from t for no key update skip locked', 'locksRows', 'no', 'write'],
    ['select * from t for share of t', 'locksRows', 'share', ''],
    ['select * from (select * from t FOR KEY SHARE) x', 'locksRows', 'KEY', ''],
    ["select nextval('s')", 'function', 'nextval', 'write'],
    ["select a, nextval /* hidden */ -- here\n ('s') from t", 'function', 'nextval', 'write'],
    ['select "nextval"(\'s\')', 'function', 'nextval', 'write'],
    ["select pg_catalog . NextVal('s')", 'function', 'NextVal', 'write'],
    ['select write_it(1)', 'function', 'write_it', 'write opaque'],
    ['select never_heard_of(1)', 'function', 'never_heard_of', 'write opaque'],
    ['select "LOWER"(x)', 'function', 'LOWER', 'write opaque'],
    ['select s.select(1)', 'function', 'select', 'write opaque'],
    ['select "select"(1)', 'function', 'select', 'write opaque'],
    ['select distinct on (a) nextval(1)', 'function', 'nextval', 'write'],
    ['select (a) write_it(1)', 'function', 'write_it', 'write opaque'],
    ['select x, y from t order by x, write_it(y)', 'function', 'write_it', 'write opaque'],
    ['with x as (select 1) (select 1) order by 1, nextval(1)', 'function', 'nextval', 'write'],
    ['with x as (select 1), y as (select 2) select a, nextval(1)', 'function', 'nextval', 'write'],
    ['with x as (select nextval(1), nextval(2)) select 1', 'function', 'nextval', 'write'],
    ['select * from rows from (write_it(1)) as r(a)', 'function', 'write_it', 'write opaque'],
    ['select 1 from (select 1) where write_it(1)', 'function', 'write_it', 'write opaque'],
    ['select * from (select 1) x(a), write_it(1)', 'function', 'write_it', 'write opaque'],
    ['select * from lower(write_it(1)) x(a)', 'function', 'write_it', 'write opaque'],
    ['select * from (select (1) write_it(2)) x', 'function', 'write_it', 'write opaque'],
    ['select * from (select 1) x natural join write_it(1)', 'function', 'write_it', 'write opaque'],
    ['select * from write_it(1) as (a int)', 'function', 'write_it', 'write opaque'],
    ['select a[1:nextval(1)] from t', 'function', 'nextval', 'write'],
    ['select $1(1), nextval(1)', 'function', 'nextval', 'write'],
    ['select a from t tablesample bernoulli (10)', 'function', 'bernoulli', 'write opaque'],
    ['values (1), (nextval(1))', 'function', 'nextval', 'write'],
    ["select set_config('a.b', 'c', false)", 'function', 'set_config', 'write opaque'],
    ['select pg_advisory_lock(1)', 'function', 'pg_advisory_lock', 'advisoryLock write'],
    ['select pg_advisory_unlock(1)', 'function', 'pg_advisory_unlock', 'advisoryUnlock write'],
    ['select pg_advisory_unlock_all()', 'function', 'pg_advisory_unlock_all', 'advisoryUnlockAll write'],
    ['select setseed(0.5)', 'function', 'setseed', 'pin write'],
    ['select pg_backend_pid()', 'function', 'pg_backend_pid', 'write'],
    ["select current_setting('transaction_read_only')", 'function', 'current_setting', 'write'],
    ["select table_to_xml('v', true, true, '')", 'function', 'table_to_xml', 'write'],
    ['select pg_stat_get_activity(1)', 'function', 'pg_stat_get_activity', 'write'],
    ['select operator(pg_catalog.+)(1)', 'function', 'operator', 'write opaque'],
    ['select * from unlogged_table', 'relation', 'unlogged_table', 'write'],
    ['table public."unlogged_table"', 'relation', 'unlogged_table', 'write'],
    ['copy unlogged_table to stdout', 'relation', 'unlogged_table', 'write'],
    ['select * from inner_view', 'relation', 'inner_view', 'write'],
    ['select * from outer_view', 'relation', 'outer_view', 'write'],
    ['select * from guarded', 'relation', 'guarded', 'write'],
    ["select '1'::checked", 'relation', 'checked', 'write'],
    ["select checked '1'", 'relation', 'checked', 'write'],
    ['select x::s.cast_target', 'relation', 'cast_target', 'write'],
    ['select t.sly from t', 'relation', 'sly', 'write'],
    ['select * from pg_temp.x', 'relation', 'pg_temp', 'temp write'],
    ['select * from "pg_temp".x', 'relation', 'pg_temp', 'write'],
    [`select * from ${'n'.repeat(64)}`, 'relation', 'n'.repeat(64), 'write'],
    ['select a <<>> b', 'operator', '<<>>', 'write'],
    ['select a <<>>- b', 'operator', '<<>>-', 'write'],
    ["copy t to '/tmp/x'", 'serverFile', "'/tmp/x'", ''],
    ["copy t to program 'sh'", 'serverFile', 'program', ''],
    ["copy t from '/tmp/x'", 'writes', '', 'write'],
    ['do $$ begin end $$', 'utility', '', 'catalog opaque write'],
    ['call lower(1)', 'utility', '', 'write'],
    ['call write_it(1)', 'utility', '', 'opaque write'],
    ['create table t (a int)', 'utility', 'create', 'catalog opaque write'],
    ['create temp table t (a int)', 'utility', 'create', 'temp catalog opaque write'],
    ['CREATE OR REPLACE LOCAL TEMPORARY VIEW v AS SELECT 1', 'utility', 'CREATE', 'temp catalog opaque write'],
    ['select 1 into temp x', 'writes', 'into', 'temp write'],
    ['insert into temp values (1)', 'writes', 'insert', 'write'],
    ['vacuum analyze t', 'utility', 'vacuum', 'write'],
    ['refresh materialized view v', 'utility', 'refresh', 'write'],
    ['lock table t', 'utility', 'lock', 'write'],
    ['grant select on t to u', 'utility', 'grant', 'write'],
    ['explain execute x', 'utility', 'execute', 'opaque write'],
    ['explain create table t as select 1', 'utility', 'create', 'opaque write'],
    ['bogus', 'notUnderstood', 'bogus', 'opaque write'],
    ['1', 'notUnderstood', '1', 'opaque write'],
    ["select 'open", 'notUnderstood', "'open", 'opaque write'],
    ['select "open', 'notUnderstood', '"open', 'opaque write'],
    ['select "a""b"', 'notUnderstood', '"a""b"', 'opaque write'],
    ['select U&"n\\0065xtval"(1)', 'notUnderstood', 'U&"n\\0065xtval"(1)', 'opaque write'],
    ['select $a$ open $b$', 'notUnderstood', '$a$ open $b$', 'opaque write'],
    ['select /* open', 'notUnderstood', '/* open', 'opaque write'],
    ['select 1)', 'notUnderstood', ')', 'opaque write'],
    ['select {x}', 'notUnderstood', '{x}', 'opaque write'],
    ['select 1 \u000b', 'notUnderstood', '\u000b', 'opaque write'],
    ['\\d', 'notUnderstood', '\\d', 'opaque write'],
  ];
  for (const [text, reason, word, effects] of cases)
    test(`${reason}: ${text}`, () => {
      const found = outcome(text);
      const sorted = (words: string): readonly string[] =>
        words
          .split(' ')
          .filter((one) => one !== '')
          .sort();
      assert.deepEqual({ route: found.route, reason: found.reason, word: found.word }, { route: 'primary', reason, word });
      // Row locks write only hint bits and transaction numbers; `update` in the text says more than there is, which does no harm.
      if (reason !== 'locksRows') assert.deepEqual(sorted(found.effects), sorted(effects));
    });
});

describe('a statement of the session or the transaction', () => {
  const cases: readonly [text: string, route: string, effects: string, name: string][] = [
    ['', 'block', '', ''],
    [' ; /* nothing */ ', 'block', '', ''],
    ['begin', 'block', 'begin', ''],
    ['commit and chain', 'block', 'commit', ''],
    ['end', 'block', 'commit', ''],
    ['rollback work', 'block', 'rollback', ''],
    ['abort', 'block', 'rollback', ''],
    ['rollback to savepoint s', 'block', 'savepoint', ''],
    ['ROLLBACK TRANSACTION TO s', 'block', 'savepoint', ''],
    ['release s', 'block', 'savepoint', ''],
    ["prepare transaction 'x'", 'primary', 'twoPhase write', ''],
    ["commit prepared 'x'", 'primary', 'twoPhase write', ''],
    ["rollback prepared 'x'", 'primary', 'twoPhase write', ''],
    ['set transaction read only', 'block', 'setTransaction', ''],
    ['set local transaction isolation level serializable', 'block', 'setTransaction', ''],
    ['set constraints all deferred', 'block', 'setTransaction', ''],
    ["set search_path to a, 'b'", 'block', 'set', 'search_path'],
    ['SET SESSION My.Var = 1', 'block', 'set', 'My.Var'],
    ["set time zone 'UTC'", 'block', 'set', 'time zone'],
    ['set local statement_timeout = 0', 'block', 'setLocal', 'statement_timeout'],
    ['set session authorization bob', 'block', 'set', 'session authorization'],
    ['set role none', 'block', 'set', 'role'],
    ['set session characteristics as transaction read only', 'block', 'set', 'session characteristics'],
    ['set search_path = PG_temp', 'block', 'set temp', 'search_path'],
    ["set search_path = 'pg_temp'", 'block', 'set temp', 'search_path'],
    ['set seed to 0.5', 'block', 'set pin', 'seed'],
    ['reset all', 'block', 'resetAll', ''],
    ['reset a.b', 'block', 'reset', 'a.b'],
    ['reset session authorization', 'block', 'reset', 'session authorization'],
    ['show pgherd.lsn', 'block', '', 'pgherd.lsn'],
    ['show time zone', 'block', '', 'time zone'],
    ['discard all', 'primary', 'discardAll', ''],
    ['discard temp', 'primary', 'discardTemp', ''],
    ['discard plans', 'primary', '', ''],
    ['listen a', 'primary', 'listen', 'a'],
    ['unlisten "A"', 'primary', 'unlisten', 'A'],
    ['unlisten *', 'primary', 'unlistenAll', ''],
    ["notify a, 'b'", 'primary', 'write', ''],
    ["load 'x'", 'primary', 'pin', ''],
    ['prepare p as select 1', 'primary', 'prepare', 'p'],
    ['prepare "P" (int, numeric(3)) as select pg_advisory_lock($1)', 'primary', 'prepare advisoryLock write', 'P'],
    ['prepare transaction as select 1', 'primary', 'prepare', 'transaction'],
    ["execute p(1, lower('x'))", 'primary', 'execute write', 'p'],
    ['deallocate p', 'primary', 'deallocate', 'p'],
    ['deallocate prepare p', 'primary', 'deallocate', 'p'],
    ['deallocate prepare', 'primary', 'deallocate', 'prepare'],
    ['deallocate prepare all', 'primary', 'deallocateAll', ''],
    ['deallocate all', 'primary', 'deallocateAll', ''],
    ['declare c cursor for select 1', 'block', 'declare', 'c'],
    ['declare c no scroll cursor without hold for select * from t', 'block', 'declare', 'c'],
    ['declare c cursor with hold for select 1', 'primary', 'declare declareHold', 'c'],
    ['declare c cursor for select nextval(1)', 'primary', 'declare write', 'c'],
    ['fetch 5 from c', 'block', '', ''],
    ['close c', 'block', 'closeCursor', 'c'],
    ['close all', 'block', 'closeAllCursors', ''],
    ['begin; select 1; commit', 'primary', 'begin commit', ''],
    ['select 1; set a = 1', 'primary', 'set', 'a'],
    ['begin read only; select 1', 'primary', 'begin', ''],
  ];
  for (const [text, route, effects, name] of cases)
    test(text, () => {
      const found = outcome(text);
      const sorted = (words: string): readonly string[] =>
        words
          .split(' ')
          .filter((one) => one !== '')
          .sort();
      assert.deepEqual({ route: found.route, effects: sorted(found.effects), name: found.name }, { route, effects: sorted(effects), name });
    });

  test('says which modes a transaction has', () => {
    const modes = (text: string): readonly unknown[] => {
      const { into } = outcome(text);
      return [into.access, into.isolation, into.chain];
    };
    assert.deepEqual(modes('begin'), [ACCESS.unsaid, ISOLATION.unsaid, false]);
    assert.deepEqual(modes('begin isolation level repeatable read read only'), [ACCESS.readOnly, ISOLATION.repeatableRead, false]);
    assert.deepEqual(modes('start transaction read write, isolation level read committed'), [ACCESS.readWrite, ISOLATION.readCommitted, false]);
    assert.deepEqual(modes('BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE'), [ACCESS.readOnly, ISOLATION.serializable, false]);
    assert.deepEqual(modes('commit and chain'), [0, 0, true]);
    assert.deepEqual(modes('rollback and no chain'), [0, 0, false]);
    assert.deepEqual(modes('set session characteristics as transaction isolation level serializable'), [0, ISOLATION.serializable, false]);
  });

  test('is shown from its first word to its end', () => {
    const { into } = outcome(' select 1 ;  set a = 1 ; ');
    assert.deepEqual([into.statements, into.textEnd - into.textAt], [2, 'set a = 1 '.length]);
  });
});

describe('wishes in comments', () => {
  const cases: readonly [string, number][] = [
    ['/* pgherd: primary */ select 1', HINT.primary],
    ['/*pgherd:replica*/ select nextval(1)', HINT.standby],
    ['select 1 /* PgHerd: Standby */', HINT.standby],
    ['/* pgherd: standby */ select 1 /* pgherd: primary */', HINT.primary],
    ['/* pgherd: primary */ select 1 /* pgherd: standby */', HINT.primary],
    ['/* pgherd: primaryx */ select 1', HINT.none],
    ["select '/* pgherd: primary */'", HINT.none],
    ['/* please pgherd: primary */ select 1', HINT.none],
    ['-- pgherd: primary\n select 1', HINT.none],
  ];
  for (const [text, hint] of cases)
    test(text, () => {
      assert.equal(outcome(text).into.hint, hint);
    });
});

describe('the settings of a session', () => {
  test('without standard strings, a backslash in a plain string is not understood', () => {
    const text = "select '\\' || lower(x) || '1'";
    assert.equal(outcome(text).route, 'any');
    assert.equal(outcome(text, { standardStrings: false }).reason, 'notUnderstood');
    assert.equal(outcome("select 'a', E'\\n'", { standardStrings: false }).route, 'any');
  });

  test('in an encoding whose second bytes can be a backslash, strings with escapes hold only ASCII', () => {
    // One character of GBK whose second byte is a backslash.
    const text = (kind: string): Buffer =>
      Buffer.from([...Buffer.from(`select ${kind}'`), 0x81, 0x5c, ...Buffer.from("', lower('x') /* "), 0x81, 0x5c, ...Buffer.from(' */')]);
    assert.equal(outcome(text('E'), { encoding: ENCODING.mixed }).reason, 'notUnderstood');
    assert.equal(outcome(text(''), { encoding: ENCODING.mixed }).route, 'any');
    assert.equal(outcome(text(''), { encoding: ENCODING.mixed, standardStrings: false }).reason, 'notUnderstood');
    assert.equal(outcome("select E'\\n'", { encoding: ENCODING.mixed }).route, 'any');
  });

  test('in another encoding than UTF-8, a name above ASCII is not compared', () => {
    const name = Buffer.from([...Buffer.from('select * from '), 0xe4, 0x62]);
    const string = Buffer.from([...Buffer.from("select '"), 0xe4, ...Buffer.from("'")]);
    assert.equal(outcome(name, { encoding: ENCODING.aboveAscii }).reason, 'notUnderstood');
    assert.equal(outcome(string, { encoding: ENCODING.aboveAscii }).route, 'any');
  });
});

test('settings of the application are asked on the primary when they may differ', () => {
  assert.equal(outcome("select current_setting('app.tenant')", { ownSettings: false }).reason, 'function');
});

describe('the rules of a database', () => {
  test("that are not there make everything but the session's own statements one for the primary", () => {
    assert.equal(outcome('select 1', { rules: NO_RULES }).reason, 'untrusted');
    assert.equal(outcome('copy t to stdout', { rules: NO_RULES }).reason, 'untrusted');
    assert.equal(outcome('begin', { rules: NO_RULES }).route, 'block');
  });

  test('with something volatile that runs unnamed make no query a read, and say why', () => {
    const { rules, distrust } = buildRules([...rows, ['implicit', 'operator =', '']]);
    assert.deepEqual(distrust, ['operator =']);
    assert.equal(outcome('select 1', { rules }).reason, 'untrusted');
  });

  test('name the views, tables and domains that are unsafe by what stands in them', () => {
    assert.deepEqual([...buildRules(rows).suspects].sort(), ['checked', 'guarded', 'inner_view', 'outer_view']);
  });

  test('take a word that seldom calls for a call when a volatile function has its name', () => {
    const { rules } = buildRules([...rows, ['volatile', 'join', '']]);
    assert.equal(outcome('select * from a join (select 1) b on (true)').route, 'any');
    assert.equal(outcome('select * from a join b using (x)', { rules }).route, 'any');
    assert.equal(outcome('select * from a join (select 1) b on (true)', { rules }).word, 'join');
    assert.equal(outcome('select join(1)', { rules }).word, 'join');
  });

  test('can be corrected by people', () => {
    const { rules } = buildRules([...rows, ['volatile', 'join', '']], {
      harmless: ['pg_notify', 'join'],
      primary: ['lower', 'random'],
      stateless: ['write_it'],
    });
    assert.equal(outcome('select pg_notify(a, b)', { rules }).route, 'any');
    assert.equal(outcome('select random()', { rules }).word, 'random');
    assert.equal(outcome('select * from a join (select 1) b on (true)', { rules }).route, 'any');
    assert.equal(outcome('select lower(x)', { rules }).reason, 'function');
    assert.equal(outcome('select write_it(1)', { rules }).effects, 'write');
  });

  test('with triggers of unknown code make every change opaque', () => {
    const { rules } = buildRules([...rows, ['trigger', 'write_it', '']]);
    for (const text of [
      'insert into t values (1)',
      'with x as (delete from t returning 1) select 1',
      'copy t from stdin',
      'truncate t',
      'explain analyze update t set a = 1',
    ])
      assert.match(outcome(text, { rules }).effects, /opaque/, text);
    assert.doesNotMatch(outcome('select * from t for update', { rules }).effects, /opaque/);
    assert.equal(buildRules([...rows, ['trigger', 'write_it', '']], { stateless: ['write_it'] }).rules.writesOpaque, false);
  });

  test('take a name for harmless only if no other function has it', () => {
    const { rules } = buildRules([
      ...rows.filter(([, name]) => name !== 'random' && name !== 'substring'),
      ['volatile', 'random', ''],
      ['volatile', 'substring', ''],
    ]);
    assert.equal(outcome('select random()', { rules }).word, 'random');
    assert.equal(outcome('select substring(a, b)', { rules }).word, 'substring');
  });

  test('of an unknown kind are refused', () => {
    assert.throws(() => buildRules([['surprise', 'x', '']]), /surprise/);
  });
});

describe('whatever bytes come', () => {
  test('the classification ends, and nothing that was refused becomes a read by what is appended to it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        outcome(bytes);
      }),
      { numRuns: 2000 },
    );
  });

  // Pieces that open and close every state of the scanner. What grammar can do is tried on a real server (classify-postgres.test.ts).
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
      ' ',
      '(',
      ')',
      ';',
      '.',
      ' select ',
      ' lower',
      ' x',
      '1',
      '$1',
      '+',
      '[',
      ']',
    ],
  );

  test('a call of a volatile function that the server would see is seen', () => {
    const closers = ["'", '"', '$$', '$a$', '*/', '\n'];
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.constantFrom(...closers), (pieces, closer) => {
        const text = `select ${pieces.join('')}${closer}`;
        const whole = outcome(`${text} nextval(1)`);
        // The call can only be missed inside a string, name or comment; there a byte that is nowhere allowed in code is missed as well.
        if (whole.into.route === ROUTE.any) assert.equal(outcome(`${text} \u000b`).into.route, ROUTE.any, JSON.stringify(text));
      }),
      { numRuns: 5000 },
    );
  });

  test('a longer text of reads is a read, and with one write in it is none', () => {
    const reads = ['select 1', 'table t', "select 'a;b'", '/* ; */ values (1)', 'select $$;$$'];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...reads), { minLength: 1, maxLength: 6 }), fc.nat(6), (list, at) => {
        assert.equal(outcome(list.join(';')).route, 'any');
        assert.equal(outcome([...list.slice(0, at), 'delete from t', ...list.slice(at)].join(';')).route, 'primary');
      }),
    );
  });
});

test('the same classifier gives the same answer for a text, whatever it saw before', () => {
  const first = outcome('select lower(x) from t', { rules: testRules });
  outcome("begin read only; set x = 'y", { rules: testRules });
  assert.deepEqual(outcome('select lower(x) from t', { rules: testRules }), first);
});
