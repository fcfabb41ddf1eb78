import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { bytesBetween, formatLsn, makeLsn, maxLsn, parseLsn } from '../../src/core/lsn.ts';
import '../fixed-seed.ts';

const anyLsn = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(makeLsn);

describe('an LSN', () => {
  test('is written as PostgreSQL writes it', () => {
    assert.equal(formatLsn(makeLsn(0n)), '0/0');
    assert.equal(formatLsn(makeLsn(0x3000060n)), '0/3000060');
    assert.equal(formatLsn(makeLsn((1n << 64n) - 1n)), 'FFFFFFFF/FFFFFFFF');
  });

  test('survives text and back, for every 64-bit value', () => {
    fc.assert(fc.property(anyLsn, (lsn) => parseLsn(formatLsn(lsn)) === lsn));
  });

  test('is compared as a number, never as text: 0/9000000 lies before 0/10000000 (H31)', () => {
    const low = parseLsn('0/9000000');
    const high = parseLsn('0/10000000');
    assert.ok(low !== null && high !== null);
    assert.ok(low < high);
    assert.ok('0/9000000' > '0/10000000', 'text order says the opposite');
    assert.equal(maxLsn(low, null, high), high);
  });

  test('the greatest of several does not depend on their order (H31)', () => {
    fc.assert(fc.property(fc.array(anyLsn, { minLength: 1 }), (all) => maxLsn(...all) === [...all].sort((a, b) => (a < b ? -1 : 1)).at(-1)));
  });

  test('the greatest of none is null', () => {
    assert.equal(maxLsn(), null);
    assert.equal(maxLsn(null, null), null);
  });

  for (const text of ['', '0', '0/', '/0', '0/G', '0/123456789', '123456789/0', ' 0/0', '0/0 ', '-0/1', '0/0\n', '0x0/1']) {
    test(`${JSON.stringify(text)} is none`, () => assert.equal(parseLsn(text), null));
  }

  test('a distance is exact across the 4 GiB boundary and negative backwards', () => {
    const from = parseLsn('0/FFFFFFFF');
    const to = parseLsn('1/1');
    assert.ok(from !== null && to !== null);
    assert.equal(bytesBetween({ from, to }), 2);
    assert.equal(bytesBetween({ from: to, to: from }), -2);
  });
});
