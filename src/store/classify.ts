/** What a gRPC status of etcd means for the caller: the table that decides between retry, unknown outcome and refusal. */
import { status } from './grpc-status.ts';

export interface RpcError {
  readonly code: number;
  readonly details: string;
}

/**
 * `not-applied`: the request certainly changed nothing; try elsewhere. `unclear`: it may have been applied, now or later.
 * The rest is an answer.
 */
export type Outcome = 'not-applied' | 'unclear' | 'lease-not-found' | 'lease-exists' | 'compacted' | 'reauthenticate' | 'refused';

/**
 * During a leader change etcd answers with odd codes: `Unknown: not a primary lessor`, `Unknown/Unavailable: server stopped`, `Unavailable: leader changed`.
 * All of them are `unclear` (Z4): a demotion for one of these would be false, and a blind repeat of a write as well.
 * *Source:* etcd 3.4, etcdserver/api/v3rpc/rpctypes/error.go and v3rpc/util.go (togRPCError).
 */
export function classify({ code, details }: RpcError): Outcome {
  switch (code) {
    case status.NOT_FOUND:
      return details.includes('lease not found') ? 'lease-not-found' : 'refused';
    case status.OUT_OF_RANGE:
      return details.includes('compacted') ? 'compacted' : 'refused';
    case status.FAILED_PRECONDITION:
      return details.includes('lease already exists') ? 'lease-exists' : 'refused';
    case status.UNAUTHENTICATED:
      return 'reauthenticate';
    case status.INVALID_ARGUMENT:
      // The token was given before a change of users or roles (Z6). *Source:* rpctypes ErrGRPCAuthOldRevision.
      return details.includes('revision of auth store is old') ? 'reauthenticate' : 'refused';
    case status.RESOURCE_EXHAUSTED:
      return details.includes('too many requests') ? 'not-applied' : 'refused';
    case status.UNAVAILABLE:
      // `no leader` comes from the interceptor, before the request is looked at; a learner refuses likewise; without a connection nothing was sent.
      return /etcdserver: no leader|not supported for learner|No connection established/.test(details) ? 'not-applied' : 'unclear';
    case status.DEADLINE_EXCEEDED:
    case status.CANCELLED:
    case status.UNKNOWN:
    case status.INTERNAL:
    case status.ABORTED:
    case status.DATA_LOSS:
      return 'unclear';
    default:
      return 'refused';
  }
}
