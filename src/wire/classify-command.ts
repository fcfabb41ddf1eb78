/** Statements that are no queries: of the transaction, of the session, and those that always run on the primary. */
import { ACCESS, EFFECT, ISOLATION, REASON } from './classification.ts';
import { type Classifier, bindToBlock, refuse, refuseRest } from './classifier.ts';
import { scanQuery } from './classify-query.ts';
import { keyword, keywords } from './keywords.ts';
import { hasName } from './names.ts';
import { TOKEN, nextToken } from './scan.ts';

const [ALL, ANALYSE, ANALYZE, AS, AUTHORIZATION, CHAIN, CHARACTERISTICS] = keywords(
  'all',
  'analyse',
  'analyze',
  'as',
  'authorization',
  'chain',
  'characteristics',
);
const [COMMITTED, CONSTRAINTS, DELETE, FOR, FROM, HOLD, INSERT, LOCAL, MERGE] = keywords(
  'committed',
  'constraints',
  'delete',
  'for',
  'from',
  'hold',
  'insert',
  'local',
  'merge',
);
const [NO, ONLY, PREPARE, PREPARED, READ, REPEATABLE, SELECT, SERIALIZABLE] = keywords(
  'no',
  'only',
  'prepare',
  'prepared',
  'read',
  'repeatable',
  'select',
  'serializable',
);
const [SEED, SESSION, STDIN, STDOUT, TABLE, TEMP, TEMPORARY, TIME, TO] = keywords(
  'seed',
  'session',
  'stdin',
  'stdout',
  'table',
  'temp',
  'temporary',
  'time',
  'to',
);
const [TRANSACTION, UNCOMMITTED, UPDATE, VALUES, VERBOSE, WITH, WRITE, ZONE] = keywords(
  'transaction',
  'uncommitted',
  'update',
  'values',
  'verbose',
  'with',
  'write',
  'zone',
);

type Command = (c: Classifier) => number;

/** By code of the first word. Each goes on behind that word and returns the kind of the token that ended the statement (`;` or end). */
const commands: (Command | undefined)[] = [];

/** Classifies the statement whose first token was just read. Returns the kind of the token that ended it. */
export function classifyStatement(c: Classifier, first: number): number {
  const { scanner: s } = c;
  if (first === TOKEN.open) return scanQuery(c, first);
  const command = first === TOKEN.word ? commands[s.keyword] : undefined;
  if (command !== undefined) return command(c);
  refuseRest(c);
  return first === TOKEN.bad ? TOKEN.end : skip(c);
}

const isQuery = (word: number): boolean => word === SELECT || word === WITH || word === VALUES || word === TABLE;
const isChange = (word: number): boolean => word === INSERT || word === UPDATE || word === DELETE || word === MERGE;

/** Passes over the rest of the statement. */
function skip(c: Classifier, from = 0): number {
  let depth = from;
  for (;;) {
    const token = nextToken(c.scanner);
    if (token === TOKEN.open) depth++;
    else if (token === TOKEN.close) depth--;
    else if (token === TOKEN.end || (token === TOKEN.semicolon && depth <= 0)) return token;
    else if (token === TOKEN.bad) {
      refuseRest(c);
      return TOKEN.end;
    }
  }
}

/** Passes over the rest when `token`, which was just read, does not end the statement already. */
function finish(c: Classifier, token: number): number {
  if (token === TOKEN.end || token === TOKEN.semicolon) return token;
  if (token === TOKEN.bad) {
    refuseRest(c);
    return TOKEN.end;
  }
  return skip(c, token === TOKEN.open ? 1 : 0);
}

/** Keeps the present word, and what follows it behind dots, as the name in the statement; returns the kind of the token behind it. */
function takeName(c: Classifier): number {
  const { scanner: s, into } = c;
  into.nameAt = s.from;
  into.nameEnd = s.to;
  into.nameQuoted = s.quoted;
  for (;;) {
    const token = nextToken(s);
    if (token !== TOKEN.dot) return token;
    if (nextToken(s) !== TOKEN.word) return s.from === s.end ? TOKEN.end : TOKEN.bad;
    into.nameEnd = s.to;
    into.nameQuoted ||= s.quoted;
  }
}

function define(words: string, command: Command): void {
  for (const word of words.split(' ')) commands[keyword(word)] = command;
}

define('select with values table', (c) => scanQuery(c, TOKEN.word));

define('insert update delete merge', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.writes, s.from, s.to);
  if (c.rules.writesOpaque) into.effects |= EFFECT.opaque;
  return scanQuery(c, TOKEN.word);
});

// --- transactions ---

/** READ ONLY, ISOLATION LEVEL … up to the end of the statement. */
function takeModes(c: Classifier): number {
  const { scanner: s, into } = c;
  let before = 0;
  for (;;) {
    const token = nextToken(s);
    if (token !== TOKEN.word && token !== TOKEN.comma) return finish(c, token);
    const word = token === TOKEN.word ? s.keyword : 0;
    if (before === READ && word === ONLY) into.access = ACCESS.readOnly;
    else if (before === READ && word === WRITE) into.access = ACCESS.readWrite;
    else if (before === READ && (word === COMMITTED || word === UNCOMMITTED)) into.isolation = ISOLATION.readCommitted;
    else if (word === REPEATABLE) into.isolation = ISOLATION.repeatableRead;
    else if (word === SERIALIZABLE) into.isolation = ISOLATION.serializable;
    before = word;
  }
}

define('begin start', (c) => {
  bindToBlock(c, REASON.transaction);
  c.into.effects |= EFFECT.begin;
  return takeModes(c);
});

/** PREPARED, AND CHAIN and TO behind COMMIT and ROLLBACK decide what they are. */
function endTransaction(c: Classifier, effect: number): number {
  const { scanner: s, into } = c;
  let before = 0;
  let is = effect;
  let token = nextToken(s);
  for (; token === TOKEN.word; token = nextToken(s)) {
    if (s.keyword === PREPARED) is = EFFECT.twoPhase;
    if (s.keyword === TO) is = EFFECT.savepoint;
    if (s.keyword === CHAIN && before !== NO) into.chain = true;
    before = s.keyword;
  }
  into.effects |= is;
  if (is === EFFECT.twoPhase) {
    refuse(c, REASON.transaction, 0, 0);
    into.effects |= EFFECT.write;
  } else bindToBlock(c, REASON.transaction);
  return finish(c, token);
}

define('commit end', (c) => endTransaction(c, EFFECT.commit));
define('abort rollback', (c) => endTransaction(c, EFFECT.rollback));
define('savepoint release', (c) => {
  bindToBlock(c, REASON.transaction);
  c.into.effects |= EFFECT.savepoint;
  return skip(c);
});

// --- the session ---

function set(c: Classifier): number {
  const { scanner: s, into } = c;
  bindToBlock(c, REASON.session);
  const start = s.from;
  let effect: number = EFFECT.set;
  let token = nextToken(s);
  if (token === TOKEN.word && s.keyword === LOCAL) {
    effect = EFFECT.setLocal;
    token = nextToken(s);
  } else if (token === TOKEN.word && s.keyword === SESSION) {
    const nameAt = s.from;
    token = nextToken(s);
    if (token === TOKEN.word && (s.keyword === CHARACTERISTICS || s.keyword === AUTHORIZATION)) {
      into.nameAt = nameAt;
      into.nameEnd = s.to;
      into.effects |= effect;
      return s.keyword === CHARACTERISTICS ? takeModes(c) : skip(c);
    }
  }
  if (token === TOKEN.word && (s.keyword === TRANSACTION || s.keyword === CONSTRAINTS)) {
    into.effects |= EFFECT.setTransaction;
    return takeModes(c);
  }
  into.effects |= effect;
  if (token !== TOKEN.word) return finish(c, token);
  const time = s.keyword === TIME;
  if (s.keyword === SEED) into.effects |= EFFECT.pin;
  token = takeName(c);
  if (time && token === TOKEN.word && s.keyword === ZONE) {
    into.nameEnd = s.to;
    token = nextToken(s);
  }
  const ended = finish(c, token);
  // With this schema in the search path every CREATE TABLE makes a temporary one.
  if (holdsPgTemp(s.bytes, start, s.from)) into.effects |= EFFECT.temp;
  return ended;
}

const PG_TEMP = Uint8Array.from('pg_temp', (character) => character.charCodeAt(0));

function holdsPgTemp(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at + PG_TEMP.length <= to; at++) {
    let i = 0;
    while (i < PG_TEMP.length && ((bytes[at + i] as number) | 0x20) === ((PG_TEMP[i] as number) | 0x20)) i++;
    if (i === PG_TEMP.length) return true;
  }
  return false;
}

define('set', set);

/** `one` with a name, `all` with ALL (and whatever else means all). */
function oneOrAll(c: Classifier, one: number, all: number): number {
  const { scanner: s, into } = c;
  const token = nextToken(s);
  const isAll = (token === TOKEN.word && s.keyword === ALL) || token === TOKEN.operator;
  into.effects |= isAll ? all : one;
  if (token !== TOKEN.word || isAll) return finish(c, token);
  const first = s.keyword;
  const next = takeName(c);
  // RESET SESSION AUTHORIZATION, RESET TIME ZONE, RESET TRANSACTION ISOLATION LEVEL: names of more than one word.
  const more = (first === SESSION || first === TIME || first === TRANSACTION) && next === TOKEN.word;
  if (more) into.nameEnd = s.to;
  return finish(c, next);
}

define('reset', (c) => {
  bindToBlock(c, REASON.session);
  return oneOrAll(c, EFFECT.reset, EFFECT.resetAll);
});
define('show', (c) => {
  bindToBlock(c, REASON.session);
  return oneOrAll(c, 0, 0);
});
define('close', (c) => {
  bindToBlock(c, REASON.session);
  return oneOrAll(c, EFFECT.closeCursor, EFFECT.closeAllCursors);
});
define('fetch move', (c) => {
  bindToBlock(c, REASON.session);
  return skip(c);
});
define('unlisten', (c) => {
  refuse(c, REASON.session, 0, 0);
  return oneOrAll(c, EFFECT.unlisten, EFFECT.unlistenAll);
});
define('listen', (c) => {
  refuse(c, REASON.session, 0, 0);
  return oneOrAll(c, EFFECT.listen, EFFECT.listen);
});
define('notify', (c) => {
  refuse(c, REASON.session, 0, 0);
  c.into.effects |= EFFECT.write;
  return skip(c);
});
define('discard', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.session, 0, 0);
  const token = nextToken(s);
  if (token === TOKEN.word && s.keyword === ALL) into.effects |= EFFECT.discardAll;
  if (token === TOKEN.word && (s.keyword === TEMP || s.keyword === TEMPORARY)) into.effects |= EFFECT.discardTemp;
  return finish(c, token);
});
define('load', (c) => {
  refuse(c, REASON.session, 0, 0);
  c.into.effects |= EFFECT.pin;
  return skip(c);
});

// --- prepared statements and cursors ---

define('prepare', (c) => {
  const { scanner: s, into } = c;
  let token = nextToken(s);
  const transaction = token === TOKEN.word && s.keyword === TRANSACTION;
  if (token === TOKEN.word) token = takeName(c);
  if (transaction && token === TOKEN.string) {
    into.effects |= EFFECT.twoPhase | EFFECT.write;
    into.nameEnd = into.nameAt = 0;
    refuse(c, REASON.transaction, 0, 0);
    return skip(c);
  }
  refuse(c, REASON.session, 0, 0);
  into.effects |= EFFECT.prepare;
  while (token !== TOKEN.end && token !== TOKEN.semicolon && token !== TOKEN.bad && !(token === TOKEN.word && s.keyword === AS)) token = nextToken(s);
  return token === TOKEN.word ? scanQuery(c, nextToken(s)) : finish(c, token);
});
define('execute', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.session, 0, 0);
  into.effects |= EFFECT.execute | EFFECT.write;
  const token = nextToken(s);
  return scanQuery(c, token === TOKEN.word ? takeName(c) : token);
});
define('deallocate', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.session, 0, 0);
  let token = nextToken(s);
  if (token === TOKEN.word && s.keyword === PREPARE) {
    const next = takeName(c);
    // `DEALLOCATE prepare` alone names a statement that is called so.
    if (next !== TOKEN.word) {
      into.effects |= EFFECT.deallocate;
      return finish(c, next);
    }
    into.nameAt = into.nameEnd = 0;
    token = next;
  }
  const all = token === TOKEN.word && s.keyword === ALL;
  into.effects |= all ? EFFECT.deallocateAll : EFFECT.deallocate;
  return finish(c, token === TOKEN.word && !all ? takeName(c) : token);
});
define('declare', (c) => {
  const { scanner: s, into } = c;
  bindToBlock(c, REASON.session);
  into.effects |= EFFECT.declare;
  let token = nextToken(s);
  if (token === TOKEN.word) token = takeName(c);
  for (let before = 0; token === TOKEN.word && s.keyword !== FOR; token = nextToken(s)) {
    if (s.keyword === HOLD && before === WITH) {
      into.effects |= EFFECT.declareHold;
      refuse(c, REASON.session, 0, 0);
    }
    before = s.keyword;
  }
  return token === TOKEN.word ? scanQuery(c, nextToken(s)) : finish(c, token);
});

// --- commands around a query ---

define('explain', (c) => {
  const { scanner: s, into } = c;
  let token = nextToken(s);
  while (token === TOKEN.word && (s.keyword === ANALYZE || s.keyword === ANALYSE || s.keyword === VERBOSE)) token = nextToken(s);
  if (token === TOKEN.open) {
    // Options, or a query in parentheses.
    token = nextToken(s);
    if (token === TOKEN.open || (token === TOKEN.word && isQuery(s.keyword))) return scanQuery(c, token, 1);
    for (let depth = 1; depth > 0; token = nextToken(s)) {
      if (token === TOKEN.open) depth++;
      else if (token === TOKEN.close) depth--;
      else if (token === TOKEN.end || token === TOKEN.bad) return finish(c, token);
    }
  }
  if (token === TOKEN.open || (token === TOKEN.word && (isQuery(s.keyword) || isChange(s.keyword)))) return scanQuery(c, token);
  refuse(c, REASON.utility, s.from, s.to);
  into.effects |= EFFECT.write | EFFECT.opaque;
  return finish(c, token);
});

define('copy', (c) => {
  const { scanner: s, rules, into } = c;
  let token = nextToken(s);
  if (token === TOKEN.open) {
    const ended = scanQuery(c, nextToken(s), 1, true);
    if (ended !== TOKEN.close) return ended;
    token = nextToken(s);
  } else {
    if (!rules.trusted) refuse(c, REASON.untrusted, 0, 0);
    // The name of the table and its columns.
    while (
      token !== TOKEN.end &&
      token !== TOKEN.semicolon &&
      token !== TOKEN.bad &&
      !(token === TOKEN.word && (s.keyword === TO || s.keyword === FROM))
    ) {
      if (token === TOKEN.word && (s.to - s.from > 63 || hasName(rules.unsafe, s.hash, s.bytes, s.from, s.to, s.quoted)))
        refuse(c, REASON.relation, s.from, s.to);
      token = nextToken(s);
    }
  }
  const from = token === TOKEN.word && s.keyword === FROM;
  const way = token === TOKEN.word ? nextToken(s) : token;
  if (from) {
    refuse(c, REASON.writes, 0, 0);
    if (rules.writesOpaque) into.effects |= EFFECT.opaque;
  }
  if (way !== TOKEN.word || !(from ? s.keyword === STDIN : s.keyword === STDOUT)) refuse(c, REASON.serverFile, s.from, s.to);
  return from && way === TOKEN.word ? scanQuery(c, way) : finish(c, way);
});

// --- always the primary ---

define('do', (c) => {
  refuse(c, REASON.utility, 0, 0);
  c.into.effects |= EFFECT.write | EFFECT.opaque | EFFECT.catalog;
  return skip(c);
});
define('call', (c) => {
  refuse(c, REASON.utility, 0, 0);
  c.into.effects |= EFFECT.write;
  return scanQuery(c, nextToken(c.scanner));
});
define('create alter drop import', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.utility, s.from, s.to);
  into.effects |= EFFECT.write | EFFECT.opaque | EFFECT.catalog;
  // CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP
  let token = nextToken(s);
  for (let i = 0; i < 5 && token === TOKEN.word; i++) {
    if (s.keyword === TEMP || s.keyword === TEMPORARY) into.effects |= EFFECT.temp;
    token = nextToken(s);
  }
  return finish(c, token);
});
define('truncate', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.writes, s.from, s.to);
  if (c.rules.writesOpaque) into.effects |= EFFECT.opaque;
  return skip(c);
});
define('grant revoke comment security vacuum analyze analyse cluster reindex refresh reassign checkpoint lock', (c) => {
  const { scanner: s, into } = c;
  refuse(c, REASON.utility, s.from, s.to);
  into.effects |= EFFECT.write;
  return skip(c);
});
