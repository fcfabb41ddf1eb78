/**
 * What is known about one client's session from the messages of both directions: where its next statements may run, what it has made that ties it to
 * the primary (pins), what another connection needs to stand in for it, and which answers are still to come.
 *
 * The caller shows every message of the client before it is sent (`noteClientMessage`), says which server gets it (`giveTo`), and shows every message of a
 * server but DataRow and CopyData before it is passed on (`noteServerMessage`), both in session-track.ts. One server answers at a time: the owner of the
 * oldest request.
 *
 * *Invariant:* while a session has something that only the primary knows, or may have, `pins` is not 0.
 * *Because:* a pin is set when a statement that could make such a thing is shown, before any server has it; it goes only when a statement that ends the
 * thing has succeeded with no transaction open and nothing under way, or when the primary said that the thing is not there (session-inspection.ts).
 * *Broken if:* the caller sends what it has not shown.
 */
import { EFFECT, ROUTE, type Rules } from './classification.ts';
import type { TextSettings } from './classify.ts';
import { type OwnSettings, createOwnSettings } from './own-settings.ts';
import { type PreparedTable, closePortals, createPreparedTable } from './prepared.ts';
import { TRANSACTION } from './protocol.ts';
import { NOBODY, REQUEST, type Requests, createRequests, requestAt } from './requests.ts';
import { type SessionSettings, bindsToPrimary, createSettings } from './session-settings.ts';
import { UNSURE_TEXT, encodingOf } from './text-settings.ts';

/** Why a session must read on the primary, and cannot move to another connection: bits. */
export const PIN = {
  temp: 1 << 0,
  listen: 1 << 1,
  advisoryLock: 1 << 2,
  heldCursor: 1 << 3,
  sqlPrepared: 1 << 4,
  /** Code ran whose traces are not known: an inspection tells. */
  opaque: 1 << 5,
  /** More settings, prepared statements or longer ones than are kept. */
  tooMuch: 1 << 6,
  /** A library was loaded, or the like. */
  forever: 1 << 7,
  /** A server answered what nobody asked: the books do not hold. */
  confused: 1 << 8,
  /** Code may have made settings of the application under names that nobody can know. */
  hiddenSettings: 1 << 9,
} as const;

const PIN_WORDS: readonly (readonly [number, string])[] = [
  [PIN.temp, 'temporary tables'],
  [PIN.listen, 'LISTEN'],
  [PIN.advisoryLock, 'advisory locks'],
  [PIN.heldCursor, 'a cursor WITH HOLD'],
  [PIN.sqlPrepared, 'statements made with PREPARE'],
  [PIN.opaque, 'called code or functions that may have changed the session'],
  [PIN.tooMuch, 'more settings or prepared statements than are kept'],
  [PIN.forever, 'something that cannot be taken back'],
  [PIN.confused, 'answers that do not fit the requests'],
  [PIN.hiddenSettings, "called code that may have made an application's own setting"],
];

/** What the messages since the last end of a cycle ask for together: they cannot be taken apart, as they are one transaction. */
export interface Batch {
  route: number;
  effects: number;
  reason: number;
  hint: number;
  access: number;
  isolation: number;
  /** Messages that have an answer of their own. */
  requests: number;
  /** The client wants answers before the batch ends. */
  flushed: boolean;
  /** The batch is whole: ended by Query, FunctionCall or Sync. */
  complete: boolean;
}

export interface SessionState {
  readonly user: string;
  /** `SHOW`n values as the primary reports them, by ParameterStatus. */
  readonly parameters: Map<string, string>;
  /** Status byte of the last ReadyForQuery (`TRANSACTION`). */
  status: number;
  readonly batch: Batch;
  readonly requests: Requests;
  readonly prepared: PreparedTable;
  readonly settings: SessionSettings;
  pins: number;
  /** A pin may be gone, or may be missing a setting: ask the primary. */
  uncertain: boolean;
  /** The primary was asked about the pins since the last one was set. */
  inspected: boolean;
  /** False: a setting of the application may have been made out of sight. */
  ownSettings: boolean;
  /** Their names, as far as texts show them. */
  readonly own: OwnSettings;
  /** Pins that statements of the present cycle have ended: `EFFECT` bits, as they are seen when everything is quiet. */
  ended: number;
  /** Statements of the present transaction that can make a pin have succeeded: whether before or after such an end is not kept. */
  made: boolean;
  /** Since the last ReadyForQuery a statement has succeeded that may have committed something, or after which the next one may. */
  unsettled: boolean;
  /** The present cycle has failed. */
  failed: boolean;
  /** The server passes over everything up to the next Sync. */
  skipping: boolean;
  /** The server reads CopyData, and nothing else. */
  copyIn: boolean;
  text: TextSettings;
  /** Catalog changes seen: rises when the rules of the database may be out of date. */
  catalogChanges: number;
}

/** A session whose login is done. `user` as the server knows it; `startup`: the parameters of its start packet. */
export function createSessionState({
  user,
  startup = [],
  quiet = [],
  owner = NOBODY,
}: {
  user: string;
  startup?: readonly (readonly [string, string])[];
  /** Settings that the caller alone looks at: other connections need not hear of each change of them. */
  quiet?: readonly string[];
  /** The number of the only server, for callers that have no other: `giveTo` is not needed then. */
  owner?: number;
}): SessionState {
  const serializable = startup.some(([name, value]) => /default_transaction_isolation/i.test(name + value) && /serializable/i.test(value));
  return {
    user,
    parameters: new Map(),
    status: TRANSACTION.idle,
    batch: { route: ROUTE.any, effects: 0, reason: 0, hint: 0, access: 0, isolation: 0, requests: 0, flushed: false, complete: false },
    requests: createRequests(owner),
    prepared: createPreparedTable(),
    settings: createSettings(quiet),
    pins: serializable ? PIN.forever : 0,
    uncertain: false,
    inspected: false,
    ownSettings: true,
    own: createOwnSettings(),
    ended: 0,
    made: false,
    unsettled: false,
    failed: false,
    skipping: false,
    copyIn: false,
    text: UNSURE_TEXT,
    catalogChanges: 0,
  };
}

/** A ParameterStatus of the primary. */
export function noteParameter(state: SessionState, name: string, value: string): void {
  state.parameters.set(name, value);
  if (name === 'client_encoding' || name === 'standard_conforming_strings') renewText(state);
}

export function renewText(state: SessionState): void {
  const encoding = encodingOf(state.parameters.get('client_encoding') ?? '');
  state.text = { encoding, standardStrings: state.parameters.get('standard_conforming_strings') === 'on', ownSettings: state.ownSettings };
}

/** How the next text is to be read: as reported, unless a statement that may change that is still under way. */
export function textSettings(state: SessionState): TextSettings {
  if (state.requests.count > MAX_LOOKED_AT) return UNSURE_TEXT;
  for (let i = 0; i < state.requests.count; i++) if (((requestAt(state.requests, i)?.effects ?? 0) & ~HARMLESS_TO_TEXT) !== 0) return UNSURE_TEXT;
  return state.text;
}

/** With more requests under way, looking at all of them for each new one would cost more than a few reads on the primary. */
const MAX_LOOKED_AT = 64;
/** Effects that cannot change encoding or quoting. */
const HARMLESS_TO_TEXT =
  EFFECT.write |
  EFFECT.begin |
  EFFECT.savepoint |
  EFFECT.prepare |
  EFFECT.declare |
  EFFECT.listen |
  EFFECT.unlisten |
  EFFECT.closeCursor |
  EFFECT.advisoryLock;

/** A batch that may run on a standby now: it only reads, no transaction is open, and nothing binds the session to the primary. */
export function mayReadElsewhere(state: SessionState, rules: Rules): boolean {
  const { batch } = state;
  return batch.route === ROUTE.any && !batch.flushed && batch.complete && mayLeavePrimary(state, rules);
}

/**
 * A batch that opens a block that only reads: the whole block may run on a standby. SERIALIZABLE may not, since standbys do not have it.
 */
export function mayLeavePrimary(state: SessionState, rules: Rules): boolean {
  return state.status === TRANSACTION.idle && state.pins === 0 && !bindsToPrimary(state.settings) && (state.ownSettings || !rules.settingsInside);
}

/** The pins in words, for people; null when there is none. */
export function describePins(state: SessionState): string | null {
  const words = PIN_WORDS.filter(([bit]) => (state.pins & bit) !== 0).map(([, text]) => text);
  return words.length === 0 ? null : words.join(', ');
}

/**
 * Whether the transaction that is under way, or an answer that is awaited, may have been committed when the connection is lost now: then nobody can say what became of
 * it (SQLSTATE 08007), and it must not be sent again.
 */
export function mayHaveCommitted(state: SessionState): boolean {
  if (state.unsettled) return true;
  let inBlock = state.status !== TRANSACTION.idle;
  for (let i = 0; i < state.requests.count; i++) {
    const request = requestAt(state.requests, i);
    if (request === null || request.owner === NOBODY) break;
    if ((request.effects & (EFFECT.commit | EFFECT.twoPhase)) !== 0) return true;
    if ((request.effects & EFFECT.begin) !== 0) inBlock = true;
    if ((request.effects & EFFECT.rollback) !== 0) inBlock = false;
    // Outside a block each statement commits by itself; the end of a batch does it for all of them.
    if (!inBlock && (request.effects & EFFECT.write) !== 0) return true;
    if (request.kind === REQUEST.functionCall && !inBlock) return true;
  }
  return false;
}

/** The connection that had the session's state is gone, and with it everything that cannot be made again. */
export function noteConnectionLost(state: SessionState): void {
  state.requests.count = 0;
  state.status = TRANSACTION.idle;
  state.pins &= PIN.tooMuch;
  state.uncertain = false;
  state.ended = 0;
  state.made = false;
  state.unsettled = false;
  state.failed = false;
  state.skipping = false;
  state.copyIn = false;
  closePortals(state.prepared);
}
