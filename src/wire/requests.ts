/**
 * The requests of a session that are not answered yet, oldest first: which answer belongs to which request, and which server gives it.
 * Records are reused, so that a session in its stride allocates nothing.
 */
import type { Prepared } from './prepared.ts';
import type { SettingChange } from './session-settings.ts';

export const REQUEST = { query: 0, functionCall: 1, parse: 2, bind: 3, describe: 4, execute: 5, close: 6, sync: 7 } as const;

/** Owner of a request that was not given to a server yet. */
export const NOBODY = -1;

export interface Request {
  kind: number;
  /** The server that was asked: a number of the caller, or NOBODY. */
  owner: number;
  /** `EFFECT` of the statement that runs. */
  effects: number;
  /** The answer is not for the client: the request was not its own. */
  swallow: boolean;
  /** Of parse, bind and close: the statement, and for the unnamed one which of its Parses was the last. */
  prepared: Prepared | null;
  version: number;
  /** Of a statement that changes a setting. */
  change: SettingChange | null;
  /** Of DEALLOCATE and Close, and of a Bind of an unknown statement: the name. */
  name: Uint8Array | null;
}

export interface Requests {
  /** Who gets what is pushed: NOBODY, or the one server of a caller that has no other. */
  owner: number;
  ring: Request[];
  head: number;
  count: number;
}

/** A client that has more requests under way is not read any more until answers come. */
export const MAX_REQUESTS = 16_384;

export function createRequests(owner: number = NOBODY): Requests {
  return { owner, ring: [], head: 0, count: 0 };
}

/** A blank record at the end; the caller fills it. */
export function pushRequest(requests: Requests, kind: number): Request {
  if (requests.count === requests.ring.length) grow(requests);
  const at = (requests.head + requests.count) & (requests.ring.length - 1);
  const request = requests.ring[at] as Request;
  requests.count++;
  return blank(request, kind, requests.owner);
}

/** A blank record before the first that has no owner yet (all records behind it have none either). */
export function insertRequest(requests: Requests, kind: number): Request {
  const added = pushRequest(requests, kind);
  const { ring, head, count } = requests;
  const mask = ring.length - 1;
  let i = count - 1;
  for (; i > 0 && (ring[(head + i - 1) & mask] as Request).owner === NOBODY; i--) ring[(head + i) & mask] = ring[(head + i - 1) & mask] as Request;
  ring[(head + i) & mask] = added;
  return added;
}

function blank(request: Request, kind: number, owner: number): Request {
  request.kind = kind;
  request.owner = owner;
  request.effects = 0;
  request.swallow = false;
  request.prepared = null;
  request.version = 0;
  request.change = null;
  request.name = null;
  return request;
}

function grow(requests: Requests): void {
  const { ring, head, count } = requests;
  const larger: Request[] = [];
  for (let i = 0; i < count; i++) larger.push(ring[(head + i) & (ring.length - 1)] as Request);
  const size = Math.max(8, ring.length * 2);
  while (larger.length < size)
    larger.push({ kind: 0, owner: NOBODY, effects: 0, swallow: false, prepared: null, version: 0, change: null, name: null });
  requests.ring = larger;
  requests.head = 0;
}

/** The oldest; null when there is none. It stays valid until it was taken and the next one is pushed. */
export function firstRequest(requests: Requests): Request | null {
  return requests.count === 0 ? null : (requests.ring[requests.head] as Request);
}

/** The request `index` places behind the oldest. */
export function requestAt(requests: Requests, index: number): Request | null {
  return index >= requests.count ? null : (requests.ring[(requests.head + index) & (requests.ring.length - 1)] as Request);
}

export function takeRequest(requests: Requests): void {
  if (requests.count === 0) return;
  requests.head = (requests.head + 1) & (requests.ring.length - 1);
  requests.count--;
}

/** Takes the one behind the oldest out. */
export function dropSecond(requests: Requests): void {
  const { ring, head } = requests;
  const mask = ring.length - 1;
  const dropped = ring[(head + 1) & mask] as Request;
  for (let i = 1; i < requests.count - 1; i++) ring[(head + i) & mask] = ring[(head + i + 1) & mask] as Request;
  ring[(head + requests.count - 1) & mask] = dropped;
  requests.count--;
}

/** A session that is quiet keeps no records. */
export function forgetRequests(requests: Requests): void {
  requests.ring = [];
  requests.head = 0;
  requests.count = 0;
}
