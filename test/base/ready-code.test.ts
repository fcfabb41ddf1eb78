import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { READY_CODE_FLAGS } from '../../src/base/ready-code.ts';

const READY_CODE = new URL('../../src/base/ready-code.ts', import.meta.url).href;

/** Bytes of compiled code after a module was loaded of which nothing was called. */
function compiledBytes(module: string, before: string): number {
  const script = `${before}
    await import(${JSON.stringify(module)});
    const { getHeapCodeStatistics } = await import('node:v8');
    console.log(getHeapCodeStatistics().bytecode_and_metadata_size);`;
  return Number(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }));
}

test('what is loaded afterwards is compiled before its first call', (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-ready-'));
  context.after(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  const functions = Array.from({ length: 2000 }, (_, i) => `export function f${i}(a, b) { const c = a * ${i} + b; return c > 10 ? [c, a] : { b }; }`);
  const module = join(directory, 'many.mjs');
  writeFileSync(module, functions.join('\n'));
  const plain = compiledBytes(module, '');
  const ready = compiledBytes(module, `const { keepCodeReady } = await import(${JSON.stringify(READY_CODE)}); keepCodeReady();`);
  assert.ok(ready > plain + 2000 * 20, `${ready} bytes against ${plain}: 2000 functions that nobody called`);
});

test('every flag is known to this V8', () => {
  const options = execFileSync(process.execPath, ['--v8-options'], { encoding: 'utf8' });
  for (const flag of READY_CODE_FLAGS) assert.match(options, new RegExp(`^ +--${flag.replace(/^--(no-)?/, '')} `, 'm'), flag);
});
