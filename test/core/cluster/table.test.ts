import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { renderRules } from '../../../src/core/cluster/render-rules.ts';
import { marks, ruleGroups, rules } from '../../../src/core/cluster/rules.ts';
import { handledGoals } from '../../../src/core/node/decide.ts';

const HERE = import.meta.dirname;

test('every rule id is unique, and named situation.outcome', () => {
  const ids = rules.map((rule) => rule.id);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*$/);
  assert.deepEqual(
    ruleGroups.flatMap((group) => group.rules.map((rule) => rule.id)),
    ids,
  );
});

test('every rule id that the sources write into events, history or a decision is in the table', () => {
  const known = new Set([...rules, ...marks].map((one) => one.id));
  const src = `${HERE}/../../../src`;
  const unknown: string[] = [];
  let seen = 0;
  for (const part of ['core', 'controller', 'server']) {
    for (const file of readdirSync(`${src}/${part}`, { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts')) continue;
      // `rule:`, `rule =`, `rule ===`, a ternary behind it, and an id after which a rule is asked.
      for (const line of readFileSync(`${src}/${part}/${file}`, 'utf8').split('\n')) {
        if (!/\brule\b\??\s*(:|=)/.test(line)) continue;
        for (const [, name = ''] of line.matchAll(/'([a-z]+(?:-[a-z]+)*\.[a-z]+(?:-[a-z]+)*)'/g)) {
          seen += 1;
          if (!known.has(name)) unknown.push(`${part}/${file}: ${name}`);
        }
      }
    }
  }
  assert.ok(seen > 10, 'the sources are not searched');
  assert.deepEqual(unknown, []);
});

test('every rule is expected by a test of this folder', () => {
  const texts = readdirSync(HERE)
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => readFileSync(`${HERE}/${name}`, 'utf8'));
  const missing = rules.map((rule) => rule.id).filter((id) => !texts.some((text) => text.includes(`'${id}'`)));
  assert.deepEqual(missing, []);
});

test('docs/rules.md is what the table says', () => {
  const present = readFileSync(`${HERE}/../../../docs/rules.md`, 'utf8');
  assert.ok(present === renderRules(), 'docs/rules.md is stale: run "node scripts/generate-rules.ts"');
});

test('every goal that a rule can give has an executor (Q1, I19)', () => {
  const source = readFileSync(`${HERE}/../../../src/core/cluster/goals.ts`, 'utf8');
  const kinds = ['none', 'create', 'adopt', 'primary', 'vote', 'promote', 'standby', 'handover', 'fenced', 'stopped', 'removed'] as const;
  for (const kind of kinds) {
    assert.ok(source.includes(`'${kind}'`), `${kind} is not a goal that is given`);
    assert.ok(handledGoals.includes(kind), `no executor for ${kind}`);
  }
  assert.deepEqual(
    handledGoals.filter((kind) => !(kinds as readonly string[]).includes(kind)),
    [],
  );
});
