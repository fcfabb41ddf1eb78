/**
 * One question to the primary, in the session's own connection, about what the session holds: asked when code ran whose traces are not in its text, or when one of
 * several things of a kind was ended. It needs the session to be idle, and it ends pins that are there no more.
 */
import { adoptRole, adoptSetting, dropUnseen } from './session-settings.ts';
import { PIN, type SessionState } from './session-state.ts';
import { TRANSACTION } from './protocol.ts';

/**
 * One row of eight columns in text form: temporary objects, LISTEN, advisory locks, held cursors, statements prepared by SQL (`t` or `f`), the role
 * (`none` without one), the session's user, settings made in the session as JSON. Source: manual, "System Views" (54) and "System Information Functions" (9.26).
 */
export const INSPECTION_SQL = `SELECT pg_catalog.pg_my_temp_schema() <> 0 AND (
    EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema())),
  EXISTS (SELECT FROM pg_catalog.pg_listening_channels()),
  EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()),
  EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable),
  EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql),
  pg_catalog.current_setting('role'), session_user,
  (SELECT COALESCE(pg_catalog.json_object_agg(name, setting)::text, '{}') FROM pg_catalog.pg_settings WHERE source = 'session')`;

/** Whether the question is worth its way, and can be asked now. */
export function needsInspection(state: SessionState): boolean {
  return state.uncertain && state.status === TRANSACTION.idle && state.requests.count === 0 && (state.pins & (PIN.forever | PIN.confused)) === 0;
}

/**
 * Takes the answer over. `values` are the columns of INSPECTION_SQL. An answer that is none leaves everything as it is; the session stays pinned.
 */
export function applyInspection(state: SessionState, values: readonly (string | null)[]): void {
  const [temp, listen, locks, cursors, prepared, role, user, settings] = values;
  if (values.length !== 8 || typeof settings !== 'string') return;
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
  state.uncertain = false;
  // Another session user cannot be made again by who is not a superuser: such a session stays where it is.
  if (user === state.user && typeof role === 'string') state.pins &= ~PIN.opaque;
}
