import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NOTHING_TOLD, isUrgent, urgentParts } from '../../src/agent/publish.ts';
import { makeTerm } from '../../src/core/ids.ts';
import type { NodeReport, PostgresReport } from '../../src/core/report.ts';
import type { HandoverPart } from '../../src/core/state.ts';
import { blankReport, id } from '../core/cluster/picture.ts';

const report = (change: Partial<NodeReport> = {}, postgres: Partial<PostgresReport> = {}): NodeReport => {
  const blank = blankReport(id('n1'));
  return { ...blank, ...change, postgres: { ...blank.postgres, ...postgres } };
};
const PARTS: readonly HandoverPart[] = ['none', 'watching', 'taking', 'left'];
/** In which parts the change from one report to the other is told at once. */
const toldIn = (now: NodeReport, before = report()): readonly HandoverPart[] =>
  PARTS.filter((part) => isUrgent(urgentParts(now), urgentParts(before), part));

test('the first report is told at once, an equal one never', () => {
  assert.deepEqual(
    PARTS.filter((part) => isUrgent(urgentParts(report()), NOTHING_TOLD, part)),
    PARTS,
  );
  assert.deepEqual(toldIn(report()), []);
});

test('news waits while a handover is under way', () => {
  assert.deepEqual(toldIn(report({ trustedReachable: true })), ['none']);
  assert.deepEqual(toldIn(report({}, { streamingFrom: id('n2') })), ['none']);
});

test('of the node that takes over its opening is told, or what keeps it from that, and not each step of the way', () => {
  const taken = report({ leaseTerm: makeTerm(2) });
  assert.deepEqual(toldIn(taken), ['none', 'watching', 'left']);
  const promoted = report({ leaseTerm: makeTerm(2) }, { role: 'primary' });
  assert.equal(toldIn(promoted, taken).includes('taking'), false);
  assert.equal(toldIn(report({ leaseTerm: makeTerm(2), open: true }, { role: 'primary' }), promoted).includes('taking'), true);
  for (const end of [
    report({}, { state: 'crashed' }),
    report({ refusedTerms: [makeTerm(2)] }),
    report({
      activity: {
        kind: 'failed',
        goalId: 'g',
        step: 'promote',
        code: 'promote.behind',
        message: '',
        attempts: 1,
        atWallMs: report().atWallMs,
        retrying: true,
      },
    }),
  ])
    assert.equal(toldIn(end).includes('taking'), true);
});

test('of the node that has handed over the end of its last processes is not told at once, a lease or a failure is', () => {
  const stopping = report({}, { state: 'stopping', role: 'primary' });
  assert.deepEqual(toldIn(report({}, { state: 'stopped', role: 'primary' }), stopping), ['none', 'watching', 'taking']);
  assert.equal(toldIn(report({ leaseTerm: makeTerm(3) }, { state: 'stopping', role: 'primary' }), stopping).includes('left'), true);
});
