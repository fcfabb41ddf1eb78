/** What a measuring client saw, one event a statement. All times are CLOCK_MONOTONIC milliseconds of this machine (base/clock.ts). */
import { type Decoded, integer, literal, nullable, number, object, oneOf, text, union } from '../core/decode.ts';

const client = oneOf('recorder', 'probe');
const at = number();

export const historyEvent = union({
  /** The COMMIT was answered, and nothing warned about it. */
  ack: object({ kind: literal('ack'), client, n: integer, node: text, timeline: integer, sentMs: at, atMs: at }),
  /** The server refused: the row is certainly not there. */
  failed: object({ kind: literal('failed'), client, n: integer, node: text, sentMs: at, atMs: at, message: text }),
  /** No answer, or one with a warning: the row may be there or not. Never counted as acknowledged. */
  unknown: object({ kind: literal('unknown'), client, n: integer, node: text, sentMs: at, atMs: at, message: text }),
  connected: object({ kind: literal('connected'), client, node: text, atMs: at }),
  disconnected: object({ kind: literal('disconnected'), client, node: text, atMs: at, message: text }),
  /** Everything sent was answered or given up; no event follows. */
  ended: object({ kind: literal('ended'), client, atMs: at, message: nullable(text) }),
});
export type HistoryEvent = Decoded<typeof historyEvent>;
export type Ack = Extract<HistoryEvent, { kind: 'ack' }>;

export interface Target {
  readonly node: string;
  readonly host: string;
  readonly port: number;
}

export interface Login {
  readonly database: string;
  readonly user: string;
  readonly password: string;
}
