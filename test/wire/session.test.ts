import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BARE } from '../../src/wire/backend.ts';
import { ROUTE } from '../../src/wire/classification.ts';
import { buildBind, buildExecute, buildParse, buildQuery, buildSync } from '../../src/wire/frontend.ts';
import { listPrepared } from '../../src/wire/prepared.ts';
import { buildRules } from '../../src/wire/rules.ts';
import { ENCODING } from '../../src/wire/scan.ts';
import { applyInspection, needsInspection } from '../../src/wire/session-inspection.ts';
import { settingValue } from '../../src/wire/session-settings.ts';
import {
  PIN,
  createSessionState,
  describePins,
  mayHaveCommitted,
  mayLeavePrimary,
  noteConnectionLost,
  noteParameter,
} from '../../src/wire/session-state.ts';
import { rows, testRules } from './classify-support.ts';
import { createTalk, done, error, ready, run, settings } from './session-support.ts';

describe('settings', () => {
  test('are kept in the order in which they were made, each once, by whatever protocol', () => {
    const talk = createTalk();
    run(talk, 'SET search_path TO a', 'SET');
    run(talk, "set time zone 'UTC'", 'SET');
    talk.client([buildParse({ name: '', text: "set Search_Path = 'b'" }), buildBind({ portal: '', statement: '' }), buildExecute(''), buildSync()]);
    talk.server([BARE.parseComplete, BARE.bindComplete, done('SET'), ready()]);
    assert.deepEqual(settings(talk), ["set time zone 'UTC'", "set Search_Path = 'b'"]);
    assert.equal(settingValue(talk.state.settings, 'search_path'), 'b');
    assert.deepEqual(settings(talk, 2), ["set Search_Path = 'b'"]);
    assert.deepEqual(settings(talk, 3), []);
  });

  test('of a transaction count when it commits', () => {
    const talk = createTalk();
    run(talk, 'begin', 'BEGIN', 'open');
    run(talk, 'set a.b = 1', 'SET', 'open');
    assert.deepEqual(settings(talk), []);
    run(talk, 'rollback', 'ROLLBACK');
    assert.deepEqual(settings(talk), []);
    run(talk, 'begin', 'BEGIN', 'open');
    run(talk, 'set a.b = 2', 'SET', 'open');
    run(talk, 'set local a.c = 2', 'SET', 'open');
    run(talk, 'commit and chain', 'COMMIT', 'open');
    assert.deepEqual(settings(talk), ['set a.b = 2']);
    run(talk, 'set a.b = 3', 'SET', 'open');
    // A COMMIT of a transaction that has failed answers ROLLBACK.
    run(talk, 'x', null, 'failed');
    run(talk, 'commit', 'ROLLBACK');
    assert.deepEqual(settings(talk), ['set a.b = 2']);
  });

  test('of a batch that fails later are gone with it', () => {
    const talk = createTalk();
    const bound = (text: string): readonly Uint8Array[] => [
      buildParse({ name: '', text }),
      buildBind({ portal: '', statement: '' }),
      buildExecute(''),
    ];
    talk.client([...bound('set a.b = 1'), ...bound('select 1'), buildSync()]);
    talk.server([BARE.parseComplete, BARE.bindComplete, done('SET'), BARE.parseComplete, error, ready()]);
    assert.deepEqual(settings(talk), []);
  });

  test('after ROLLBACK TO, or several statements in one text, are asked of the server', () => {
    for (const texts of [['begin', 'savepoint s', 'set a.b = 1', 'rollback to s', 'commit']]) {
      const talk = createTalk();
      for (const text of texts) run(talk, text, text.split(' ')[0]!.toUpperCase(), text === 'commit' ? 'idle' : 'open');
      assert.equal(needsInspection(talk.state), true);
    }
    const talk = createTalk();
    talk.client([buildQuery('set a.b = 1; set a.c = 2')]);
    talk.server([done('SET'), done('SET'), ready()]);
    assert.equal(needsInspection(talk.state), true);
  });

  test('that are reset are reset on connections that have them, and not made on new ones', () => {
    const talk = createTalk();
    run(talk, 'set a.b = 1', 'SET');
    run(talk, 'reset a.b', 'RESET');
    run(talk, 'set a.c = 1', 'SET');
    assert.deepEqual([settings(talk), settings(talk, 1)], [['set a.c = 1'], ['reset a.b', 'set a.c = 1']]);
    run(talk, 'set role bob', 'SET');
    run(talk, 'reset all', 'RESET');
    assert.deepEqual([settings(talk), settings(talk, 1)], [['set role bob'], ['reset all', 'set role bob']]);
    run(talk, 'discard all', 'DISCARD ALL');
    run(talk, 'set a.d to default', 'SET');
    assert.deepEqual([settings(talk), settings(talk, 1)], [[], ['discard all', 'set a.d to default']]);
  });

  test('of one transaction only are not kept (I25)', () => {
    const talk = createTalk();
    for (const text of ['set transaction_read_only = on', 'set seed to 0.5', 'set transaction read only', 'set local a.b = 1'])
      run(talk, text, 'SET');
    assert.deepEqual(settings(talk), []);
  });

  test('without end tie the session to its server', () => {
    const talk = createTalk();
    for (let i = 0; i < 110; i++) run(talk, `set a.n${i} = 1`, 'SET');
    assert.match(describePins(talk.state) ?? '', /more settings/);
    run(talk, 'discard all', 'DISCARD ALL');
    assert.equal(describePins(talk.state), null);
  });

  test('that ask for SERIALIZABLE keep the session on the primary, which alone has it', () => {
    for (const text of [
      'set default_transaction_isolation = serializable',
      'set session characteristics as transaction isolation level serializable',
    ]) {
      const talk = createTalk();
      run(talk, text, 'SET');
      assert.equal(mayLeavePrimary(talk.state, testRules), false, text);
    }
  });

  test('of text are trusted only when no statement that may change them is under way', () => {
    const talk = createTalk();
    const text = 'select "ü"';
    talk.client([buildQuery("set client_encoding = 'GBK'"), buildQuery(text)]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
    talk.server([done('SET'), ready(), done('SELECT 1'), ready()]);
    noteParameter(talk.state, 'client_encoding', 'GBK');
    assert.equal(talk.state.text.encoding, ENCODING.mixed);
    noteParameter(talk.state, 'client_encoding', 'UTF8');
    talk.client([buildQuery(text)]);
    assert.equal(talk.state.batch.route, ROUTE.any);
  });
});

test('a start packet that asks for SERIALIZABLE keeps the session on the primary', () => {
  for (const startup of [
    ['options', '-c default_transaction_isolation=serializable'],
    ['Default_Transaction_Isolation', 'serializable'],
  ] as const)
    assert.equal(createSessionState({ user: 'app', startup: [startup] }).pins, PIN.forever);
  assert.equal(createSessionState({ user: 'app', startup: [['options', '-c default_transaction_isolation=read\\ committed']] }).pins, 0);
});

describe('a pin', () => {
  const cases: readonly [begins: string, tag: string, word: RegExp, ends: readonly [string, string][]][] = [
    ['create temp table x (a int)', 'CREATE TABLE', /temporary table/, [['discard temp', 'DISCARD TEMP']]],
    ['listen a', 'LISTEN', /LISTEN/, [['unlisten *', 'UNLISTEN']]],
    ['select pg_advisory_lock(1)', 'SELECT 1', /advisory lock/, [['select pg_advisory_unlock_all()', 'SELECT 1']]],
    ['declare c cursor with hold for select 1', 'DECLARE CURSOR', /WITH HOLD/, [['close all', 'CLOSE CURSOR ALL']]],
    ['prepare p as select 1', 'PREPARE', /made with PREPARE/, [['deallocate all', 'DEALLOCATE ALL']]],
  ];
  for (const [begins, tag, word, ends] of cases)
    test(`begins before "${begins}" is sent, and ends when that has been ended`, () => {
      const talk = createTalk();
      talk.client([buildQuery(begins)]);
      assert.match(describePins(talk.state) ?? '', word);
      talk.server([done(tag), ready()]);
      assert.match(describePins(talk.state) ?? '', word);
      assert.equal(mayLeavePrimary(talk.state, testRules), false);
      const before = talk.state.pins;
      for (const [text] of ends) run(talk, text, null);
      assert.equal(talk.state.pins, before, 'an end that fails ends nothing');
      for (const [text, endTag] of ends) run(talk, text, endTag);
      assert.doesNotMatch(describePins(talk.state) ?? '', word);
      run(talk, 'discard all', 'DISCARD ALL');
      assert.equal(describePins(talk.state), null);
    });

  test('does not end in a transaction that is open or rolled back, or while more is under way', () => {
    const talk = createTalk();
    run(talk, 'listen a', 'LISTEN');
    run(talk, 'begin', 'BEGIN', 'open');
    run(talk, 'unlisten *', 'UNLISTEN', 'open');
    assert.equal(talk.state.pins, PIN.listen);
    run(talk, 'rollback', 'ROLLBACK');
    assert.equal(talk.state.uncertain, true);
    talk.client([buildQuery('unlisten *'), buildQuery('listen b')]);
    talk.server([done('UNLISTEN'), ready(), done('LISTEN'), ready()]);
    assert.equal(talk.state.pins, PIN.listen);
    assert.equal(needsInspection(talk.state), true);
  });

  test('that is made and ended in one transaction is asked about, whichever came first', () => {
    for (const texts of [
      ['unlisten *', 'listen a'],
      ['listen a', 'unlisten *'],
    ]) {
      const talk = createTalk();
      run(talk, 'begin', 'BEGIN', 'open');
      for (const text of texts) run(talk, text, 'X', 'open');
      run(talk, 'commit', 'COMMIT');
      assert.deepEqual([talk.state.pins, needsInspection(talk.state)], [PIN.listen, true]);
    }
  });

  test('of one of several ends by asking the server', () => {
    const talk = createTalk();
    run(talk, 'select pg_advisory_lock(1)', 'SELECT 1');
    run(talk, 'select pg_advisory_unlock(1)', 'SELECT 1');
    assert.equal(needsInspection(talk.state), true);
    applyInspection(talk.state, ['f', 'f', 't', 'f', 'f', 'none', 'app', '{}', 'f']);
    assert.equal(talk.state.pins, PIN.advisoryLock);
    assert.equal(needsInspection(talk.state), false);
  });

  test('for code that was not looked into ends by asking the server, which also tells of settings', () => {
    const talk = createTalk();
    run(talk, 'set a.b = 1', 'SET');
    run(talk, 'set work_mem = 1000', 'SET');
    run(talk, 'select write_it(1)', 'SELECT 1');
    assert.equal(needsInspection(talk.state), true);
    applyInspection(talk.state, [
      'f',
      'f',
      'f',
      'f',
      'f',
      'none',
      'app',
      JSON.stringify({ search_path: `a, "it's"`, transaction_isolation: 'x' }),
      'f',
    ]);
    assert.equal(describePins(talk.state), null);
    assert.deepEqual(settings(talk), ['set a.b = 1', `SELECT pg_catalog.set_config('search_path', E'a, "it''s"', false)`]);
    // What code may have set under a name of the application is seen by nobody: queries that ask for such settings go to the primary.
    talk.client([buildQuery("select current_setting('a.b')")]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
    talk.server([done('SELECT 1'), ready()]);
    assert.equal(mayLeavePrimary(talk.state, testRules), false, 'a policy asks for settings');
    assert.equal(mayLeavePrimary(talk.state, buildRules(rows.filter(([kind]) => kind !== 'policy')).rules), true);
    run(talk, 'reset all', 'RESET');
    assert.equal(mayLeavePrimary(talk.state, testRules), true);
  });

  test('for code that has taken another role ends with that role among the settings', () => {
    const talk = createTalk();
    run(talk, 'select write_it(1)', 'SELECT 1');
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'Odd "one"', 'app', '{}', 'f']);
    assert.deepEqual([describePins(talk.state), settings(talk)], [null, ['SET ROLE "Odd ""one"""']]);
    run(talk, 'select write_it(1)', 'SELECT 1');
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'none', 'app', '{}', 'f']);
    assert.deepEqual(settings(talk), []);
  });

  test('stays when the user of the session is another one', () => {
    const talk = createTalk();
    run(talk, 'set session authorization bob', 'SET');
    run(talk, 'select write_it(1)', 'SELECT 1');
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'none', 'bob', '{}', 'f']);
    assert.equal(talk.state.pins, PIN.opaque);
  });

  test('stays when the answer to the question is none', () => {
    const talk = createTalk();
    run(talk, 'select write_it(1)', 'SELECT 1');
    for (const answer of [[], ['f', 'f', 'f', 'f', 'f', 'none', 'app', 'x', 'f'], ['f', 'f', 'f', 'f', 'f', 'none', 'app', null, 'f']])
      applyInspection(talk.state, answer);
    assert.equal(talk.state.pins, PIN.opaque);
  });
});

describe('a connection that is lost', () => {
  test('may have committed what was sent outside a block, or its COMMIT', () => {
    const lost = (...messages: readonly Uint8Array[]): boolean => {
      const talk = createTalk();
      talk.client(messages);
      return mayHaveCommitted(talk.state);
    };
    assert.equal(lost(), false);
    assert.equal(lost(buildQuery('select 1')), false);
    assert.equal(lost(buildQuery('delete from t')), true);
    assert.equal(lost(buildQuery('begin'), buildQuery('delete from t')), false);
    assert.equal(lost(buildQuery('begin'), buildQuery('delete from t'), buildQuery('commit')), true);
    assert.equal(lost(buildQuery('begin; delete from t; commit')), true);
    assert.equal(lost(buildQuery("commit prepared 'x'")), true);
  });

  test('may have committed what was answered, but not yet by ReadyForQuery', () => {
    const bound = (text: string): readonly Uint8Array[] => [
      buildParse({ name: '', text }),
      buildBind({ portal: '', statement: '' }),
      buildExecute(''),
      buildSync(),
    ];
    const answered = (tag: string): readonly Uint8Array[] => [BARE.parseComplete, BARE.bindComplete, done(tag)];
    for (const [text, tag, status, may] of [
      ['delete from t', 'DELETE 1', 'idle', true],
      ['select 1', 'SELECT 1', 'idle', false],
      ['delete from t', 'DELETE 1', 'open', false],
      ['commit', 'COMMIT', 'open', true],
    ] as const) {
      const talk = createTalk();
      if (status === 'open') run(talk, 'begin', 'BEGIN', 'open');
      talk.client(bound(text));
      talk.server(answered(tag));
      assert.equal(mayHaveCommitted(talk.state), may, `${text} in a transaction that is ${status}`);
      talk.server([ready()]);
      assert.equal(mayHaveCommitted(talk.state), false);
    }
    const talk = createTalk();
    run(talk, 'begin', 'BEGIN', 'open');
    talk.client([buildQuery('rollback'), buildQuery('delete from t')]);
    assert.equal(mayHaveCommitted(talk.state), true, 'what follows a ROLLBACK commits by itself');
  });

  test('leaves what can be made again', () => {
    const talk = createTalk();
    run(talk, 'set a.b = 1', 'SET');
    talk.client([buildParse({ name: 'r', text: 'select 1' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    run(talk, 'begin', 'BEGIN', 'open');
    talk.client([buildQuery('select 1')]);
    noteConnectionLost(talk.state);
    assert.deepEqual([settings(talk), listPrepared(talk.state.prepared).length, talk.state.requests.count], [['set a.b = 1'], 1, 0]);
    assert.equal(mayLeavePrimary(talk.state, testRules), true);
  });
});

test('changes of the catalog are counted when they are committed', () => {
  const talk = createTalk();
  run(talk, 'begin', 'BEGIN', 'open');
  run(talk, 'create function f() returns int', 'CREATE FUNCTION', 'open');
  assert.equal(talk.state.catalogChanges, 0);
  run(talk, 'commit', 'COMMIT');
  assert.equal(talk.state.catalogChanges, 1);
});
