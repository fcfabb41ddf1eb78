/**
 * Branded scalars: values that could be swapped by mistake are different types.
 * Only the `make…`/`parse…` functions of this file may cast.
 */

declare const brand: unique symbol;
type Brand<T, Name extends string> = T & { readonly [brand]: Name };

export type NodeId = Brand<string, 'NodeId'>;
export type ClusterId = Brand<string, 'ClusterId'>;
/** Counts primaries. A number is never reused. 0 means "no primary was ever opened". */
export type Term = Brand<number, 'Term'>;
/** Revision of the store (etcd's mod_revision). Only comparable inside one store incarnation. */
export type Revision = Brand<number, 'Revision'>;
/** PostgreSQL timeline id (TLI); the first is 1. */
export type Timeline = Brand<number, 'Timeline'>;
/** Monotonic milliseconds (CLOCK_MONOTONIC of this host); meaningless on another host. */
export type MonoMs = Brand<number, 'MonoMs'>;
/** Wall-clock milliseconds since 1970; for people, never for deadlines. */
export type WallMs = Brand<number, 'WallMs'>;

const NAME = /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/;

/** True when `text` can name a cluster or a node: 1–63 of a–z, 0–9, `-`, `_`; first and last alphanumeric. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

/** Returns null when `text` is not a valid name (see isName). */
export function parseNodeId(text: string): NodeId | null {
  return isName(text) ? (text as NodeId) : null;
}

/** Returns null when `text` is not a valid name (see isName). */
export function parseClusterId(text: string): ClusterId | null {
  return isName(text) ? (text as ClusterId) : null;
}

/** Casts a string already known to be valid, e.g. a key of a decoded spec. */
export function makeNodeId(text: string): NodeId {
  return text as NodeId;
}

export function makeClusterId(text: string): ClusterId {
  return text as ClusterId;
}

export function makeTerm(value: number): Term {
  return value as Term;
}

/** The term after `term`. */
export function nextTerm(term: Term): Term {
  return (term + 1) as Term;
}

export function makeRevision(value: number): Revision {
  return value as Revision;
}

export function makeTimeline(value: number): Timeline {
  return value as Timeline;
}

export function makeMonoMs(value: number): MonoMs {
  return value as MonoMs;
}

export function makeWallMs(value: number): WallMs {
  return value as WallMs;
}

/** `at` moved by `ms` (may be negative). */
export function addMono(at: MonoMs, ms: number): MonoMs {
  return (at + ms) as MonoMs;
}

/** The two clocks read at one moment: deadlines use `mono`, texts use `wall`. */
export interface Now {
  readonly mono: MonoMs;
  readonly wall: WallMs;
}
