/** One keep-alive, one answer: a stream that is opened for it and closed after it, so that no renewal hides behind a stuck stream. */
import { create } from '@bufbuild/protobuf';
import type { MonoMs } from '../core/ids.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type RpcError, classify } from './classify.ts';
import type { Attempt } from './channel.ts';
import { type Connection, type Endpoint, TRY_MS } from './connection.ts';
import { status } from './grpc-status.ts';
import { Lease, LeaseKeepAliveRequestSchema, type LeaseKeepAliveResponse } from './proto/gen/rpc_pb.ts';
import { methodOf } from './proto/services.ts';
import type { StoreError } from './store.ts';

const KEEP_ALIVE = methodOf(Lease.method.leaseKeepAlive);

/** Repeated at other endpoints until `deadline`: a renewal does no harm twice. */
export async function keepAliveOnce(
  connection: Connection,
  lease: string,
  deadline: MonoMs,
): Promise<Result<{ readonly ttlMs: number }, StoreError>> {
  let sent = false;
  let last: RpcError = { code: 0, details: 'no time was left to try' };
  while (connection.clock.now().mono < deadline && !connection.closed()) {
    const foreign = connection.foreign();
    if (foreign !== null) return err({ kind: 'refused', message: foreign });
    const endpoint = connection.current();
    const attempt = await tryKeepAlive(connection, endpoint, lease, deadline);
    if (attempt.kind === 'foreign') return err({ kind: 'refused', message: attempt.message });
    if (attempt.kind === 'answer') {
      const refusal = connection.checkHeader(attempt.value.header);
      if (refusal !== null) return err({ kind: 'refused', message: refusal });
      if (attempt.value.TTL <= 0n) return err({ kind: 'lease-not-found', message: `lease ${lease} does not exist` });
      return ok({ ttlMs: Number(attempt.value.TTL) * 1000 });
    }
    const outcome = classify(attempt.error);
    if (outcome === 'lease-not-found') return err({ kind: 'lease-not-found', message: attempt.error.details });
    if (outcome === 'refused') return err({ kind: 'refused', message: attempt.error.details });
    if (outcome === 'reauthenticate') connection.dropLogin();
    last = attempt.error;
    sent ||= attempt.sent && outcome === 'unclear';
    connection.leave(endpoint);
    await connection.pause(deadline);
  }
  return err({ kind: sent ? 'unknown' : 'unavailable', message: `no answer within the limit: ${last.details}` });
}

async function tryKeepAlive(connection: Connection, endpoint: Endpoint, lease: string, deadline: MonoMs): Promise<Attempt<LeaseKeepAliveResponse>> {
  const ready = await connection.prepare(endpoint, deadline);
  if (ready.kind !== 'answer') return ready;
  return new Promise((resolve) => {
    const finish = (attempt: Attempt<LeaseKeepAliveResponse>): void => {
      clearTimeout(timer);
      givenUp.removeEventListener('abort', leave);
      resolve(attempt);
      stream.cancel();
    };
    const fail = (code: number, details: string): void => finish({ kind: 'failed', sent: true, error: { code, details } });
    const stream = connection.stream(endpoint, KEEP_ALIVE, {
      onMessage: (value) => finish({ kind: 'answer', value }),
      onEnd: (error) => fail(error?.code ?? status.UNAVAILABLE, error?.details ?? `the stream ended without an answer (${endpoint.url})`),
    });
    const givenUp = endpoint.givenUp.signal;
    const leave = (): void => fail(status.CANCELLED, `the endpoint is silent while another one answers (${endpoint.url})`);
    givenUp.addEventListener('abort', leave, { once: true });
    const limitMs = Math.max(1, Math.min(TRY_MS, deadline - connection.clock.now().mono));
    const timer = setTimeout(() => fail(status.DEADLINE_EXCEEDED, `no answer within ${Math.round(limitMs)} ms (${endpoint.url})`), limitMs);
    stream.write(create(LeaseKeepAliveRequestSchema, { ID: BigInt(lease) }));
  });
}
