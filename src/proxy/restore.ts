/** Makes a session's state again on a new connection, before the session gets it. */
import { realClock } from '../base/clock.ts';
import { type Result, err, ok } from '../core/result.ts';
import { readErrorFields, readParameterStatus } from '../wire/backend.ts';
import { FRAME, beginChunk, createFrameWalker, stepFrame } from '../wire/frames.ts';
import { buildQuery } from '../wire/frontend.ts';
import { type Gather, appendGather, clearGather, createGather } from '../wire/gather.ts';
import { BACKEND, BACKEND_LIMITS, FRONTEND } from '../wire/protocol.ts';
import { joinBytes } from '../wire/bytes.ts';
import type { Backend } from './login/backend.ts';
import type { SessionMemory } from './memory.ts';

export interface Answered {
  /** Error text of the first statement that failed; null: all went well. */
  readonly error: { readonly sqlState: string; readonly message: string; readonly cycle: number } | null;
  /** Bodies of the DataRow messages, in order. */
  readonly rows: readonly Uint8Array[];
  /** What the server reported meanwhile, the last value of each. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Answers that are kept: questions of the proxy have few and short rows. */
const MAX_ROWS = 100_000;
const MAX_MESSAGE = 1_048_576;

/** Gives a connection back, in order. */
export function leave(backend: Backend): void {
  backend.stream.write(TERMINATE);
  backend.stream.end();
}

export const TERMINATE = Uint8Array.of(FRONTEND.terminate, 0, 0, 0, 4);

/**
 * Sends `messages` and waits for as many ReadyForQuery as `cycles` says. Null: the connection broke, or the answer took too long; it is closed then.
 * The connection must be idle and unused by anybody else; afterwards it is idle and paused again. Errors count in the first `strict` cycles, by default in all.
 */
export function runOn(
  backend: Backend,
  messages: Uint8Array,
  options: { readonly cycles: number; readonly limitMs: number; readonly strict?: number },
): Promise<Answered | null> {
  const walker = createFrameWalker();
  const gather: Gather = createGather(MAX_MESSAGE);
  const rows: Uint8Array[] = [];
  const parameters = new Map<string, string>();
  let error: Answered['error'] = null;
  let left = options.cycles;
  const { stream } = backend;
  return new Promise((resolve) => {
    const ended = new AbortController();
    const finish = (answer: Answered | null): void => {
      ended.abort();
      stream.pause();
      if (answer === null) stream.destroy();
      resolve(answer);
    };
    const onMessage = (type: number, body: Uint8Array): void => {
      if (type === BACKEND.dataRow && rows.length < MAX_ROWS) rows.push(body);
      else if (type === BACKEND.parameterStatus) {
        const found = readParameterStatus(body, 0, body.length);
        if (found !== null) parameters.set(found.name, found.value);
      } else if (type === BACKEND.errorResponse && error === null && options.cycles - left < (options.strict ?? options.cycles)) {
        const fields = readErrorFields(body, 0, body.length);
        error = { sqlState: fields?.get('C') ?? '', message: fields?.get('M') ?? '', cycle: options.cycles - left };
      } else if (type === BACKEND.readyForQuery) left -= 1;
    };
    stream.listen({
      onData: (bytes, length) => {
        beginChunk(walker, 0);
        for (;;) {
          const from = walker.have === 5 ? walker.at : -1;
          const step = stepFrame(walker, bytes, length, BACKEND_LIMITS);
          if (step === FRAME.bad) return finish(null);
          if (step === FRAME.more) {
            const bodyFrom = walker.bodyAt >= 0 ? walker.bodyAt : from;
            if (walker.have === 5 && bodyFrom >= 0) appendGather(gather, bytes, bodyFrom, length);
            return;
          }
          if (walker.bodyAt >= 0 && gather.length === 0) onMessage(walker.type, bytes.slice(walker.bodyAt, walker.at));
          else {
            appendGather(gather, bytes, Math.max(0, from), walker.at);
            onMessage(walker.type, gather.bytes.slice(0, gather.length));
            clearGather(gather);
          }
          if (left === 0) return finish({ error, rows, parameters });
        }
      },
      onDrain: () => undefined,
      onEnd: () => finish(null),
    });
    stream.resume();
    stream.write(messages);
    void realClock.sleep(options.limitMs, ended.signal).then(() => {
      if (!ended.signal.aborted) finish(null);
    });
  });
}

export interface NotMade {
  /** `lost`: the connection broke. `reset`: what somebody else left there could not be taken away. `state`: the session's own settings are refused. */
  readonly kind: 'lost' | 'reset' | 'state';
  readonly why: string;
}

/**
 * Makes the session's settings and prepared statements on a connection, behind `reset` if there is one; and the unnamed statement, if the server had it. What the server reported
 * meanwhile comes back. A statement that cannot be prepared any more (its table is gone) is left out: using it then ends with the server's own error.
 * Unless it is `lost`, the connection is open and idle afterwards.
 */
export async function makeState(
  memory: SessionMemory,
  backend: Backend,
  options: { readonly reset: string | null; readonly unnamed: boolean; readonly limitMs: number },
): Promise<Result<ReadonlyMap<string, string>, NotMade>> {
  const { node } = backend.target;
  const before = options.reset === null ? [] : [buildQuery(options.reset)];
  const parts = [...before, ...memory.restore(), ...(options.unnamed ? memory.restoreUnnamed() : [])];
  if (parts.length === 0) return ok(new Map());
  const strict = before.length + memory.settingCount;
  const answered = await runOn(backend, joinBytes(parts), { cycles: parts.length, limitMs: options.limitMs, strict });
  if (answered === null) return err({ kind: 'lost', why: `${node} did not take over the session's state` });
  const { error, parameters } = answered;
  if (error === null) return ok(parameters);
  const kind = error.cycle < before.length ? 'reset' : 'state';
  return err({ kind, why: `the session's state could not be made again on ${node}: ${error.message}` });
}
