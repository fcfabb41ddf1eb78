import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { findLines, listFiles, partOf, readSource, sources, withoutComments } from './sources.ts';

const OWN_CODE = [
  'src/**/*.ts',
  'src/**/*.tsx',
  'test/**/*.ts',
  'lab/**/*.ts',
  'bench/**/*.ts',
  'sim/**/*.ts',
  'scripts/**/*.ts',
  'scripts/*.mjs',
] as const;
/** Written by a generator from the .proto; nobody reads it. */
const isGenerated = (path: string): boolean => path.includes('/gen/') || path.includes('/generated/') || /_pb\.(ts|js)$/.test(path);
const files = listFiles(...OWN_CODE).filter((path) => !isGenerated(path));
const code = sources.filter((source) => !isGenerated(source.path)).map((source) => ({ ...source, text: withoutComments(source.text) }));

describe('the sources', () => {
  test('read clocks only in base/clock.ts', () => {
    // `new Date(x)` formats a time that is known; without an argument it reads the clock.
    const clock = /\bDate\.now\b|\bperformance\.(now|timeOrigin)\b|\bprocess\.(hrtime|uptime)\b|\bnew Date\(\s*\)/;
    assert.deepEqual(
      code.filter((source) => source.path !== 'src/base/clock.ts').flatMap((source) => findLines(source, clock)),
      [],
    );
  });

  test('of core and wire are pure: no randomness, timers, promises, environment or output', () => {
    const impure =
      /\bMath\.random\b|\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b|\basync\s+(?:function\b|\(|\w+\s*=>|\w+\()|\bawait\s|\bnew Promise\b|\bprocess\.|\bconsole\.|\bfetch\(|\bcrypto\.|\bnew Date\b/;
    const pure = code.filter((source) => ['core', 'wire'].includes(partOf(source.path)));
    assert.ok(pure.length > 5);
    assert.deepEqual(
      pure.flatMap((source) => findLines(source, impure)),
      [],
    );
  });

  test('of core hold no classes', () => {
    assert.deepEqual(
      code.filter((source) => partOf(source.path) === 'core').flatMap((source) => findLines(source, /^\s*(export\s+)?(abstract\s+)?class\s/)),
      [],
    );
  });

  test('use one word a thing: primary and standby', () => {
    // Said in two pieces, so that this file passes its own test.
    const banned = new RegExp(`\\b(${['mas', 'ter'].join('')}|${['sla', 've'].join('')})s?\\b`, 'i');
    const texts = [...files, ...listFiles('docs/**/*.md', '*.md', 'src/**/*.{proto,sql}')];
    assert.deepEqual(
      // `ip link set DEVICE … BRIDGE` has such a keyword, and there is no other.
      texts.flatMap((path) => findLines(readSource(path), banned)).filter((line) => !line.includes("'link', 'set'")),
      [],
    );
  });

  test('have at most 500 lines a file', () => {
    const long = files.map((path) => ({ path, lines: readSource(path).text.split('\n').length - 1 })).filter(({ lines }) => lines > 500);
    assert.deepEqual(long, []);
  });

  test('swallow no error without saying why', () => {
    const empty = /catch\s*(\([^)]*\))?\s*\{\s*\}/;
    const ignored = /\.catch\(\s*\(\s*\)\s*=>\s*(\{\s*\}|undefined|null)\s*\)/;
    const unsaid = sources.flatMap((source) => {
      const lines = source.text.replaceAll(/catch(\s*\([^)]*\))?\s*\{\s*\n\s*\}/g, 'catch {}\n').split('\n');
      return lines.flatMap((line, index) => {
        const reason = /\/\/|\*\//.test(line) || /^\s*(\/\/|\*)|\*\/\s*$/.test(lines[index - 1] ?? '');
        // The tail of a queue (its caller gets the error itself), and saying goodbye to a connection.
        const harmless = /^\s*\w+ = \w+\.catch\(|\.(end|close)\(\)\.catch\(/.test(line);
        return empty.test(line) || (ignored.test(line) && !reason && !harmless) ? [`${source.path}:${index + 1}: ${line.trim()}`] : [];
      });
    });
    assert.deepEqual(unsaid, []);
  });

  test('draw the same cases each time where they are tests', () => {
    const drawn = files.filter((path) => path.startsWith('test/') && /from 'fast-check'/.test(readSource(path).text));
    assert.deepEqual(
      drawn.filter((path) => !/\/fixed-seed\.ts'|configureGlobal/.test(readSource(path).text)),
      [],
    );
  });

  test('are named in kebab-case', () => {
    assert.deepEqual(
      files.filter((path) => !/^[a-z0-9./-]+$/.test(path)),
      [],
    );
  });

  test('silence no type error and skip no test', () => {
    const words = new RegExp(
      [
        `@ts-${'ignore'}`,
        `@ts-${'expect-error'}`,
        `\\bas ${'any'}\\b`,
        `\\b(test|it|describe)\\.${'only'}\\(`,
        `\\b(test|it|describe)\\.${'skip'}\\(`,
      ].join('|'),
    );
    assert.deepEqual(
      files.flatMap((path) => findLines(readSource(path), words)),
      [],
    );
  });
});
