/** Reload, settings that wait for a restart, and settings of ours that something else overrides. */
import { join } from 'node:path';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { readAutoConf, setWinning } from './auto-conf.ts';
import { failure } from './failure.ts';
import type { Instance } from './instance.ts';
import { type ManagedSettings, activeSettings, writeManagedFiles } from './managed-files.ts';
import { readIfThere } from './files.ts';
import { findPostmaster } from './postmaster.ts';
import { withLocalSql } from './sql.ts';

export interface AppliedSettings {
  readonly changed: readonly string[];
  readonly reloaded: boolean;
  /** Parameters that wait for a restart, after the reload. */
  readonly pendingRestart: readonly string[];
  /** Errors that the server found in its files (pg_file_settings, pg_hba_file_rules), one a line. */
  readonly errors: readonly string[];
}

/** Writes the managed files; a running server is told only when something changed. Errors: those of writeManagedFiles and withLocalSql. */
export async function applySettings(
  instance: Instance,
  settings: ManagedSettings,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<AppliedSettings, Failure>> {
  const written = await writeManagedFiles(instance, settings);
  if (!written.ok) return written;
  const winning = await setWinning(instance, { restart_after_crash: 'off' }, options);
  if (!winning.ok) return winning;
  const { changed } = written.value;
  if (changed.length === 0 || findPostmaster(instance.dataDirectory) === null)
    return ok({ changed, reloaded: false, pendingRestart: [], errors: [] });
  return withLocalSql(instance, options, async (sql) => {
    await sql.query('SELECT pg_reload_conf()');
    // Reading the files marks, for this session, what waits for a restart; such a line is "not applied", and yet no error.
    // Source: PostgreSQL guc.c, set_config_option, GUC_PENDING_RESTART.
    await sql.query('SELECT count(*) FROM pg_file_settings');
    const pending = await sql.query('SELECT name FROM pg_settings WHERE pending_restart ORDER BY name');
    const wrong =
      await sql.query(`SELECT sourcefile || ':' || sourceline || ' ' || coalesce(name, '') || ': ' || error AS text FROM pg_file_settings f WHERE error IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_settings s WHERE s.name = f.name AND s.pending_restart)
      UNION ALL SELECT 'pg_hba.conf:' || line_number || ': ' || error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 20`);
    return { changed, reloaded: true, pendingRestart: pending.map((row) => String(row['name'])), errors: wrong.map((row) => String(row['text'])) };
  });
}

/** Lines of pgherd.conf that postgresql.auto.conf overrides (ALTER SYSTEM by people), with both values. */
export async function findOverrides(
  instance: Instance,
): Promise<readonly { readonly name: string; readonly ours: string; readonly winning: string }[]> {
  const ours = activeSettings((await readIfThere(join(instance.dataDirectory, 'pgherd.conf'))) ?? '');
  const auto = await readAutoConf(instance);
  return [...ours].flatMap(([name, value]) => {
    const winning = auto.get(name);
    return winning === undefined || winning === value ? [] : [{ name, ours: value, winning }];
  });
}

export function refuseOverridden(overrides: readonly { readonly name: string }[]): Result<null, Failure> {
  if (overrides.length === 0) return ok(null);
  return err(
    failure(
      'settings.overridden',
      'postgresql.auto.conf overrides managed settings',
      overrides.map((found) => found.name).join(', '),
      'the values there win',
      'ALTER SYSTEM RESET them',
      false,
    ),
  );
}
