/** A process's handle on the modelled store: `Store`, with the outcomes that the real client has (src/store/etcd-client.ts). */
import { type MonoMs, type Now, makeRevision } from '../../../src/core/ids.ts';
import { type Result, err, ok } from '../../../src/core/result.ts';
import type { CallOptions, Op, Store, StoreError } from '../../../src/store/store.ts';
import type { Scope } from '../../clock.ts';
import type { Random } from '../../random.ts';
import { type ClientConnection, TRY_MS } from './connection.ts';
import type { Answer, Request, StoreService } from './service.ts';
import type { WatchSet } from './watches.ts';

export interface ClientParts {
  readonly service: StoreService;
  readonly connection: ClientConnection;
  readonly watches: WatchSet;
  readonly scope: Scope;
  /** The process's own clocks: deadlines are counted on them. */
  readonly now: () => Now;
  readonly random: Random;
}

/** As in src/store/etcd-client.ts. */
const CALL_MS = 2000;
const PAUSE_MS = 50;
/** Clocks of hosts run a little faster or slower than the simulator's: what is left of a deadline may never become nothing. */
const USELESS_MS = 0.5;

type Repeat = 'read' | 'idempotent' | 'never';

type Outcome =
  | { readonly kind: 'answer'; readonly value: Exclude<Answer, { kind: 'failed' }> }
  | { readonly kind: 'error'; readonly error: StoreError; readonly outcome: string | null; readonly repeated: boolean };

export function createClient(parts: ClientParts): Store {
  const { connection, scope, now } = parts;

  const deadlineOf = (call: CallOptions | undefined): MonoMs => call?.deadline ?? ((now().mono + CALL_MS) as MonoMs);

  /** The loop over members until an answer, a refusal, an unknown outcome that must not be repeated, or the deadline. */
  async function outcomeOf(request: Request, deadline: MonoMs, repeat: Repeat): Promise<Outcome> {
    let maybeApplied = false;
    let last = 'no time was left to try';
    const failed = (error: StoreError, outcome: string | null = null): Outcome => ({ kind: 'error', error, outcome, repeated: maybeApplied });
    const foreign = connection.foreign();
    if (foreign !== null) return failed({ kind: 'refused', message: foreign });
    for (;;) {
      if (connection.closed()) return failed({ kind: maybeApplied ? 'unknown' : 'unavailable', message: 'the store client was closed' });
      const leftMs = deadline - now().mono;
      if (leftMs < USELESS_MS) break;
      const member = connection.current();
      const attempt = await connection.attempt(request, Math.min(TRY_MS, leftMs));
      if (attempt.kind === 'foreign') return failed({ kind: 'refused', message: attempt.message });
      if (attempt.kind === 'answer') {
        const { value } = attempt;
        if (value.kind !== 'failed') return { kind: 'answer', value };
        if (value.outcome === 'lease-not-found') return failed({ kind: 'lease-not-found', message: value.message }, value.outcome);
        if (value.outcome !== 'not-applied' && value.outcome !== 'unclear') return failed({ kind: 'refused', message: value.message }, value.outcome);
        last = value.message;
        if (value.outcome === 'unclear' && repeat !== 'read') maybeApplied = true;
      } else {
        last = attempt.message;
        if (attempt.sent && repeat !== 'read') maybeApplied = true;
      }
      connection.leave(member);
      if (maybeApplied && repeat === 'never') return failed({ kind: 'unknown', message: last });
      await scope.sleep(Math.min(PAUSE_MS, Math.max(0, deadline - now().mono)));
    }
    return failed({ kind: maybeApplied ? 'unknown' : 'unavailable', message: `no answer within the limit: ${last}` });
  }

  async function kvs(request: Request, call: CallOptions | undefined): Promise<Result<Extract<Answer, { kind: 'kvs' }>, StoreError>> {
    const answer = await outcomeOf(request, deadlineOf(call), 'read');
    if (answer.kind === 'error') return err(answer.error);
    return answer.value.kind === 'kvs' ? ok(answer.value) : err(unexpected);
  }

  return {
    status: async (call) => {
      const answer = await outcomeOf({ kind: 'status' }, deadlineOf(call), 'read');
      if (answer.kind === 'error') return err(answer.error);
      return ok({
        engine: 'simulated',
        version: 'simulated',
        incarnation: parts.service.incarnation(),
        revision: makeRevision(answer.value.kind === 'status' ? answer.value.revision : 0),
        dbSizeBytes: 1,
        endpoint: connection.current(),
        members: parts.service.members.length,
      });
    },
    get: async (key, call) => {
      const found = await kvs({ kind: 'get', key }, call);
      return found.ok ? ok(found.value.kvs[0] ?? null) : found;
    },
    list: async (prefix, call) => {
      const found = await kvs({ kind: 'list', prefix, limit: call?.limit ?? 0 }, call);
      if (!found.ok) return found;
      const { revision, incarnation, kvs: listed } = found.value;
      return ok({ revision: makeRevision(revision), incarnation, kvs: listed });
    },
    txn: async (compares, then, otherwise = [], call) => {
      const writes = then.some(isWrite) || otherwise.some(isWrite);
      const answer = await outcomeOf({ kind: 'txn', txn: { compares, then, otherwise }, writes }, deadlineOf(call), writes ? 'never' : 'read');
      if (answer.kind === 'error') return err(answer.error);
      return answer.value.kind === 'txn' ? ok(answer.value.result) : err(unexpected);
    },
    grantLease: async (ttlMs, call) => {
      // Chosen here, so that a grant whose answer was lost can be repeated.
      const id = String(1 + parts.random.int(2 ** 31) * 2 ** 21 + parts.random.int(2 ** 21));
      const deadline = deadlineOf(call);
      const answer = await outcomeOf({ kind: 'grant', id, ttlMs }, deadline, 'idempotent');
      if (answer.kind === 'answer') return answer.value.kind === 'lease' ? ok({ id, ttlMs: answer.value.ttlMs }) : err(unexpected);
      if (answer.outcome !== 'lease-exists' || !answer.repeated) return err(answer.error);
      const found = await outcomeOf({ kind: 'time-to-live', id }, deadline, 'read');
      if (found.kind === 'error') return err(found.error);
      return found.value.kind === 'lease' ? ok({ id, ttlMs: found.value.ttlMs }) : err(unexpected);
    },
    keepAlive: async (id, call) => {
      const answer = await outcomeOf({ kind: 'keep-alive', id }, deadlineOf(call), 'idempotent');
      if (answer.kind === 'error') return err(answer.error);
      return answer.value.kind === 'lease' ? ok({ ttlMs: answer.value.ttlMs }) : err(unexpected);
    },
    revokeLease: async (id, call) => {
      const answer = await outcomeOf({ kind: 'revoke', id }, deadlineOf(call), 'idempotent');
      if (answer.kind === 'answer' || (answer.outcome === 'lease-not-found' && answer.repeated)) return ok(null);
      return err(answer.error);
    },
    watch: (prefix, after, handlers) => parts.watches.watch(prefix, after, handlers),
    close: () => {
      connection.close();
      parts.watches.close();
    },
  };
}

const unexpected: StoreError = { kind: 'refused', message: 'the server answered something else than was asked' };

function isWrite(op: Op): boolean {
  return op.kind !== 'get' && op.kind !== 'get-prefix';
}
