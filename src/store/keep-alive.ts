/**
 * One keep-alive, one answer. The stream stays for the next one of the same lease, since opening one costs more than the renewal; whatever goes wrong
 * with it ends it, so that no renewal hides behind a stuck stream.
 */
import { create } from '@bufbuild/protobuf';
import type { MonoMs } from '../core/ids.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type RpcError, classify } from './classify.ts';
import type { Attempt, Channel, GrpcStream } from './channel.ts';
import type { Connection, Endpoint } from './connection.ts';
import { onSilence } from './silence.ts';
import { status } from './grpc-status.ts';
import { Lease, type LeaseKeepAliveRequest, LeaseKeepAliveRequestSchema, type LeaseKeepAliveResponse } from './proto/gen/rpc_pb.ts';
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

/** The stream of one lease on one channel. */
interface Line {
  readonly stream: GrpcStream<LeaseKeepAliveRequest>;
  /** Who waits for the next message; null: nobody. */
  waiting: ((attempt: Attempt<LeaseKeepAliveResponse>) => void) | null;
  usedAt: MonoMs;
}

/** Streams end with their channel; of leases that are not renewed any more, after a while. */
const lines = new WeakMap<Channel, Map<string, Line>>();
const FORGET_AFTER_MS = 15_000;

function linesOf(channel: Channel, now: MonoMs): Map<string, Line> {
  const found = lines.get(channel) ?? new Map<string, Line>();
  lines.set(channel, found);
  for (const [lease, line] of found) {
    if (line.waiting !== null || now - line.usedAt < FORGET_AFTER_MS) continue;
    found.delete(lease);
    line.stream.cancel();
  }
  return found;
}

function openLine(connection: Connection, endpoint: Endpoint, kept: Map<string, Line>, lease: string): Line {
  const drop = (): void => {
    if (kept.get(lease) === line) kept.delete(lease);
  };
  const tell = (attempt: Attempt<LeaseKeepAliveResponse>): void => {
    const told = line.waiting;
    line.waiting = null;
    told?.(attempt);
  };
  const stream = connection.stream(endpoint, KEEP_ALIVE, {
    onMessage: (value) => tell({ kind: 'answer', value }),
    onEnd: (error) => {
      drop();
      tell({
        kind: 'failed',
        sent: true,
        error: error ?? { code: status.UNAVAILABLE, details: `the stream ended without an answer (${endpoint.url})` },
      });
    },
  });
  const line: Line = { stream, waiting: null, usedAt: connection.clock.now().mono };
  return line;
}

async function tryKeepAlive(connection: Connection, endpoint: Endpoint, lease: string, deadline: MonoMs): Promise<Attempt<LeaseKeepAliveResponse>> {
  const ready = await connection.prepare(endpoint, deadline);
  if (ready.kind !== 'answer') return ready;
  const now = connection.clock.now().mono;
  const kept = linesOf(endpoint.channel, now);
  const known = kept.get(lease);
  // Two renewals of one lease at a time: the second gets a stream of its own, so that no answer is taken for another's.
  const line = known?.waiting === null ? known : openLine(connection, endpoint, kept, lease);
  line.usedAt = now;
  return new Promise((resolve) => {
    const finish = (attempt: Attempt<LeaseKeepAliveResponse>): void => {
      endWait();
      givenUp.removeEventListener('abort', leave);
      line.waiting = null;
      const answered = attempt.kind === 'answer' && attempt.value.TTL > 0n;
      // One stream a lease stays: of two first renewals at a time that of the first answer.
      const stays = kept.get(lease) ?? line;
      if (answered && stays === line) kept.set(lease, line);
      else {
        if (stays === line) kept.delete(lease);
        line.stream.cancel();
      }
      resolve(attempt);
    };
    const fail = (code: number, details: string): void => finish({ kind: 'failed', sent: true, error: { code, details } });
    const givenUp = endpoint.givenUp.signal;
    const leave = (): void => fail(status.CANCELLED, `the endpoint is silent while another one answers (${endpoint.url})`);
    givenUp.addEventListener('abort', leave, { once: true });
    const limitMs = Math.max(1, Math.min(connection.tryMs, deadline - now));
    const endWait = onSilence(limitMs, () => fail(status.DEADLINE_EXCEEDED, `no answer within ${Math.round(limitMs)} ms (${endpoint.url})`));
    line.waiting = finish;
    line.stream.write(create(LeaseKeepAliveRequestSchema, { ID: BigInt(lease) }));
  });
}
