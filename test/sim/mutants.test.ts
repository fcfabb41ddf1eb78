import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { applyPatches } from '../../sim/mutants/apply.ts';
import { mutants } from '../../sim/mutants/mutants.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

describe('the deliberate defects', () => {
  for (const mutant of mutants) {
    test(`${mutant.name} still finds its places in the source`, () => {
      for (const file of new Set(mutant.patches.map((patch) => patch.file))) {
        const text = readFileSync(`${root}${file}`, 'utf8');
        assert.notEqual(
          applyPatches(
            text,
            mutant.patches.filter((patch) => patch.file === file),
          ),
          text,
        );
      }
    });
  }

  test('have names of their own', () => {
    assert.equal(new Set(mutants.map((mutant) => mutant.name)).size, mutants.length);
  });
});
