import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { monoMs } from '../../src/base/clock.ts';
import { type LoggerOptions, createLogger, formatPretty, maskSecrets } from '../../src/base/log.ts';
import { parseLsn } from '../../src/core/lsn.ts';

function collect(options: Partial<LoggerOptions> = {}): { lines: string[]; log: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  return { lines, log: createLogger({ role: 'agent', stream: { write: (line) => void lines.push(line) }, ...options }) };
}

describe('a log line', () => {
  test('is one JSON object with level name, ISO time, role and the fields of all parents', () => {
    const { lines, log } = collect({ fields: { cluster: 'demo' } });
    log.child({ node: 'n1' }).info({ term: 7, rule: 'primary.lost' }, 'decided');
    assert.equal(lines.length, 1);
    const entry = JSON.parse(lines[0] ?? '');
    assert.equal(entry.level, 'info');
    assert.equal(entry.message, 'decided');
    assert.match(entry.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.deepEqual([entry.role, entry.cluster, entry.node, entry.term, entry.rule], ['agent', 'demo', 'n1', 7, 'primary.lost']);
  });

  test('holds LSNs in the text form of PostgreSQL, errors with code and stack, and survives circular values', () => {
    const { lines, log } = collect();
    const circular: Record<string, unknown> = { name: 'x' };
    circular['self'] = circular;
    log.error(
      { lsn: parseLsn('1/ABC'), nested: { at: parseLsn('0/10') }, error: Object.assign(new Error('no'), { code: 'ENOSPC' }), circular },
      'odd',
    );
    const entry = JSON.parse(lines[0] ?? '');
    assert.equal(entry.lsn, '1/ABC');
    assert.equal(entry.nested.at, '0/10');
    assert.equal(entry.error.code, 'ENOSPC');
    assert.match(entry.error.stack, /Error: no/);
  });

  test('below the level is not written; the level can change while running', () => {
    const { lines, log } = collect({ level: 'warn' });
    log.info({}, 'quiet');
    log.setLevel('debug');
    log.debug({}, 'loud');
    assert.equal(lines.length, 1);
  });

  test('never shows a secret, at any depth (H2)', () => {
    const { lines, log } = collect();
    log.info(
      { config: { db: { password: 'hunter2' }, tokenFile: '/etc/t' }, argv: ['psql', 'host=a password=hunter2'] },
      'postgres://u:hunter2@h/db',
    );
    assert.doesNotMatch(lines.join(''), /hunter2/);
    assert.match(lines.join(''), /\/etc\/t/);
    assert.doesNotThrow(() => JSON.parse(lines[0] ?? ''));
  });
});

describe('secrets are masked (H2)', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['host=a password=abc user=b', 'host=a password=*** user=b'],
    ["host=a password='a b\\'c' user=b", 'host=a password=*** user=b'],
    ['postgres://joe:s3cret@db:5432/x', 'postgres://joe:***@db:5432/x'],
    ["ALTER ROLE joe PASSWORD 'it''s'", 'ALTER ROLE joe PASSWORD ***'],
    ['{"clusterSecret":"abc","port":1}', '{"clusterSecret":"***","port":1}'],
    ['{"text":"{\\"password\\":\\"abc\\"}"}', '{"text":"{\\"password\\":\\"***\\"}"}'],
    ['Authorization: Bearer abcdefgh1234', 'Authorization: Bearer ***'],
    ['token pgh_AbCdEf0123456789 used', 'token *** used'],
    ['https://10.0.0.1:2379/path', 'https://10.0.0.1:2379/path'],
    ['passwordFile=/x tokens=5', 'passwordFile=/x tokens=5'],
  ];
  for (const [text, expected] of cases) test(text, () => assert.equal(maskSecrets(text), expected));

  test('a private key disappears as a whole', () => {
    assert.equal(maskSecrets('a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b'), 'a *** b');
  });
});

describe('readable lines', () => {
  test('show time, level, who and the fields; control sequences in values do not reach the terminal', () => {
    const line = JSON.stringify({
      level: 'warn',
      time: '2026-11-21T04:05:06.789Z',
      role: 'agent',
      pid: 1,
      node: 'n1',
      term: 3,
      message: 'slow\u001b[2J',
      ms: 9,
    });
    assert.equal(formatPretty(line, false), '04:05:06.789 warn  agent [n1 term 3] slow ms=9\n');
  });

  test('leave a line alone that is not JSON', () => assert.equal(formatPretty('plain\n', false), 'plain\n'));
});

test('a reader that never reads costs lines, never time (Z22)', async () => {
  const script = `
    import { createLogger } from ${JSON.stringify(new URL('../../src/base/log.ts', import.meta.url).href)};
    import { monoMs } from ${JSON.stringify(new URL('../../src/base/clock.ts', import.meta.url).href)};
    const log = createLogger({ role: 'agent' });
    const text = 'x'.repeat(1000);
    let worst = 0;
    for (let i = 0; i < 5000; i++) {
      const from = monoMs();
      log.info({ text }, 'line');
      worst = Math.max(worst, monoMs() - from);
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    process.stdout.write(JSON.stringify({ worst, rss: process.memoryUsage().rss }));
    process.stdout.write('', () => process.kill(process.pid, 'SIGKILL'));
  `;
  // Standard error is a pipe that nobody reads: 64 KiB fit into it, 5 MB are written.
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  const from = monoMs();
  try {
    let out = '';
    for await (const chunk of child.stdout) out += String(chunk);
    const { worst } = JSON.parse(out) as { worst: number };
    assert.ok(worst < 3000, `one line took ${worst} ms`);
    assert.ok(monoMs() - from < 20_000);
  } finally {
    child.stderr.destroy();
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
});
