/** The server's API as the verbs use it: failures carry their exit code, backups go through files. */
import { open, readFile, rename, rm } from 'node:fs/promises';
import { type ApiClient, type CallInput, createApiClient } from '../api/client.ts';
import type { ApiFailure } from '../api/errors.ts';
import { type Answer, ROUTES, type RouteName } from '../api/routes.ts';
import type { Clock } from '../base/clock.ts';
import type { Result } from '../core/result.ts';
import { type Connection, messageOf } from './context.ts';
import { type CliResult, EXIT, cliError, usageError } from './exit.ts';

export interface Api {
  call<R extends RouteName>(route: R, input: CallInput<R>): Promise<CliResult<Answer<R>>>;
  /** Writes the whole answer to `file` (0600), or leaves the old file as it was. */
  download(route: 'storeBackup', file: string): Promise<CliResult<{ readonly bytes: number }>>;
  upload(route: 'storeRestore', file: string, query: { readonly replace: boolean }): Promise<CliResult<Answer<'storeRestore'>>>;
}

/** A backup of the store is some MiB; a wrong path to something huge must not fill the memory. */
const MAX_UPLOAD_BYTES = 1024 * 1024 * 1024;

/** Makes no connection yet. `trace` is told each call with its outcome, never a token or a body. */
export function makeApi(connection: Connection, trace: (text: string) => void, clock: Clock): Api {
  const client = createApiClient({ server: connection.server, token: connection.token, ca: connection.ca });
  return {
    call: async (route, input) => {
      const send = client.call as (name: typeof route, input: unknown) => Promise<Result<Answer<typeof route>, ApiFailure>>;
      const started = clock.now().mono;
      const result = await send(route, input);
      trace(
        `${ROUTES[route].method} ${ROUTES[route].path} at ${connection.server}: ${result.ok ? 'ok' : result.error.code}, ${Math.round(clock.now().mono - started)} ms`,
      );
      return toCli(result, connection);
    },
    download: (route, file) => download(client, connection, { route, file }),
    upload: async (route, file, query) => {
      const data = await readBackup(file);
      return data.ok ? toCli(await client.upload(route, data.value, query), connection) : data;
    },
  };
}

/** A failure of a call, with where token and authority came from: the wrong file is the usual cause. */
export function toCli<T>(result: Result<T, ApiFailure>, connection: Connection | null = null): CliResult<T> {
  if (result.ok) return result;
  const { exit, problems, status: _status, ...failure } = result.error;
  return cliError(exit, { ...failure, cause: withOrigin(result.error, connection) }, problems);
}

function withOrigin(failure: ApiFailure, connection: Connection | null): string {
  if (connection === null) return failure.cause;
  const note =
    failure.code === 'server.certificate'
      ? `authority: ${connection.origin.ca}`
      : failure.code === 'server.unreachable'
        ? `address: ${connection.origin.server}`
        : failure.code.startsWith('auth.')
          ? `token: ${connection.origin.token}`
          : '';
  return [failure.cause, note].filter((part) => part !== '').join('; ');
}

async function download(
  client: ApiClient,
  connection: Connection,
  { route, file }: { route: 'storeBackup'; file: string },
): Promise<CliResult<{ bytes: number }>> {
  const opened = toCli(await client.download(route), connection);
  if (!opened.ok) return opened;
  const partial = `${file}.partial-${process.pid}`;
  try {
    const target = await open(partial, 'wx', 0o600);
    let bytes = 0;
    try {
      for await (const chunk of opened.value.stream as AsyncIterable<Buffer>) {
        await target.writeFile(chunk);
        bytes += chunk.length;
      }
      await target.sync();
    } finally {
      await target.close();
    }
    await rename(partial, file);
    return { ok: true, value: { bytes } };
  } catch (error) {
    await rm(partial, { force: true });
    return cliError(EXIT.failed, {
      code: 'cli.backup',
      what: `the backup was not written to ${file}`,
      cause: messageOf(error),
      now: 'an older file of this name is as it was',
      remedy: 'make room or name another file, then run the command again',
      retryable: true,
    });
  } finally {
    opened.value.close();
  }
}

async function readBackup(file: string): Promise<CliResult<Uint8Array>> {
  const unreadable = (cause: string): CliResult<Uint8Array> =>
    usageError('cli.file-unreadable', { what: `cannot read the backup ${file}`, cause, remedy: 'name a file that "pgherd store backup" wrote' });
  try {
    const source = await open(file, 'r');
    try {
      const { size } = await source.stat();
      if (size > MAX_UPLOAD_BYTES) return unreadable(`it has ${size} bytes; the limit is ${MAX_UPLOAD_BYTES}`);
    } finally {
      await source.close();
    }
    return { ok: true, value: await readFile(file) };
  } catch (error) {
    return unreadable(messageOf(error));
  }
}
