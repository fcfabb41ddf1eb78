/** The mark that a restore or a move leaves in a store: of which store its data is a copy, and where that one's came from. Written first as `begun`, last as `done`. */
import { decodeJson, list, object, text, withDefault } from '../core/decode.ts';
import { SERVER_ROOT } from './keys.ts';
import type { Op } from './store.ts';

/** Agents and controllers find here which store this data comes from. */
export const RESTORE_KEY = `${SERVER_ROOT}restore`;

/** Stores that a mark names beside the last one. A host that was away during so many restores needs a person. */
const MAX_BEFORE = 16;

const mark = object({ phase: text, from: text, before: withDefault(list(text), []) });

export interface RestoreMark {
  readonly phase: 'begun' | 'done';
  /** Incarnation of the store that was copied. */
  readonly from: string;
  /** Those that it was a copy of itself, newest first; at most MAX_BEFORE. */
  readonly before: readonly string[];
  readonly revision: number;
  readonly takenAt: string;
}

/** `before` may name a store more than once, and more of them than are kept. */
export function putMark({ before, ...rest }: RestoreMark): Op {
  const kept = [...new Set(before)].filter((one) => one !== rest.from).slice(0, MAX_BEFORE);
  return { kind: 'put', key: RESTORE_KEY, value: JSON.stringify({ version: 1, ...rest, before: kept }) };
}

/** What the value of RESTORE_KEY says; null: there is none, or it cannot be understood. `stores`: all that it names, newest first. */
export function readMark(value: string | null): { readonly phase: string; readonly from: string; readonly stores: readonly string[] } | null {
  const decoded = value === null ? null : decodeJson(mark, value);
  if (decoded?.ok !== true) return null;
  const { phase, from, before } = decoded.value;
  return { phase, from, stores: [from, ...before] };
}
