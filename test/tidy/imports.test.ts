import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Source, partOf, sources } from './sources.ts';

/** The table of docs/architecture.md: what each part may import, itself always included. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  wire: [],
  base: ['core'],
  store: ['core', 'base'],
  controller: ['core', 'base', 'store'],
  api: ['core', 'base'],
  agent: ['core', 'wire', 'base', 'store', 'controller'],
  proxy: ['core', 'wire', 'base', 'store'],
  server: ['core', 'base', 'store', 'api', 'controller'],
  demo: ['core', 'base', 'api'],
  cli: ['core', 'base', 'api', 'demo'],
  console: ['core', 'api'],
  main: ['base', 'agent', 'server', 'proxy', 'cli'],
};

/** Packages that a part may use; a part that is not named may use any. */
const PACKAGES: Readonly<Record<string, readonly RegExp[]>> = {
  core: [],
  wire: [],
};

describe('imports', () => {
  test('follow the table of parts', () => {
    const wrong: string[] = [];
    for (const source of sources) {
      const part = partOf(source.path);
      const allowed = MAY_IMPORT[part];
      if (allowed === undefined) wrong.push(`${source.path}: the part "${part}" is not in the table`);
      for (const { target } of source.imports) {
        if (target === null) continue;
        const other = partOf(target);
        if (!target.startsWith('src/')) wrong.push(`${source.path} imports ${target}: nothing in src may import what is not shipped`);
        else if (other !== part && allowed?.includes(other) === false)
          wrong.push(`${source.path} imports ${target}: ${part} may not import ${other}`);
      }
    }
    assert.deepEqual(wrong, []);
  });

  test('of core and wire name no package and no module of Node', () => {
    const wrong = sources.flatMap((source) => {
      const allowed = PACKAGES[partOf(source.path)];
      if (allowed === undefined) return [];
      return source.imports
        .filter((one) => one.target === null && !allowed.some((pattern) => pattern.test(one.specifier)))
        .map((one) => `${source.path} imports ${one.specifier}`);
    });
    assert.deepEqual(wrong, []);
  });

  test('of the schema of the API need nothing but core, so that the console can use it', () => {
    const wrong = sources
      .filter((source) => source.path === 'src/api/schema.ts')
      .flatMap((source) => source.imports.filter((one) => one.target !== null && !/^src\/(core|api)\//.test(one.target)).map((one) => one.specifier));
    assert.deepEqual(wrong, []);
  });

  test('of the guard stay small: Node itself, and files that need nothing else', () => {
    const entry = sources.find((source) => source.path === 'src/agent/guard/guard-main.ts');
    assert.ok(entry !== undefined);
    const packages = [...closure(entry)].flatMap((source) =>
      source.imports
        .filter((one) => !one.typeOnly && one.target === null && !one.specifier.startsWith('node:'))
        .map((one) => `${source.path} imports ${one.specifier}`),
    );
    assert.deepEqual(packages, []);
  });

  test('end in files that exist', () => {
    const paths = new Set(sources.map((source) => source.path));
    const missing = sources.flatMap((source) =>
      source.imports
        .filter((one) => one.target !== null && /\.tsx?$/.test(one.target) && !paths.has(one.target))
        .map((one) => `${source.path} imports ${one.specifier}`),
    );
    // Generated code is in JavaScript form with declarations beside it.
    assert.deepEqual(missing, []);
  });

  test('make no cycle', () => {
    assert.deepEqual(findCycles(), []);
  });
});

function byPath(): ReadonlyMap<string, Source> {
  return new Map(sources.map((source) => [source.path, source]));
}

function closure(entry: Source): ReadonlySet<Source> {
  const all = byPath();
  const seen = new Set<Source>();
  const open = [entry];
  while (open.length > 0) {
    const source = open.pop();
    if (source === undefined || seen.has(source)) continue;
    seen.add(source);
    for (const one of source.imports) {
      const next = one.target === null || one.typeOnly ? undefined : all.get(one.target);
      if (next !== undefined) open.push(next);
    }
  }
  return seen;
}

/** Cycles of imports that happen when the program loads; types are erased, and a dynamic import comes later. */
function findCycles(): readonly string[] {
  const all = byPath();
  const state = new Map<string, 'open' | 'done'>();
  const cycles: string[] = [];
  const visit = (source: Source, trail: readonly string[]): void => {
    state.set(source.path, 'open');
    for (const one of source.imports) {
      if (one.target === null || one.typeOnly || one.dynamic) continue;
      const next = all.get(one.target);
      if (next === undefined) continue;
      const known = state.get(next.path);
      if (known === 'open') cycles.push([...trail.slice(trail.indexOf(next.path)), next.path].join(' → '));
      else if (known === undefined) visit(next, [...trail, next.path]);
    }
    state.set(source.path, 'done');
  };
  for (const source of sources) if (!state.has(source.path)) visit(source, [source.path]);
  return cycles;
}
