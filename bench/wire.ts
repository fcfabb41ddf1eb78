/**
 * What the protocol layer costs by itself, in nanoseconds: classification of texts, the walk over messages, the books of a session. Run: `node bench/wire.ts`.
 * Asserts nothing; the figures depend on the machine.
 */
import { monoMs } from '../src/base/clock.ts';
import { BARE, buildCommandComplete, buildDataRow, buildReady } from '../src/wire/backend.ts';
import { encodeText, joinBytes } from '../src/wire/bytes.ts';
import { type Rules, createClassification } from '../src/wire/classification.ts';
import { classify } from '../src/wire/classify.ts';
import { createClassifier } from '../src/wire/classifier.ts';
import { FRAME, beginChunk, createFrameWalker, stepFrame } from '../src/wire/frames.ts';
import { buildBind, buildExecute, buildParse, buildSync } from '../src/wire/frontend.ts';
import { BACKEND_LIMITS } from '../src/wire/protocol.ts';
import { buildRules } from '../src/wire/rules.ts';
import { ENCODING } from '../src/wire/scan.ts';
import { createSessionState, noteParameter } from '../src/wire/session-state.ts';
import { giveTo, noteClientMessage, noteServerMessage } from '../src/wire/session-track.ts';

const ROUND_MS = 150;
const ROUNDS = 5;

/** Median of some rounds. */
function measure(what: string, run: () => void): void {
  const figures: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = monoMs();
    let count = 0;
    do {
      for (let i = 0; i < 1000; i++) run();
      count += 1000;
    } while (monoMs() - start < ROUND_MS);
    // The first round is for the compiler.
    if (round > 0) figures.push(((monoMs() - start) * 1e6) / count);
  }
  figures.sort((a, b) => a - b);
  console.log(
    `${Math.round(figures[Math.floor(ROUNDS / 2)] ?? 0)
      .toString()
      .padStart(8)} ns  ${what}`,
  );
}

const names = Array.from({ length: 2500 }, (_, i) => `function_${i}`);
const rules: Rules = buildRules([...names, 'lower', 'count', 'coalesce_all', 'now'].map((name) => ['harmless', name, ''] as const)).rules;
const settings = { encoding: ENCODING.utf8, standardStrings: true, ownSettings: true };
const c = createClassifier(rules, createClassification());

const columns = Array.from({ length: 12 }, (_, i) => `"t0"."column_${i}" AS "t0_column_${i}"`).join(', ');
const texts: readonly (readonly [string, string])[] = [
  ['SELECT of pgbench', 'SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;'],
  [
    'SELECT of an object mapper',
    `SELECT ${columns} FROM "orders" AS "t0" INNER JOIN "users" "t1" ON ("t1"."id" = "t0"."user_id") WHERE "t0"."state" = $1 AND lower("t1"."mail") = $2 ORDER BY 1 DESC LIMIT $3`,
  ],
  ['UPDATE of pgbench', 'UPDATE pgbench_accounts SET abalance = abalance + -4321 WHERE aid = 1234567;'],
  ['INSERT with 4 KB of text', `INSERT INTO t (a, b) VALUES (1, '${'x'.repeat(4096)}')`],
  ['BEGIN', 'BEGIN'],
];
for (const [what, text] of texts) {
  const bytes = encodeText(text);
  measure(`classify: ${what}, ${bytes.length} bytes`, () => classify(c, bytes, 0, bytes.length, settings));
}

const answer = joinBytes([BARE.bindComplete, buildDataRow(['12345']), buildCommandComplete('SELECT 1'), buildReady('idle')]);
const walker = createFrameWalker();
measure('walk over an answer of 4 messages', () => {
  beginChunk(walker, 0);
  while (stepFrame(walker, answer, answer.length, BACKEND_LIMITS) === FRAME.end);
});

const state = createSessionState({ user: 'bench' });
noteParameter(state, 'client_encoding', 'UTF8');
noteParameter(state, 'standard_conforming_strings', 'on');
const note = (message: Uint8Array): void => noteClientMessage(state, c, message[0] ?? 0, message, 5, message.length);
const taken = { owner: 0, type: 0, bytes: answer, bodyAt: 0, end: 0, first: 0 };
const take = (message: Uint8Array): void => {
  taken.type = message[0] ?? 0;
  taken.bytes = message;
  taken.bodyAt = 5;
  taken.end = message.length;
  taken.first = message[5] ?? -1;
  noteServerMessage(state, taken);
};
const [bindComplete, commandComplete, ready] = [BARE.bindComplete, buildCommandComplete('SELECT 1'), buildReady('idle')];
const named = [buildParse({ name: 'p1', text: texts[0]?.[1] ?? '' }), buildSync()];
named.forEach(note);
giveTo(state, 0);
[BARE.parseComplete, ready].forEach(take);
const cycle = [buildBind({ portal: '', statement: 'p1', parameters: ['1'] }), buildExecute(''), buildSync()];
measure('books of a session: Bind, Execute, Sync of a prepared statement, and the answers', () => {
  for (const message of cycle) note(message);
  giveTo(state, 0);
  take(bindComplete);
  take(commandComplete);
  take(ready);
});
