/**
 * What a session has made on its node beyond data, and what is under way: the books of wire/session-state.ts, in the words of the proxy.
 *
 * The text of each statement, classified, says what it leaves behind; that is all there is after a node was lost. Before a planned move, where the text
 * leaves doubt, the node itself is asked (`question`), and its answer replaces the doubt.
 *
 * All answers are booked for one server: a session has one at a time, also while a cycle of it is at a standby.
 */
import { createHash } from 'node:crypto';
import { readDataRow } from '../wire/backend.ts';
import { type Classification, EFFECT, ROUTE, type Rules, createClassification } from '../wire/classification.ts';
import { classify } from '../wire/classify.ts';
import { type Classifier, createClassifier } from '../wire/classifier.ts';
import { buildMessage, decodeText, joinBytes } from '../wire/bytes.ts';
import { buildSync } from '../wire/frontend.ts';
import { type Prepared, findPrepared, listPrepared } from '../wire/prepared.ts';
import { BACKEND, FRONTEND } from '../wire/protocol.ts';
import { MAX_REQUESTS, forgetRequests } from '../wire/requests.ts';
import { NO_RULES } from '../wire/rules.ts';
import { HINT } from '../wire/scan.ts';
import { applyInspection, inspectionSql, mayBeFree } from '../wire/session-inspection.ts';
import { missingSettings } from '../wire/session-settings.ts';
import {
  PIN,
  type SessionState,
  createSessionState,
  describePins,
  mayHaveCommitted,
  mayLeavePrimary,
  noteConnectionLost,
  noteParameter,
  textSettings,
} from '../wire/session-state.ts';
import { noteClientMessage, noteServerMessage } from '../wire/session-track.ts';
import type { Login } from './login/client-login.ts';

/** Shared by all sessions of a process: classifying keeps nothing between two calls. */
const shared: { readonly into: Classification; readonly classifier: Classifier } = (() => {
  const into = createClassification();
  return { into, classifier: createClassifier(NO_RULES, into) };
})();
/** Used by one call at a time. */
const heard: { owner: number; type: number; bytes: Uint8Array; bodyAt: number; end: number; first: number } = {
  owner: 0,
  type: 0,
  bytes: new Uint8Array(0),
  bodyAt: 0,
  end: 0,
  first: 0,
};

export class SessionMemory {
  /** Of the session's database; read anew by the port. */
  rules: () => Rules;
  readonly #fixed: string | null;
  readonly #state: SessionState;
  #catalogChanged = false;
  /** Of `stateKey`, and of which version it is. */
  #key = '';
  #keyVersion = -1;
  /** Since it was set to false: a statement was sent that does more than read (it may have used a sequence). */
  wrote = false;

  /** A replication connection can never be moved. */
  constructor(rules: () => Rules, login: Pick<Login, 'user' | 'startup' | 'replication'>) {
    this.rules = rules;
    this.#fixed = login.replication ? 'a replication connection' : null;
    this.#state = createSessionState({ user: login.user, startup: login.startup.parameters, quiet: [WAIT_SETTING], owner: heard.owner });
  }

  /** Changes with everything that a second connection of the session would have to learn. */
  get version(): number {
    return this.#state.settings.shared + this.#state.prepared.changes;
  }

  /** Changes with each setting. */
  get settingsRevision(): number {
    return this.#state.settings.generation;
  }

  /** Requests that are not answered yet. */
  get awaited(): number {
    return this.#state.requests.count;
  }

  /** The client has so many requests under way that it is not read until answers come. */
  get crowded(): boolean {
    return this.#state.requests.count > MAX_REQUESTS;
  }

  /** A whole message, before it is sent; `bodyAt` is −1 when it was too long to be kept. */
  onClientMessage(type: number, bytes: Uint8Array, bodyAt: number, end: number): void {
    const { classifier } = shared;
    if (type === FRONTEND.query || type === FRONTEND.parse) classifier.rules = this.rules();
    noteClientMessage(this.#state, classifier, type, bytes, bodyAt, end);
    const { batch } = this.#state;
    if ((batch.effects & EFFECT.catalog) !== 0) this.#catalogChanged = true;
    if (batch.route !== ROUTE.any) this.wrote = true;
  }

  /** Everything but rows, copied data, parameters and ReadyForQuery. */
  onServerMessage(type: number, bytes: Uint8Array, bodyAt: number, end: number): void {
    heard.type = type;
    heard.bytes = bytes;
    heard.bodyAt = bodyAt;
    heard.end = end;
    noteServerMessage(this.#state, heard);
  }

  /** The server has answered a cycle, with this transaction status. */
  onReady(status: number): void {
    heard.type = BACKEND.readyForQuery;
    heard.first = status;
    noteServerMessage(this.#state, heard);
    const { requests } = this.#state;
    if (requests.ring.length > KEPT_RECORDS && requests.count === 0) forgetRequests(requests);
  }

  onParameters(parameters: ReadonlyMap<string, string>): void {
    for (const [name, value] of parameters) noteParameter(this.#state, name, value);
  }

  /** True: the client does not know this value yet. */
  onParameter(name: string, value: string): boolean {
    if (this.#state.parameters.get(name) === value) return false;
    noteParameter(this.#state, name, value);
    return true;
  }

  /** The text only reads, no comment wants it on the primary, and nothing keeps the session there: a standby may run it. Nothing is remembered of it. */
  onlyReads(bytes: Uint8Array, from: number, to: number): boolean {
    const { classifier, into } = shared;
    classifier.rules = this.rules();
    classify(classifier, bytes, from, to, textSettings(this.#state));
    return into.route === ROUTE.any && into.effects === 0 && into.statements > 0 && into.hint !== HINT.primary && this.#mayLeave(classifier.rules);
  }

  /** The prepared statement of this name (empty: the unnamed one) only reads; false for one that is not known. */
  isReadStatement(bytes: Uint8Array, from: number, to: number): boolean {
    const known = this.#find(bytes, from, to);
    return known !== null && known.route === ROUTE.any && known.effects === 0 && known.hint !== HINT.primary && this.#mayLeave(this.rules());
  }

  /** The prepared statement of this name, or the unnamed one, shows the session's token. */
  isTokenStatement(bytes: Uint8Array, from: number, to: number): boolean {
    const known = this.#find(bytes, from, to);
    if (known === null || known.parse === null) return false;
    const textAt = PARSE_HEADER + known.name.length + 1;
    return showsToken(known.parse, textAt, Math.min(known.parseLength, known.parse.indexOf(0, textAt)));
  }

  #find(bytes: Uint8Array, from: number, to: number): Prepared | null {
    return findPrepared(this.#state.prepared, bytes, from, to);
  }

  #mayLeave(rules: Rules): boolean {
    return mayLeavePrimary(this.#state, rules);
  }

  /** What the session has set, as it stands in the statement but without quotes; null: nothing. */
  setting(name: string): string | null {
    const change = this.#state.settings.byKey.get(name)?.change;
    return change?.kind === 'set' ? change.value : null;
  }

  /** Why the session cannot be moved, in words for the client; null: it can. */
  pinned(): string | null {
    return this.#fixed ?? (this.#state.pins === 0 ? null : describePins(this.#state));
  }

  /** The node can say more than the texts do: nothing is certain, or something that may be gone again ties the session to it. */
  get doubtful(): boolean {
    return this.#fixed === null && mayBeFree(this.#state);
  }

  /** What to ask the node; the answer is for `learn`. */
  get question(): string {
    return inspectionSql(this.#state);
  }

  /** Takes the node's answer to `question` in the place of all that was guessed. Rows that cannot be read leave the doubt. */
  learn(rows: readonly Uint8Array[]): void {
    const [row] = rows;
    const values = row === undefined ? null : readDataRow(row, 0, row.length);
    applyInspection(this.#state, values?.map((value) => (value === null ? null : decodeText(value))) ?? []);
  }

  /** Messages that make the state again, each one cycle: first settings, then prepared statements. Empty: nothing to do. */
  restore(): readonly Uint8Array[] {
    const settings = missingSettings(this.#state.settings, 0).map((text) => buildMessage(FRONTEND.query, text, ZERO));
    // In one order, so that sessions with the same ones are known to be equal.
    const prepared = listPrepared(this.#state.prepared).toSorted((one, other) => Buffer.compare(one.name, other.name));
    return [...settings, ...prepared.flatMap(prepareAgain)];
  }

  /** How many of them are settings. */
  get settingCount(): number {
    return missingSettings(this.#state.settings, 0).length;
  }

  /** The unnamed statement as one cycle, if the server has it and it is not too long. */
  restoreUnnamed(): readonly Uint8Array[] {
    const { hasUnnamed, unnamed, unnamedVersion, unnamedOnServer } = this.#state.prepared;
    return hasUnnamed && unnamedOnServer === unnamedVersion ? prepareAgain(unnamed) : [];
  }

  /** Two sessions of one user with equal start packets and equal keys have the same settings and prepared statements. */
  get stateKey(): string {
    const version = this.#state.settings.generation + this.#state.prepared.changes;
    if (this.#keyVersion === version) return this.#key;
    const all = Buffer.from(joinBytes(this.restore()));
    this.#key = all.length <= MAX_KEY ? all.toString('latin1') : createHash('sha256').update(all).digest('base64');
    this.#keyVersion = version;
    return this.#key;
  }

  /** As the server reported them last. */
  get parameters(): ReadonlyMap<string, string> {
    return this.#state.parameters;
  }

  /** DISCARD ALL takes away whatever pins the session. */
  get isDiscardable(): boolean {
    return this.#fixed === null && (this.#state.pins & (PIN.forever | PIN.confused)) === 0;
  }

  /** What is under way may have been committed, should its answer be lost now. */
  mayHaveCommitted(): boolean {
    return mayHaveCommitted(this.#state);
  }

  /** The node is gone, with everything that was under way. */
  onNodeLost(): void {
    noteConnectionLost(this.#state);
  }

  /** True once after a text that may have changed functions, views or triggers. */
  takeCatalogChange(): boolean {
    const changed = this.#catalogChanged;
    this.#catalogChanged = false;
    return changed;
  }
}

function prepareAgain({ parse, parseLength }: Prepared): readonly Uint8Array[] {
  return parse === null ? [] : [joinBytes([parse.subarray(0, parseLength), buildSync()])];
}

/** A session that once sent a long pipeline gives its records back. */
const KEPT_RECORDS = 64;
const ZERO = new Uint8Array(1);
/** Longer ones are hashed. */
const MAX_KEY = 200;
const PARSE_HEADER = 5;

/** `SHOW pgherd.lsn`. Longer texts are none. */
export function showsToken(bytes: Uint8Array, from: number, to: number): boolean {
  if (to - from > MAX_SHOW || from >= to) return false;
  const [first = 0, second = 0] = [bytes[from], bytes[from + 1]];
  // Almost everything ends here; what begins with a space is looked at.
  if (first > SPACE && ((first | 0x20) !== LETTER_S || (second | 0x20) !== LETTER_H)) return false;
  return /^\s*show\s+"?pgherd"?\."?lsn"?\s*;?\s*$/i.test(decodeText(bytes, from, to));
}

const MAX_SHOW = 64;
const SPACE = 0x20;
const LETTER_S = 0x73;
const LETTER_H = 0x68;
/** The setting with which an application says what its reads must contain. */
export const WAIT_SETTING = 'pgherd.wait_for_lsn';
