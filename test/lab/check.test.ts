import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkHistory } from '../../src/demo/check.ts';
import type { HistoryEvent } from '../../src/demo/history.ts';

/** `n1/1 10 20 30` is: node n1 on timeline 1 acknowledges rows at these milliseconds. Rows are numbered in order of the text. */
function history(...lines: readonly string[]): HistoryEvent[] {
  let n = 0;
  return lines.flatMap((line) => {
    const [where = '', ...times] = line.split(' ');
    const [node = '', timeline = '1'] = where.split('/');
    return times.map((time): HistoryEvent => {
      n += 1;
      return { kind: 'ack', client: 'recorder', n, node, timeline: Number(timeline), sentMs: Number(time) - 1, atMs: Number(time) };
    });
  });
}

const whole = { faultMs: null, endMs: 0, present: null };

describe('the verdict over a history', () => {
  it('takes the longest gap between acknowledgements as the outage', () => {
    assert.equal(checkHistory(history('n1/1 10 20 30', 'n2/2 530 540'), whole).outageMs, 500);
  });
  it('leaves out gaps that ended before the fault', () => {
    assert.equal(checkHistory(history('n1/1 10 400 410', 'n2/2 610'), { ...whole, faultMs: 405, endMs: 610 }).outageMs, 200);
  });
  it('counts a gap that never closed up to the end of the observation', () => {
    assert.equal(checkHistory(history('n1/1 10 20'), { ...whole, faultMs: 15, endMs: 9020 }).outageMs, 9000);
  });
  it('knows no outage when nothing was ever acknowledged', () => {
    assert.equal(checkHistory([], whole).outageMs, null);
  });
  it('calls acknowledged rows lost that the final primary does not have', () => {
    assert.equal(checkHistory(history('n1/1 10 20 30'), { ...whole, present: new Set([1, 3, 99]) }).lostRows, 1);
  });
  it('does not count an unknown row as lost, but as a client error', () => {
    const unknown: HistoryEvent = { kind: 'unknown', client: 'recorder', n: 9, node: 'n1', sentMs: 1, atMs: 2, message: 'no answer' };
    const verdict = checkHistory([...history('n1/1 10'), unknown], { ...whole, present: new Set([1]) });
    assert.deepEqual([verdict.lostRows, verdict.clientErrors], [0, 1]);
  });
  it('does not count a refusal to a probe as a client error', () => {
    const refused: HistoryEvent = { kind: 'failed', client: 'probe', n: 1, node: 'n2', sentMs: 1, atMs: 2, message: 'read-only' };
    assert.equal(checkHistory([refused], whole).clientErrors, 0);
  });
  it('sees no double primary when one stops before the other opens', () => {
    const verdict = checkHistory(history('n1/1 10 60 110', 'n2/2 120 170'), whole);
    assert.deepEqual([verdict.doubleWritableMs, verdict.staleAckRows], [0, 0]);
  });
  it('measures the time in which two nodes acknowledged (I19)', () => {
    const verdict = checkHistory(history('n1/1 10 60 110 160', 'n2/2 100 150 200'), whole);
    assert.deepEqual([verdict.doubleWritableMs, verdict.staleAckRows], [60, 2]);
  });
  it('counts a single late row of the old primary as at least one millisecond', () => {
    const verdict = checkHistory(history('n1/1 10', 'n2/2 1000 1050 1100', 'n1/1 1070'), whole);
    assert.deepEqual([verdict.doubleWritableMs, verdict.staleAckRows], [1, 1]);
  });
  it('counts rows of an old primary as stale even when nobody else writes at that moment', () => {
    assert.equal(checkHistory(history('n1/1 10', 'n2/2 1000', 'n1/1 5000'), whole).staleAckRows, 1);
  });
  it('counts rows of a second node on the same timeline as stale', () => {
    assert.equal(checkHistory(history('n1/2 10 20', 'n2/2 1000'), whole).staleAckRows, 1);
  });
  it('lets the primary move back and forth without calling it double', () => {
    const verdict = checkHistory(history('n1/1 10 60', 'n2/2 500 550', 'n1/3 900 950'), whole);
    assert.deepEqual([verdict.doubleWritableMs, verdict.staleAckRows], [0, 0]);
  });
  it('counts the common time of three nodes once', () => {
    assert.equal(checkHistory(history('n1/1 0 100', 'n2/2 0 100', 'n3/3 0 100'), whole).doubleWritableMs, 100);
  });
});
