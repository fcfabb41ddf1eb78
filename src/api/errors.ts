/**
 * Error codes of the API: one table from which the server takes the HTTP status and the client the exit class.
 * Exit classes are those of the command line: 1 failed, 2 wrong usage, 3 refused, 4 unreachable or not accepted, 5 time limit.
 */
import type { Failure } from '../core/result.ts';

export type ExitClass = 1 | 2 | 3 | 4 | 5;

interface ErrorEntry {
  /** HTTP status; 0 for errors that only the client makes. */
  readonly status: number;
  readonly exit: ExitClass;
  /** Asking again, unchanged, can help. */
  readonly retryable: boolean;
}

const usage = (status: number): ErrorEntry => ({ status, exit: 2, retryable: false });
const refused = (status: number): ErrorEntry => ({ status, exit: 3, retryable: false });
const unaccepted = (status: number, retryable = false): ErrorEntry => ({ status, exit: 4, retryable });

export const API_ERRORS = {
  'request.malformed': usage(400),
  'request.invalid': usage(400),
  'request.too-large': usage(413),
  'request.unknown-route': usage(404),
  'request.media-type': usage(415),
  'spec.invalid': usage(400),
  'auth.missing': unaccepted(401),
  'auth.invalid': unaccepted(401),
  'auth.forbidden': unaccepted(403),
  'auth.rate-limited': unaccepted(429, true),
  'server.busy': unaccepted(503, true),
  'server.unreachable': unaccepted(0, true),
  'server.certificate': unaccepted(0),
  'server.answer': { status: 0, exit: 1, retryable: false },
  'server.internal': { status: 500, exit: 1, retryable: false },
  'store.unavailable': { status: 503, exit: 1, retryable: true },
  /** The answer was lost: what was asked for may have happened. */
  'store.unknown': { status: 503, exit: 1, retryable: false },
  'store.not-empty': refused(409),
  'store.backup': { status: 500, exit: 1, retryable: true },
  'store.move-refused': refused(409),
  'store.move': { status: 503, exit: 1, retryable: true },
  'store.move-unclear': { status: 500, exit: 1, retryable: false },
  'store.files': { status: 500, exit: 1, retryable: true },
  'cluster.not-found': refused(404),
  'cluster.exists': refused(409),
  'cluster.unconfirmed': refused(409),
  'cluster.live-nodes': refused(409),
  'node.not-found': refused(404),
  'node.unreachable': { status: 502, exit: 1, retryable: true },
  'spec.conflict': refused(412),
  'spec.unchangeable': refused(409),
  'settings.managed': refused(409),
  'settings.refused': refused(409),
  'task.not-found': refused(404),
  'task.conflict': refused(409),
  'task.finished': refused(409),
  'task.too-late': refused(409),
  'task.refused': refused(409),
  'user.exists': refused(409),
  'user.not-found': refused(404),
  'user.last-admin': refused(409),
  'join.token-invalid': unaccepted(401),
  'join.token-expired': unaccepted(401),
  'join.token-used': unaccepted(401),
  'join.fingerprint': unaccepted(0),
  'join.node-live': refused(409),
  'join.store-loopback': refused(409),
  'join.csr': usage(400),
  'join.not-joined': usage(0),
  'join.files': { status: 0, exit: 1, retryable: false },
} as const satisfies Readonly<Record<string, ErrorEntry>>;

export type ApiErrorCode = keyof typeof API_ERRORS;

/** A type, not an interface: answers are loose objects, which only types fit into. */
export type Problem = {
  readonly code: string;
  readonly text: string;
  readonly remedy: string;
};

/** What a call to the API can end in. `problems` names each precondition or field that does not hold. */
export interface ApiFailure extends Failure {
  readonly code: string;
  readonly exit: ExitClass;
  /** Null when no answer came. */
  readonly status: number | null;
  readonly problems: readonly Problem[];
}

export interface FailureText {
  readonly what: string;
  readonly cause?: string;
  readonly now?: string;
  readonly remedy: string;
  readonly problems?: readonly Problem[];
}

/** Builds a failure; exit class, status and retryability come from the table. */
export function makeApiFailure(code: ApiErrorCode, text: FailureText): ApiFailure {
  const entry: ErrorEntry = API_ERRORS[code];
  return {
    code,
    what: text.what,
    cause: text.cause ?? '',
    now: text.now ?? 'Nothing was changed.',
    remedy: text.remedy,
    problems: text.problems ?? [],
    retryable: entry.retryable,
    exit: entry.exit,
    status: entry.status === 0 ? null : entry.status,
  };
}

/** Exit class of a code of this or a newer server: unknown codes are judged by the HTTP status. */
export function exitOf(code: string, status: number): ExitClass {
  const entry = (API_ERRORS as Readonly<Record<string, ErrorEntry>>)[code];
  if (entry !== undefined) return entry.exit;
  if (status === 401 || status === 403 || status === 429) return 4;
  if (status === 409 || status === 412 || status === 404) return 3;
  return status >= 400 && status < 500 ? 2 : 1;
}

export function isRetryable(code: string): boolean {
  return (API_ERRORS as Readonly<Record<string, ErrorEntry>>)[code]?.retryable ?? false;
}
