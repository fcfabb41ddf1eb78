/** Exit codes, and failures as the command line ends with them. */
import { type Failure, type Result, err } from '../core/result.ts';

/** The contract of the command line: scripts rely on these numbers. */
export const EXIT = {
  /** Done, and verified. */
  done: 0,
  failed: 1,
  /** Wrong usage or wrong configuration. */
  usage: 2,
  /** A precondition does not hold; each one is named. */
  refused: 3,
  /** The server could not be reached, or the token is not accepted. */
  unreachable: 4,
  /** The time limit passed; the task goes on. */
  timeLimit: 5,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export interface Problem {
  readonly code: string;
  readonly text: string;
  readonly remedy: string;
}

export interface CliFailure {
  readonly exit: ExitCode;
  readonly failure: Failure;
  /** Each precondition or mistake by itself; empty when the failure says it all. */
  readonly problems: readonly Problem[];
}

export type CliResult<T> = Result<T, CliFailure>;

/** What a verb's action ends with. */
export type Outcome = CliResult<ExitCode>;

export function cliError(exit: ExitCode, failure: Failure, problems: readonly Problem[] = []): { readonly ok: false; readonly error: CliFailure } {
  return err({ exit, failure, problems });
}

/** Wrong usage or configuration: nothing was sent to anybody. */
export function usageError(
  code: string,
  parts: { what: string; cause?: string; remedy: string },
): { readonly ok: false; readonly error: CliFailure } {
  return cliError(EXIT.usage, {
    code,
    what: parts.what,
    cause: parts.cause ?? '',
    now: 'nothing was changed',
    remedy: parts.remedy,
    retryable: false,
  });
}

export const DONE: Outcome = { ok: true, value: EXIT.done };
