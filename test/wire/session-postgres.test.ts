/**
 * The tracker against a real server: random sessions, in both protocols and pipelined. Whenever the session is idle: no request is left unanswered; what
 * the tracker calls free of pins holds nothing; and a new connection that is given the missing settings and statements has the same ones.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { LOCAL_LIMITS, localTarget, openSql } from '../../src/agent/postgres/sql.ts';
import { readDataRow, readErrorFields, readParameterStatus } from '../../src/wire/backend.ts';
import { decodeText } from '../../src/wire/bytes.ts';
import { createClassification } from '../../src/wire/classification.ts';
import { type Classifier, createClassifier } from '../../src/wire/classifier.ts';
import { FRAME, beginChunk, createFrameWalker, stepFrame } from '../../src/wire/frames.ts';
import { buildBind, buildClose, buildDescribe, buildExecute, buildFlush, buildParse, buildQuery, buildSync } from '../../src/wire/frontend.ts';
import { listPrepared } from '../../src/wire/prepared.ts';
import { BACKEND, BACKEND_LIMITS, TRANSACTION } from '../../src/wire/protocol.ts';
import { RULES_SQL } from '../../src/wire/rules-sql.ts';
import { buildRules } from '../../src/wire/rules.ts';
import { applyInspection, inspectionSql, needsInspection } from '../../src/wire/session-inspection.ts';
import { missingSettings } from '../../src/wire/session-settings.ts';
import { type SessionState, createSessionState, noteParameter } from '../../src/wire/session-state.ts';
import { ANSWER, giveTo, noteClientMessage, noteServerMessage } from '../../src/wire/session-track.ts';
import { buildStartup } from '../../src/wire/startup.ts';
import { createLab, createPrimary } from '../postgres/harness.ts';
import '../fixed-seed.ts';

const lab = createLab();
const node = await lab.node('n1');
const sockets = new Set<Socket>();
after(async () => {
  for (const socket of sockets) socket.destroy();
  await lab.close();
});

interface Message {
  readonly type: number;
  readonly body: Uint8Array;
}

/** A connection on the level of messages. */
interface Wire {
  send(...messages: readonly Uint8Array[]): void;
  /** The next message; fails when the server closes or does not answer within 5 s. */
  next(): Promise<Message>;
  close(): void;
}

async function dial(user: string): Promise<Wire> {
  const socket = connect(join(node.socketDirectory, `.s.PGSQL.${node.port}`));
  sockets.add(socket);
  const walker = createFrameWalker();
  let parts: Uint8Array[] = [];
  const ready: Message[] = [];
  let wake = (): void => undefined;
  socket.on('data', (chunk: Uint8Array) => {
    beginChunk(walker, 0);
    for (;;) {
      const from = walker.at;
      const found = stepFrame(walker, chunk, chunk.length, BACKEND_LIMITS);
      assert.notEqual(found, FRAME.bad);
      parts.push(chunk.subarray(from, walker.at));
      if (found === FRAME.more) break;
      ready.push({ type: walker.type, body: Buffer.concat(parts).subarray(5) });
      parts = [];
    }
    wake();
  });
  socket.on('error', () => wake());
  socket.on('close', () => wake());
  const wire: Wire = {
    send: (...messages) => socket.write(Buffer.concat(messages)),
    next: async () => {
      if (ready.length === 0)
        await new Promise<void>((resolve, reject) => {
          const timer = setTimeout(() => reject(new Error('no answer within 5 s')), 5000);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      const message = ready.shift();
      if (message === undefined) throw new Error('the server closed the connection');
      return message;
    },
    close: () => {
      sockets.delete(socket);
      socket.destroy();
    },
  };
  wire.send(
    buildStartup({
      major: 3,
      minor: 0,
      parameters: [
        ['user', user],
        ['database', 'postgres'],
        ['client_encoding', 'UTF8'],
      ],
    }),
  );
  return wire;
}

/** The rows of a statement, as text, outside the tracker's sight. */
async function ask(wire: Wire, text: string): Promise<readonly (readonly (string | null)[])[]> {
  wire.send(buildQuery(text));
  const rows: (readonly (string | null)[])[] = [];
  for (;;) {
    const { type, body } = await wire.next();
    if (type === BACKEND.errorResponse) throw new Error(`${text}: ${readErrorFields(body, 0, body.length)?.get('M')}`);
    if (type === BACKEND.dataRow) rows.push((readDataRow(body, 0, body.length) ?? []).map((value) => (value === null ? null : decodeText(value))));
    if (type === BACKEND.readyForQuery) return rows;
  }
}

interface Session {
  readonly wire: Wire;
  readonly state: SessionState;
  readonly c: Classifier;
}

const USER = 'someone';
let classifier: Classifier;

async function login(): Promise<Session> {
  const wire = await dial(USER);
  const state = createSessionState({ user: USER });
  for (;;) {
    const { type, body } = await wire.next();
    if (type === BACKEND.parameterStatus) takeParameter(state, body);
    if (type === BACKEND.readyForQuery) return { wire, state, c: classifier };
    assert.notEqual(type, BACKEND.errorResponse, decodeText(body));
  }
}

function takeParameter(state: SessionState, body: Uint8Array): void {
  const parameter = readParameterStatus(body, 0, body.length);
  if (parameter !== null) noteParameter(state, parameter.name, parameter.value);
}

/** Sends the messages at once, and reads until every cycle among them has been answered. */
async function exchange({ wire, state, c }: Session, messages: readonly Uint8Array[]): Promise<void> {
  let cycles = 0;
  for (const message of messages) {
    noteClientMessage(state, c, message[0] ?? 0, message, 5, message.length);
    if (state.batch.complete) cycles++;
  }
  giveTo(state, 0);
  wire.send(...messages);
  while (cycles > 0) {
    const { type, body } = await wire.next();
    if (type === BACKEND.parameterStatus) takeParameter(state, body);
    if (type === BACKEND.dataRow || type === BACKEND.copyData) continue;
    const answer = noteServerMessage(state, { owner: 0, type, bytes: body, bodyAt: 0, end: body.length, first: body[0] ?? -1 });
    assert.equal(answer, ANSWER.forward);
    if (type === BACKEND.readyForQuery) cycles--;
  }
}

const NAMES = "SELECT name || ' ' || statement || ' ' || parameter_types::text FROM pg_prepared_statements ORDER BY 1";
/** What a session has set, as far as the server tells: settings by their names, and those of the application that the test uses. */
const SETTINGS = `SELECT current_user, session_user, current_setting('my.a', true), current_setting('my.b', true),
  (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session')`;

async function checkIdle(session: Session): Promise<'pinned' | 'free'> {
  const { wire, state } = session;
  assert.equal(state.requests.count, 0, 'unanswered requests');
  if (state.status !== TRANSACTION.idle) {
    await exchange(session, [buildQuery('ROLLBACK')]);
    assert.equal(state.status, TRANSACTION.idle);
  }
  if (needsInspection(state)) applyInspection(state, (await ask(wire, inspectionSql(state)))[0] ?? []);
  if (state.pins !== 0) return 'pinned';
  const [held] = await ask(wire, inspectionSql(state));
  assert.deepEqual(held?.slice(0, 5), ['f', 'f', 'f', 'f', 'f'], 'the tracker calls the session free, and it holds something');
  const other = await login();
  try {
    for (const text of missingSettings(state.settings, 0)) await ask(other.wire, decodeText(text));
    const statements = listPrepared(state.prepared);
    for (const { parse, parseLength } of statements) {
      assert.ok(parse !== null);
      other.wire.send(parse.slice(0, parseLength), buildSync());
      while ((await other.wire.next()).type !== BACKEND.readyForQuery);
    }
    assert.deepEqual(await ask(other.wire, NAMES), await ask(wire, NAMES), 'prepared statements');
    const [mine, theirs] = [(await ask(wire, SETTINGS))[0] ?? [], (await ask(other.wire, SETTINGS))[0] ?? []];
    // A setting that was reset shows as one that was never set, or as an empty text.
    const plain = (values: readonly (string | null)[]): readonly string[] => values.map((value) => value ?? '');
    assert.deepEqual(plain(theirs), plain(mine), 'settings');
  } finally {
    other.wire.close();
  }
  return 'free';
}

const texts = [
  ...['BEGIN', 'COMMIT', 'ROLLBACK', 'SAVEPOINT s', 'ROLLBACK TO s', 'COMMIT AND CHAIN', 'BEGIN; SET my.a = 9; COMMIT'],
  ...[
    "SET my.a = 'one'",
    "SET my.b TO 'two'",
    "SET LOCAL my.a = 'local'",
    'RESET my.a',
    'SET work_mem = 2000',
    'RESET ALL',
    "SET search_path = public, 'a b'",
    "SET TIME ZONE 'UTC'",
  ],
  ...[
    'SET ROLE helper',
    'SET ROLE "Odd one"',
    'SELECT role_inside()',
    'RESET ROLE',
    "SELECT set_config('my.a', 'three', false)",
    "SELECT set_config('work_mem', '3000', false)",
    'SELECT set_inside()',
    'SET work_mem TO DEFAULT',
  ],
  ...['CREATE TEMP TABLE x (a int)', 'DROP TABLE x', 'DISCARD TEMP', 'SELECT temp_inside()', 'SELECT 1 INTO TEMP y'],
  ...[
    'LISTEN a',
    'LISTEN b',
    'UNLISTEN a',
    'UNLISTEN *',
    'SELECT pg_advisory_lock(1)',
    'SELECT pg_advisory_unlock(1)',
    'SELECT pg_advisory_unlock_all()',
    'SELECT pg_advisory_xact_lock(2)',
  ],
  ...[
    'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
    'CLOSE c',
    'CLOSE ALL',
    'PREPARE p AS SELECT 1',
    'EXECUTE p',
    'DEALLOCATE p',
    'DEALLOCATE ALL',
    'DEALLOCATE "N"',
    'DEALLOCATE n',
  ],
  ...[
    'DISCARD ALL',
    'SELECT 1',
    'SELECT 1/0',
    'bogus',
    '',
    'SELECT 1; SELECT 2',
    "DO $$ BEGIN PERFORM set_config('my.b', 'four', false); END $$",
    'INSERT INTO t VALUES (1)',
  ],
];
const textOf = fc.constantFrom(...texts);
const nameOf = fc.constantFrom('', 'n', 'N');
const step: fc.Arbitrary<readonly Uint8Array[]> = fc.oneof(
  { arbitrary: textOf.map((text) => [buildQuery(text)]), weight: 4 },
  {
    arbitrary: textOf.map((text) => [
      buildParse({ name: '', text }),
      buildBind({ portal: '', statement: '' }),
      buildDescribe('portal', ''),
      buildExecute(''),
      buildSync(),
    ]),
    weight: 2,
  },
  fc.tuple(textOf, nameOf).map(([text, name]) => [buildParse({ name, text }), buildDescribe('statement', name), buildSync()]),
  nameOf.map((name) => [buildBind({ portal: 'q', statement: name }), buildExecute('q', 1), buildFlush(), buildExecute('q'), buildSync()]),
  nameOf.map((name) => [buildClose('statement', name), buildSync()]),
  fc
    .tuple(textOf, textOf, nameOf)
    .map(([one, two, name]) => [
      ...[buildParse({ name, text: one }), buildBind({ portal: '', statement: name }), buildExecute('')],
      ...[buildClose('statement', name), buildParse({ name, text: two }), buildBind({ portal: '', statement: name }), buildExecute(''), buildSync()],
    ]),
);

test('random sessions are known for what they are', async () => {
  await createPrimary(node);
  const hba = join(node.dataDirectory, 'pg_hba.conf');
  writeFileSync(hba, `local all ${USER} trust\n${readFileSync(hba, 'utf8')}`);
  const admin = await openSql(localTarget(node), LOCAL_LIMITS);
  try {
    await admin.query('SELECT pg_reload_conf()');
    await admin.query(`CREATE ROLE ${USER} LOGIN; CREATE ROLE helper; CREATE ROLE "Odd one"; GRANT helper, "Odd one" TO ${USER}; CREATE TABLE public.t (a int); GRANT ALL ON public.t TO ${USER}, helper, "Odd one";
      CREATE FUNCTION public.set_inside() RETURNS void LANGUAGE sql AS $$ SELECT set_config('work_mem', '4000', false); SELECT set_config('my.b', 'five', false) $$;
      CREATE FUNCTION public.temp_inside() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS z (a int); END $$;
      CREATE FUNCTION public.role_inside() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET ROLE helper; END $$;
      GRANT CREATE, TEMP ON DATABASE postgres TO ${USER}, helper, "Odd one"`);
    const rows = await admin.query(RULES_SQL);
    const { rules } = buildRules(rows.map((row) => [String(row['kind']), String(row['name']), String(row['detail'])]));
    classifier = createClassifier(rules, createClassification());
  } finally {
    admin.close();
  }
  const seen = await runSessions(300);
  assert.ok(seen.free > 100 && seen.pinned > 50, JSON.stringify(seen));
  // Without a function that makes settings of applications, code in texts is all that can: those sessions are free, with what it made.
  const others = await openSql(localTarget(node), LOCAL_LIMITS);
  await others.query('DROP FUNCTION public.set_inside()').finally(() => others.close());
  const more = await runSessions(150);
  assert.ok(more.hidden > 30, JSON.stringify(more));
});

/** How many checks found the session free, free although code ran that may have made settings, or pinned. */
async function runSessions(numRuns: number): Promise<{ readonly free: number; readonly hidden: number; readonly pinned: number }> {
  const seen = { free: 0, hidden: 0, pinned: 0 };
  const session = fc.array(fc.tuple(fc.array(step, { minLength: 1, maxLength: 3 }), fc.boolean()), { minLength: 1, maxLength: 12 });
  const check = async (one: Session): Promise<void> => {
    const found = await checkIdle(one);
    seen[found]++;
    if (found === 'free' && !one.state.ownSettings) seen.hidden++;
  };
  await fc.assert(
    fc.asyncProperty(session, async (turns) => {
      const one = await login();
      try {
        for (const [steps, now] of turns) {
          await exchange(one, steps.flat());
          if (now) await check(one);
        }
        await check(one);
      } finally {
        one.wire.close();
      }
    }),
    { numRuns, seed: 11, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true },
  );
  return seen;
}
