/** Writes docs/operations/errors.md from the sources. `--check` writes nothing and fails when the page is out of date. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, findErrorCodes } from './error-codes.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const page = join(root, 'docs/operations/errors.md');

const text = render(findErrorCodes(root));
if (!process.argv.includes('--check')) writeFileSync(page, text);
else if (!existsSync(page) || readFileSync(page, 'utf8') !== text) {
  console.error('docs/operations/errors.md is out of date: run `npm run errors`');
  process.exitCode = 1;
}

function render(codes: readonly ErrorCode[]): string {
  const families = Map.groupBy(codes, (entry) => entry.code.split('.')[0] ?? '');
  const lines = [
    '# Error codes',
    '',
    'Generated from the sources by `npm run errors`; do not edit.',
    '',
    'Each error says what failed, why, what the system does now, and what a person can do. In JSON mode it is an object',
    '`{"error": {code, what, cause, now, remedy}}` on standard error; the code is stable. `…` stands for a value.',
    '',
  ];
  for (const [family, entries] of families) {
    lines.push(`## ${family}`, '', '| code | what | what to do |', '|---|---|---|');
    for (const { code, what, remedy } of entries) lines.push(`| \`${code}\` | ${what} | ${remedy} |`);
    lines.push('');
  }
  return lines.join('\n');
}
