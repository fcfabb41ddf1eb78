/** What the check of final positions (I6) takes for a vote of an attempt, and what not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeJson } from '../../src/core/decode.ts';
import { type AcknowledgementChecks, createAcknowledgementChecks } from '../../sim/checks/acknowledgements.ts';
import type { ClusterState } from '../../src/core/state.ts';
import { lsnOf, picture, id } from '../core/cluster/picture.ts';

/** The final vote of n2 for term 2 says 0/5000; its WAL ends at 0/6000. */
const VOTING = picture(`term 1 primary n1 attempt 2 vote
  n1 dead
  n2 detached vote2@0/5000 @0/6000
  n3 dead`);

/** Only the parts of a world that the check looks at: n2, a standby with WAL up to 0/6000. */
function makeChecks(): AcknowledgementChecks {
  const database = { server: { disk: { directory: { end: { lsn: Number(lsnOf('0/6000')) } } }, core: { run: { role: 'standby' } } } };
  const nodes = new Map([
    ['n1', { name: 'n1', database: null }],
    ['n2', { name: 'n2', database }],
  ]);
  const world = { nodes };
  const writers = { onOpen: () => undefined, wasPromotedByHand: () => false };
  return createAcknowledgementChecks(world as never, { onServed: () => undefined } as never, { writers, settings: {} } as never);
}

const report = encodeJson(VOTING.reports[id('n2')]?.report);
const attempted: ClusterState = VOTING.state;

test('a final position that is not the end of the WAL breaks I6 while its term is attempted', () => {
  const checks = makeChecks();
  checks.takeState(attempted);
  checks.takeReport(report);
  assert.match(checks.broken()?.message ?? '', /n2 voted for term 2 with the final position/);
});

test('an attempt that a backup brings back after its term was opened, or given to the old primary, is none (4.10)', () => {
  const opened = picture('term 2 primary n1 lease n1/2\nn1 primary\nn2 standby\nn3 standby').state;
  const given = picture('term 1 primary n1 attempt 2 promote:n1\nn1 fenced\nn2 detached\nn3 dead').state;
  for (const since of [opened, given]) {
    const checks = makeChecks();
    for (const state of [attempted, since, attempted]) checks.takeState(state);
    checks.takeReport(report);
    assert.equal(checks.broken(), null);
    // The next attempt counts again.
    const next = picture('term 2 primary n1 attempt 3 vote\nn1 dead\nn2 detached vote3@0/5000\nn3 dead');
    checks.takeState(next.state);
    checks.takeReport(encodeJson(next.reports[id('n2')]?.report));
    assert.notEqual(checks.broken(), null);
  }
});
