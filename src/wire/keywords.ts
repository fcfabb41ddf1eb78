/**
 * Words of SQL that the classification knows. A word that is not here is a name.
 * Source: src/include/parser/kwlist.h of PostgreSQL 13 to 18; manual, appendix "SQL Key Words".
 */
import { encodeText } from './bytes.ts';
import { LOWER, hashBytes } from './names.ts';

/** What a word means wherever it stands unquoted, not behind a dot, and is no alias. */
export const WORD_IS = {
  /** Reserved, or for columns only: no function can be called by this name without quotes or a schema before it. */
  noCall: 1,
  /**
   * A parenthesis behind it is usually no call (`JOIN (`, `OVER (`), but a function could have the name: such a function, if it is volatile,
   * stands in the set of unsafe names.
   */
  seldomCall: 2,
  /** A part of a statement that writes, or that makes an object. */
  writes: 4,
} as const;

/** Fully reserved in all supported versions, so that neither a function nor a column can have the name without quotes. */
const RESERVED =
  'all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create current_catalog current_date ' +
  'current_role current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign from grant ' +
  'group having in initially intersect lateral leading limit localtime localtimestamp not null offset on only or order placing primary ' +
  'references returning select session_user some symmetric table then to trailing true union unique user using variadic when where window with';
/** Reserved for columns and types (but for SUBSTRING and OVERLAY, whose plain form is a call like any other), and what stands in the parentheses is an expression or a modifier. */
const COLUMN_WORDS =
  'between bit char character coalesce dec decimal exists extract float greatest grouping interval least nchar nullif numeric ' +
  'position row time timestamp trim values varchar';
const SELDOM_CALLS =
  'by conflict cube escape filter first ilike is isnull join like materialized next notnull over overlaps rollup sets set zone insert update delete';
/** Words that begin a statement or decide what it does. */
const COMMANDS =
  'abort alter authorization begin binary call chain characteristics checkpoint close cluster comment commit committed constraints copy ' +
  'cursor deallocate declare discard drop execute explain global hold import key listen load local lock merge move names no notify only ' +
  'ordinality plans prepare prepared program read reassign recursive refresh reindex release repeatable reset revoke rollback savepoint schema security ' +
  'seed sequences serializable session share show start stdin stdout temp temporary ties to transaction truncate uncommitted unlisten vacuum ' +
  'verbose without work write xml into pg_temp isolation level access role option';

const LIST: readonly string[] = [...new Set(`${RESERVED} ${COLUMN_WORDS} ${SELDOM_CALLS} ${COMMANDS}`.split(' '))];
const SLOTS = 1024;
const bySlot = new Int16Array(SLOTS);
const spelled: Uint8Array[] = [new Uint8Array(0)];
/** Properties (`WORD_IS`) by code. */
export const WORD_PROPERTIES: Uint8Array = new Uint8Array(LIST.length + 1);

/** The code of a word, 1 or more. A word that is not in the list is a mistake of the caller. */
export function keyword(word: string): number {
  const code = LIST.indexOf(word) + 1;
  if (code === 0) throw new Error(`no such keyword: ${word}`);
  return code;
}

/** The codes of several words, in their order. */
export function keywords<const T extends readonly string[]>(...words: T): { readonly [I in keyof T]: number } {
  return words.map(keyword) as { [I in keyof T]: number };
}

for (const [index, word] of LIST.entries()) {
  const bytes = encodeText(word);
  spelled.push(bytes);
  let slot = hashBytes(bytes, 0, bytes.length) & (SLOTS - 1);
  while (bySlot[slot] !== 0) slot = (slot + 1) & (SLOTS - 1);
  bySlot[slot] = index + 1;
}
mark(RESERVED, WORD_IS.noCall);
mark(COLUMN_WORDS, WORD_IS.noCall);
mark(SELDOM_CALLS, WORD_IS.seldomCall);
mark('insert update delete merge into pg_temp', WORD_IS.writes);

function mark(words: string, property: number): void {
  for (const word of words.split(' ')) {
    const code = keyword(word);
    WORD_PROPERTIES[code] = (WORD_PROPERTIES[code] as number) | property;
  }
}

/** The code of the word `bytes[from…to]` in any case, 0 when it is a name. `hash` is that of its lower-case form. */
export function findKeyword(hash: number, bytes: Uint8Array, from: number, to: number): number {
  let slot = hash & (SLOTS - 1);
  for (;;) {
    const code = bySlot[slot] as number;
    if (code === 0) return 0;
    const word = spelled[code] as Uint8Array;
    if (word.length === to - from) {
      let i = 0;
      while (i < word.length && word[i] === LOWER[bytes[from + i] as number]) i++;
      if (i === word.length) return code;
    }
    slot = (slot + 1) & (SLOTS - 1);
  }
}

/** Names of functions that must be in the set of unsafe names when a volatile function has them (`WORD_IS.seldomCall`). */
export const SELDOM_CALL_NAMES: readonly string[] = SELDOM_CALLS.split(' ');
