import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import * as d from '../../src/core/decode.ts';
import { makeLsn } from '../../src/core/lsn.ts';
import '../fixed-seed.ts';

function errorOf(result: { ok: true } | { ok: false; error: d.DecodeError }): string {
  assert.equal(result.ok, false);
  return d.formatDecodeError(result.error);
}

describe('a decoder', () => {
  const point = d.object({ x: d.integer, tags: d.list(d.text), at: d.nullable(d.lsn), mode: d.withDefault(d.oneOf('a', 'b'), 'a') });

  test('never throws and never lets wrong data through, whatever comes in', () => {
    fc.assert(
      fc.property(fc.anything(), (input) => {
        const result = point(input, '');
        if (result.ok) assert.ok(Number.isInteger(result.value.x) && result.value.tags.every((tag) => typeof tag === 'string'));
      }),
    );
  });

  test('any text is a value or an error, never a crash (Q26)', () => {
    fc.assert(fc.property(fc.string(), (text) => typeof d.decodeJson(point, text).ok === 'boolean'));
    assert.match(errorOf(d.decodeJson(point, '')), /not JSON/);
    assert.match(errorOf(d.decodeJson(point, '{"x":1')), /not JSON/);
  });

  test('names the path of what is wrong', () => {
    assert.equal(errorOf(point({ x: 1, tags: ['a', 5], at: null }, '')), 'tags[1]: expected text, found number 5');
    assert.equal(errorOf(point({ x: 1, at: null }, '')), 'tags: is missing');
    assert.equal(errorOf(d.list(d.object({ p: point }))([{ p: { x: 'no' } }], 'nodes')), 'nodes[0].p.x: expected a number, found string "no"');
  });

  test('absent takes the default; null does not', () => {
    const result = point({ x: 1, tags: [], at: null }, '');
    assert.ok(result.ok);
    assert.equal(result.value.mode, 'a');
    assert.match(errorOf(point({ x: 1, tags: [], at: null, mode: null }, '')), /mode: expected one of a, b, found null/);
  });

  test('numbers keep their bounds; NaN and infinities are refused', () => {
    const decoder = d.number({ min: 1, max: 3, integer: true });
    for (const bad of [0, 4, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '2', null]) assert.equal(decoder(bad, '').ok, false, String(bad));
    for (const good of [1, 2, 3]) assert.equal(decoder(good, '').ok, true);
  });

  test('stored data of a newer version keeps working; a file of people is strict', () => {
    assert.equal(d.object({ a: d.text })({ a: 'x', later: 1 }, '').ok, true);
    assert.equal(errorOf(d.object({ port: d.integer }, 'strict')({ prot: 1 }, 'listen')), 'listen.prot: unknown key (did you mean "port"?)');
    assert.equal(errorOf(d.object({ port: d.integer }, 'strict')({ completelyElse: 1 }, '')), 'completelyElse: unknown key');
  });

  test('a union is chosen by its kind; names of Object.prototype are no kinds', () => {
    const either = d.union({ a: d.object({ kind: d.literal('a'), n: d.integer }), b: d.object({ kind: d.literal('b') }) });
    assert.equal(either({ kind: 'a', n: 1 }, '').ok, true);
    assert.equal(errorOf(either({ kind: 'a', n: 'x' }, 'goal')), 'goal.n: expected a number, found string "x"');
    for (const kind of ['toString', '__proto__', 'constructor', undefined, 5]) assert.equal(either({ kind }, '').ok, false);
  });

  test('a map with a key like __proto__ changes no prototype', () => {
    const result = d.decodeJson(d.record(d.text), '{"__proto__":"x","a":"b"}');
    assert.equal(({} as Record<string, unknown>)['x'], undefined);
    assert.ok(result.ok);
    assert.equal(result.value['a'], 'b');
  });
});

test('JSON writes an LSN, at any depth, in the text form of PostgreSQL, and reads it back', () => {
  const json = d.encodeJson({ a: { lsn: makeLsn(0x100000abcn) }, list: [makeLsn(0n)] });
  assert.equal(json, '{"a":{"lsn":"1/ABC"},"list":["0/0"]}');
  const back = d.decodeJson(d.object({ a: d.object({ lsn: d.lsn }) }), json);
  assert.ok(back.ok);
  assert.equal(back.value.a.lsn, 0x100000abcn);
});

describe('the nearest known word', () => {
  test('is offered when it is near', () => {
    assert.equal(d.suggestion('prot', ['host', 'port']), ' (did you mean "port"?)');
    assert.equal(d.suggestion('DataDirectory', ['dataDirectory']), ' (did you mean "dataDirectory"?)');
  });
  test('is not invented when nothing is near', () => {
    assert.equal(d.suggestion('elephant', ['host', 'port']), '');
    assert.equal(d.suggestion('x', []), '');
  });
});
