/** The sources as the tidy tests see them: files, their imports, their parts. */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = normalize(join(dirname(fileURLToPath(import.meta.url)), '../..'));

export interface Import {
  /** As written. */
  readonly specifier: string;
  /** Path below the root for a file of ours; null for a package. */
  readonly target: string | null;
  readonly typeOnly: boolean;
  readonly dynamic: boolean;
}

export interface Source {
  /** Below the root, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

const STATIC = /^\s*(import|export)\s+(type\s+)?([^'";]*?from\s+)?'([^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^']+)'\s*\)/g;

export function listFiles(...patterns: readonly string[]): readonly string[] {
  return globSync(patterns, { cwd: root, exclude: (name) => name === 'node_modules' || name === 'dist' }).sort();
}

export function readSource(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8');
  const imports: Import[] = [];
  for (const match of text.matchAll(STATIC)) {
    const names = (match[3] ?? '').replace(/from\s+$/, '').trim();
    // `import { type A, type B }` is erased as a whole, like `import type`.
    const allTypes =
      /^\{.*\}$/s.test(names) &&
      names
        .slice(1, -1)
        .split(',')
        .every((name) => name.trim() === '' || name.trim().startsWith('type '));
    imports.push(toImport(path, match[4] ?? '', { typeOnly: match[2] !== undefined || allTypes, dynamic: false }));
  }
  for (const match of text.matchAll(DYNAMIC)) imports.push(toImport(path, match[1] ?? '', { typeOnly: false, dynamic: true }));
  return { path, text, imports };
}

function toImport(from: string, specifier: string, kind: { typeOnly: boolean; dynamic: boolean }): Import {
  return { specifier, target: specifier.startsWith('.') ? normalize(join(dirname(from), specifier)) : null, ...kind };
}

export const sources: readonly Source[] = listFiles('src/**/*.ts', 'src/**/*.tsx').map(readSource);

/** `agent` of `src/agent/loop.ts`; `main` of `src/main.ts`. */
export function partOf(path: string): string {
  const [, part = ''] = path.split('/');
  return part.replace(/\.ts$/, '');
}

/** Without comments, each replaced by as many line ends as it had, so that line numbers stay. */
export function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, (comment) => '\n'.repeat(comment.split('\n').length - 1)).replaceAll(/(^|\s)\/\/.*$/gm, '$1');
}

/** `file:line: text` of each line that matches. */
export function findLines(source: { path: string; text: string }, pattern: RegExp): readonly string[] {
  const found: string[] = [];
  for (const [index, line] of source.text.split('\n').entries())
    if (pattern.test(line)) found.push(`${source.path}:${index + 1}: ${line.trim().slice(0, 120)}`);
  return found;
}
