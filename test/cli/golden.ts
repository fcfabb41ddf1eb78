/** Texts kept in files, so that a change is seen in review. PGHERD_UPDATE_GOLDEN=1 writes them anew. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export function assertGolden(name: string, text: string): void {
  const file = fileURLToPath(new URL(`./golden/${name}.txt`, import.meta.url));
  if (process.env['PGHERD_UPDATE_GOLDEN'] === '1') writeFileSync(file, text);
  assert.ok(existsSync(file), `${file} is missing: run the test with PGHERD_UPDATE_GOLDEN=1 and read what it wrote`);
  assert.equal(text, readFileSync(file, 'utf8'));
}
