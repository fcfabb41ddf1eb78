/** The chain of WAL records against the plain way of walking it, and synchronous_standby_names as PostgreSQL reads it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { confirmedPositions, parseSyncNames, syncPriority } from '../../../sim/model/postgres/sync-rep.ts';
import { type WalRecord, appendRecord, commonAncestor, contains, firstRecord, recordAt } from '../../../sim/model/postgres/wal.ts';
import { createRandom } from '../../../sim/random.ts';

function path(end: WalRecord): readonly WalRecord[] {
  const all: WalRecord[] = [];
  for (let at: WalRecord | null = end; at !== null; at = at.prev) all.push(at);
  return all;
}

describe('a chain of WAL records', () => {
  test('finds ancestors, positions and the point where two histories part as a walk does', () => {
    const random = createRandom(7n);
    const records: WalRecord[] = [firstRecord()];
    // Mostly one line, sometimes a branch from an older record.
    for (let i = 0; i < 400; i++) {
      const from = random.chance(0.9) ? (records.at(-1) as WalRecord) : random.pick(records);
      records.push(appendRecord(from, 1 + random.int(3), 'write', { bytes: 8 + random.int(100) }));
    }
    for (let i = 0; i < 2000; i++) {
      const [a, b] = [random.pick(records), random.pick(records)];
      const [ofA, ofB] = [path(a), path(b)];
      assert.equal(contains(a, b), ofA.includes(b));
      assert.equal(commonAncestor(a, b), ofA.find((one) => ofB.includes(one)) ?? null);
      const lsn = b.lsn + random.int(3) - 1;
      assert.equal(recordAt(a, lsn), ofA.find((one) => one.lsn <= lsn) ?? ofA.at(-1));
    }
  });

  test('two clusters have nothing in common', () => {
    assert.equal(commonAncestor(appendRecord(firstRecord(), 1, 'write'), firstRecord()), null);
  });
});

describe('synchronous_standby_names', () => {
  test('is read in all its forms', () => {
    assert.equal(parseSyncNames('  '), null);
    assert.deepEqual(parseSyncNames('n1, n2'), { method: 'first', count: 1, names: ['n1', 'n2'] });
    assert.deepEqual(parseSyncNames('2 (n1, n2, n3)'), { method: 'first', count: 2, names: ['n1', 'n2', 'n3'] });
    assert.deepEqual(parseSyncNames('FIRST 1 ("N-1", n2)'), { method: 'first', count: 1, names: ['n-1', 'n2'] });
    assert.deepEqual(parseSyncNames('any 2 ("a""b", *)'), { method: 'any', count: 2, names: ['a"b', '*'] });
    for (const wrong of ['ANY 0 (a)', 'FIRST 1 ()', 'a b']) assert.throws(() => parseSyncNames(wrong), /invalid/, wrong);
  });

  test('gives places in a FIRST list, and one place for all in an ANY list', () => {
    const first = parseSyncNames('FIRST 1 (n2, n3)');
    assert.deepEqual([syncPriority(first, 'n2'), syncPriority(first, 'N3'), syncPriority(first, 'n4')], [1, 2, 0]);
    const any = parseSyncNames('ANY 1 (n2, n3)');
    assert.deepEqual([syncPriority(any, 'n2'), syncPriority(any, 'n3'), syncPriority(null, 'n3')], [1, 1, 0]);
  });

  test('a walsender that is not chosen, or has too few beside it, confirms nothing', () => {
    const at = (priority: number, flush: number) => ({ priority, write: flush, flush, apply: flush });
    const [one, two, three] = [at(1, 30), at(2, 20), at(3, 10)];
    const all = [one, two, three];
    const first = parseSyncNames('FIRST 2 (a, b, c)');
    assert.deepEqual(confirmedPositions(first, one, all), { write: 20, flush: 20, apply: 20 });
    assert.equal(confirmedPositions(first, three, all), null);
    assert.equal(confirmedPositions(first, one, [one]), null);
    const any = parseSyncNames('ANY 2 (a, b, c)');
    assert.deepEqual(confirmedPositions(any, three, all), { write: 20, flush: 20, apply: 20 });
    assert.equal(confirmedPositions(parseSyncNames('ANY 4 (a, b, c, d)'), one, all), null);
  });
});
