/**
 * What a session has made on its node beyond data: settings, prepared statements, and what ties it to that node.
 *
 * Two sources. The text of each statement, classified (wire/classify.ts), says what it leaves behind; that is all there is after a node was lost. Before
 * a planned move, where the text leaves doubt, the node itself is asked (`question`), and its answer replaces the doubt: it is exact.
 *
 * Effects count when their cycle ended without an error, and in a transaction when that was committed; what may tie the session to its node counts at once.
 */
import { readDataRow } from '../wire/backend.ts';
import { type Classification, EFFECT, ROUTE, type Rules, createClassification } from '../wire/classification.ts';
import { classify, classifyUnknown } from '../wire/classify.ts';
import { type Classifier, createClassifier } from '../wire/classifier.ts';
import { buildMessage, decodeText, findZero, joinBytes } from '../wire/bytes.ts';
import { buildQuery, buildSync } from '../wire/frontend.ts';
import { BACKEND, FRONTEND, TRANSACTION } from '../wire/protocol.ts';
import { NO_RULES } from '../wire/rules.ts';
import { ENCODING, HINT } from '../wire/scan.ts';

/**
 * Settings with a dot in their name, which belong to applications, stand in no view: so a function whose source may set one leaves doubt for good.
 * Kinds of rows: `set` a setting of the session, `role`, and what ties the session to its node. Source: PostgreSQL manual,
 * pg_settings.source and system views; GUC_CUSTOM_PLACEHOLDER, src/backend/utils/misc/guc.c.
 */
const QUESTION = `select 'set', name, setting from pg_catalog.pg_settings where source = 'session'
 union all select 'role', '', pg_catalog.current_setting('role') where pg_catalog.current_setting('role') <> 'none'
 union all select 'pin', 'another session user', '' where exists
  (select from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid() and usename <> session_user)
 union all select 'pin', 'LISTEN', '' where exists (select from pg_catalog.pg_listening_channels())
 union all select 'pin', 'a cursor WITH HOLD', '' where exists (select from pg_catalog.pg_cursors where is_holdable)
 union all select 'pin', 'temporary tables', '' where exists (select from pg_catalog.pg_class where relnamespace = pg_catalog.pg_my_temp_schema())
 union all select 'pin', 'advisory locks', '' where exists (select from pg_catalog.pg_locks where locktype = 'advisory' and pid = pg_catalog.pg_backend_pid())
 union all select 'pin', 'statements made with PREPARE', '' where exists (select from pg_catalog.pg_prepared_statements where from_sql)
 union all select 'pin', 'called functions that may have set an application''s own setting', '' where exists
  (select from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang where l.lanname not in ('internal', 'c')
   and p.prosrc ~* $$set_config\\s*\\((?!\\s*'[a-z_]+'\\s*,)|\\mset\\s+(session\\s+)?\\S*[.%]$$)`;

/** Prepared statements of one session that are kept, so that they can be made again elsewhere. */
const MAX_PREPARED_BYTES = 1_048_576;
/** Settings of one session. More is no session that anybody wrote by hand. */
const MAX_SETTINGS = 200;

/** Effects that tie a session to its node, in the words that its client is told. */
const PINS: readonly (readonly [bit: number, why: string])[] = [
  [EFFECT.prepare, 'statements made with PREPARE'],
  [EFFECT.declareHold, 'a cursor WITH HOLD'],
  [EFFECT.listen, 'LISTEN'],
  [EFFECT.temp, 'temporary tables'],
  [EFFECT.advisoryLock, 'advisory locks'],
  [EFFECT.opaque, 'called functions that may have changed the session'],
  [EFFECT.pin, 'something that no other node can have'],
];
/** What takes them away again. */
const UNPINS: readonly (readonly [bit: number, undone: number])[] = [
  [EFFECT.deallocateAll, EFFECT.prepare],
  [EFFECT.closeAllCursors, EFFECT.declareHold],
  [EFFECT.unlistenAll, EFFECT.listen],
  [EFFECT.discardTemp, EFFECT.temp],
  [EFFECT.advisoryUnlockAll, EFFECT.advisoryLock],
];
const ALL_PINS = PINS.reduce((all, [bit]) => all | bit, 0);
const SETTINGS = EFFECT.set | EFFECT.reset | EFFECT.resetAll | EFFECT.discardAll;
/** Prepared statements know no transactions. Source: PostgreSQL manual, DEALLOCATE; StorePreparedStatement, src/backend/commands/prepare.c. */
const OUTLIVES_ROLLBACK = EFFECT.deallocate | EFFECT.deallocateAll;
const FORGETS = EFFECT.deallocate | EFFECT.deallocateAll | EFFECT.discardAll;

/** Shared by all sessions of a process: classifying keeps nothing between two calls. */
const shared: { readonly into: Classification; readonly classifier: Classifier } = (() => {
  const into = createClassification();
  return { into, classifier: createClassifier(NO_RULES, into) };
})();

interface Change {
  readonly cycle: number;
  readonly effects: number;
  readonly name: string;
  readonly text: string;
}

interface Parsing {
  readonly cycle: number;
  readonly read: boolean;
  /** Empty: the unnamed statement. */
  readonly name: string;
  readonly message: Uint8Array;
}

export class SessionMemory {
  /** Of the session's database; read anew by the port. */
  rules: () => Rules;
  readonly #fixed: string | null;
  readonly #known = new Map<string, string>();
  readonly #settings = new Map<string, string>();
  readonly #prepared = new Map<string, Uint8Array>();
  /** Those that only read. */
  readonly #reads = new Set<string>();
  /** Those that show the session's token; the empty name is the unnamed statement. */
  readonly #showsToken = new Set<string>();
  #preparedBytes = 0;
  #pins = 0;
  #asked = false;
  /** Names of settings of the application that calls of set_config() gave. */
  readonly #own = new Set<string>();
  #ownUnknown = false;
  #pinnedBy: string | null = null;
  #sent = 0;
  #done = 0;
  #parsing: Parsing[] = [];
  #closing: { readonly cycle: number; readonly name: string }[] = [];
  #changes: Change[] = [];
  #uncommitted: Change[] = [];
  #failed = false;
  #rolledBack = false;
  #commitSent = false;
  #catalogChanged = false;
  #version = 0;
  #settingsRevision = 0;

  /** `fixed`: why the session can never be moved; null: it may be. */
  constructor(rules: () => Rules, fixed: string | null) {
    this.#fixed = fixed;
    this.rules = rules;
  }

  /** Changes with everything that a second connection of the session would have to learn. */
  get version(): number {
    return this.#version;
  }

  /** Changes with each setting. */
  get settingsRevision(): number {
    return this.#settingsRevision;
  }

  onClientMessage(type: number, bytes: Uint8Array, bodyAt: number, end: number): void {
    switch (type) {
      case FRONTEND.query:
        this.#onText(bytes, bodyAt, bodyAt < 0 ? -1 : end - 1);
        this.#sent += 1;
        return;
      case FRONTEND.parse:
        this.#onParse(bytes, bodyAt, end);
        return;
      case FRONTEND.close:
        if (bodyAt >= 0 && bytes[bodyAt] === 0x53) this.#closing.push({ cycle: this.#sent, name: decodeText(bytes, bodyAt + 1, end - 1) });
        return;
      case FRONTEND.functionCall:
        this.#pin(EFFECT.opaque);
        this.#sent += 1;
        return;
      case FRONTEND.sync:
        this.#sent += 1;
        return;
      default:
    }
  }

  /** ParseComplete, CloseComplete, errors, command tags and ReadyForQuery. */
  onServerMessage(type: number, bytes: Uint8Array, bodyAt: number, _end: number): void {
    switch (type) {
      case BACKEND.parseComplete:
        this.#onParsed();
        return;
      case BACKEND.closeComplete: {
        const closed = this.#closing.shift();
        if (closed !== undefined) this.#forget(closed.name);
        return;
      }
      case BACKEND.errorResponse:
        this.#failed = true;
        return;
      case BACKEND.commandComplete:
        // "ROLLBACK", also the answer to the COMMIT of a failed transaction.
        this.#rolledBack = bodyAt >= 0 && bytes[bodyAt] === 0x52 && bytes[bodyAt + 1] === 0x4f;
        return;
      default:
    }
  }

  /** The server is idle again, with this transaction status. */
  onReady(status: number): void {
    this.#done += 1;
    while (this.#parsing[0] !== undefined && this.#parsing[0].cycle < this.#done) this.#parsing.shift();
    while (this.#closing[0] !== undefined && this.#closing[0].cycle < this.#done) this.#closing.shift();
    if (this.#changes.length > 0 || this.#uncommitted.length > 0) this.#settle(status);
    this.#failed = false;
    if (status === TRANSACTION.idle) this.#commitSent = false;
  }

  onParameters(parameters: ReadonlyMap<string, string>): void {
    for (const [name, value] of parameters) this.#known.set(name, value);
  }

  /** True: the client does not know this value yet. */
  onParameter(name: string, value: string): boolean {
    if (this.#known.get(name) === value) return false;
    this.#known.set(name, value);
    return true;
  }

  /** The text only reads, and no comment wants it on the primary: a standby may run it. Nothing is remembered of it. */
  onlyReads(bytes: Uint8Array, from: number, to: number): boolean {
    this.#classify(bytes, from, to);
    return isRead();
  }

  /** The prepared statement of this name only reads; false for one that is not known. */
  isReadStatement(name: string): boolean {
    return this.#reads.has(name);
  }

  /** The prepared statement of this name, or the unnamed one, shows the session's token. */
  isTokenStatement(bytes: Uint8Array, from: number, to: number): boolean {
    return this.#showsToken.size > 0 && this.#showsToken.has(decodeText(bytes, from, to));
  }

  /** What the session has set, as it stands in the statement but without quotes; null: nothing, or in a way that is not understood here. */
  setting(name: string): string | null {
    const text = this.#settings.get(name);
    return text === undefined
      ? null
      : (/^\s*set\s+(?:session\s+)?\S+\s*(?:=|\sto\s)\s*(?:'([^'\\]*)'|([\w.:/-]+))\s*;?\s*$/i.exec(text)?.slice(1).find(Boolean) ?? '');
  }

  /** Why the session cannot be moved, in words for the client; null: it can. */
  pinned(): string | null {
    if (this.#fixed !== null) return this.#fixed;
    if (this.#asked) return this.#pinnedBy;
    return PINS.find(([bit]) => (this.#pins & bit) !== 0)?.[1] ?? null;
  }

  /** The node can say more than the texts do: nothing is certain, or something that may be gone again ties the session to it. */
  get doubtful(): boolean {
    return this.#pins !== 0 && !this.#asked && this.#fixed === null;
  }

  /** What to ask the node; the answer is for `learn`. */
  get question(): string {
    const own = [...this.#own].map(
      (name) =>
        ` union all select 'set', ${quoteText(name)}, pg_catalog.current_setting(${quoteText(name)}, true) where pg_catalog.current_setting(${quoteText(name)}, true) <> ''`,
    );
    return QUESTION + own.join('');
  }

  /** Takes the node's answer to `question` in the place of all that was guessed. Rows that cannot be read leave the doubt. */
  learn(rows: readonly Uint8Array[]): void {
    const read = rows.map((row) => readDataRow(row, 0, row.length)?.map((value) => (value === null ? '' : decodeText(value))) ?? null);
    if (read.some((row) => row === null || row.length !== 3)) return;
    // A setting of an application that a statement made stays: the node's list cannot show it.
    for (const name of [...this.#settings.keys()]) if (!name.includes('.')) this.#settings.delete(name);
    this.#pinnedBy = this.#ownUnknown ? 'settings of its own made with set_config()' : null;
    for (const row of read) {
      const [kind = '', name = '', value = ''] = row ?? [];
      if (kind === 'pin') this.#pinnedBy ??= name;
      else if (kind === 'role') this.#settings.set('role', `SET ROLE ${quoteName(value)}`);
      else this.#settings.set(name, `SELECT pg_catalog.set_config(${quoteText(name)}, ${quoteText(value)}, false)`);
    }
    this.#asked = true;
    this.#version += 1;
    this.#settingsRevision += 1;
  }

  /** Messages that make the state again, each one cycle; empty: nothing to do. */
  restore(): readonly Uint8Array[] {
    const settings = [...this.#settings.values()].map(buildQuery);
    const prepared = [...this.#prepared.values()];
    return prepared.length === 0 ? settings : [...settings, joinBytes([...prepared, buildSync()])];
  }

  /** A COMMIT, or something like it, may have been sent since the transaction began. */
  commitSent(): boolean {
    return this.#commitSent;
  }

  /** The node is gone, with everything that was under way. */
  onNodeLost(): void {
    this.#parsing = [];
    this.#closing = [];
    this.#changes = [];
    this.#uncommitted = [];
    this.#done = this.#sent;
    this.#failed = false;
    this.#commitSent = false;
  }

  /** True once after a text that may have changed functions, views or triggers. */
  takeCatalogChange(): boolean {
    const changed = this.#catalogChanged;
    this.#catalogChanged = false;
    return changed;
  }

  #classify(bytes: Uint8Array, from: number, to: number): void {
    const { classifier } = shared;
    classifier.rules = this.rules();
    if (from < 0) classifyUnknown(classifier);
    else
      classify(classifier, bytes, from, to, {
        encoding: this.#encoding(),
        standardStrings: this.#known.get('standard_conforming_strings') !== 'off',
        ownSettings: false,
      });
  }

  #onText(bytes: Uint8Array, from: number, to: number): void {
    this.#classify(bytes, from, to);
    const { into } = shared;
    const { effects } = into;
    if (effects === 0) return;
    if ((effects & (EFFECT.commit | EFFECT.twoPhase)) !== 0) this.#commitSent = true;
    if ((effects & EFFECT.catalog) !== 0) this.#catalogChanged = true;
    if ((effects & ALL_PINS) !== 0) this.#pin(effects & ALL_PINS);
    if ((effects & EFFECT.opaque) !== 0) this.#seeOwnSettings(from < 0 ? '' : decodeText(bytes, from, to));
    let kept = effects & (SETTINGS | FORGETS);
    for (const [bit] of UNPINS) kept |= effects & bit;
    if (kept === 0) {
      // What was set since the savepoint may be taken back, and which settings those are is not known here.
      if ((effects & EFFECT.savepoint) !== 0 && this.#uncommitted.length > 0) this.#pin(EFFECT.opaque);
      return;
    }
    const single = into.statements === 1;
    if (!single && (kept & EFFECT.set) !== 0) this.#pin(EFFECT.opaque);
    this.#changes.push({
      cycle: this.#sent,
      effects: single ? kept : kept & ~EFFECT.set,
      name: into.nameQuoted ? decodeText(bytes, into.nameAt, into.nameEnd) : decodeText(bytes, into.nameAt, into.nameEnd).toLowerCase(),
      text: single ? decodeText(bytes, into.textAt, into.textEnd) : '',
    });
  }

  /** Names in literals are asked for; others leave the doubt for good. */
  #seeOwnSettings(text: string): void {
    for (const call of text.matchAll(/set_config\s*\(\s*('([^'\\]*)'\s*,)?/gi)) {
      const name = call[2];
      if (name === undefined) this.#ownUnknown = true;
      else if (name.includes('.') && this.#own.size < MAX_SETTINGS) this.#own.add(name);
    }
  }

  #onParse(bytes: Uint8Array, bodyAt: number, end: number): void {
    const nameEnd = bodyAt < 0 ? -1 : findZero(bytes, bodyAt, end);
    const textEnd = nameEnd === -1 ? -1 : findZero(bytes, nameEnd + 1, end);
    if (textEnd === -1) {
      this.#onText(bytes, -1, -1);
      this.#pin(EFFECT.opaque);
      return;
    }
    const named = nameEnd > bodyAt;
    this.#onText(bytes, nameEnd + 1, textEnd);
    // Executed when, and how often, is not followed: only statements without effects are certain.
    if (named && (shared.into.effects & (SETTINGS | FORGETS)) !== 0) this.#pin(EFFECT.opaque);
    const name = named ? decodeText(bytes, bodyAt, nameEnd) : '';
    if (showsToken(bytes, nameEnd + 1, textEnd)) this.#showsToken.add(name);
    else this.#showsToken.delete(name);
    const message = named ? buildMessage(FRONTEND.parse, bytes.subarray(bodyAt, end)) : EMPTY;
    this.#parsing.push({ cycle: this.#sent, read: isRead(), name, message });
  }

  #onParsed(): void {
    const parsed = this.#parsing.shift();
    if (parsed === undefined || parsed.name === '') return;
    this.#forget(parsed.name);
    if (this.#preparedBytes + parsed.message.length > MAX_PREPARED_BYTES) {
      this.#pin(EFFECT.pin);
      return;
    }
    this.#prepared.set(parsed.name, parsed.message);
    if (parsed.read) this.#reads.add(parsed.name);
    this.#preparedBytes += parsed.message.length;
    this.#version += 1;
  }

  #forget(name: string): void {
    const message = this.#prepared.get(name);
    if (message === undefined) return;
    this.#prepared.delete(name);
    this.#reads.delete(name);
    this.#preparedBytes -= message.length;
    this.#version += 1;
  }

  #pin(bits: number): void {
    this.#pins |= bits;
    this.#asked = false;
    this.#version += 1;
  }

  #settle(status: number): void {
    const ended = this.#changes.filter((change) => change.cycle < this.#done);
    this.#changes = this.#changes.filter((change) => change.cycle >= this.#done);
    if (!this.#failed) this.#uncommitted.push(...ended);
    if (status !== TRANSACTION.idle) return;
    // An error that leaves no transaction behind ended it: a COMMIT that failed, too.
    const kept = this.#rolledBack || this.#failed ? OUTLIVES_ROLLBACK : -1;
    for (const change of this.#uncommitted) this.#apply({ ...change, effects: change.effects & kept });
    this.#uncommitted = [];
  }

  #apply({ effects, name, text }: Change): void {
    this.#settingsRevision += 1;
    // The proxy alone looks at this one: a connection to a standby need not be made anew for each token that an application brings.
    if (effects !== EFFECT.set || name !== WAIT_SETTING) this.#version += 1;
    if ((effects & EFFECT.discardAll) !== 0) {
      this.#settings.clear();
      this.#prepared.clear();
      this.#reads.clear();
      this.#preparedBytes = 0;
      this.#pins &= EFFECT.pin;
      this.#pinnedBy = null;
    }
    if ((effects & EFFECT.resetAll) !== 0) {
      const role = this.#settings.get('role');
      this.#settings.clear();
      if (role !== undefined) this.#settings.set('role', role);
    }
    if ((effects & EFFECT.reset) !== 0) this.#settings.delete(name);
    if ((effects & EFFECT.deallocateAll) !== 0) {
      this.#prepared.clear();
      this.#reads.clear();
      this.#preparedBytes = 0;
    } else if ((effects & EFFECT.deallocate) !== 0) this.#forget(name);
    for (const [bit, undone] of UNPINS) if ((effects & bit) !== 0) this.#pins &= ~undone;
    if ((effects & EFFECT.set) === 0) return;
    if (this.#settings.size >= MAX_SETTINGS && !this.#settings.has(name)) this.#pin(EFFECT.pin);
    else {
      // The order counts: a role may be needed for a setting, and some settings depend on others.
      this.#settings.delete(name);
      this.#settings.set(name, text);
    }
  }

  /** Source: PostgreSQL manual, "Supported Character Sets": those that are not server encodings have bytes that look like ASCII. */
  #encoding(): number {
    const name = this.#known.get('client_encoding')?.toUpperCase() ?? 'UTF8';
    if (name === 'UTF8' || name === 'SQL_ASCII') return ENCODING.utf8;
    return /^(BIG5|GB18030|GBK|JOHAB|SJIS|SHIFT_JIS_2004|UHC)$/.test(name) ? ENCODING.mixed : ENCODING.aboveAscii;
  }
}

/** Of the text that was classified last. */
function isRead(): boolean {
  const { into } = shared;
  return into.route === ROUTE.any && into.effects === 0 && into.statements > 0 && into.hint !== HINT.primary;
}

const EMPTY = new Uint8Array(0);

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

function quoteText(text: string): string {
  return text.includes('\\') ? ` E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'` : `'${text.replaceAll("'", "''")}'`;
}

function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
