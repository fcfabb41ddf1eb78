import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { BARE, buildRowDescription } from '../../src/wire/backend.ts';
import { buildMessage, decodeText } from '../../src/wire/bytes.ts';
import { EFFECT, ROUTE } from '../../src/wire/classification.ts';
import { buildBind, buildClose, buildDescribe, buildExecute, buildFlush, buildParse, buildQuery, buildSync } from '../../src/wire/frontend.ts';
import { listPrepared } from '../../src/wire/prepared.ts';
import { BACKEND, FRONTEND } from '../../src/wire/protocol.ts';
import { PIN, describePins, mayReadElsewhere } from '../../src/wire/session-state.ts';
import { ANSWER, answeringServer, noteOwnParse } from '../../src/wire/session-track.ts';
import { testRules } from './classify-support.ts';
import { createTalk, done, error, ready, run } from './session-support.ts';
import '../fixed-seed.ts';

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
    assert.equal(describePins(talk.state), 'called code or functions that may have changed the session');
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

  test('that was put back is closed by the Close that was sent behind it', () => {
    const talk = createTalk();
    const [parse, close] = [buildParse({ name: 'n', text: 'select 1' }), buildClose('statement', 'n')];
    talk.client([parse, buildBind({ portal: '', statement: 'n' }), close, parse, buildSync(), close, buildSync()]);
    talk.server([BARE.parseComplete, error, ready(), BARE.closeComplete, ready()]);
    assert.deepEqual(listPrepared(talk.state.prepared), []);
    assert.equal(talk.state.prepared.keptBytes, 0);
  });

  test('is the second of its name when the first fails, and asks for what either asks for until that is known', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'n', text: 'select 1' }), buildSync(), buildParse({ name: 'n', text: 'listen a' }), buildSync()]);
    talk.client([buildBind({ portal: '', statement: 'n' }), buildExecute(''), buildSync()]);
    assert.deepEqual([talk.state.batch.route, describePins(talk.state)], [ROUTE.primary, 'LISTEN']);
    talk.server([error, ready(), BARE.parseComplete, ready(), BARE.bindComplete, done('LISTEN'), ready()]);
    assert.deepEqual(
      listPrepared(talk.state.prepared).map(({ effects }) => effects),
      [EFFECT.listen],
    );
  });

  test('that a Bind found, because a batch failed that was under way, is not the one that was meant: the session stays where it is', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'n', text: 'discard all' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    talk.client([
      buildParse({ name: 'n', text: 'select 1' }),
      buildClose('statement', 'n'),
      buildParse({ name: 'n', text: 'select 2' }),
      buildSync(),
    ]);
    talk.client([buildBind({ portal: '', statement: 'n' }), buildExecute(''), buildSync()]);
    talk.server([error, ready(), BARE.bindComplete]);
    assert.match(describePins(talk.state) ?? '', /prepared statements/);
  });

  test('that stood for another of its name, too, stands for itself when that one was refused', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'n', text: 'select 1' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    talk.client([buildParse({ name: 'n', text: 'listen a; discard all' }), buildSync()]);
    const [one] = listPrepared(talk.state.prepared);
    assert.deepEqual([one?.route, (one?.effects ?? 0) & EFFECT.discardAll], [ROUTE.primary, 0]);
    talk.server([error, ready()]);
    assert.deepEqual([one?.route, one?.effects], [ROUTE.any, 0]);
  });

  test('without a name is the last one that the server took', () => {
    const talk = createTalk();
    const parse = (text: string): Uint8Array => buildParse({ name: '', text });
    talk.client([parse('select 1'), parse('select 2'), buildSync(), buildBind({ portal: '', statement: '' }), buildSync()]);
    talk.server([BARE.parseComplete, error, ready(), BARE.bindComplete, ready()]);
    assert.match(describePins(talk.state) ?? '', /prepared statements/);
    run(talk, 'discard all', 'DISCARD ALL');
    assert.equal(describePins(talk.state), null);
  });

  test('that EXECUTE runs is not followed when it does more than write', () => {
    const talk = createTalk();
    talk.client([buildParse({ name: 'n', text: 'listen a' }), buildSync()]);
    talk.server([BARE.parseComplete, ready()]);
    run(talk, 'EXECUTE N', 'LISTEN');
    assert.match(describePins(talk.state) ?? '', /prepared statements/);
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

test('whatever messages come from either side, no exception comes, and what is kept stays bounded', () => {
  const message = (types: string): fc.Arbitrary<Uint8Array> =>
    fc
      .tuple(
        fc.constantFrom(...types),
        fc.oneof(
          fc.uint8Array({ maxLength: 30 }),
          fc.constantFrom('set a.b = 1\0', 'n\0select 1\0', '\0n\0', 'Sn\0', '\0\0\0\0\0').map((text) => Buffer.from(text)),
        ),
      )
      .map(([type, body]) => buildMessage(type.charCodeAt(0), body));
  const turn = fc.oneof(
    message('QPBDECSHFXdcf?').map((one) => ({ from: 'client', one }) as const),
    message('123CDEGHIKNRSTVWZAcdnstv?').map((one) => ({ from: 'server', one }) as const),
  );
  fc.assert(
    fc.property(fc.array(turn, { maxLength: 60 }), (turns) => {
      const talk = createTalk();
      for (const { from, one } of turns) {
        if (from === 'client') talk.client([one]);
        else talk.server([one]);
      }
      assert.ok(talk.state.requests.count <= turns.length);
      assert.ok(talk.state.settings.open.length <= turns.length);
      assert.ok(talk.state.prepared.keptBytes >= 0);
    }),
    { numRuns: 1000 },
  );
});
