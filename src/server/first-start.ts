/** The first admin: made when there is no user yet; the token is shown once, and only its hash stays. */
import { unlink } from 'node:fs/promises';
import { writeFileAtomic } from '../base/files.ts';
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { Users } from './users.ts';

export interface FirstStartOptions {
  readonly users: Users;
  readonly usersFile: string;
  /** Null: `print` it. */
  readonly tokenFile: string | null;
  readonly print: (text: string) => void;
}

/** True when the admin was made now. When the token cannot be handed over, the admin is taken back, and the next start tries again. */
export async function ensureAdmin({ users, usersFile, tokenFile, print }: FirstStartOptions): Promise<Result<boolean, Failure>> {
  if (users.all().length > 0) return ok(false);
  const added = await users.add({ name: 'admin', role: 'admin', by: 'first start' });
  if (!added.ok) return added;
  try {
    if (tokenFile === null)
      print(
        `Token of user "admin", shown only this once:\n\n    ${added.value.token}\n\nKeep it in a file that only you can read, and name that file with --token-file.\n`,
      );
    else await writeFileAtomic(tokenFile, `${added.value.token}\n`);
    return ok(true);
  } catch (cause) {
    await unlink(usersFile);
    return err({
      code: 'server.first-token',
      what: `the first token cannot be written${tokenFile === null ? '' : ` to ${tokenFile}`}`,
      cause: cause instanceof Error ? cause.message : String(cause),
      now: 'The server does not start; no user was made.',
      remedy: 'Correct `firstTokenFile`, then start again.',
      retryable: false,
    });
  }
}
