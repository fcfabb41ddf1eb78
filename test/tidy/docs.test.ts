import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { findErrorCodes } from '../../scripts/error-codes.ts';
import { listFiles, readSource, root } from './sources.ts';

const pages = listFiles('docs/**/*.md', '*.md').map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));

function readPage(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** GitHub's anchor of a heading: lower case, punctuation dropped, blanks to hyphens. */
function anchor(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(/\s/g, '-');
}

describe('the documents', () => {
  test('link to files and headings that exist', () => {
    const broken: string[] = [];
    for (const { path, text } of pages) {
      const prose = text.replaceAll(/```[\s\S]*?```/g, '').replaceAll(/`[^`\n]*`/g, '');
      for (const match of prose.matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g)) {
        const [file = '', heading] = (match[1] ?? '').split('#', 2);
        if (/^[a-z]+:/.test(file)) continue;
        const target = file === '' ? path : join(dirname(path), file);
        if (!existsSync(join(root, target))) broken.push(`${path}: ${match[1]}`);
        else if (heading !== undefined) {
          const headings = [...readPage(target).matchAll(/^#+\s+(.+)$/gm)].map((found) => anchor(found[1] ?? ''));
          if (!headings.includes(decodeURIComponent(heading))) broken.push(`${path}: ${match[1]} (no such heading)`);
        }
      }
    }
    assert.deepEqual(broken, []);
  });

  test('name files of the project that exist', () => {
    const broken: string[] = [];
    for (const { path, text } of pages) {
      for (const match of text.matchAll(/`((?:src|test|lab|scripts|docs)\/[A-Za-z0-9_./-]+)`/g)) {
        const target = (match[1] ?? '').replace(/\/$/, '');
        if (!existsSync(join(root, target))) broken.push(`${path}: ${target}`);
      }
    }
    assert.deepEqual(broken, []);
  });

  test('the README shows the two commands', () => {
    for (const page of ['README.md', 'docs/zh-CN/README.md'])
      for (const command of ['npm run demo', 'npm test']) assert.ok(readPage(page).includes(command), `${page}: ${command}`);
  });

  test('every error code of the sources stands in the list of error codes (npm run errors)', () => {
    const page = readPage('docs/operations/errors.md');
    const codes = findErrorCodes(root);
    assert.ok(codes.length > 50, 'the scan found too few codes to be right');
    assert.deepEqual(
      codes.filter(({ code }) => !page.includes(`| \`${code}\` |`)).map(({ code, file }) => `${code} (${file})`),
      [],
    );
  });

  test('every behaviour that safety rests on is pinned by a test that exists', () => {
    const rows = readPage('docs/contracts.md')
      .split('\n')
      .filter((line) => line.startsWith('| ') && line.includes('`test/'));
    assert.ok(rows.length > 20, `${rows.length} rows`);
    const missing: string[] = [];
    for (const row of rows) {
      const cells = row.split('|').map((cell) => cell.trim());
      const [file = '', title = ''] = [cells[3]?.replaceAll('`', ''), cells[4]];
      if (!existsSync(join(root, file)) || !readPage(file).replaceAll("\\'", "'").includes(title)) missing.push(`${file}: ${title}`);
    }
    assert.deepEqual(missing, []);
  });

  test('decisions are numbered without a gap and have context, choice, price and what would change them', () => {
    const decisions = listFiles('docs/decisions/*.md');
    assert.ok(decisions.length > 0);
    for (const [index, path] of decisions.entries()) {
      assert.match(path, new RegExp(`/${String(index + 1).padStart(4, '0')}-`));
      for (const part of ['## Context', '## Choice', '## Price', '## What would change our mind'])
        assert.ok(readPage(path).includes(part), `${path}: ${part}`);
    }
  });
});

describe('the ids of hazards and invariants in tests', () => {
  // The highest number of each list of what went wrong in other cluster managers.
  const HIGHEST: Readonly<Record<string, number>> = { H: 59, I: 30, Q: 45, Z: 80 };
  test('exist', () => {
    const unknown: string[] = [];
    for (const path of listFiles('test/**/*.ts', 'lab/**/*.ts')) {
      for (const match of readSource(path).text.matchAll(/\(((?:[HIQZ]\d+(?:, ?)?)+)\)/g)) {
        for (const id of (match[1] ?? '').split(/, ?/)) {
          const number = Number(id.slice(1));
          if (number < 1 || number > (HIGHEST[id.charAt(0)] ?? 0)) unknown.push(`${path}: ${id}`);
        }
      }
    }
    assert.deepEqual(unknown, []);
  });
});

test('the lock file names the optional packages of every platform, so that npm ci works on each', () => {
  const packages = (JSON.parse(readPage('package-lock.json')) as { packages: Record<string, { optionalDependencies?: Record<string, string> }> })
    .packages;
  const missing = Object.entries(packages).flatMap(([path, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) => packages[`node_modules/${name}`] === undefined && packages[`${path}/node_modules/${name}`] === undefined,
    ),
  );
  assert.deepEqual(missing, []);
});
