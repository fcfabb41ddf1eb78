/**
 * Goes through a query, or any statement with expressions, and says no to everything that is not proven to only read. The statement's own
 * grammar is not followed: it is enough to know which words call, which name, and which begin a part that writes. Where that cannot be told apart, the
 * word counts as a call.
 */
import { EFFECT, REASON } from './classification.ts';
import { type Classifier, refuse, refuseRest } from './classifier.ts';
import { WORD_IS, WORD_PROPERTIES, keywords } from './keywords.ts';
import { buildNameSet, hasName } from './names.ts';
import { TOKEN, nextToken } from './scan.ts';

const [AS, FOR, FROM, GLOBAL, INSERT, INTO, JOIN, KEY] = keywords('as', 'for', 'from', 'global', 'insert', 'into', 'join', 'key');
const [LATERAL, LOCAL, MATERIALIZED, MERGE, NO, NOT] = keywords('lateral', 'local', 'materialized', 'merge', 'no', 'not');
const [ORDINALITY, PG_TEMP, RECURSIVE, SHARE] = keywords('ordinality', 'pg_temp', 'recursive', 'share');
const [TEMP, TEMPORARY, UPDATE, WITH] = keywords('temp', 'temporary', 'update', 'with');
/** The INTO of an INSERT or MERGE, which makes no table. */
const TARGET_INTO = -1;

/** Longer names are cut by the server before it looks them up. Source: NAMEDATALEN, src/include/pg_config_manual.h. */
const MAX_NAME_BYTES = 63;
/** Lists of WITH and sources of FROM are followed down to this depth of parentheses; below it, their names and aliases count as calls. */
const MAX_BIT_DEPTH = 30;

/**
 * Goes on from the token that was just read (`first`), standing `depth` parentheses deep, up to the `;` or the end of the text; with `nested`, up to
 * the parenthesis that closes the first. Returns the kind of the token that ended it; `TOKEN.end` also after what was not understood.
 */
export function scanQuery(c: Classifier, first: number, depth = 0, nested = false): number {
  const { scanner: s, rules, walk: w } = c;
  if (!rules.trusted) refuse(c, REASON.untrusted, 0, 0);
  w.depth = depth;
  w.lists = 0;
  w.sources = 0;
  w.listName = false;
  w.sourceName = false;
  w.sourceEnded = false;
  w.before = TOKEN.end;
  w.beforeWord = 0;
  w.label = false;
  w.callable = false;
  for (let token = first; ; token = nextToken(s)) {
    let word = 0;
    if (token === TOKEN.word) word = takeWord(c);
    else {
      w.listName = false;
      w.sourceEnded = false;
      switch (token) {
        case TOKEN.open:
          if (w.before !== TOKEN.word) w.lists &= ~depthBit(w.depth);
          else if (w.callable) checkCall(c);
          w.depth++;
          if (w.before === TOKEN.word && (w.sourceName || startsSource(w.beforeWord))) w.sources |= depthBit(w.depth);
          else w.sources &= ~depthBit(w.depth);
          break;
        case TOKEN.close:
          w.lists &= ~depthBit(w.depth);
          w.sourceEnded = (w.sources & depthBit(w.depth)) !== 0;
          if (--w.depth < 0) {
            refuseRest(c);
            w.depth = 0;
          }
          if (nested && w.depth === 0) return token;
          break;
        case TOKEN.comma:
          w.listName = (w.lists & depthBit(w.depth)) !== 0;
          break;
        case TOKEN.operator:
          if (rules.unsafeOperators.length > 0) checkOperator(c);
          break;
        case TOKEN.bad:
          refuseRest(c);
          return TOKEN.end;
        case TOKEN.end:
          return token;
        case TOKEN.semicolon:
          if (w.depth === 0) return token;
          break;
      }
    }
    w.before = token;
    w.beforeWord = word;
  }
}

function depthBit(depth: number): number {
  return depth <= MAX_BIT_DEPTH ? 1 << depth : 0;
}

/** What stands behind these words is a source of rows, and what follows its parentheses an alias. */
function startsSource(word: number): boolean {
  return word === FROM || word === JOIN || word === LATERAL;
}

/** Aliases, types, names of queries of WITH, and targets of INSERT: what stands in parentheses behind them are columns or modifiers. */
function isLabel(c: Classifier): boolean {
  const { scanner: s, walk: w } = c;
  if (w.listName || w.before === TOKEN.cast) return true;
  if (w.beforeWord === AS || w.beforeWord === INTO || w.beforeWord === TARGET_INTO) return true;
  return s.keyword === 0 && (w.sourceEnded || w.beforeWord === ORDINALITY);
}

/** Returns the code of the keyword that the word is here; 0 when it is a name. */
function takeWord(c: Classifier): number {
  const { scanner: s, walk: w } = c;
  const dotted = w.before === TOKEN.dot;
  const word = dotted ? 0 : s.keyword;
  if (!dotted) {
    w.label = isLabel(c);
    w.sourceName = startsSource(w.beforeWord);
    if (w.listName) w.listName = word === RECURSIVE && w.beforeWord === WITH;
    else if (word === WITH && (w.before === TOKEN.end || w.before === TOKEN.open)) {
      w.lists |= depthBit(w.depth);
      w.listName = true;
    } else if (word !== AS && word !== NOT && word !== MATERIALIZED) w.lists &= ~depthBit(w.depth);
  }
  w.sourceEnded = false;
  const is = WORD_PROPERTIES[word] as number;
  w.callable = !w.label && (is & WORD_IS.noCall) === 0;
  if (w.callable) {
    w.seldom = (is & WORD_IS.seldomCall) !== 0;
    w.nameFrom = s.from;
    w.nameTo = s.to;
    w.nameHash = s.hash;
    w.nameQuoted = s.quoted;
  }
  if (w.beforeWord === FOR && (word === UPDATE || word === SHARE || word === NO || word === KEY)) refuse(c, REASON.locksRows, s.from, s.to);
  if ((is & WORD_IS.writes) !== 0 && !w.label) takeWritingWord(c, word);
  if (w.beforeWord === INTO && (word === TEMP || word === TEMPORARY || word === LOCAL || word === GLOBAL)) c.into.effects |= EFFECT.temp;
  if ((is & (WORD_IS.noCall | WORD_IS.seldomCall)) === 0) checkName(c);
  return word === INTO && (w.beforeWord === INSERT || w.beforeWord === MERGE) ? TARGET_INTO : word;
}

function takeWritingWord(c: Classifier, word: number): void {
  const { scanner: s, walk: w, rules, into } = c;
  if (word === PG_TEMP) {
    into.effects |= EFFECT.temp;
    refuse(c, REASON.relation, s.from, s.to);
    return;
  }
  refuse(c, REASON.writes, s.from, s.to);
  if (rules.writesOpaque && word !== INTO && w.beforeWord !== FOR) into.effects |= EFFECT.opaque;
}

/** Any name can be that of a relation, a type, or a function that is called like a column. */
function checkName(c: Classifier): void {
  const { scanner: s, rules } = c;
  if (s.to - s.from > MAX_NAME_BYTES) refuse(c, REASON.relation, s.from, s.to);
  else if (hasName(rules.unsafe, s.hash, s.bytes, s.from, s.to, s.quoted)) refuse(c, REASON.relation, s.from, s.to);
}

const ADVISORY_LOCKS = buildNameSet(['pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_try_advisory_lock', 'pg_try_advisory_lock_shared']);
const ADVISORY_UNLOCKS = buildNameSet(['pg_advisory_unlock', 'pg_advisory_unlock_shared']);
/** What `random()` answers depends on it from then on, and on the server that was asked. */
const SEEDS = buildNameSet(['setseed']);
const ADVISORY_UNLOCK_ALL = buildNameSet(['pg_advisory_unlock_all']);

const CURRENT_SETTING = buildNameSet(['current_setting']);

/**
 * Whether the text behind the parenthesis is a string with a dot in it: the name of a setting of the application, which the session carries to every server. Settings
 * without a dot can differ between servers (`transaction_read_only`).
 */
function asksOwnSetting(c: Classifier): boolean {
  const { bytes, at, end } = c.scanner;
  if (!c.ownSettings || bytes[at] !== 0x27) return false;
  for (let i = at + 1; i < end && bytes[i] !== 0x27; i++) if (bytes[i] === 0x2e) return true;
  return false;
}

/** The word before the parenthesis calls, unless it is one of those that seldom do. */
function checkCall(c: Classifier): void {
  const { walk: w, rules, into } = c;
  const { bytes } = c.scanner;
  const { nameFrom: from, nameTo: to, nameHash: hash, nameQuoted: quoted } = w;
  if (w.seldom) {
    if (!hasName(rules.unsafe, hash, bytes, from, to, quoted)) return;
  } else if (hasName(rules.harmless, hash, bytes, from, to, quoted)) return;
  if (hasName(CURRENT_SETTING, hash, bytes, from, to, quoted) && asksOwnSetting(c)) return;
  refuse(c, REASON.function, from, to);
  if (hasName(ADVISORY_LOCKS, hash, bytes, from, to, quoted)) into.effects |= EFFECT.advisoryLock;
  else if (hasName(ADVISORY_UNLOCKS, hash, bytes, from, to, quoted)) into.effects |= EFFECT.advisoryUnlock;
  else if (hasName(ADVISORY_UNLOCK_ALL, hash, bytes, from, to, quoted)) into.effects |= EFFECT.advisoryUnlockAll;
  else if (hasName(SEEDS, hash, bytes, from, to, quoted)) into.effects |= EFFECT.pin;
  else if (!hasName(rules.stateless, hash, bytes, from, to, quoted)) into.effects |= EFFECT.opaque;
}

/** A run of operator characters can hold several operators: it is enough that an unsafe one stands in it. */
function checkOperator(c: Classifier): void {
  const { bytes, from, to } = c.scanner;
  for (const operator of c.rules.unsafeOperators) {
    for (let at = from; at + operator.length <= to; at++) {
      let i = 0;
      while (i < operator.length && operator[i] === bytes[at + i]) i++;
      if (i === operator.length) refuse(c, REASON.operator, from, to);
    }
  }
}
