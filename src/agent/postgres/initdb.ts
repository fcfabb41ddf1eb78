/** A new data directory. */
import { dirname, join } from 'node:path';
import { type Failure, type Result, err, ok } from '../../core/result.ts';
import { runProcess } from '../../base/process.ts';
import { readControlData } from './control-data.ts';
import { directoryState } from './data-directory.ts';
import { failure, messageOf, processTrouble } from './failure.ts';
import { ensureDirectory, writeAtomic } from './files.ts';
import { type Instance, ROLES, asOsUser, binary } from './instance.ts';
import { type ManagedSettings, writeManagedFiles } from './managed-files.ts';

/** initdb writes about 40 MB and syncs them; minutes mean a broken disk. */
const INITDB_LIMIT_MS = 180_000;

/**
 * initdb (UTF8, SCRAM, data checksums unless switched off), managed files and `standby.signal`, so that nothing starts it writable by itself.
 * Returns the system identifier. Refused unless the directory is absent or empty (H44, Q25).
 * Errors: `initdb.not-empty`, `initdb.failed` (what it left is removed by initdb itself), those of writeManagedFiles.
 */
export async function runInitdb(
  instance: Instance,
  options: { readonly checksums: boolean; readonly settings: ManagedSettings; readonly signal?: AbortSignal },
): Promise<Result<{ readonly systemIdentifier: string }, Failure>> {
  if ((await directoryState(instance)) !== 'absent') {
    return err(
      failure(
        'initdb.not-empty',
        `initdb of ${instance.dataDirectory} is refused`,
        'the directory is not empty',
        'nothing was changed',
        'adopt the existing data, or move the directory away',
        false,
      ),
    );
  }
  try {
    await ensureDirectory(dirname(instance.dataDirectory), { owner: null, mode: 0o755 });
    await ensureDirectory(instance.dataDirectory, { owner: instance.os, mode: 0o700 });
  } catch (cause) {
    return err(
      failure(
        'initdb.failed',
        `cannot make ${instance.dataDirectory}`,
        messageOf(cause),
        'nothing was changed',
        'check the path and the permissions',
        true,
      ),
    );
  }
  const argv = [
    binary(instance, 'initdb'),
    '-D',
    instance.dataDirectory,
    '-U',
    ROLES.agent,
    '-E',
    'UTF8',
    '--locale=C.UTF-8',
    '--auth-local=peer',
    '--auth-host=scram-sha-256',
  ];
  const result = await runProcess(options.checksums ? [...argv, '--data-checksums'] : argv, {
    ...asOsUser(instance),
    timeoutMs: INITDB_LIMIT_MS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const trouble = processTrouble(result);
  if (trouble !== null) {
    return err(
      failure(
        'initdb.failed',
        `initdb of ${instance.dataDirectory} failed`,
        trouble,
        'no cluster was made',
        'see the cause; if the directory is not empty now, remove it',
        !result.ok && result.error.kind !== 'aborted',
      ),
    );
  }
  const managed = await writeManagedFiles(instance, options.settings);
  if (!managed.ok) return managed;
  await writeAtomic(join(instance.dataDirectory, 'standby.signal'), '', { owner: instance.os });
  const control = await readControlData(instance);
  return control.ok ? ok({ systemIdentifier: control.value.systemIdentifier }) : control;
}
