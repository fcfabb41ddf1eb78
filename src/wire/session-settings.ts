/**
 * The settings that a session has made and not taken back: what another connection needs before it can stand in for this one.
 * Changes inside a transaction count when it commits; SET LOCAL never counts.
 */
import { type Classification, EFFECT } from './classification.ts';
import { decodeText, encodeText } from './bytes.ts';

export interface SettingChange {
  readonly kind: 'set' | 'reset' | 'reset-all' | 'discard-all';
  /** Name in lower case, one of several names for the same setting chosen; empty for all. */
  readonly key: string;
  /** The statement, in the encoding of the session. */
  readonly text: Uint8Array;
  /** As it stands in the statement, without quotes; empty when it was reset. */
  readonly value: string;
}

interface Kept {
  readonly change: SettingChange;
  readonly generation: number;
}

export interface SessionSettings {
  readonly byKey: Map<string, Kept>;
  /** Rises with every change. A connection that was brought to this number has all settings. */
  generation: number;
  /** Rises with those changes that other connections must hear of. */
  shared: number;
  readonly quiet: readonly string[];
  /** When everything was reset for the last time, and by which statement. */
  resetAt: number;
  resetText: Uint8Array;
  /** Changes of the transaction that is open. */
  readonly open: SettingChange[];
  /** More was set than is kept: the session cannot be carried to another connection. */
  overflow: boolean;
}

/** A session that sets more, or longer ones, does something that nobody has thought of. */
const MAX_SETTINGS = 100;
const MAX_TEXT_BYTES = 8192;

/** `quiet`: see createSessionState. */
export function createSettings(quiet: readonly string[] = []): SessionSettings {
  return { byKey: new Map(), generation: 0, shared: 0, quiet, resetAt: 0, resetText: new Uint8Array(0), open: [], overflow: false };
}

/** Other names of settings. Source: manual, SET. */
const SAME: Readonly<Record<string, string>> = { 'time zone': 'timezone', names: 'client_encoding', schema: 'search_path', xml: 'xmloption' };
/** Of the present transaction only, although they are set like the others; or not a setting that could be set again (SET SEED). */
const NOT_KEPT = /^(transaction_(isolation|read_only|deferrable)|seed)$/;

/**
 * The change that the text, which was classified as one statement, makes for the session; null when it makes none.
 * `unclear` when it makes one that cannot be told: several statements, or a name that is written in an odd way.
 */
export function readChange(bytes: Uint8Array, into: Classification): SettingChange | null | 'unclear' {
  const { effects } = into;
  if ((effects & (EFFECT.set | EFFECT.reset | EFFECT.resetAll | EFFECT.discardAll)) === 0) return null;
  if (into.statements !== 1 || into.textEnd - into.textAt > MAX_TEXT_BYTES) return 'unclear';
  const text = bytes.slice(into.textAt, into.textEnd);
  if ((effects & EFFECT.discardAll) !== 0) return { kind: 'discard-all', key: '', text, value: '' };
  if ((effects & EFFECT.resetAll) !== 0) return { kind: 'reset-all', key: '', text, value: '' };
  const name = decodeText(bytes, into.nameAt, into.nameEnd).toLowerCase();
  if (!/^[a-z_][a-z0-9_$. ]*$/.test(name)) return 'unclear';
  const key = SAME[name] ?? name;
  if (NOT_KEPT.test(key)) return null;
  if (key === 'session characteristics') return readCharacteristics(decodeText(bytes, into.nameEnd, into.textEnd), text);
  if ((effects & EFFECT.reset) !== 0) return { kind: 'reset', key, text, value: '' };
  const behind = decodeText(bytes, into.nameEnd, into.textEnd).replace(/^"?\s*(=|to\b)?\s*/i, '');
  const value = behind.trim().replace(/^'(.*)'$/s, '$1');
  // SET x TO DEFAULT is a RESET.
  if (/^default$/i.test(value)) return { kind: 'reset', key, text, value: '' };
  return { kind: 'set', key, text, value };
}

/** Each kind of them is a setting of its own; several at once, or comments between, are not taken apart. Source: manual, SET TRANSACTION, "Notes". */
function readCharacteristics(behind: string, text: Uint8Array): SettingChange | 'unclear' {
  const [, modes = ''] = /^\s*as\s+transaction\s+(.*?)\s*$/is.exec(behind) ?? [];
  const [, level] = /^isolation\s+level\s+(serializable|repeatable\s+read|read\s+committed|read\s+uncommitted)$/i.exec(modes) ?? [];
  if (level !== undefined) return { kind: 'set', key: 'default_transaction_isolation', text, value: level };
  const [, access] = /^read\s+(only|write)$/i.exec(modes) ?? [];
  if (access !== undefined) return { kind: 'set', key: 'default_transaction_read_only', text, value: /only/i.test(access) ? 'on' : 'off' };
  const deferrable = /^(not\s+)?deferrable$/i.exec(modes);
  if (deferrable !== null) return { kind: 'set', key: 'default_transaction_deferrable', text, value: deferrable[1] === undefined ? 'on' : 'off' };
  return 'unclear';
}

/** Settings whose value decides where a session may read: such a session reads on the primary. */
export function bindsToPrimary(settings: SessionSettings): boolean {
  // A standby has no SERIALIZABLE. Source: manual, "Hot Standby" (27.4.5).
  return /serializable/.test(settingValue(settings, 'default_transaction_isolation'));
}

/** The value that the session has set, in lower case; empty when it has not, or has reset it. */
export function settingValue(settings: SessionSettings, key: string): string {
  return settings.byKey.get(key)?.change.value.toLowerCase() ?? '';
}

/** At the end of almost every cycle there are none. */
export function commitChanges(settings: SessionSettings): void {
  if (settings.open.length === 0) return;
  for (const change of settings.open) keep(settings, change);
  settings.open.length = 0;
}

export function dropChanges(settings: SessionSettings): void {
  if (settings.open.length > 0) settings.open.length = 0;
}

function keep(settings: SessionSettings, change: SettingChange): void {
  const generation = ++settings.generation;
  if (!settings.quiet.includes(change.key)) settings.shared++;
  if (change.kind === 'reset-all' || change.kind === 'discard-all') {
    // RESET ALL leaves role and session authorization as they are. Source: GUC_NO_RESET_ALL, src/backend/utils/misc/guc_tables.c.
    for (const key of [...settings.byKey.keys()]) if (change.kind === 'discard-all' || !STAYS.includes(key)) settings.byKey.delete(key);
    settings.resetAt = generation;
    settings.resetText = change.text;
    settings.overflow = false;
    return;
  }
  // Anew at the end: what was set later must be set later again (a role that may not set what came before).
  settings.byKey.delete(change.key);
  // Source: manual, SET SESSION AUTHORIZATION: it resets the role.
  if (change.key === 'session authorization') settings.byKey.delete('role');
  if (settings.byKey.size >= MAX_SETTINGS) settings.overflow = true;
  else settings.byKey.set(change.key, { change, generation });
}

const STAYS: readonly string[] = ['role', 'session authorization'];

/**
 * The statements that bring a connection, which was last brought to `generation`, to the present state, in the order in which they must run. 0 is a connection
 * with the same start packet and nothing else. Empty when nothing is missing. A DISCARD ALL
 * among them takes the prepared statements of that connection with it.
 */
export function missingSettings(settings: SessionSettings, generation: number): readonly Uint8Array[] {
  const fresh = generation === 0;
  const texts: Uint8Array[] = generation < settings.resetAt && !fresh ? [settings.resetText] : [];
  for (const { change, generation: made } of settings.byKey.values())
    if (made > generation && !(fresh && change.kind === 'reset')) texts.push(change.text);
  return texts;
}

/** An inspection found that these are not set any more; settings of applications are not seen by it, and stay. */
export function dropUnseen(settings: SessionSettings, seen: ReadonlySet<string>): void {
  for (const [key, { change }] of [...settings.byKey]) {
    if (change.kind !== 'set' || seen.has(key) || /[. ]/.test(key) || STAYS.includes(key)) continue;
    keep(settings, { kind: 'reset', key, text: encodeText(`RESET ${key}`), value: '' });
  }
}

/** What an inspection found: a setting with its value, by a function, since values of lists cannot be written as one string in SET. */
export function adoptSetting(settings: SessionSettings, key: string, value: string): void {
  const known = settings.byKey.get(key)?.change.value ?? (key.includes('.') ? '' : null);
  if (known === value) return;
  const quoted = value.replaceAll("'", "''").replaceAll('\\', '\\\\');
  const text = encodeText(`SELECT pg_catalog.set_config('${key.replaceAll("'", "''")}', E'${quoted}', false)`);
  keep(settings, { kind: 'set', key, text, value });
}

/** What an inspection found: the role, which is in no view; `none` when the session has its own user's. */
export function adoptRole(settings: SessionSettings, role: string): void {
  const known = settings.byKey.get('role')?.change.value ?? '';
  if (role === 'none') {
    if (known !== '') keep(settings, { kind: 'reset', key: 'role', text: encodeText('RESET ROLE'), value: '' });
  } else if (known !== role) {
    keep(settings, { kind: 'set', key: 'role', text: encodeText(`SET ROLE "${role.replaceAll('"', '""')}"`), value: role });
  }
}
