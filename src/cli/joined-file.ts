/** The configuration file that a `join` leaves on the new host. */
import { mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { stringify } from 'yaml';
import { writeFileAtomic } from '../base/files.ts';
import { messageOf } from './context.ts';
import { type CliResult, EXIT, cliError } from './exit.ts';

export interface JoinedFile {
  /** As in `Written by "pgherd agent join"`. */
  readonly role: 'agent' | 'proxy';
  readonly file: string;
  /** Where the keys are already, for the case that the file cannot be written. */
  readonly stateDirectory: string;
  readonly content: Readonly<Record<string, unknown>>;
}

/** Makes missing directories. Error: `cli.file-unwritable`; the host has joined by then. */
export async function writeJoinedFile({ role, file, stateDirectory, content }: JoinedFile): Promise<CliResult<null>> {
  const path = resolve(file);
  try {
    mkdirSync(dirname(path), { recursive: true });
    const head = `# Written by "pgherd ${role} join"; checked by "pgherd config check".\n`;
    await writeFileAtomic(path, `${head}${stringify(content, { lineWidth: 0 })}`, { mode: 0o644 });
    return { ok: true, value: null };
  } catch (error) {
    return cliError(EXIT.failed, {
      code: 'cli.file-unwritable',
      what: `cannot write ${file}`,
      cause: messageOf(error),
      now: `this host has joined, and its keys are in ${stateDirectory}; only the configuration is missing`,
      remedy: 'join again with a new token and a --config that can be written',
      retryable: false,
    });
  }
}
