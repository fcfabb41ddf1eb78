/** A small list of records in one file of the data directory: read once, replaced atomically, one writer at a time. */
import { readTextIfThere, writeFileAtomic } from '../base/files.ts';
import { type Decoder, decodeJson, formatDecodeError, list } from '../core/decode.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';

export interface Records<T> {
  all(): readonly T[];
  /**
   * Runs `change` on the current records, alone, and makes its result durable before it resolves. `change` answers with the
   * new records, or with an error, and then nothing is written. A failed write is thrown, and the old records stay.
   */
  update<V, E>(change: (current: readonly T[]) => Result<{ readonly records: readonly T[]; readonly value: V }, E>): Promise<Result<V, E>>;
}

/** An absent file is an empty list. `server.data` when it cannot be read or decoded: a damaged user list must not become an empty one. */
export function openRecords<T>(file: string, decoder: Decoder<T>): Result<Records<T>, Failure> {
  let text: string | null;
  try {
    text = readTextIfThere(file);
  } catch (cause) {
    return err(damaged(file, cause instanceof Error ? cause.message : String(cause)));
  }
  const decoded = text === null ? ok([] as readonly T[]) : decodeJson(list(decoder), text);
  if (!decoded.ok) return err(damaged(file, formatDecodeError(decoded.error)));

  let current = decoded.value;
  let queue: Promise<unknown> = Promise.resolve();
  return ok({
    all: () => current,
    update: (change) => {
      const run = queue.then(async () => {
        const changed = change(current);
        if (!changed.ok) return changed;
        await writeFileAtomic(file, `${JSON.stringify(changed.value.records, null, 1)}\n`);
        current = changed.value.records;
        return ok(changed.value.value);
      });
      queue = run.then(
        () => null,
        () => null,
      );
      return run;
    },
  });
}

function damaged(file: string, cause: string): Failure {
  return {
    code: 'server.data',
    what: `${file} cannot be used`,
    cause,
    now: 'The server does not start.',
    remedy: 'Restore the file from a backup. Removing it removes every entry in it.',
    retryable: false,
  };
}
