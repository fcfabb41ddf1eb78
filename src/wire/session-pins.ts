/** What ties a session to the primary: when it begins, and when it is over. */
import { EFFECT } from './classification.ts';
import { forgetOwnSettings } from './own-settings.ts';
import { PIN, type SessionState, renewText } from './session-state.ts';

const { opaque } = EFFECT;

/** Statements that can end a pin, or bring functions of another kind. */
export const ENDS =
  EFFECT.discardAll |
  EFFECT.discardTemp |
  EFFECT.unlisten |
  EFFECT.unlistenAll |
  EFFECT.advisoryUnlock |
  EFFECT.advisoryUnlockAll |
  EFFECT.deallocate |
  EFFECT.deallocateAll |
  EFFECT.closeCursor |
  EFFECT.closeAllCursors |
  EFFECT.resetAll |
  EFFECT.catalog;

/** Statements that can make a pin. */
export const MAKES = EFFECT.temp | EFFECT.listen | EFFECT.advisoryLock | EFFECT.declareHold | EFFECT.prepare | opaque | EFFECT.pin;

/** As soon as a statement is seen that could make something, before it is known whether it will. */
export function setPins(state: SessionState, effects: number): void {
  if ((effects & MAKES) === 0) return;
  state.inspected = false;
  if ((effects & EFFECT.temp) !== 0) state.pins |= PIN.temp;
  if ((effects & EFFECT.listen) !== 0) state.pins |= PIN.listen;
  if ((effects & EFFECT.advisoryLock) !== 0) state.pins |= PIN.advisoryLock;
  if ((effects & EFFECT.declareHold) !== 0) state.pins |= PIN.heldCursor;
  if ((effects & EFFECT.prepare) !== 0) state.pins |= PIN.sqlPrepared;
  if ((effects & EFFECT.pin) !== 0) state.pins |= PIN.forever;
  if ((effects & opaque) !== 0) {
    state.pins |= PIN.opaque;
    state.uncertain = true;
    if (state.ownSettings) {
      state.ownSettings = false;
      renewText(state);
    }
  }
}

/** Which statements the server has is not known any more, until all are taken away. */
export function loseStatements(state: SessionState): void {
  state.prepared.lost = true;
  state.pins |= PIN.tooMuch;
  setPins(state, opaque);
}

/** No transaction is open: what statements have ended is over, unless the cycle failed or something else is on its way. */
export function endPins(state: SessionState): void {
  const { ended } = state;
  if ((ended & EFFECT.catalog) !== 0) state.catalogChanges++;
  if (state.failed || state.made || state.requests.count > 0) {
    state.uncertain ||= state.pins !== 0;
    return;
  }
  if ((ended & EFFECT.discardAll) !== 0) {
    state.pins &= PIN.forever | PIN.confused | (state.settings.overflow || state.prepared.lost ? PIN.tooMuch : 0);
    state.uncertain = false;
  }
  if ((ended & EFFECT.discardTemp) !== 0) state.pins &= ~PIN.temp;
  if ((ended & EFFECT.unlistenAll) !== 0) state.pins &= ~PIN.listen;
  if ((ended & EFFECT.advisoryUnlockAll) !== 0) state.pins &= ~PIN.advisoryLock;
  if ((ended & EFFECT.closeAllCursors) !== 0) state.pins &= ~PIN.heldCursor;
  if ((ended & EFFECT.deallocateAll) !== 0) state.pins &= ~PIN.sqlPrepared;
  if ((ended & (EFFECT.discardAll | EFFECT.resetAll)) !== 0 && !state.ownSettings) {
    state.ownSettings = true;
    forgetOwnSettings(state.own);
    state.pins &= ~PIN.hiddenSettings;
    renewText(state);
  }
  // One of several was ended: whether it was the last one, the primary knows.
  if ((ended & EFFECT.unlisten) !== 0 && (state.pins & PIN.listen) !== 0) state.uncertain = true;
  if ((ended & EFFECT.advisoryUnlock) !== 0 && (state.pins & PIN.advisoryLock) !== 0) state.uncertain = true;
  if ((ended & EFFECT.closeCursor) !== 0 && (state.pins & PIN.heldCursor) !== 0) state.uncertain = true;
  if ((ended & EFFECT.deallocate) !== 0 && (state.pins & PIN.sqlPrepared) !== 0) state.uncertain = true;
}
