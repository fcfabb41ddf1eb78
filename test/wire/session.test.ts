import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BARE, buildCommandComplete, buildError, buildReady, buildRowDescription } from '../../src/wire/backend.ts';
import { buildMessage, decodeText } from '../../src/wire/bytes.ts';
import { EFFECT, ROUTE } from '../../src/wire/classification.ts';
import { buildBind, buildClose, buildDescribe, buildExecute, buildFlush, buildParse, buildQuery, buildSync } from '../../src/wire/frontend.ts';
import { listPrepared } from '../../src/wire/prepared.ts';
import { BACKEND, FRONTEND } from '../../src/wire/protocol.ts';
import { buildRules } from '../../src/wire/rules.ts';
import { ENCODING } from '../../src/wire/scan.ts';
import { applyInspection, needsInspection } from '../../src/wire/session-inspection.ts';
import { missingSettings, settingValue } from '../../src/wire/session-settings.ts';
import {
  PIN,
  createSessionState,
  describePins,
  mayHaveCommitted,
  mayLeavePrimary,
  mayReadElsewhere,
  noteConnectionLost,
  noteParameter,
} from '../../src/wire/session-state.ts';
import { ANSWER, answeringServer, noteOwnParse } from '../../src/wire/session-track.ts';
import { rows, testRules } from './classify-support.ts';
import { type Talk, createTalk } from './session-support.ts';

const error = buildError({ severity: 'ERROR', sqlState: '42601', message: 'no' });
const done = (tag: string): Uint8Array => buildCommandComplete(tag);
const ready = (status: 'idle' | 'open' | 'failed' = 'idle'): Uint8Array => buildReady(status);

/** A statement by the simple protocol, and its whole answer. */
function run(talk: Talk, text: string, tag: string | null, status: 'idle' | 'open' | 'failed' = 'idle'): void {
  talk.client([buildQuery(text)]);
  talk.server([tag === null ? error : done(tag), ready(status)]);
}

const settings = (talk: Talk, since = 0): readonly string[] => missingSettings(talk.state.settings, since).map((text) => decodeText(text).trim());

describe('a batch', () => {
  test('of the simple protocol asks for what its statements ask for', () => {
    const talk = createTalk();
    talk.client([buildQuery('select 1')]);
    assert.equal(mayReadElsewhere(talk.state, testRules), true);
    talk.server([done('SELECT 1'), ready()]);
    talk.client([buildQuery('delete from t')]);
    assert.deepEqual([talk.state.batch.route, talk.state.batch.effects], [ROUTE.primary, EFFECT.write]);
    assert.equal(mayReadElsewhere(talk.state, testRules), false);
  });

  test('of the extended protocol is decided when it is whole', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: '', text: 'select 1' }), buildBind({ portal: '', statement: '' }), buildExecute('')]);
    assert.equal(mayReadElsewhere(talk.state, testRules), false);
    talk.client([buildSync()]);
    assert.equal(mayReadElsewhere(talk.state, testRules), true);
    assert.equal(talk.state.batch.requests, 4);
    talk.server([BARE.parseComplete, BARE.bindComplete, done('SELECT 1'), ready()]);
    assert.equal(talk.state.requests.count, 0);
  });

  test('is one for the primary when any of its statements is', () => {
    const talk = createTalk();
    const bound = (text: string): readonly Uint8Array[] => [
      buildParse({ name: '', text }),
      buildBind({ portal: '', statement: '' }),
      buildExecute(''),
    ];
    talk.client([...bound('select 1'), ...bound("select nextval('s')"), ...bound('select 2'), buildSync()]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
  });

  test('with a Flush stays on the primary: its end is not known when its answers are wanted', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: '', text: 'select 1' }), buildFlush(), buildSync()]);
    assert.equal(mayReadElsewhere(talk.state, testRules), false);
  });

  test('in an open transaction stays where the transaction is', () => {
    const talk = createTalk();
    run(talk, 'begin', 'BEGIN', 'open');
    talk.client([buildQuery('select 1')]);
    assert.equal(mayReadElsewhere(talk.state, testRules), false);
  });

  test('with a text that was too long to be looked at, or a statement nobody knows, is one for the primary', () => {
    const talk = createTalk();
    talk.client([buildBind({ portal: '', statement: 'never' }), buildExecute(''), buildSync()]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
    assert.equal(describePins(talk.state), 'code that may have changed the session');
  });

  test('that calls a function by its own message is one for the primary', () => {
    const talk = createTalk();
    talk.client([buildMessage(FRONTEND.functionCall, new Uint8Array(8))]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
    talk.server([buildMessage(BACKEND.functionCallResponse, new Uint8Array(4)), ready()]);
    assert.equal(talk.state.requests.count, 0);
  });
});

describe('a prepared statement', () => {
  test('is known by its name until it is closed, and each use of it asks for what its text asks for', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'r', text: 'select 1' }), buildParse({ name: 'w', text: 'delete from t' }), buildSync()]);
    talk.server([BARE.parseComplete, BARE.parseComplete, ready()]);
    const use = (name: string): number => {
      talk.client([buildBind({ portal: '', statement: name }), buildExecute(''), buildSync()]);
      talk.server([BARE.bindComplete, done('X'), ready()]);
      return talk.state.batch.route;
    };
    assert.deepEqual([use('r'), use('w'), use('r')], [ROUTE.any, ROUTE.primary, ROUTE.any]);
    talk.client([buildClose('statement', 'r'), buildSync()]);
    talk.server([BARE.closeComplete, ready()]);
    assert.equal(use('r'), ROUTE.primary);
    assert.deepEqual(
      listPrepared(talk.state.prepared).map(({ name }) => decodeText(name)),
      ['w'],
    );
  });

  test('keeps its whole Parse message, to be prepared elsewhere', () => {
    const talk = createTalk();
    const parse = buildParse({ name: 'r', text: 'select $1', parameterTypes: [23] });
    talk.client([parse, buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    const [one] = listPrepared(talk.state.prepared);
    assert.deepEqual(one?.parse?.slice(0, one.parseLength), parse);
  });

  test('that failed is not there; one whose close was passed over still is', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'a', text: 'select 1' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    talk.client([
      buildParse({ name: 'b', text: 'select' }),
      buildClose('statement', 'a'),
      buildParse({ name: 'a', text: 'delete from t' }),
      buildSync(),
    ]);
    talk.server([error, ready()]);
    assert.deepEqual(
      listPrepared(talk.state.prepared).map(({ name, route }) => [decodeText(name), route]),
      [['a', ROUTE.any]],
    );
    assert.equal(talk.state.requests.count, 0);
  });

  test('is passed over with everything up to the next Sync, even what was sent after the error came', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'a', text: 'x' }), buildFlush()]);
    talk.server([error]);
    talk.client([buildParse({ name: 'b', text: 'select 1' }), buildBind({ portal: '', statement: 'b' }), buildExecute(''), buildSync()]);
    talk.server([ready()]);
    assert.equal(talk.state.requests.count, 0);
    assert.deepEqual(listPrepared(talk.state.prepared), []);
  });

  test('with a name that exists is refused by the server, and the old one stays', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'a', text: 'delete from t' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    talk.client([buildParse({ name: 'a', text: 'select 1' }), buildBind({ portal: '', statement: 'a' }), buildExecute(''), buildSync()]);
    assert.equal(talk.state.batch.route, ROUTE.primary);
    talk.server([error, ready()]);
    assert.equal(listPrepared(talk.state.prepared)[0]?.route, ROUTE.primary);
  });

  test('can be taken away by SQL, in lower case unless quoted', () => {
    const talk = createTalk();
    for (const name of ['abc', 'ABC', 'x']) talk.client([buildParse({ name, text: 'select 1' }), buildSync()]);
    talk.server([BARE.parseComplete, ready(), BARE.parseComplete, ready(), BARE.parseComplete, ready()]);
    run(talk, 'DEALLOCATE ABC', 'DEALLOCATE');
    assert.deepEqual(
      listPrepared(talk.state.prepared)
        .map(({ name }) => decodeText(name))
        .sort(),
      ['ABC', 'x'],
    );
    run(talk, 'deallocate "ABC"', 'DEALLOCATE');
    run(talk, 'discard all', 'DISCARD ALL');
    assert.deepEqual(listPrepared(talk.state.prepared), []);
  });

  test('that is prepared behind a DEALLOCATE of its name, in one go, is there', () => {
    const talk = createTalk();
    const parse = (text: string): Uint8Array => buildParse({ name: 'n', text });
    talk.client([
      parse('deallocate n'),
      buildBind({ portal: '', statement: 'n' }),
      buildExecute(''),
      buildClose('statement', 'n'),
      parse('select 1'),
      buildSync(),
    ]);
    talk.server([BARE.parseComplete, BARE.bindComplete, done('DEALLOCATE'), BARE.closeComplete, BARE.parseComplete, ready()]);
    assert.deepEqual(
      listPrepared(talk.state.prepared).map(({ route }) => route),
      [ROUTE.any],
    );
  });

  test('that the proxy prepares on another server is not answered to the client', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'r', text: 'select 1' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    const [one] = listPrepared(talk.state.prepared);
    const bind = [buildBind({ portal: '', statement: 'r' }), buildExecute(''), buildSync()];
    const { state } = talk;
    talk.client([buildQuery('select 1')], 0);
    talk.note(bind);
    // The own Parse comes before the batch that needs it, and behind what is under way.
    noteOwnParse(state, one!);
    talk.client([], 1);
    assert.deepEqual(talk.server([done('SELECT 1'), ready()], 0), [ANSWER.forward, ANSWER.forward]);
    assert.equal(answeringServer(state), 1);
    assert.deepEqual(talk.server([BARE.parseComplete, BARE.bindComplete, done('SELECT 1'), ready()], 1), [
      ANSWER.swallow,
      ANSWER.forward,
      ANSWER.forward,
      ANSWER.forward,
    ]);
    assert.equal(state.requests.count, 0);
  });
});

describe('answers', () => {
  test('of a server whose turn it is not must wait', () => {
    const talk = createTalk();
    talk.client([buildQuery('select 1')], 1);
    talk.client([buildQuery('delete from t')], 0);
    assert.deepEqual(talk.server([done('DELETE 1')], 0), [ANSWER.later]);
    assert.equal(answeringServer(talk.state), 1);
    talk.server([done('SELECT 1'), ready()], 1);
    assert.deepEqual(talk.server([done('DELETE 1'), ready()], 0), [ANSWER.forward, ANSWER.forward]);
    assert.equal(answeringServer(talk.state), -1);
  });

  test('to Describe of a statement and of a portal, to an empty query, and to an interrupted portal end their request', () => {
    const talk = createTalk();
    talk.client([
      ...[buildParse({ name: '', text: '' }), buildDescribe('statement', ''), buildBind({ portal: '', statement: '' }), buildDescribe('portal', '')],
      ...[buildExecute('', 1), buildExecute('', 1), buildSync()],
    ]);
    talk.server([BARE.parseComplete, buildMessage(BACKEND.parameterDescription, new Uint8Array(2)), buildRowDescription([]), BARE.bindComplete]);
    talk.server([BARE.noData, buildMessage(BACKEND.portalSuspended), BARE.emptyQueryResponse, ready()]);
    assert.equal(talk.state.requests.count, 0);
    assert.equal(talk.state.pins, 0);
  });

  test('to a COPY make the Sync that is on its way void', () => {
    const talk = createTalk();
    const copyIn = buildMessage(BACKEND.copyInResponse, new Uint8Array(3));
    talk.client([buildParse({ name: '', text: 'copy t from stdin' }), buildBind({ portal: '', statement: '' }), buildExecute(''), buildSync()]);
    talk.server([BARE.parseComplete, BARE.bindComplete, copyIn]);
    talk.client([buildMessage(FRONTEND.copyData, new Uint8Array(3)), buildSync(), buildMessage(FRONTEND.copyDone), buildSync()]);
    talk.server([done('COPY 1'), ready()]);
    assert.equal(talk.state.requests.count, 0);
    talk.client([buildQuery('copy t from stdin')]);
    talk.server([copyIn]);
    talk.client([buildMessage(FRONTEND.copyFail, new Uint8Array(1))]);
    talk.server([error, ready()]);
    assert.equal(talk.state.requests.count, 0);
  });

  test('that nobody asked for make the session one that stays where it is', () => {
    const talk = createTalk();
    talk.client([buildSync()]);
    talk.server([BARE.parseComplete]);
    assert.equal(talk.state.pins & PIN.confused, PIN.confused);
  });
});

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

  test('of one transaction only are not kept', () => {
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
    ['prepare p as select 1', 'PREPARE', /prepared by SQL/, [['deallocate all', 'DEALLOCATE ALL']]],
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

  test('of one of several ends by asking the server', () => {
    const talk = createTalk();
    run(talk, 'select pg_advisory_lock(1)', 'SELECT 1');
    run(talk, 'select pg_advisory_unlock(1)', 'SELECT 1');
    assert.equal(needsInspection(talk.state), true);
    applyInspection(talk.state, ['f', 'f', 't', 'f', 'f', 'none', 'app', '{}']);
    assert.equal(talk.state.pins, PIN.advisoryLock);
    assert.equal(needsInspection(talk.state), false);
  });

  test('for code that was not looked into ends by asking the server, which also tells of settings', () => {
    const talk = createTalk();
    run(talk, 'set a.b = 1', 'SET');
    run(talk, 'set work_mem = 1000', 'SET');
    run(talk, 'select write_it(1)', 'SELECT 1');
    assert.equal(needsInspection(talk.state), true);
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'none', 'app', JSON.stringify({ search_path: `a, "it's"`, transaction_isolation: 'x' })]);
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
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'Odd "one"', 'app', '{}']);
    assert.deepEqual([describePins(talk.state), settings(talk)], [null, ['SET ROLE "Odd ""one"""']]);
    run(talk, 'select write_it(1)', 'SELECT 1');
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'none', 'app', '{}']);
    assert.deepEqual(settings(talk), []);
  });

  test('stays when the user of the session is another one', () => {
    const talk = createTalk();
    run(talk, 'set session authorization bob', 'SET');
    run(talk, 'select write_it(1)', 'SELECT 1');
    applyInspection(talk.state, ['f', 'f', 'f', 'f', 'f', 'none', 'bob', '{}']);
    assert.equal(talk.state.pins, PIN.opaque);
  });

  test('stays when the answer to the question is none', () => {
    const talk = createTalk();
    run(talk, 'select write_it(1)', 'SELECT 1');
    for (const answer of [[], ['f', 'f', 'f', 'f', 'f', 'none', 'app', 'x'], ['f', 'f', 'f', 'f', 'f', 'none', 'app', null]])
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
