/** What the check of acknowledgements says of an old primary beside a newer one (I1), told by hand: a run meets the moments too seldom. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAcknowledgementChecks } from '../../sim/checks/acknowledgements.ts';
import type { SettingChecks } from '../../sim/checks/settings.ts';
import type { WriterChecks } from '../../sim/checks/writers.ts';
import type { Clients, Commit } from '../../sim/clients.ts';
import type { World } from '../../sim/world/world.ts';

const ROW: Commit = { id: 7, bytes: 180, sentAt: 0, servedAt: null, acknowledged: null };

/** n2 acknowledges a row while n3 may be open in a higher term. */
function acknowledge(
  newer: ReturnType<WriterChecks['supersededBy']>,
  n3HasIt: boolean,
): { readonly broken: string | null; readonly protected: boolean } {
  let serve: (commit: Commit, node: string) => void = () => undefined;
  const world: Pick<World, 'state'> & { readonly nodes: ReadonlyMap<string, unknown> } = {
    state: () => null,
    nodes: new Map([['n3', { database: { hasDurably: () => n3HasIt } }]]),
  };
  const clients: Pick<Clients, 'onServed'> = { onServed: (callback) => (serve = callback) };
  const writers: Pick<WriterChecks, 'isExcepted' | 'supersededBy' | 'onOpen'> = {
    isExcepted: () => false,
    supersededBy: () => newer,
    onOpen: () => undefined,
  };
  const settings: SettingChecks = { altered: () => undefined, isForeign: () => false, look: () => undefined };
  const checks = createAcknowledgementChecks(world as World, clients as Clients, { writers: writers as WriterChecks, settings });
  serve(ROW, 'n2');
  return { broken: checks.broken()?.message ?? null, protected: checks.isProtected(ROW.id) };
}

const BROKEN = 'I1: n2 acknowledged row 7 although n3 is open in a higher term';

test('an old primary acknowledges nothing beside a newer one, but what that one had before it opened on the quorum path (I1, I4)', () => {
  assert.deepEqual(acknowledge({ node: 'n3', byQuorum: true }, true), { broken: null, protected: true });
  assert.deepEqual(acknowledge({ node: 'n3', byQuorum: true }, false), { broken: BROKEN, protected: false });
  assert.deepEqual(acknowledge({ node: 'n3', byQuorum: false }, true), { broken: BROKEN, protected: false });
  assert.deepEqual(acknowledge(null, false), { broken: null, protected: false });
});
