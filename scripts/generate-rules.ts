/** Writes docs/rules.md from the rule table; `--check` only compares (exit code 1 when it is stale). */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { renderRules } from '../src/core/cluster/render-rules.ts';

const file = fileURLToPath(new URL('../docs/rules.md', import.meta.url));
const wanted = renderRules();

if (process.argv.includes('--check')) {
  let present = '';
  try {
    present = readFileSync(file, 'utf8');
  } catch (cause) {
    process.stderr.write(`${file} cannot be read: ${String(cause)}\n`);
  }
  if (present !== wanted) {
    process.stderr.write('docs/rules.md is stale: run "node scripts/generate-rules.ts"\n');
    process.exitCode = 1;
  }
} else {
  writeFileSync(file, wanted);
  process.stdout.write(`${file} written\n`);
}
