/** Short forms to make Failures of PostgreSQL operations. */
import type { ProcessFailure, ProcessOutput } from '../../base/process.ts';
import type { Failure, Result } from '../../core/result.ts';

export function failure(code: string, what: string, cause: string, now: string, remedy: string, retryable: boolean): Failure {
  return { code, what, cause, now, remedy, retryable };
}

/** Every operation answers this when its AbortSignal fired. */
export function cancelled(what: string): Failure {
  return failure('postgres.cancelled', what, 'the operation was cancelled', 'nothing more is done', '', true);
}

export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** Error code of a system call (ENOENT, …); null for anything else. */
export function errnoOf(cause: unknown): string | null {
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : null;
  return typeof code === 'string' ? code : null;
}

/** The last `count` non-empty lines. */
export function lastLines(text: string, count: number): string {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(-count)
    .join(' | ');
}

/** Exit code and last lines of standard error of a finished process; null when it ended well. */
export function processTrouble(result: Result<ProcessOutput, ProcessFailure>): string | null {
  if (!result.ok) return [result.error.message, lastLines(result.error.stderr, 5)].filter((part) => part !== '').join(': ');
  if (result.value.exitCode === 0) return null;
  return `exit code ${result.value.exitCode}: ${lastLines(result.value.stderr, 5)}`;
}
