/** What a session has made on its node beyond data: what is sent to the next node, and what ties it to this one. */
import { FRONTEND } from '../wire/protocol.ts';

export interface SessionMemory {
  onClientMessage(type: number, bytes: Uint8Array, bodyAt: number, end: number): void;
  onServerMessage(type: number, bytes: Uint8Array, bodyAt: number, end: number): void;
  /** What the first node reported at the start. */
  onParameters(parameters: ReadonlyMap<string, string>): void;
  /** True: the client does not know this value yet. */
  onParameter(name: string, value: string): boolean;
  /** Why the session cannot be moved, in words for the client; null: it can. */
  pinned(): string | null;
  /** Messages that make the state again, each one cycle (ended by a Sync, or a Query); empty: nothing to do. */
  restore(): readonly Uint8Array[];
  /** A COMMIT (or something like it) may have been sent since the transaction began. */
  commitSent(): boolean;
  onNodeLost(): void;
}

/** Statements that leave nothing in the session, if nothing in their text calls for more. */
const PLAIN =
  /^\s*(select|insert|update|delete|merge|values|table|with|begin|start|commit|end|rollback|abort|savepoint|release|copy|explain|show|truncate|vacuum|analyze)\b/i;
const SUSPICIOUS = /set_config|advisory|temp|into|\bset\b[^=]*\b(session|role)\b/i;

/** Keeps nothing: a session whose statements are not all plain, or that prepared some by name, stays where it is. */
export function createPlainMemory(): SessionMemory {
  let known = new Map<string, string>();
  let pin: string | null = null;
  const see = (text: string): void => {
    if (pin === null && (!PLAIN.test(text) || SUSPICIOUS.test(text.replace(/^\s*insert\s+into/i, '')))) pin = 'state that only its node knows';
  };
  return {
    onClientMessage: (type, bytes, bodyAt, end) => {
      if (pin !== null || (type !== FRONTEND.query && type !== FRONTEND.parse)) return;
      if (bodyAt < 0) {
        pin = 'a statement that was too long to be looked at';
        return;
      }
      const text = Buffer.from(bytes.buffer, bytes.byteOffset + bodyAt, end - bodyAt).toString('latin1');
      if (type === FRONTEND.query) see(text);
      else if (bytes[bodyAt] !== 0) pin = 'prepared statements';
      else see(text.slice(1));
    },
    onServerMessage: () => undefined,
    onParameters: (parameters) => {
      known = new Map(parameters);
    },
    onParameter: (name, value) => {
      if (known.get(name) === value) return false;
      known.set(name, value);
      return true;
    },
    pinned: () => pin,
    restore: () => [],
    commitSent: () => true,
    onNodeLost: () => undefined,
  };
}
