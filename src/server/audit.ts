/** Who asked for what, when, and how it ended: one JSON object a line, only ever appended. Bodies are not written (they may hold secrets). */
import { appendFileSync, renameSync, statSync, unlinkSync } from 'node:fs';
import { formatWall, wallMs } from '../base/clock.ts';
import { errorCode } from '../base/files.ts';
import type { Logger } from '../base/log.ts';

export interface AuditEntry {
  readonly who: string;
  readonly role: string | null;
  readonly address: string;
  /** Route, e.g. `POST /clusters/:cluster/tasks`. */
  readonly route: string;
  readonly target: string;
  /** In words, e.g. `switchover to n2: kernel update`. */
  readonly detail: string;
  readonly status: number;
  /** `ok`, or the error's code. */
  readonly result: string;
}

export interface Audit {
  write(entry: AuditEntry): void;
}

const MAX_BYTES = 32 * 1024 * 1024;
/** With the current one 6 × 32 MiB: years of people's commands. */
const KEPT = 5;

/**
 * Written at once: an entry that is lost with the process would be the one that matters. A file that cannot be written is said in
 * the log and stops nobody: in an outage the command counts more than its record.
 */
export function openAudit(file: string, log: Logger): Audit {
  let size = sizeOf(file);
  return {
    write: (entry) => {
      const line = `${JSON.stringify({ at: formatWall(wallMs()), ...entry })}\n`;
      try {
        if (size + line.length > MAX_BYTES) {
          rotate(file);
          size = 0;
        }
        appendFileSync(file, line, { mode: 0o600 });
        size += Buffer.byteLength(line);
      } catch (cause) {
        log.error({ error: cause, audit: entry }, 'the audit log cannot be written; the entry stands in this line');
      }
    },
  };
}

function rotate(file: string): void {
  for (let age = KEPT; age >= 1; age--) {
    const from = age === 1 ? file : `${file}.${age - 1}`;
    try {
      if (age === KEPT) unlinkSync(`${file}.${age}`);
    } catch (cause) {
      if (errorCode(cause) !== 'ENOENT') throw cause;
    }
    try {
      renameSync(from, `${file}.${age}`);
    } catch (cause) {
      if (errorCode(cause) !== 'ENOENT') throw cause;
    }
  }
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size;
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return 0;
    throw cause;
  }
}
