/**
 * What agent and guard say to each other over `<stateDirectory>/run/guard.sock`: one JSON object a line, each request with a number that its answer repeats.
 * Times are monotonic milliseconds of this boot, the same clock in both processes.
 */
import {
  type Decoded,
  type Decoder,
  bool,
  integer,
  list,
  literal,
  nullable,
  number,
  object,
  oneOf,
  refine,
  text,
  union,
  withDefault,
} from '../../core/decode.ts';
import { type MonoMs, makeMonoMs } from '../../core/ids.ts';

/** Bump when an old guard cannot serve a new agent: the agent then tells it to go once it is not armed. */
export const GUARD_PROTOCOL = 1;
/** A line is about 500 bytes; a peer that sends more without a line break is not our agent. */
export const MAX_LINE = 65_536;

const mono: Decoder<MonoMs> = refine(number(), (value) => makeMonoMs(value), 'monotonic milliseconds');
export const processId = object({ pid: integer, startTime: number() });

/** What the guard must know to fence without asking anybody. */
export const armed = object({
  term: integer,
  leaseId: text,
  /** When the fence begins unless a later deadline came. */
  deadline: mono,
  /** Symbolic links resolved by the agent. */
  dataDirectory: text,
  /** Null: none runs yet; processes are then found by their working directory. */
  postmaster: nullable(processId),
  /** nft's family and name; null when the firewall is off. */
  table: nullable(text),
  /** Virtual addresses that may be on this host: removed first. An agent of an older version names none. */
  addresses: withDefault(list(object({ address: text, interface: text })), []),
  /** The agent's clocks when `deadline` was right: a pause since then is taken off by the guard. Null: an agent of an older version. */
  at: withDefault(nullable(object({ mono, boot: number(), wall: number() })), null),
  /** The cluster's times of the lease: the store gives it to nobody else before `deadline` and the margin. Null: an agent of an older version. */
  lease: withDefault(nullable(object({ ttlMs: number(), renewMs: number(), marginMs: number() })), null),
});
export type Armed = Decoded<typeof armed>;

export const fenceRecord = object({
  version: integer,
  term: integer,
  leaseId: text,
  why: text,
  /** ISO 8601, for people. */
  at: text,
  /** No process of the data directory is left. */
  complete: bool,
  killed: list(integer),
  survivors: list(integer),
  /** From the deadline to the last process gone (or the limit). */
  durationMs: number(),
  /** What went wrong beside the kill: nft, standby.signal, full disk. */
  problems: list(text),
});
export type FenceRecord = Decoded<typeof fenceRecord>;

export const watchdogConfig = object({ mode: oneOf('automatic', 'required'), device: text, timeoutSeconds: integer });
export type WatchdogConfig = Decoded<typeof watchdogConfig>;

/** `failed`: `detail` says why. `late`: armed, and yet another node may get the lease before this host is reset. */
export const watchdogStatus = object({ state: oneOf('off', 'armed', 'failed'), detail: text, late: withDefault(bool, false) });
export type WatchdogStatus = Decoded<typeof watchdogStatus>;
export const NO_WATCHDOG: WatchdogStatus = { state: 'off', detail: '', late: false };

export const guardStatus = object({
  protocol: integer,
  bootId: text,
  pid: integer,
  phase: text,
  armed: nullable(armed),
  fenced: nullable(fenceRecord),
  /** A guard of an older version has none. */
  watchdog: withDefault(watchdogStatus, NO_WATCHDOG),
});
export type GuardStatus = Decoded<typeof guardStatus>;

export const guardRequest = union({
  status: object({ kind: literal('status'), id: integer }),
  /** `shorten`: the agent found that time was lost; its deadline counts although it is the earlier one. */
  arm: object({ kind: literal('arm'), id: integer, arm: armed, shorten: withDefault(bool, false) }),
  /** Open the watchdog device; answered when that is done. Refused unless armed. */
  watchdog: object({ kind: literal('watchdog'), id: integer, watchdog: watchdogConfig }),
  /** The lease was released or PostgreSQL is no primary any more. */
  disarm: object({ kind: literal('disarm'), id: integer }),
  /** The agent has read the fence record: a new lease may be armed. */
  acknowledge: object({ kind: literal('acknowledge'), id: integer }),
  /** Go, unless armed or fencing. */
  quit: object({ kind: literal('quit'), id: integer }),
});
export type GuardRequest = Decoded<typeof guardRequest>;

export const guardAnswer = object({ id: integer, ok: bool, why: text, status: guardStatus });
export type GuardAnswer = Decoded<typeof guardAnswer>;

/** Splits a byte stream into lines; `onTooLong` once when a line exceeds MAX_LINE. */
export function createLineReader(onLine: (line: string) => void, onTooLong: () => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    rest += chunk;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (line !== '') onLine(line);
    }
    if (rest.length > MAX_LINE) {
      rest = '';
      onTooLong();
    }
  };
}
