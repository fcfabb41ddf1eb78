/** How a client says that another store answers than the one that it knew first. */
import type { StoreError } from './store.ts';

/** Incarnations of the store that answers, and of the one that this client met first. */
export interface Foreign {
  readonly seen: string;
  readonly known: string;
}

const FOREIGN = /^the store answers as incarnation (\S+), this process knows incarnation (\S+): it is not the same store$/;

export function foreignMessage({ seen, known }: Foreign): string {
  return `the store answers as incarnation ${seen}, this process knows incarnation ${known}: it is not the same store`;
}

/** Another store answers than the one that this client knew first: it refuses every call from then on. Null: the error says something else. */
export function readForeign(error: StoreError): Foreign | null {
  const [, seen, known] = (error.kind === 'refused' && FOREIGN.exec(error.message)) || [];
  return seen === undefined || known === undefined ? null : { seen, known };
}
