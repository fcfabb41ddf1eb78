import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { checkConfigText, loadConfig } from '../../src/base/config.ts';
import { list, nullable, number, object, record, text as textValue, withDefault } from '../../src/core/decode.ts';
import { describeFailure } from '../../src/core/result.ts';
import { clusterSpec } from '../../src/core/spec.ts';

const decoder = object(
  {
    node: textValue,
    listen: withDefault(object({ host: withDefault(textValue, '127.0.0.1'), port: number({ integer: true, min: 1, max: 65535 }) }, 'strict'), {
      host: '127.0.0.1',
      port: 8432,
    }),
    dataDirectory: withDefault(nullable(textValue), null),
    names: withDefault(list(textValue), []),
    parameters: withDefault(record(textValue), {}),
  },
  'strict',
);

function failureOf(text: string, env?: Record<string, string>): { code: string; text: string } {
  const result = checkConfigText({ file: 'a.yaml', text, decoder, ...(env === undefined ? {} : { env, envPrefix: 'PGHERD_AGENT_' }) });
  assert.equal(result.ok, false);
  return { code: result.error.code, text: describeFailure(result.error) };
}

function decoded(text: string, env: Record<string, string> = {}): unknown {
  const result = checkConfigText({ file: 'a.yaml', text, decoder, env, envPrefix: 'PGHERD_AGENT_' });
  assert.ok(result.ok, result.ok ? '' : describeFailure(result.error));
  return result.value;
}

describe('an error names line and column of', () => {
  const cases: readonly { what: string; yaml: string; at: string; says: RegExp }[] = [
    {
      what: 'an unknown key, with the nearest known one',
      yaml: 'node: n1\nlisten:\n  prot: 1\n  port: 2\n',
      at: 'a.yaml:3:3',
      says: /unknown key \(did you mean "port"\?\)/,
    },
    { what: 'a value of the wrong type', yaml: 'node: n1\nlisten: { port: http }\n', at: 'a.yaml:2:11', says: /expected a number/ },
    { what: 'a value out of bounds', yaml: 'node: n1\nlisten:\n  port: 70000\n', at: 'a.yaml:3:3', says: /above the maximum 65535/ },
    { what: 'an item of a list', yaml: 'node: n1\nnames:\n  - a\n  - 5\n', at: 'a.yaml:4:5', says: /names\[1\]: expected text/ },
    { what: 'a key with dots', yaml: 'node: n1\nparameters:\n  pg_stat_statements.max: 5\n', at: 'a.yaml:3:3', says: /expected text/ },
    { what: 'the container where a key is missing', yaml: 'node: n1\nlisten:\n  host: a\n', at: 'a.yaml:2:1', says: /listen\.port: is missing/ },
    { what: 'a syntax error', yaml: 'node: n1\nlisten: {\n', at: 'a.yaml:3:1', says: /not YAML/ },
    { what: 'a key that stands twice', yaml: 'node: n1\nnode: n2\n', at: 'a.yaml:2:1', says: /unique/i },
  ];
  for (const { what, yaml, at, says } of cases) {
    test(what, () => {
      const failure = failureOf(yaml);
      assert.ok(failure.text.startsWith(`${at}: `), failure.text);
      assert.match(failure.text, says);
    });
  }

  test('a node of a cluster file', () => {
    const text = 'name: demo\nnodes:\n  - { id: n1, host: a }\n  - { id: N2, host: b }\n';
    const result = checkConfigText({ file: 'cluster.yaml', text, decoder: clusterSpec });
    assert.equal(result.ok, false);
    assert.match(describeFailure(result.error), /^cluster\.yaml:4:7: nodes\[1\]\.id: expected a name/);
  });
});

describe('the environment overrides the file', () => {
  test('words by _, levels by __', () => {
    const value = decoded('node: n1\n', {
      PGHERD_AGENT_LISTEN__PORT: '8500',
      PGHERD_AGENT_DATA_DIRECTORY: '/data',
      PGHERD_AGENT_NAMES: '[a, b]',
      PGHERD_TOKEN: 'x',
    });
    assert.deepEqual(value, { node: 'n1', listen: { host: '127.0.0.1', port: 8500 }, dataDirectory: '/data', names: ['a', 'b'], parameters: {} });
  });

  test('a text that reads as a number stays text where text is wanted', () => {
    assert.equal((decoded('node: n1\n', { PGHERD_AGENT_NODE: '17' }) as { node: string }).node, '17');
  });

  test('and an error in it names the variable', () => {
    assert.match(
      failureOf('node: n1\n', { PGHERD_AGENT_LISTEN__PORT: 'http' }).text,
      /^environment variable PGHERD_AGENT_LISTEN__PORT: listen\.port: expected a number/,
    );
    assert.match(
      failureOf('node: n1\n', { PGHERD_AGENT_NOOD: 'x' }).text,
      /environment variable PGHERD_AGENT_NOOD: nood: unknown key \(did you mean "node"\?\)/,
    );
  });
});

describe('reading the file', () => {
  test('a missing file, a directory and a file that is too large are failures that say so', () => {
    const directory = mkdtempSync(join(tmpdir(), 'pgherd-config-'));
    try {
      const large = join(directory, 'large.yaml');
      writeFileSync(large, '#'.repeat(1024 * 1024 + 1));
      for (const file of [join(directory, 'none.yaml'), directory, large]) {
        const result = loadConfig({ file, decoder });
        assert.equal(result.ok, false);
        assert.equal(result.error.code, 'config.unreadable');
        assert.ok(result.error.what.includes(file));
      }
      const good = join(directory, 'good.yaml');
      writeFileSync(good, 'node: n1\n');
      assert.equal(loadConfig({ file: good, decoder }).ok, true);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  test('an empty file misses its required keys; it is no crash', () => assert.match(failureOf('').text, /node: is missing/));

  test('a small file that unfolds to a huge one is refused', () => {
    const levels = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let i = 1; i < 9; i++) levels.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`);
    assert.equal(failureOf(`${levels.join('\n')}\n`).code, 'config.syntax');
  });
});
