/**
 * What stands in a store that is being left for another one, or was left. Hosts follow `MOVE_KEY` and go where it says.
 *
 * prepare → sealed → moved, or back to `aborted` before that. `moved` is the point of no return, one transaction: from then on nothing that is written here counts.
 * A store that was left goes on saying so to every host that comes late.
 */
import { type Decoded, bool, decodeJson, list, nullable, object, oneOf, literal, text } from '../core/decode.ts';
import { SERVER_ROOT } from './keys.ts';
import type { KeyValue } from './store.ts';

/** Sorts below `.server/mov`, which is never copied from one store to another. */
export const MOVE_KEY = `${SERVER_ROOT}move`;
export const MOVE_PREFIX = `${SERVER_ROOT}mov`;
const READY_PREFIX = `${SERVER_ROOT}moving/`;

export const moveRecord = object({
  version: literal(1),
  id: text,
  phase: oneOf('prepare', 'sealed', 'moved', 'aborted'),
  /** Incarnations of both. */
  from: text,
  to: text,
  endpoints: list(text),
});
export type MoveRecord = Decoded<typeof moveRecord>;

/** A host's word that it can use the new store, with the reason when it cannot. */
export const moveReady = object({ version: literal(1), ready: bool, problem: nullable(text) });
export type MoveReady = Decoded<typeof moveReady>;

/** Who is asked: `lab/n1`, as in the subject of its certificate. */
export function readyKey(id: string, kind: 'agent' | 'proxy', name: string): string {
  return `${readyPrefix(id)}${kind}/${name}`;
}

export function readyPrefix(id: string): string {
  return `${READY_PREFIX}${id}/`;
}

/** Null for a key that is absent or cannot be read. */
export function readMove(kv: KeyValue | null | undefined): MoveRecord | null {
  if (kv === null || kv === undefined || kv.key !== MOVE_KEY) return null;
  const decoded = decodeJson(moveRecord, kv.value);
  return decoded.ok ? decoded.value : null;
}

/** The holder of a cluster's controller key in a store that is sealed: nobody else can be elected beside it. */
export const SEALED_CONTROLLER = '{"version":1,"name":"sealed: the store is being moved"}';

/** In the place of each write lease of a store that was left. It hangs on no lease and never goes away. */
export const MOVED_LEASE = '{"version":1,"moved":true}';
