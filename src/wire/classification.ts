/** What the text of a statement says about itself: where it may run, and what it leaves behind in the session. */
import type { NameSet } from './names.ts';

/** Where a text may run; of several statements the greatest counts. */
export const ROUTE = {
  /** Proven to only read: any server that is fresh enough. */
  any: 0,
  /** Where the open transaction block of the session is; outside a block, on the primary. */
  block: 1,
  /** Everything that is not proven to only read. */
  primary: 2,
} as const;

/** Bits: what a text does to the session besides its result, when it succeeds. Several can be set. */
export const EFFECT = {
  begin: 1 << 0,
  commit: 1 << 1,
  rollback: 1 << 2,
  /** SAVEPOINT, RELEASE, ROLLBACK TO. */
  savepoint: 1 << 3,
  /** PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED. */
  twoPhase: 1 << 4,
  /** SET TRANSACTION, SET CONSTRAINTS: only for this transaction. */
  setTransaction: 1 << 5,
  set: 1 << 6,
  setLocal: 1 << 7,
  reset: 1 << 8,
  resetAll: 1 << 9,
  discardAll: 1 << 10,
  discardTemp: 1 << 11,
  prepare: 1 << 12,
  execute: 1 << 13,
  deallocate: 1 << 14,
  deallocateAll: 1 << 15,
  /** A cursor that lives longer than its transaction. */
  declareHold: 1 << 16,
  declare: 1 << 17,
  closeCursor: 1 << 18,
  closeAllCursors: 1 << 19,
  listen: 1 << 20,
  unlisten: 1 << 21,
  unlistenAll: 1 << 22,
  /** A temporary table, or something else of the temporary schema. */
  temp: 1 << 23,
  advisoryLock: 1 << 24,
  /** Some session-level advisory locks, or all of them, were given back. */
  advisoryUnlock: 1 << 25,
  advisoryUnlockAll: 1 << 26,
  /** Functions may be other ones now: rules.ts has to be read anew. */
  catalog: 1 << 27,
  /** Ran code that may have changed the session in ways that its text does not show (settings, temporary tables, locks). */
  opaque: 1 << 28,
  /** Something that cannot be carried to another server, nor taken back: until the session ends. */
  pin: 1 << 29,
  /** Writes data, or may: the session's reads must wait for it. */
  write: 1 << 30,
} as const;

/** Why a text must run on the primary: for counters, logs, and people who ask. */
export const REASON = {
  none: 0,
  writes: 1,
  locksRows: 2,
  function: 3,
  relation: 4,
  operator: 5,
  session: 6,
  transaction: 7,
  utility: 8,
  notUnderstood: 9,
  untrusted: 10,
  serverFile: 11,
} as const;

/** The reason in words, by code. */
export const REASON_WORDS: readonly string[] = [
  'only reads',
  'writes',
  'locks rows',
  'calls a function that is not known to be harmless',
  'uses a relation or type that must be read on the primary',
  'uses an operator that is not known to be harmless',
  'belongs to the session',
  'controls the transaction',
  'is a command, not a query',
  'was not understood',
  'runs where the catalog makes every query suspect',
  'reads or writes a file of the server',
];

export const ACCESS = { unsaid: 0, readOnly: 1, readWrite: 2 } as const;
export const ISOLATION = { unsaid: 0, readCommitted: 1, repeatableRead: 2, serializable: 3 } as const;

/** Filled anew by each `classify`; the caller keeps one. Offsets are those of the text that was classified. */
export interface Classification {
  route: number;
  effects: number;
  reason: number;
  /** The word that is the reason (name of the function, of the relation); both 0 when no single word is. */
  reasonAt: number;
  reasonEnd: number;
  /** A wish in a comment (`HINT`). It does not change `route`. */
  hint: number;
  /** Statements that are not empty. */
  statements: number;
  /** Of BEGIN, START TRANSACTION, SET TRANSACTION, the last one counts. */
  access: number;
  isolation: number;
  /** COMMIT or ROLLBACK … AND CHAIN: the next transaction is open at once. */
  chain: boolean;
  /** The last statement from its first word to its last. */
  textAt: number;
  textEnd: number;
  /** Name in the last statement: of the setting, prepared statement, cursor or channel; quoted names are without their quotes. Both 0 when there is none. */
  nameAt: number;
  nameEnd: number;
  nameQuoted: boolean;
}

export function createClassification(): Classification {
  return {
    route: ROUTE.primary,
    effects: 0,
    reason: REASON.notUnderstood,
    reasonAt: 0,
    reasonEnd: 0,
    hint: 0,
    statements: 0,
    access: ACCESS.unsaid,
    isolation: ISOLATION.unsaid,
    chain: false,
    textAt: 0,
    textEnd: 0,
    nameAt: 0,
    nameEnd: 0,
    nameQuoted: false,
  };
}

/** What the catalog of a database adds to the text; built by rules.ts. */
export interface Rules {
  /** False: something in the catalog can run code without its name in the text, so no query is a read. */
  readonly trusted: boolean;
  /** Functions of which no overload is volatile or depends on the server that runs it. */
  readonly harmless: NameSet;
  /** Functions that must run on the primary, but leave nothing in the session. */
  readonly stateless: NameSet;
  /** Names that make a query one for the primary wherever they stand: views that call volatile functions, unlogged tables, … */
  readonly unsafe: NameSet;
  /** Operators with volatile functions, as bytes. */
  readonly unsafeOperators: readonly Uint8Array[];
  /** A trigger of some table may change the session. */
  readonly writesOpaque: boolean;
  /** A view or policy asks for settings of the session, so that tables can look different to sessions whose settings differ. */
  readonly settingsInside: boolean;
}
