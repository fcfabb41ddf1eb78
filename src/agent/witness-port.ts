/** A witness has no PostgreSQL: every operation is refused, every look finds nothing. */
import { type Failure, type Result, err, ok } from '../core/result.ts';
import type { BoundPostgres } from './postgres-port.ts';
import { EMPTY } from './postgres/observe.ts';

const refused: Failure = {
  code: 'witness.no-postgres',
  what: 'a witness runs no PostgreSQL',
  cause: '',
  now: 'nothing was done',
  remedy: 'give this goal to a data node',
  retryable: false,
};
const refuse = (): Promise<Result<never, Failure>> => Promise.resolve(err(refused));

export function createWitnessPort(): BoundPostgres {
  return {
    observe: () => Promise.resolve(EMPTY),
    configuredUpstream: () => Promise.resolve(null),
    initdb: refuse,
    applySettings: () => Promise.resolve(ok({ changed: false })),
    trouble: () => null,
    settingsOutdated: () => false,
    startPrimary: refuse,
    startStandby: refuse,
    stop: () => Promise.resolve(ok('nothing runs')),
    kill: () => Promise.resolve(ok('nothing runs')),
    preparePromotion: () => undefined,
    waitReplay: refuse,
    promote: refuse,
    detach: () => Promise.resolve(ok({ position: null, final: true })),
    follow: refuse,
    rewind: refuse,
    clone: refuse,
    dropData: refuse,
    markOpening: refuse,
    checkpoint: refuse,
    ensureRolesAndSlots: refuse,
    ensureSlots: () => Promise.resolve(ok('')),
    listSlots: () => Promise.resolve([]),
    onGone: () => undefined,
    problems: () => [],
    postmaster: () => null,
    close: () => undefined,
  };
}
