/**
 * The channel of the server to the store that it serves itself: the same handlers, without a socket, encryption, or bytes between them.
 *
 * A decision of the controller is one round trip to this store; over loopback it took 6 to 12 ms of a busy machine, in the middle of every failover and
 * switchover (docs/decisions/0020-own-grpc-client.md). Everything above the channel, deadlines and unknown outcomes included, is the code that hosts use.
 *
 * Invariant: nothing of the caller runs inside the engine's transaction. Because: answers and messages are handed over in tasks of their own.
 * Broken if: a message of a watch is delivered where it is sent: a handler that throws would end the commit of others.
 */
import { EventEmitter } from 'node:events';
import type { UntypedHandleCall } from '@grpc/grpc-js';
import type { RpcError } from '../classify.ts';
import { type Attempt, type Channel, withUrl } from '../channel.ts';
import { status } from '../grpc-status.ts';
import { onSilence } from '../silence.ts';
import { faults } from './fault.ts';

export interface InProcess {
  /** Made like `openChannel`; the address only names it. */
  open(url: string): Channel;
  /** Calls under way are given up, streams end, later calls are refused: as those of a server that was stopped. */
  close(): void;
}

type Unary = (call: { readonly request: unknown }, callback: (error: RpcError | null, value?: unknown) => void) => void;

/** `handlers` by the last part of the method's path. */
export function createInProcess(handlers: Readonly<Record<string, UntypedHandleCall>>): InProcess {
  const stopped: RpcError = { code: status.UNAVAILABLE, details: faults.stopped().message };
  const enders = new Set<() => void>();
  let isStopped = false;

  const unimplemented = (path: string): RpcError => ({ code: status.UNIMPLEMENTED, details: `the embedded store does not serve ${path}` });
  const handlerOf = (path: string): UntypedHandleCall | null => handlers[path.slice(path.lastIndexOf('/') + 1)] ?? null;

  function open(url: string): Channel {
    let isClosed = false;
    const own = new Set<() => void>();
    const refusal = (): RpcError | null =>
      isStopped ? stopped : isClosed ? { code: status.UNAVAILABLE, details: `the connection to ${url} is closed` } : null;
    const enlist = (end: () => void): (() => void) => {
      enders.add(end);
      own.add(end);
      return () => {
        enders.delete(end);
        own.delete(end);
      };
    };
    return {
      url,
      ready: () => Promise.resolve(refusal()),
      onceLost: (callback) => {
        if (refusal() === null) enlist(callback);
        else callback();
      },
      unary: ({ method, request, limitMs, signal }) => {
        const failed = (error: RpcError, sent: boolean): { readonly kind: 'failed'; readonly error: RpcError; readonly sent: boolean } => ({
          kind: 'failed',
          sent,
          error: withUrl(error, url),
        });
        const refused = refusal();
        if (refused !== null) return Promise.resolve(failed(refused, false));
        if (limitMs <= 0) return Promise.resolve(failed({ code: status.DEADLINE_EXCEEDED, details: 'no time left' }, false));
        if (signal?.aborted === true) return Promise.resolve(failed({ code: status.CANCELLED, details: 'given up' }, false));
        const handler = handlerOf(method.path);
        if (handler === null) return Promise.resolve(failed(unimplemented(method.path), true));
        return new Promise<Attempt<never>>((resolve) => {
          const end = (attempt: Attempt<never>): void => {
            endWait();
            forget();
            signal?.removeEventListener('abort', give);
            resolve(attempt);
          };
          const give = (): void => end(failed({ code: status.CANCELLED, details: 'given up' }, true));
          const endWait = onSilence(limitMs, () =>
            end(failed({ code: status.DEADLINE_EXCEEDED, details: `no answer within ${Math.round(limitMs)} ms` }, true)),
          );
          const forget = enlist(() => end(failed(stopped, true)));
          signal?.addEventListener('abort', give, { once: true });
          (handler as unknown as Unary)({ request }, (error, value) =>
            end(error === null ? { kind: 'answer', value: value as never } : failed(error, true)),
          );
        });
      },
      stream: (method, _metadata, { onMessage, onEnd }) => {
        const call = new EventEmitter();
        let isOver = false;
        const end = (error: RpcError | null): void => {
          if (isOver) return;
          isOver = true;
          forget();
          queueMicrotask(() => onEnd(error === null ? null : withUrl(error, url)));
          call.emit('close');
        };
        const forget = enlist(() => end(stopped));
        const handler = refusal() === null ? handlerOf(method.path) : null;
        // Never full: whoever receives it takes it at once.
        const server = Object.assign(call, {
          write: (message: unknown): boolean => {
            if (!isOver) queueMicrotask(() => (isOver ? undefined : onMessage(message as never)));
            return true;
          },
          end: () => end(null),
        });
        call.on('error', (error: RpcError) => end(error));
        if (handler === null) end(refusal() ?? unimplemented(method.path));
        else (handler as unknown as (of: typeof server) => void)(server);
        return {
          write: (message) => {
            if (!isOver) call.emit('data', message);
          },
          cancel: () => {
            if (isOver) return;
            isOver = true;
            forget();
            call.emit('cancelled');
            call.emit('close');
          },
        };
      },
      close: () => {
        isClosed = true;
        for (const one of [...own]) one();
      },
    };
  }

  return {
    open,
    close: () => {
      isStopped = true;
      for (const one of [...enders]) one();
    },
  };
}
