/** Keeps a session's state by the messages of both directions. See session-state.ts for what the caller must do. */
import { EFFECT, ROUTE } from './classification.ts';
import type { Classifier } from './classifier.ts';
import { classify, classifyUnknown } from './classify.ts';
import { ABOUT, type Texts, createTexts, readAbout, readBind, readExecute, readParse } from './frontend.ts';
import {
  type Prepared,
  beginParse,
  bindPortal,
  closePortals,
  confirmPrepared,
  fillPrepared,
  findPortal,
  findPrepared,
  keepParse,
  isOnServer,
  isWhatWasMeant,
  register,
  removeAll,
  removeName,
  renewNames,
  unregister,
} from './prepared.ts';
import { LOWER } from './names.ts';
import { noteOwnSettings } from './own-settings.ts';
import { BACKEND, FRONTEND, TRANSACTION } from './protocol.ts';
import { NOBODY, REQUEST, type Request, dropSecond, firstRequest, insertRequest, pushRequest, requestAt, takeRequest } from './requests.ts';
import { ENDS, MAKES, endPins, loseStatements, setPins } from './session-pins.ts';
import { PIN, type SessionState, textSettings } from './session-state.ts';
import { type SettingChange, commitChanges, dropChanges, readChange } from './session-settings.ts';

/** Used by one call at a time. */
const texts: Texts = createTexts();
const { write, opaque } = EFFECT;

/**
 * A complete message of the client (`bytes[bodyAt…end]` is its body; `bodyAt` −1: it was too long to be kept). Nothing of it has been sent yet. Afterwards
 * `state.batch` says what the messages of the present cycle ask for together.
 */
export function noteClientMessage(state: SessionState, c: Classifier, type: number, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.copyIn) {
    // Source: manual, "COPY Operations" (55.2.6): Flush and Sync are ignored, everything else ends the COPY.
    if (type === FRONTEND.copyData || type === FRONTEND.sync || type === FRONTEND.flush) return;
    state.copyIn = false;
  }
  if (state.batch.complete) beginBatch(state);
  switch (type) {
    case FRONTEND.query:
      noteQuery(state, c, bytes, bodyAt, end);
      return;
    case FRONTEND.functionCall: {
      demand(state, ROUTE.primary, write | opaque);
      state.batch.complete = true;
      setPins(state, opaque);
      push(state, REQUEST.functionCall).effects = write | opaque;
      return;
    }
    case FRONTEND.parse:
      noteParse(state, c, bytes, bodyAt, end);
      return;
    case FRONTEND.bind:
      noteBind(state, bytes, bodyAt, end);
      return;
    case FRONTEND.describe:
      noteDescribe(state, bytes, bodyAt, end);
      return;
    case FRONTEND.execute:
      noteExecute(state, bytes, bodyAt, end);
      return;
    case FRONTEND.close:
      noteClose(state, bytes, bodyAt, end);
      return;
    case FRONTEND.sync:
      state.skipping = false;
      push(state, REQUEST.sync);
      state.batch.complete = true;
      return;
    case FRONTEND.flush:
      state.batch.flushed = true;
      return;
    default:
  }
}

/** The requests that nobody has got yet go to the server `owner` (a number of the caller, 0 or more). */
export function giveTo(state: SessionState, owner: number): void {
  for (let i = state.requests.count - 1; i >= 0; i--) {
    const request = requestAt(state.requests, i);
    if (request === null || request.owner !== NOBODY) return;
    request.owner = owner;
  }
}

/** The caller sends the Parse of a statement before the present batch, to a server that does not have it; the client does not hear of it. */
export function noteOwnParse(state: SessionState, prepared: Prepared): void {
  const request = insertRequest(state.requests, REQUEST.parse);
  request.swallow = true;
  request.prepared = prepared;
}

/** The server that the client must hear next; −1 when nothing is awaited, or what is awaited was not sent yet. */
export function answeringServer(state: SessionState): number {
  return firstRequest(state.requests)?.owner ?? NOBODY;
}

function beginBatch(state: SessionState): void {
  const { batch } = state;
  batch.route = ROUTE.any;
  batch.effects = 0;
  batch.reason = 0;
  batch.hint = 0;
  batch.access = 0;
  batch.isolation = 0;
  batch.requests = 0;
  batch.flushed = false;
  batch.complete = false;
}

function push(state: SessionState, kind: number): Request {
  state.batch.requests++;
  return pushRequest(state.requests, kind);
}

function demand(state: SessionState, route: number, effects: number): void {
  if (route > state.batch.route) state.batch.route = route;
  state.batch.effects |= effects;
}

function noteQuery(state: SessionState, c: Classifier, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (bodyAt < 0) classifyUnknown(c);
  else classify(c, bytes, bodyAt, end - 1, textSettings(state));
  const { into } = c;
  const change = readChange(bytes, into);
  const effects = change === 'unclear' ? into.effects | opaque : into.effects;
  const request = push(state, REQUEST.query);
  request.effects = effects;
  request.change = change === 'unclear' ? null : change;
  request.name = nameToDeallocate(c, bytes);
  if ((effects & EFFECT.execute) !== 0) noteSqlExecute(state, c, bytes);
  setPins(state, effects);
  if ((effects & opaque) !== 0 && bodyAt >= 0) noteOwnSettings(state.own, bytes, bodyAt, end - 1);
  demand(state, into.route, effects);
  const { batch } = state;
  batch.reason = into.reason;
  batch.hint = into.hint;
  batch.access = into.access;
  batch.isolation = into.isolation;
  batch.complete = true;
}

/** EXECUTE can run a statement that was prepared by the protocol; what such a one leaves in the session is not followed. */
function noteSqlExecute(state: SessionState, c: Classifier, bytes: Uint8Array): void {
  if (state.prepared.named.size === 0 && state.prepared.server.size === 0) return;
  const name = foldName(bytes.slice(c.into.nameAt, c.into.nameEnd), c.into.nameQuoted);
  const known = findPrepared(state.prepared, name, 0, name.length);
  if (known !== null && (known.effects & ~write) !== 0) loseStatements(state);
}

/** As the server compares it: in lower case unless it was quoted. */
function nameToDeallocate(c: Classifier, bytes: Uint8Array): Uint8Array | null {
  const { into } = c;
  if ((into.effects & EFFECT.deallocate) === 0) return null;
  return foldName(bytes.slice(into.nameAt, into.nameEnd), into.nameQuoted);
}

function foldName(name: Uint8Array, quoted: boolean): Uint8Array {
  return quoted ? name : name.map((byte) => LOWER[byte] as number);
}

function noteParse(state: SessionState, c: Classifier, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.skipping) return;
  const request = push(state, REQUEST.parse);
  if (bodyAt < 0 || !readParse(bytes, bodyAt, end, texts)) {
    // Under which name it was, and what it says, is not known: what runs without being known here runs on the primary.
    state.prepared.lost = true;
    state.pins |= PIN.tooMuch;
    demand(state, ROUTE.primary, 0);
    return;
  }
  const prepared = beginParse(state.prepared, bytes, texts.firstAt, texts.firstEnd);
  classify(c, bytes, texts.secondAt, texts.secondEnd, textSettings(state));
  const change = readChange(bytes, c.into);
  const known = change === 'unclear' ? { effects: c.into.effects | opaque, change: null } : { effects: c.into.effects, change };
  if ((known.effects & opaque) !== 0) noteOwnSettings(state.own, bytes, texts.secondAt, texts.secondEnd);
  fillPrepared(prepared, c.into, { ...known, deallocates: nameToDeallocate(c, bytes) });
  keepParse(state.prepared, prepared, bytes, bodyAt, end);
  register(state.prepared, prepared);
  if (state.prepared.lost) state.pins |= PIN.tooMuch;
  request.prepared = prepared;
  request.version = state.prepared.unnamedVersion;
  takeUp(state, prepared);
}

/** What a batch wants because of one of its statements. */
function takeUp(state: SessionState, prepared: Prepared | null): void {
  const { batch } = state;
  if (prepared === null) {
    demand(state, ROUTE.primary, 0);
    return;
  }
  demand(state, prepared.route, 0);
  if (batch.reason === 0) batch.reason = prepared.reason;
  if (prepared.hint !== 0 && batch.hint !== 1) batch.hint = prepared.hint;
  if (prepared.access !== 0) batch.access = prepared.access;
  if (prepared.isolation !== 0) batch.isolation = prepared.isolation;
}

function noteBind(state: SessionState, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.skipping) return;
  const request = push(state, REQUEST.bind);
  if (bodyAt < 0 || !readBind(bytes, bodyAt, end, texts)) {
    closePortals(state.prepared);
    demand(state, ROUTE.primary, 0);
    return;
  }
  const prepared = findPrepared(state.prepared, bytes, texts.secondAt, texts.secondEnd);
  bindPortal(state.prepared, bytes, texts.firstAt, texts.firstEnd, prepared);
  request.prepared = prepared;
  request.version = state.prepared.unnamedVersion;
  if (prepared === null) request.name = bytes.slice(texts.secondAt, texts.secondEnd);
  takeUp(state, prepared);
}

function noteDescribe(state: SessionState, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.skipping) return;
  push(state, REQUEST.describe);
  if (bodyAt < 0 || !readAbout(bytes, bodyAt, end, texts)) {
    demand(state, ROUTE.primary, 0);
    return;
  }
  const find = bytes[bodyAt] === ABOUT.statement ? findPrepared : findPortal;
  takeUp(state, find(state.prepared, bytes, texts.firstAt, texts.firstEnd));
}

function noteExecute(state: SessionState, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.skipping) return;
  const request = push(state, REQUEST.execute);
  const known = bodyAt >= 0 && readExecute(bytes, bodyAt, end, texts);
  const prepared = known ? findPortal(state.prepared, bytes, texts.firstAt, texts.firstEnd) : null;
  takeUp(state, prepared);
  request.effects = prepared === null ? write | opaque : prepared.effects;
  request.change = prepared?.change ?? null;
  request.name = prepared?.deallocates ?? null;
  state.batch.effects |= request.effects;
  setPins(state, request.effects);
}

function noteClose(state: SessionState, bytes: Uint8Array, bodyAt: number, end: number): void {
  if (state.skipping) return;
  const request = push(state, REQUEST.close);
  if (bodyAt < 0 || !readAbout(bytes, bodyAt, end, texts)) {
    demand(state, ROUTE.primary, 0);
    return;
  }
  if (bytes[bodyAt] === ABOUT.portal) {
    takeUp(state, findPortal(state.prepared, bytes, texts.firstAt, texts.firstEnd));
    bindPortal(state.prepared, bytes, texts.firstAt, texts.firstEnd, null);
    return;
  }
  request.name = bytes.slice(texts.firstAt, texts.firstEnd);
  const prepared = findPrepared(state.prepared, bytes, texts.firstAt, texts.firstEnd);
  if (prepared === null) return;
  request.prepared = prepared;
  unregister(state.prepared, prepared);
}

/** What becomes of a message of a server. */
export const ANSWER = {
  forward: 0,
  /** It answers a request that was not the client's. */
  swallow: 1,
  /** It is not this server's turn: keep it, and read no more from it until `answeringServer` says so. */
  later: 2,
} as const;

/**
 * A message of the server `owner`, not yet passed on. `first` is the first byte of the body (`FrameWalker.first`); `bodyAt` −1 when the body is not there in one piece,
 * which matters for CommandComplete only (then the tag is not read, and the session is inspected).
 */
export function noteServerMessage(
  state: SessionState,
  message: {
    readonly owner: number;
    readonly type: number;
    readonly bytes: Uint8Array;
    readonly bodyAt: number;
    readonly end: number;
    readonly first: number;
  },
): number {
  const { type } = message;
  if (type === BACKEND.noticeResponse || type === BACKEND.notificationResponse || type === BACKEND.parameterStatus) return ANSWER.forward;
  const front = firstRequest(state.requests);
  if (front === null) return ANSWER.forward;
  if (front.owner !== message.owner) return ANSWER.later;
  const answer = front.swallow ? ANSWER.swallow : ANSWER.forward;
  switch (type) {
    case BACKEND.parseComplete:
      if (expect(state, front, REQUEST.parse) && front.prepared !== null && !front.swallow)
        confirmPrepared(state.prepared, front.prepared, front.version);
      takeRequest(state.requests);
      return answer;
    case BACKEND.bindComplete:
      if (expect(state, front, REQUEST.bind)) checkBound(state, front);
      takeRequest(state.requests);
      return answer;
    case BACKEND.closeComplete:
      if (expect(state, front, REQUEST.close) && front.name !== null) removeName(state.prepared, front.name);
      takeRequest(state.requests);
      return answer;
    case BACKEND.rowDescription:
    case BACKEND.noData:
      if (front.kind === REQUEST.describe) takeRequest(state.requests);
      return answer;
    case BACKEND.commandComplete:
      completeStatement(state, front, message.bytes, message.bodyAt, message.end);
      if (front.kind === REQUEST.execute) takeRequest(state.requests);
      return answer;
    case BACKEND.emptyQueryResponse:
    case BACKEND.portalSuspended:
      if (front.kind === REQUEST.execute) takeRequest(state.requests);
      return answer;
    case BACKEND.copyInResponse:
    case BACKEND.copyBothResponse:
      state.copyIn = true;
      // A Sync that is on its way already is thrown away by a server that reads CopyData.
      if (front.kind === REQUEST.execute && requestAt(state.requests, 1)?.kind === REQUEST.sync) dropSecond(state.requests);
      return answer;
    case BACKEND.errorResponse:
      failRequest(state, front);
      // An error is for the client whoever asked: the rest of its batch is not done.
      return ANSWER.forward;
    case BACKEND.readyForQuery:
      if (front.kind !== REQUEST.sync && front.kind !== REQUEST.query && front.kind !== REQUEST.functionCall) state.pins |= PIN.confused;
      takeRequest(state.requests);
      finishCycle(state, message.first);
      return answer;
    default:
      return answer;
  }
}

function expect(state: SessionState, front: Request, kind: number): boolean {
  if (front.kind === kind) return true;
  state.pins |= PIN.confused;
  return false;
}

/** A batch that failed can make a name mean another statement than the one that a later batch, sent before that was known, was judged by. */
function checkBound(state: SessionState, front: Request): void {
  const { prepared } = state;
  const meant =
    front.prepared === null ? front.name === null || !isOnServer(prepared, front.name) : isWhatWasMeant(prepared, front.prepared, front.version);
  if (!meant) loseStatements(state);
}

const COMMIT = Uint8Array.from('COMMIT', (c) => c.charCodeAt(0));
const ROLLBACK = Uint8Array.from('ROLLBACK', (c) => c.charCodeAt(0));

function isTag(tag: Uint8Array, bytes: Uint8Array, at: number, end: number): boolean {
  if (end - at !== tag.length + 1) return false;
  for (let i = 0; i < tag.length; i++) if (bytes[at + i] !== tag[i]) return false;
  return true;
}

/** Behind them a lost connection leaves the outcome unknown. */
const SETTLES = EFFECT.commit | EFFECT.rollback | EFFECT.twoPhase;
function completeStatement(state: SessionState, front: Request, bytes: Uint8Array, bodyAt: number, end: number): void {
  const { settings } = state;
  if (bodyAt < 0) setPins(state, opaque);
  else if (isTag(COMMIT, bytes, bodyAt, end)) commitChanges(settings);
  else if (isTag(ROLLBACK, bytes, bodyAt, end)) {
    // ROLLBACK TO takes back a part of the changes; which one is not kept here.
    if ((front.effects & EFFECT.savepoint) === 0) dropChanges(settings);
    else if (settings.open.length > 0) setPins(state, opaque);
    if (state.ended !== 0) state.uncertain = true;
  }
  if ((front.effects & EFFECT.twoPhase) !== 0 && settings.open.length > 0) {
    dropChanges(settings);
    setPins(state, opaque);
  }
  if ((front.effects & SETTLES) !== 0 || ((front.effects & write) !== 0 && state.status === TRANSACTION.idle)) state.unsettled = true;
  if (front.change !== null) noteChange(state, front.change);
  state.ended |= front.effects & ENDS;
  if ((front.effects & MAKES) !== 0) state.made = true;
  if ((front.effects & (EFFECT.deallocateAll | EFFECT.discardAll)) !== 0) removeAll(state.prepared);
  if (front.name !== null) removeName(state.prepared, front.name);
}

/** Changes of one transaction that are remembered; a session with more of them stays on the primary. */
const MAX_OPEN_CHANGES = 200;

function noteChange(state: SessionState, change: SettingChange): void {
  if (state.settings.open.length < MAX_OPEN_CHANGES) state.settings.open.push(change);
  else state.pins |= PIN.tooMuch;
}

/** In the extended protocol everything up to the next Sync is passed over. */
function failRequest(state: SessionState, front: Request): void {
  const { requests, prepared } = state;
  state.failed = true;
  state.copyIn = false;
  if (front.kind === REQUEST.query || front.kind === REQUEST.functionCall || front.kind === REQUEST.sync) return;
  let next: Request | null = front;
  for (; next !== null && next.kind !== REQUEST.sync; next = firstRequest(requests)) takeRequest(requests);
  if (next === null) state.skipping = true;
  const underWay: { parsed: Prepared | null; closed: Uint8Array | null }[] = [];
  for (let i = 0; i < requests.count; i++) {
    const request = requestAt(requests, i);
    if (request === null || request.swallow) continue;
    if (request.kind === REQUEST.parse && request.prepared !== null && request.prepared !== prepared.unnamed)
      underWay.push({ parsed: request.prepared, closed: null });
    if (request.kind === REQUEST.close && request.name !== null) underWay.push({ parsed: null, closed: request.name });
  }
  renewNames(prepared, underWay);
}

function finishCycle(state: SessionState, status: number): void {
  const { settings } = state;
  state.status = status;
  state.copyIn = false;
  if (status === TRANSACTION.idle) {
    closePortals(state.prepared);
    if (state.failed) dropChanges(settings);
    else commitChanges(settings);
    if (settings.overflow) state.pins |= PIN.tooMuch;
    if (state.ended !== 0) endPins(state);
    state.ended = 0;
    state.made = false;
  }
  state.failed = false;
  state.unsettled = false;
}
