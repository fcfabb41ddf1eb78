/** How a client says that another store answers than the one that it knew first. */
import type { StoreError } from './store.ts';

export const NOT_THE_SAME = 'it is not the same store';

/** Another store answers than the one that this client knew first: it refuses every call from then on. */
export function isForeign(error: StoreError): boolean {
  return error.kind === 'refused' && error.message.endsWith(NOT_THE_SAME);
}
