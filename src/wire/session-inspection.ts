/**
 * One question to the primary, in the session's own connection, about what the session holds: asked when code ran whose traces are not in its text, or when one of
 * several things of a kind was ended. It needs the session to be idle, and it ends pins that are there no more.
 */
import { adoptRole, adoptSetting, dropUnseen } from './session-settings.ts';
import { PIN, type SessionState } from './session-state.ts';
import { TRANSACTION } from './protocol.ts';

/**
 * One row of nine columns in text form: temporary objects, LISTEN, advisory locks, held cursors, statements prepared by SQL (`t` or `f`), the role
 * (`none` without one), the session's user, settings made in the session as JSON, and whether there are functions that may make settings of
 * applications under other names than those that the session's texts show. Such settings stand in no view; they are asked for by name.
 * Source: manual, "System Views" (54) and "System Information Functions" (9.26); GUC_CUSTOM_PLACEHOLDER, src/backend/utils/misc/guc.c.
 */
export function inspectionSql(state: SessionState): string {
  const own = [...state.own.names].map((name) => `'${name.replaceAll("'", "''")}'`).join(', ');
  return `SELECT pg_catalog.pg_my_temp_schema() <> 0 AND (
    EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema())),
  EXISTS (SELECT FROM pg_catalog.pg_listening_channels()),
  EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()),
  EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable),
  EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql),
  pg_catalog.current_setting('role'), session_user,
  (SELECT COALESCE(pg_catalog.json_object_agg(name, setting)::text, '{}') FROM (
    SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session'
    UNION ALL SELECT name, COALESCE(pg_catalog.current_setting(name, true), '') FROM pg_catalog.unnest(ARRAY[${own}]::text[]) AS name) AS found),
  EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE l.lanname NOT IN ('internal', 'c')
    AND p.prosrc ~* $$set_config\\s*\\((?!\\s*'[a-z_]+'\\s*,)|\\mset\\s+(session\\s+)?\\S*[.%]$$)`;
}

/** Whether the question is worth its way, and can be asked now. */
export function needsInspection(state: SessionState): boolean {
  return state.uncertain && state.status === TRANSACTION.idle && state.requests.count === 0 && (state.pins & (PIN.forever | PIN.confused)) === 0;
}

/** What ties the session to the primary may be gone by now, or was never there, and nobody has asked since it was made. Worth a question before a session is given up. */
export function mayBeFree(state: SessionState): boolean {
  return state.pins !== 0 && (state.pins & STAYING) === 0 && (state.uncertain || !state.inspected);
}

/** No question ends these. */
const STAYING = PIN.forever | PIN.confused | PIN.tooMuch;

/**
 * Takes the answer over. `values` are the columns of `inspectionSql`. An answer that is none leaves everything as it is; the session stays pinned.
 */
export function applyInspection(state: SessionState, values: readonly (string | null)[]): void {
  const [temp, listen, locks, cursors, prepared, role, user, settings, hidden] = values;
  if (values.length !== 9 || typeof settings !== 'string') return;
  let found: unknown;
  try {
    found = JSON.parse(settings);
  } catch {
    // Not an answer to this question: the session stays as it is.
    return;
  }
  if (typeof found !== 'object' || found === null) return;
  const pins: readonly (readonly [string | null | undefined, number])[] = [
    [temp, PIN.temp],
    [listen, PIN.listen],
    [locks, PIN.advisoryLock],
    [cursors, PIN.heldCursor],
    [prepared, PIN.sqlPrepared],
  ];
  for (const [is, pin] of pins) state.pins = is === 'f' ? state.pins & ~pin : state.pins | pin;
  const entries = Object.entries(found).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && !/^(transaction_|is_superuser$)/.test(entry[0]),
  );
  dropUnseen(state.settings, new Set(entries.map(([name]) => name.toLowerCase())));
  for (const [name, value] of entries) adoptSetting(state.settings, name.toLowerCase(), value);
  if (typeof role === 'string') adoptRole(state.settings, role);
  if (!state.ownSettings && (hidden !== 'f' || state.own.unknown)) state.pins |= PIN.hiddenSettings;
  else state.pins &= ~PIN.hiddenSettings;
  state.uncertain = false;
  state.inspected = true;
  // Another session user cannot be made again by who is not a superuser: such a session stays where it is.
  if (user === state.user && typeof role === 'string') state.pins &= ~PIN.opaque;
}
