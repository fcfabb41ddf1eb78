import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SessionMemory } from '../../src/proxy/memory.ts';
import { buildCommandComplete, buildDataRow, buildError } from '../../src/wire/backend.ts';
import { decodeText } from '../../src/wire/bytes.ts';
import { buildClose, buildParse, buildQuery, buildSync } from '../../src/wire/frontend.ts';
import { BACKEND, TRANSACTION } from '../../src/wire/protocol.ts';
import { NO_RULES } from '../../src/wire/rules.ts';

/** A session whose messages are told to the memory as the proxy tells them. */
function session(): {
  readonly memory: SessionMemory;
  readonly send: (...messages: Uint8Array[]) => void;
  readonly answer: (tags: readonly (string | null)[], status?: number) => void;
} {
  const memory = new SessionMemory(() => NO_RULES, { user: 'app', startup: { major: 3, minor: 0, parameters: [] }, replication: false });
  memory.onParameters(
    new Map([
      ['client_encoding', 'UTF8'],
      ['standard_conforming_strings', 'on'],
    ]),
  );
  return {
    memory,
    send: (...messages) => {
      for (const message of messages) memory.onClientMessage(message[0] ?? 0, message, 5, message.length);
    },
    // Null is an error; `1` and `3` are completions of Parse and Close.
    answer: (tags, status = TRANSACTION.idle) => {
      for (const tag of tags) {
        if (tag === '1') memory.onServerMessage(BACKEND.parseComplete, new Uint8Array(5), 5, 5);
        else if (tag === '3') memory.onServerMessage(BACKEND.closeComplete, new Uint8Array(5), 5, 5);
        else {
          const message = tag === null ? buildError({ severity: 'ERROR', sqlState: '22012', message: 'x' }) : buildCommandComplete(tag);
          memory.onServerMessage(message[0] ?? 0, message, 5, message.length);
        }
      }
      memory.onReady(status);
    },
  };
}

const restored = (memory: SessionMemory): readonly string[] =>
  memory.restore().map((part) => decodeText(part, 5, part.length).replaceAll('\0', ' ').trim());

/** The row with which a node answers `question`. */
function answerOf(found: {
  readonly listens?: boolean;
  readonly role?: string;
  readonly settings?: Readonly<Record<string, string>>;
  readonly hidden?: boolean;
}): readonly Uint8Array[] {
  const { listens = false, role = 'none', settings = {}, hidden = false } = found;
  const [yes, no] = ['t', 'f'];
  return [buildDataRow([no, listens ? yes : no, no, no, no, role, 'app', JSON.stringify(settings), hidden ? yes : no]).slice(5)];
}

describe('settings', () => {
  test('are kept in their order, the last value of each', () => {
    const { memory, send, answer } = session();
    for (const sql of ["set work_mem = '1MB'", "set datestyle = 'German'", "set work_mem = '2MB'"]) {
      send(buildQuery(sql));
      answer(['SET']);
    }
    assert.deepEqual(restored(memory), ["set datestyle = 'German'", "set work_mem = '2MB'"]);
  });

  test('of a transaction count only when it was committed', () => {
    for (const [end, tags, kept] of [
      ['commit', ['COMMIT'], 1],
      ['rollback', ['ROLLBACK'], 0],
      ['commit', ['ROLLBACK'], 0],
      ['commit', [null], 0],
    ] as const) {
      const { memory, send, answer } = session();
      send(buildQuery('begin'));
      answer(['BEGIN'], TRANSACTION.open);
      send(buildQuery("set work_mem = '1MB'"));
      answer(['SET'], TRANSACTION.open);
      assert.equal(memory.restore().length, 0);
      send(buildQuery(end));
      answer(tags);
      assert.equal(memory.restore().length, kept, `${end} answered by ${tags[0] ?? 'an error'}`);
    }
  });

  test('that were refused or only local are not kept, and RESET takes one away', () => {
    const { memory, send, answer } = session();
    send(buildQuery("set nonsense = '1'"));
    answer([null]);
    send(buildQuery("set local work_mem = '1MB'"));
    answer(['SET']);
    send(buildQuery("set datestyle = 'German'"));
    answer(['SET']);
    send(buildQuery('reset datestyle'));
    answer(['RESET']);
    assert.deepEqual(restored(memory), []);
    assert.equal(memory.pinned(), null);
  });
});

describe('prepared statements', () => {
  test('exist when the server said so, in a pipeline too', () => {
    const { memory, send, answer } = session();
    send(
      buildParse({ name: 'a', text: 'select 1' }),
      buildSync(),
      buildParse({ name: 'b', text: 'nonsense' }),
      buildParse({ name: 'c', text: 'select 1' }),
      buildSync(),
    );
    answer(['1']);
    answer([null]);
    assert.equal(memory.restore().length, 1);
    assert.match(restored(memory)[0] ?? '', /^a select 1/);
    send(buildClose('statement', 'a'), buildSync());
    answer(['3']);
    assert.deepEqual(memory.restore(), []);
  });

  test('are gone after DEALLOCATE, also when its transaction is rolled back', () => {
    const { memory, send, answer } = session();
    send(buildParse({ name: 'a', text: 'select 1' }), buildSync());
    answer(['1']);
    send(buildQuery('begin'));
    answer(['BEGIN'], TRANSACTION.open);
    send(buildQuery('deallocate a'));
    answer(['DEALLOCATE'], TRANSACTION.open);
    send(buildQuery('rollback'));
    answer(['ROLLBACK']);
    assert.deepEqual(memory.restore(), []);
  });
});

describe('two sessions of one user', () => {
  test('are told apart by types, encodings, and settings that only the proxy looks at; the order of their prepared statements is none', () => {
    const keyOf = (...cycles: readonly (readonly [readonly Uint8Array[], string])[]): string => {
      const { memory, send, answer } = session();
      for (const [messages, tag] of cycles) {
        send(...messages);
        answer([tag]);
      }
      return memory.stateKey;
    };
    const parse = (name: string, type: number): readonly [readonly Uint8Array[], string] => [
      [buildParse({ name, text: 'select $1', parameterTypes: [type] }), buildSync()],
      '1',
    ];
    assert.equal(keyOf(parse('a', 23), parse('b', 23)), keyOf(parse('b', 23), parse('a', 23)));
    assert.notEqual(keyOf(parse('a', 1184)), keyOf(parse('a', 1186)));
    const latin = (letter: number): Uint8Array => {
      const message = buildQuery("set application_name = '?'");
      message[message.indexOf(0x3f)] = letter;
      return message;
    };
    assert.notEqual(keyOf([[latin(0xe4)], 'SET']), keyOf([[latin(0xf6)], 'SET']));
    assert.notEqual(keyOf([[buildQuery("set pgherd.wait_for_lsn = '1/0/1'")], 'SET']), keyOf());
  });

  test('characteristics of a session are settings like any other, each by itself', () => {
    const { memory, send, answer } = session();
    const set = (text: string): void => {
      send(buildQuery(text));
      answer([/^re?set/.exec(text)?.[0] === 'reset' ? 'RESET' : 'SET']);
    };
    set('set session characteristics as transaction read only');
    set('set session characteristics as transaction isolation level repeatable read');
    assert.equal(restored(memory).length, 2);
    set('reset default_transaction_read_only');
    assert.deepEqual(restored(memory), ['set session characteristics as transaction isolation level repeatable read']);
    assert.equal(memory.pinned(), null);
    set('set session characteristics as transaction read only, isolation level serializable');
    assert.notEqual(memory.pinned(), null, 'several at once are not taken apart: the server is asked');
  });

  test('a new authorization takes the role away', () => {
    const { memory, send, answer } = session();
    for (const text of ['set role x', 'set session authorization y']) {
      send(buildQuery(text));
      answer(['SET']);
    }
    assert.deepEqual(restored(memory), ['set session authorization y']);
  });
});

describe('what ties a session to its node', () => {
  test('is told in words, at once, and DISCARD ALL takes it away', () => {
    const { memory, send, answer } = session();
    send(buildQuery('create temporary table t (n int)'));
    assert.match(memory.pinned() ?? '', /^temporary tables/);
    answer(['CREATE TABLE']);
    send(buildQuery('discard all'));
    answer(['DISCARD ALL']);
    assert.equal(memory.pinned(), null);
  });

  test('is what the node says, once it was asked', () => {
    const { memory, send, answer } = session();
    send(buildQuery('select unknown_function(); '));
    answer(['SELECT 1']);
    assert.match(memory.pinned() ?? '', /functions/);
    assert.ok(memory.doubtful);
    memory.learn(answerOf({ role: 'o"x', settings: { work_mem: '2048' } }));
    assert.equal(memory.pinned(), null);
    assert.deepEqual(restored(memory), ["SELECT pg_catalog.set_config('work_mem', E'2048', false)", 'SET ROLE "o""x"']);
    memory.learn(answerOf({ listens: true }));
    assert.equal(memory.pinned(), 'LISTEN');
    send(buildQuery('select unknown_function()'));
    assert.ok(memory.doubtful, 'what came after the answer is in doubt again');
  });

  test('is certain when the names of settings cannot be known', () => {
    const { memory, send, answer } = session();
    send(buildQuery("select set_config('a' || '.b', 'x', false)"));
    answer(['SELECT 1']);
    memory.learn(answerOf({}));
    assert.match(memory.pinned() ?? '', /own setting/);
    assert.equal(memory.doubtful, false, 'asking again would not help');
    const other = session();
    other.send(buildQuery("select set_config('my.own', 'x', false)"));
    other.answer(['SELECT 1']);
    assert.match(other.memory.question, /'my\.own'/);
    other.memory.learn(answerOf({ settings: { 'my.own': 'X' } }));
    assert.equal(other.memory.pinned(), null);
    assert.deepEqual(restored(other.memory), ["SELECT pg_catalog.set_config('my.own', E'X', false)"]);
  });

  test('that code in a text has set is asked for by name, and is certain when code makes the name', () => {
    for (const [text, asked] of [
      ["do $$ begin set my.own = 'x'; end $$", /'my\.own'/],
      ["set my.own = 'x'; set my.other = 'y'", /'my\.own', 'my\.other'/],
    ] as const) {
      const { memory, send, answer } = session();
      send(buildQuery(text));
      answer(['X']);
      assert.match(memory.question, asked);
      memory.learn(answerOf({ settings: { 'my.own': 'x' } }));
      assert.equal(memory.pinned(), null);
    }
    for (const text of ["do $$ begin execute 'set ' || name || ' = 1'; end $$", "do $$ begin execute format('set %I = 1', name); end $$"]) {
      const { memory, send, answer } = session();
      send(buildQuery(text));
      answer(['DO']);
      memory.learn(answerOf({}));
      assert.match(memory.pinned() ?? '', /own setting/);
    }
  });

  test('is not asked for again and again when a function of the database may have made such a setting', () => {
    const { memory, send, answer } = session();
    send(buildQuery('select unknown_function()'));
    answer(['SELECT 1']);
    memory.learn(answerOf({ hidden: true }));
    assert.match(memory.pinned() ?? '', /own setting/);
    assert.equal(memory.doubtful, false);
    send(buildQuery('reset all'));
    answer(['RESET']);
    assert.equal(memory.pinned(), null);
  });
});
