/** Signals of a role: SIGTERM and SIGINT stop it once and within a limit, SIGHUP reloads. */
import { type Clock, realClock } from './clock.ts';
import type { Logger } from './log.ts';

export interface ShutdownOptions {
  readonly log: Logger;
  /** Ends the role's work. Called once, whatever is received. */
  readonly stop: (reason: string) => Promise<void>;
  /** Reads the configuration again. Without it SIGHUP is logged and ignored (the default of the kernel would end the process). */
  readonly reload?: () => Promise<void>;
  /** After this long the process ends with exit code 1, stopped or not. A supervisor kills after 90 s, so stay well below. */
  readonly limitMs?: number;
  readonly clock?: Clock;
  /** For tests; `process` unless told. */
  readonly signals?: SignalSource;
  readonly exit?: (code: number) => void;
}

export interface SignalSource {
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  off(signal: NodeJS.Signals, listener: () => void): unknown;
}

export interface Shutdown {
  /** Aborted as soon as the end was asked for. */
  readonly signal: AbortSignal;
  /** The same as a signal, from inside. Resolves with the exit code: 0 stopped, 1 failed or too slow. */
  request(reason: string): Promise<number>;
  /** Resolves with the exit code when the role has stopped; pending for as long as it runs. */
  readonly done: Promise<number>;
  /** Takes the handlers away again. */
  dispose(): void;
}

const LIMIT_MS = 30_000;

/** Installs the handlers. The caller awaits `done` and returns its exit code from `main`. */
export function handleShutdown(options: ShutdownOptions): Shutdown {
  const source = options.signals ?? process;
  const asked = new AbortController();
  const { promise: done, resolve } = Promise.withResolvers<number>();
  const exit = options.exit ?? ((code: number) => process.exit(code));

  const request = (reason: string): Promise<number> => {
    if (asked.signal.aborted) return done;
    asked.abort();
    options.log.info({ reason }, 'stopping');
    void stopBounded(options, reason).then(resolve);
    return done;
  };
  const terminate = (): void => void request('SIGTERM');
  const interrupt = (): void => {
    // A second Ctrl+C of a person who does not want to wait. 130 = 128 + SIGINT, as shells expect.
    if (asked.signal.aborted) {
      options.log.flush();
      exit(130);
      return;
    }
    void request('SIGINT');
  };
  const hangup = (): void => void reloadOnce(options);

  source.on('SIGTERM', terminate);
  source.on('SIGINT', interrupt);
  source.on('SIGHUP', hangup);
  return {
    signal: asked.signal,
    request,
    done,
    dispose: () => {
      source.off('SIGTERM', terminate);
      source.off('SIGINT', interrupt);
      source.off('SIGHUP', hangup);
    },
  };
}

async function stopBounded(options: ShutdownOptions, reason: string): Promise<number> {
  const limitMs = options.limitMs ?? LIMIT_MS;
  const ended = new AbortController();
  const stopped = options.stop(reason).then(
    () => 0,
    (cause: unknown) => {
      options.log.error({ error: cause, reason }, 'stopping failed');
      return 1;
    },
  );
  const late = (options.clock ?? realClock).sleep(limitMs, ended.signal).then(() => {
    if (!ended.signal.aborted) options.log.error({ limitMs, reason }, 'stopping took too long; the process ends without it');
    return 1;
  });
  const code = await Promise.race([stopped, late]);
  ended.abort();
  options.log.flush();
  return code;
}

async function reloadOnce(options: ShutdownOptions): Promise<void> {
  if (options.reload === undefined) {
    options.log.info({}, 'SIGHUP: nothing to reload');
    return;
  }
  try {
    await options.reload();
    options.log.info({}, 'configuration reloaded');
  } catch (cause) {
    options.log.error({ error: cause }, 'reload failed; the old configuration stays in force');
  }
}
