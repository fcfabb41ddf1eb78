/**
 * Prepared statements and portals of a session, by name: what a Bind or Execute is about, without looking at the text again.
 *
 * There are two views. What the client may use next (`named`) changes when a message is sent: a Bind right behind a Parse must find it. What a server
 * has (`server`) changes when it answers. When a batch fails, the first is made anew from the second and from what is still under way.
 */
import { type ByteMap, clearBytes, createByteMap, deleteBytes, eachBytes, getBytes, setBytes } from './byte-map.ts';
import { type Classification, EFFECT, REASON, ROUTE } from './classification.ts';
import type { SettingChange } from './session-settings.ts';

export interface Prepared {
  /** Without its zero; empty: the unnamed one. */
  readonly name: Uint8Array;
  /** The whole Parse message, to prepare it elsewhere: `parse[0…parseLength]`. Null when it is not kept: then it can only run where it is. */
  parse: Uint8Array | null;
  parseLength: number;
  route: number;
  effects: number;
  /** The same by its own text alone, while it stands for another of its name too (`register`). */
  ownRoute: number;
  ownEffects: number;
  reason: number;
  hint: number;
  access: number;
  isolation: number;
  change: SettingChange | null;
  /** Of DEALLOCATE: the name. */
  deallocates: Uint8Array | null;
  /** A server has it under its name (for the unnamed one: see `unnamedVersion`). */
  confirmed: boolean;
  /** The caller's own bits: on which of its connections it is prepared. */
  preparedOn: number;
}

export interface PreparedTable {
  readonly named: ByteMap<Prepared>;
  readonly server: ByteMap<Prepared>;
  readonly unnamed: Prepared;
  /** The unnamed statement is there. */
  hasUnnamed: boolean;
  /** Counts the Parses of the unnamed statement; which of them was the last that a server confirmed. */
  unnamedVersion: number;
  unnamedOnServer: number;
  readonly portals: ByteMap<Prepared>;
  unnamedPortal: Prepared | null;
  /** Bytes of Parse messages that are kept for named statements. */
  keptBytes: number;
  /** A statement is known to a server of which too little is known here to prepare it elsewhere. */
  lost: boolean;
  /** Rises whenever a server has another set of named statements. */
  changes: number;
}

/** Memory that a session may make the proxy use for texts of prepared statements; what is beyond stays on its server. */
export const MAX_KEPT_BYTES = 1 << 20;
/** A longer unnamed statement runs where it was sent first: it is used once, and its memory would stay. */
const MAX_UNNAMED_BYTES = 1 << 16;
/** Servers hold as many as they have memory for; here they would make a session's look-ups and its restoring slow. */
const MAX_NAMED = 20_000;
const MAX_PORTALS = 1000;

export function createPreparedTable(): PreparedTable {
  return {
    named: createByteMap(),
    server: createByteMap(),
    unnamed: createPrepared(new Uint8Array(0)),
    hasUnnamed: false,
    unnamedVersion: 0,
    unnamedOnServer: 0,
    portals: createByteMap(),
    unnamedPortal: null,
    keptBytes: 0,
    lost: false,
    changes: 0,
  };
}

function createPrepared(name: Uint8Array): Prepared {
  return {
    name,
    parse: null,
    parseLength: 0,
    route: ROUTE.primary,
    effects: 0,
    ownRoute: ROUTE.primary,
    ownEffects: 0,
    reason: REASON.notUnderstood,
    hint: 0,
    access: 0,
    isolation: 0,
    change: null,
    deallocates: null,
    confirmed: false,
    preparedOn: 0,
  };
}

/** The record for a Parse of the name `bytes[from…to]`, to be filled and registered. */
export function beginParse(table: PreparedTable, bytes: Uint8Array, from: number, to: number): Prepared {
  if (from !== to) return createPrepared(bytes.slice(from, to));
  table.hasUnnamed = true;
  table.unnamedVersion++;
  table.unnamed.preparedOn = 0;
  return table.unnamed;
}

/** What begins a pin; what ends one must be certain. */
const EFFECTS_OF_BOTH =
  EFFECT.write | EFFECT.opaque | EFFECT.temp | EFFECT.listen | EFFECT.advisoryLock | EFFECT.declareHold | EFFECT.prepare | EFFECT.pin;

/**
 * From now on the name means this statement. When the name is taken, a server refuses the Parse, unless the older one fails or is taken away before: until
 * that is known, the older one stands for both.
 */
export function register(table: PreparedTable, prepared: Prepared): void {
  if (prepared === table.unnamed) return;
  const older = getBytes(table.named, prepared.name, 0, prepared.name.length);
  if (older !== null) {
    older.route = ROUTE.primary;
    older.effects |= prepared.effects & EFFECTS_OF_BOTH;
  } else if (table.named.size >= MAX_NAMED) table.lost = true;
  else {
    setBytes(table.named, prepared.name, prepared);
    table.keptBytes += prepared.parseLength;
  }
}

/** A server has prepared it. `version`: `unnamedVersion` when the Parse was sent. */
export function confirmPrepared(table: PreparedTable, prepared: Prepared, version: number): void {
  if (prepared === table.unnamed) {
    table.unnamedOnServer = version;
    return;
  }
  const older = getBytes(table.server, prepared.name, 0, prepared.name.length);
  if (older !== null) older.confirmed = false;
  prepared.confirmed = true;
  table.changes++;
  setBytes(table.server, prepared.name, prepared);
}

/** Whether a server that has just bound the statement has bound the one that was meant when the Bind was sent. */
export function isWhatWasMeant(table: PreparedTable, prepared: Prepared, version: number): boolean {
  return prepared === table.unnamed ? version === table.unnamedOnServer : prepared.confirmed;
}

/** Whether a server has a statement of this name. */
export function isOnServer(table: PreparedTable, name: Uint8Array): boolean {
  return getBytes(table.server, name, 0, name.length) !== null;
}

/** Takes over what the classification of the text says; `effects` are those of the classification, or more. */
export function fillPrepared(
  prepared: Prepared,
  into: Classification,
  { effects, change, deallocates }: { effects: number; change: SettingChange | null; deallocates: Uint8Array | null },
): void {
  prepared.route = prepared.ownRoute = into.route;
  prepared.effects = prepared.ownEffects = effects;
  prepared.reason = into.reason;
  prepared.hint = into.hint;
  prepared.access = into.access;
  prepared.isolation = into.isolation;
  prepared.change = change;
  prepared.deallocates = deallocates;
}

/** Keeps the body of the Parse message `bytes[at…end]` with its header. The unnamed statement's memory is used again for the next one. */
export function keepParse(table: PreparedTable, prepared: Prepared, bytes: Uint8Array, at: number, end: number): void {
  const length = end - at + 5;
  const named = prepared !== table.unnamed;
  prepared.parseLength = 0;
  if (named ? table.keptBytes + length > MAX_KEPT_BYTES : length > MAX_UNNAMED_BYTES) {
    prepared.parse = null;
    if (named) table.lost = true;
    return;
  }
  const space = prepared.parse;
  const target = space !== null && space.length >= length && space.length <= length * 4 + 1024 ? space : new Uint8Array(length);
  target[0] = 0x50;
  target[1] = (length - 1) >>> 24;
  target[2] = (length - 1) >>> 16;
  target[3] = (length - 1) >>> 8;
  target[4] = length - 1;
  target.set(bytes.subarray(at, end), 5);
  prepared.parse = target;
  prepared.parseLength = length;
}

/** Null: no such statement, as far as is known here. */
export function findPrepared(table: PreparedTable, bytes: Uint8Array, from: number, to: number): Prepared | null {
  if (from === to) return table.hasUnnamed ? table.unnamed : null;
  return getBytes(table.named, bytes, from, to);
}

export function bindPortal(table: PreparedTable, bytes: Uint8Array, from: number, to: number, prepared: Prepared | null): void {
  if (from === to) table.unnamedPortal = prepared;
  else if (prepared === null || table.portals.size >= MAX_PORTALS) deleteBytes(table.portals, bytes.slice(from, to));
  else setBytes(table.portals, bytes.slice(from, to), prepared);
}

export function findPortal(table: PreparedTable, bytes: Uint8Array, from: number, to: number): Prepared | null {
  return from === to ? table.unnamedPortal : getBytes(table.portals, bytes, from, to);
}

export function closePortals(table: PreparedTable): void {
  table.unnamedPortal = null;
  if (table.portals.size > 0) clearBytes(table.portals);
}

/** The client closes it: what it sends from now on cannot mean it. */
export function unregister(table: PreparedTable, prepared: Prepared): void {
  if (prepared === table.unnamed) table.hasUnnamed = false;
  else if (getBytes(table.named, prepared.name, 0, prepared.name.length) === prepared) {
    deleteBytes(table.named, prepared.name);
    table.keptBytes -= prepared.parseLength;
  }
}

/** A server has taken the name away. A statement of the same name that was sent behind that stays known. */
export function removeName(table: PreparedTable, name: Uint8Array): void {
  const gone = name.length === 0 ? null : getBytes(table.server, name, 0, name.length);
  if (gone === null) return;
  gone.confirmed = false;
  table.changes++;
  deleteBytes(table.server, name);
  unregister(table, gone);
}

/** After DEALLOCATE ALL and DISCARD ALL. */
export function removeAll(table: PreparedTable): void {
  eachBytes(table.server, (prepared) => {
    prepared.confirmed = false;
    unregister(table, prepared);
  });
  if (table.server.size > 0) table.changes++;
  clearBytes(table.server);
  if (table.named.size === 0) table.lost = false;
}

/** A batch has failed: `under way` are the Parses and Closes that are still to be answered, in their order. */
export function renewNames(
  table: PreparedTable,
  underWay: readonly { readonly parsed: Prepared | null; readonly closed: Uint8Array | null }[],
): void {
  clearBytes(table.named);
  table.keptBytes = 0;
  const anew = (prepared: Prepared): void => {
    prepared.route = prepared.ownRoute;
    prepared.effects = prepared.ownEffects;
    register(table, prepared);
  };
  eachBytes(table.server, anew);
  for (const { parsed, closed } of underWay) {
    if (parsed !== null) anew(parsed);
    const known = closed === null || closed.length === 0 ? null : getBytes(table.named, closed, 0, closed.length);
    if (known !== null) unregister(table, known);
  }
}

/** The named statements that a server has, in no order that matters. */
export function listPrepared(table: PreparedTable): readonly Prepared[] {
  const all: Prepared[] = [];
  eachBytes(table.server, (prepared) => all.push(prepared));
  return all;
}

/** A connection is gone or was reset: nothing is prepared there any more. */
export function forgetConnection(table: PreparedTable, bit: number): void {
  table.unnamed.preparedOn &= ~bit;
  for (const view of [table.named, table.server])
    eachBytes(view, (prepared) => {
      prepared.preparedOn &= ~bit;
    });
}
