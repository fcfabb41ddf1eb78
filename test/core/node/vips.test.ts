import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type VipFacts, wantedVips } from '../../../src/core/node/vips.ts';
import type { ClusterState, Goal } from '../../../src/core/state.ts';
import { N1, N2, T, makeWallMs, stateWith } from './facts.ts';

const facts = (change: Partial<VipFacts> = {}): VipFacts => ({
  leaseTerm: null,
  open: false,
  running: true,
  storeFresh: true,
  hearsPrimary: true,
  ...change,
});
const primary: Goal = { kind: 'primary', id: 'p', term: T(1), generation: 0, restart: null };
const promote: Goal = { kind: 'promote', id: 'x', term: T(2), requiredLsn: null };
const reads = (node: typeof N1): Partial<ClusterState> => ({
  vips: { ...stateWith(null).vips, read: { node, sinceWallMs: makeWallMs(0), why: '' } },
});
const wish = (change: Partial<VipFacts>, goal: Goal | null, state: Partial<ClusterState> = {}): string => {
  const wanted = wantedVips(facts(change), N1, stateWith(goal, state));
  return `${wanted?.write}/${wanted?.read}`;
};

test('nothing is changed while the state is not known', () => {
  assert.equal(wantedVips(facts(), N1, null), null);
});

test('the write address is wanted under an open lease, and never without one', () => {
  assert.equal(wish({ leaseTerm: T(1), open: true }, primary, { primary: N1 }), 'hold/none');
  assert.equal(wish({ leaseTerm: null, open: true }, primary, { primary: N1 }), 'none/none');
});

test('a candidate asks ahead, and takes it when it is open', () => {
  assert.equal(wish({}, promote), 'none/none');
  assert.equal(wish({ leaseTerm: T(2) }, promote), 'prepare/none');
  assert.equal(wish({ leaseTerm: T(2), open: true }, promote), 'hold/none');
});

test('a primary that is restarted in place keeps it', () => {
  assert.equal(wish({ leaseTerm: T(1), running: false }, primary, { primary: N1 }), 'hold/none');
});

test('one that hands over keeps it until its server is closed', () => {
  const handover: Goal = { kind: 'handover', id: 'h', term: T(1), to: N2 };
  assert.equal(wish({ leaseTerm: T(1), open: true }, handover, { primary: N1 }), 'hold/none');
  assert.equal(wish({ leaseTerm: T(1) }, handover, { primary: N1 }), 'none/none');
});

test('the read address is held by the node that the state names, while PostgreSQL answers there', () => {
  assert.equal(wish({}, null, reads(N1)), 'none/hold');
  assert.equal(wish({}, null, reads(N2)), 'none/none');
  assert.equal(wish({ running: false }, null, reads(N1)), 'none/none');
});

test('a node that hears neither the store nor the primary drops it; one that hears one of them does not', () => {
  assert.equal(wish({ storeFresh: false, hearsPrimary: false }, null, reads(N1)), 'none/none');
  assert.equal(wish({ storeFresh: false }, null, reads(N1)), 'none/hold');
  assert.equal(wish({ hearsPrimary: false }, null, reads(N1)), 'none/hold');
});
