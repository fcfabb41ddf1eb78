/** Expected outcomes are values. Exceptions are for the broken. */
export type Result<T, E> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: E };

export function ok<T>(value: T): { readonly ok: true; readonly value: T } {
  return { ok: true, value };
}

export function err<E>(error: E): { readonly ok: false; readonly error: E } {
  return { ok: false, error };
}

/**
 * An error as people and programs meet it.
 * `code` is stable and listed with its remedy in docs/operations/errors.md.
 */
export interface Failure {
  readonly code: string;
  /** What failed, with the value. */
  readonly what: string;
  /** Why: SQLSTATE, exit code, last lines of standard error. */
  readonly cause: string;
  /** What the system does now. */
  readonly now: string;
  /** What a person can do. */
  readonly remedy: string;
  readonly retryable: boolean;
}

/** One line of text of a failure: `what: cause. now. remedy`. */
export function describeFailure(failure: Failure): string {
  const parts = [failure.cause === '' ? failure.what : `${failure.what}: ${failure.cause}`, failure.now, failure.remedy];
  return parts.filter((part) => part !== '').join(' · ');
}

/** Crashes the role when `condition` is false: the state is one that the code does not understand. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`invariant: ${message}`);
}

/** The default branch of every switch over a union. */
export function assertNever(value: never, where: string): never {
  throw new Error(`unhandled ${JSON.stringify(value)} in ${where}`);
}
