/** A request that the engine refuses, with the gRPC status and the text that etcd would give: clients and etcdctl read both. */
import { status } from '@grpc/grpc-js';

export class RpcFault extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** Source: etcd 3.4, etcdserver/api/v3rpc/rpctypes/error.go (texts and codes). */
export const faults = {
  emptyKey: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: key is not provided'),
  keyNotFound: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: key not found'),
  valueProvided: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: value is provided'),
  leaseProvided: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: lease is provided'),
  tooManyOps: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: too many operations in txn request'),
  duplicateKey: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: duplicate key given in txn request'),
  tooLarge: () => new RpcFault(status.INVALID_ARGUMENT, 'etcdserver: request is too large'),
  nestedTxn: () => new RpcFault(status.UNIMPLEMENTED, 'pgherd: a transaction inside a transaction is not supported by the embedded store'),
  compacted: () => new RpcFault(status.OUT_OF_RANGE, 'etcdserver: mvcc: required revision has been compacted'),
  future: () => new RpcFault(status.OUT_OF_RANGE, 'etcdserver: mvcc: required revision is a future revision'),
  noSpace: () => new RpcFault(status.RESOURCE_EXHAUSTED, 'etcdserver: mvcc: database space exceeded'),
  leaseNotFound: () => new RpcFault(status.NOT_FOUND, 'etcdserver: requested lease not found'),
  leaseExists: () => new RpcFault(status.FAILED_PRECONDITION, 'etcdserver: lease already exists'),
  leaseTtlTooLarge: () => new RpcFault(status.OUT_OF_RANGE, 'etcdserver: too large lease TTL'),
  tooManyRequests: () => new RpcFault(status.RESOURCE_EXHAUSTED, 'etcdserver: too many requests'),
  stopped: () => new RpcFault(status.UNAVAILABLE, 'etcdserver: server stopped'),
  authDisabled: () => new RpcFault(status.FAILED_PRECONDITION, 'etcdserver: authentication is not enabled'),
};
