/** Reload, settings that wait for a restart, and settings of ours that something else overrides. */
import { join } from 'node:path';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { MANAGED_PARAMETERS } from '../../core/managed-parameters.ts';
import { changeAutoConf, readAutoConf, setWinning } from './auto-conf.ts';
import { failure } from './failure.ts';
import type { Instance } from './instance.ts';
import { type ManagedSettings, activeSettings, writeManagedFiles } from './managed-files.ts';
import { readIfThere } from './files.ts';
import { findPostmaster } from './postmaster.ts';
import { withLocalSql } from './sql.ts';
import { isOurs } from './sync-set.ts';

export interface AppliedSettings {
  readonly changed: readonly string[];
  readonly reloaded: boolean;
  /** Parameters that wait for a restart, after the reload. */
  readonly pendingRestart: readonly string[];
  /** Errors that the server found in its files (pg_file_settings, pg_hba_file_rules), one a line. */
  readonly errors: readonly string[];
  /** Lines of ours for clients that the server refuses, with its reason; they are not among `errors`. */
  readonly hbaRefused: readonly { readonly line: string; readonly why: string }[];
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
  // Of a running server the watch takes them back (overridden-settings.ts), except in maintenance; a stopped one could not be reached after its start.
  if (findPostmaster(instance.dataDirectory) === null) {
    const back = await takeBackManaged(instance, options);
    if (!back.ok) return back;
  }
  const { changed } = written.value;
  if (changed.length === 0 || findPostmaster(instance.dataDirectory) === null)
    return ok({ changed, reloaded: false, pendingRestart: [], errors: [], hbaRefused: [] });
  return withLocalSql(instance, options, async (sql) => {
    await sql.query('SELECT pg_reload_conf()');
    // Reading the files marks, for this session, what waits for a restart; such a line is "not applied", and yet no error.
    // Source: PostgreSQL guc.c, set_config_option, GUC_PENDING_RESTART.
    await sql.query('SELECT count(*) FROM pg_file_settings');
    const pending = await sql.query('SELECT name FROM pg_settings WHERE pending_restart ORDER BY name');
    const wrong =
      await sql.query(`SELECT sourcefile || ':' || sourceline || ' ' || coalesce(name, '') || ': ' || error AS text FROM pg_file_settings f WHERE error IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_settings s WHERE s.name = f.name AND s.pending_restart)
      LIMIT 20`);
    const lines = ((await readIfThere(join(instance.dataDirectory, 'pg_hba.conf'))) ?? '').split('\n');
    const rules = (await sql.query('SELECT line_number AS line, error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 20')).map((row) => ({
      number: Number(row['line']),
      line: lines[Number(row['line']) - 1] ?? '',
      why: String(row['error']),
    }));
    // A line that "cannot match" now (hostssl without SSL) is kept: PostgreSQL starts with it. *Source:* hba.c, parse_hba_line.
    const isOurFault = ({ line, why }: { readonly line: string; readonly why: string }): boolean =>
      settings.hba.includes(line) && !why.includes('cannot match');
    return {
      changed,
      reloaded: true,
      pendingRestart: pending.map((row) => String(row['name'])),
      errors: [
        ...wrong.map((row) => String(row['text'])),
        ...rules.filter((rule) => !isOurFault(rule)).map(({ number, why }) => `pg_hba.conf:${number}: ${why}`),
      ],
      hbaRefused: rules.filter(isOurFault).map(({ line, why }) => ({ line, why })),
    };
  });
}

/** Somebody's ALTER SYSTEM that beats a line of ours. */
export interface Override {
  readonly name: string;
  /** Null: pgherd sets nothing there. */
  readonly ours: string | null;
  readonly winning: string;
}

/**
 * Lines of pgherd.conf that postgresql.auto.conf overrides (ALTER SYSTEM by people), with both values; and a synchronous set that is not ours, since commits
 * wait for standbys then that no failover counts on.
 */
export async function findOverrides(instance: Instance): Promise<readonly Override[]> {
  const ours = activeSettings((await readIfThere(join(instance.dataDirectory, 'pgherd.conf'))) ?? '');
  const auto = await readAutoConf(instance);
  const names = auto.get('synchronous_standby_names') ?? '';
  const foreign = names === '' || isOurs(names) ? [] : [{ name: 'synchronous_standby_names', ours: null, winning: names }];
  return [
    ...[...ours].flatMap(([name, value]) => {
      const winning = auto.get(name);
      return winning === undefined || winning === value ? [] : [{ name, ours: value, winning }];
    }),
    ...foreign,
  ];
}

/**
 * Takes the values away by which people's ALTER SYSTEM beats a setting that the cluster rests on (MANAGED_PARAMETERS); they are kept in saved-settings.json.
 * Answers what was taken away. Everything else that people set so is theirs.
 *
 * *Because:* with such a value a server may not come back at its next start, and then nobody can take the value away by SQL any more: `hot_standby`
 * lets nobody in, another `port` or socket directory hides the server from its agent. *Broken if:* such a value is only told.
 * Errors: those of changeAutoConf.
 */
export async function takeBackManaged(
  instance: Instance,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Result<readonly Override[], Failure>> {
  const managed = (await findOverrides(instance)).filter((found) => found.ours !== null && MANAGED_PARAMETERS.includes(found.name));
  if (managed.length === 0) return ok([]);
  const changes = managed.map(({ name, ours }) => [name, name === 'restart_after_crash' ? ours : null] as const);
  const changed = await changeAutoConf(instance, Object.fromEntries(changes), options);
  return changed.ok ? ok(managed) : changed;
}

export function refuseOverridden(overrides: readonly Pick<Override, 'name'>[]): Result<null, Failure> {
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
