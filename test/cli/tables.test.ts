import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatBytes, formatDuration, parseDuration } from '../../src/cli/output/units.ts';
import { isColourWanted, makeStyle } from '../../src/cli/output/style.ts';
import { cell, renderTable } from '../../src/cli/output/table.ts';
import { cutTo, displayWidth, hanging, wrapText } from '../../src/cli/output/width.ts';
import { renderProgress } from '../../src/cli/output/progress.ts';
import { allProblems, renderShow, roleCell } from '../../src/cli/render/show.ts';
import { renderExplain } from '../../src/cli/render/explain.ts';
import { newLines } from '../../src/cli/verbs/log.ts';
import { chooseNode } from '../../src/cli/verbs/psql.ts';
import { node, show, troubled } from './fixtures.ts';
import { assertGolden } from './golden.ts';

const plain = makeStyle(false);

describe('show', () => {
  for (const width of [60, 80, 140]) {
    test(`no line is wider than a terminal of ${width} columns, also with Chinese names`, () => {
      const text = renderShow(troubled(), { style: plain, width });
      assert.deepEqual(
        text.split('\n').filter((line) => displayWidth(line) > width),
        [],
      );
      assertGolden(`show-${width}`, `${text}\n`);
    });
  }

  test('a healthy cluster says so in one look', () => {
    assertGolden('show-healthy', `${renderShow(show(), { style: plain, width: 100 })}\n`);
  });

  test('columns after a Chinese name stay aligned', () => {
    const text = renderTable(
      [{ head: 'A' }, { head: 'B' }],
      [
        [cell('上海'), cell('x')],
        [cell('abcd'), cell('y')],
      ],
      { style: plain, width: null },
    );
    assert.equal(text, 'A     B\n上海  x\nabcd  y');
  });

  test('actual beside wanted role: each mismatch is marked (S5)', () => {
    assert.equal(roleCell(node('a', { role: 'primary' }), 'a').text, '* primary');
    assert.equal(roleCell(node('a', { role: 'standby', wantedRole: 'primary' }), 'b').text, '! standby, not primary');
    assert.equal(roleCell(node('a', { role: 'primary', wantedRole: 'standby' }), 'b').text, '! primary, not standby');
    assert.equal(roleCell(node('a', { role: null, wantedRole: 'standby' }), 'b').text, '- (wanted standby)');
  });

  test('a cascading standby that is away from its upstream, and a delayed one, say so', () => {
    const nodes = [
      node('n1', { role: 'primary' }),
      node('n2', { upstream: 'n1', wantedUpstream: null }),
      node('n3', { upstream: 'n2', wantedUpstream: 'n2' }),
      node('n4', { upstream: 'n1', wantedUpstream: 'n2' }),
      node('n5', { delayMs: 3_600_000, replayLagBytes: 16_777_216 }),
    ];
    const lines = renderShow(show({ nodes }), { style: plain, width: 140 }).split('\n');
    const line = (name: string): string => lines.find((one) => one.startsWith(`${name} `)) ?? '';
    assert.match(line('n3'), / n2 /);
    assert.doesNotMatch(line('n3'), /not/);
    assert.match(line('n4'), / n1, not n2 /);
    assert.match(line('n5'), / 16 MiB \(1h 00m late\) /);
  });

  test('only the primary of the newest open term is marked as primary; others are shown as what they are', () => {
    const cases = [
      [node('a', { role: 'primary', state: 'crashed' }), 'a', 'primary, down'],
      [node('a', { role: 'primary', state: 'crashed', wantedRole: null }), 'b', 'former primary'],
      [node('a', { role: 'primary', state: 'rewinding', wantedRole: 'standby' }), 'b', 'former primary'],
      [node('a', { role: 'primary', wantedRole: 'primary' }), 'b', 'primary, opening'],
      [node('a', { role: 'primary', wantedRole: null }), 'b', '! second primary'],
      [node('a', { role: 'primary', state: 'unreachable' }), 'a', '* primary'],
    ] as const;
    for (const [row, primary, text] of cases) assert.equal(roleCell(row, primary).text, text, `${row.state} ${row.wantedRole}`);
    const crashed = show({
      primary: 'n2',
      nodes: [node('n1', { role: 'primary', state: 'crashed', wantedRole: null }), node('n2', { role: 'primary' })],
    });
    assert.equal(renderShow(crashed, { style: plain, width: 100 }).match(/\* primary/g)?.length, 1);
  });

  test('a problem that cluster and node both name is shown once', () => {
    const problem = { code: 'x', text: 'n2 does not stream', remedy: '' };
    assert.equal(allProblems(show({ problems: [problem], nodes: [node('n2', { problems: [problem] })] })).length, 1);
  });

  test('a frozen cluster says by whom, since when, why and until when', () => {
    const freeze = { by: 'ann', reason: 'network work', since: '2026-11-21T06:20:25.123Z', until: '2026-11-21T08:20:25.123Z' };
    assert.match(
      renderShow(show({ state: 'frozen', frozen: true, freeze, nodes: [node('n1')] }), { style: plain, width: null }),
      /^frozen: by ann since 2026-11-21 06:20:25Z \(network work\); no automatic action until 2026-11-21\n {8}08:20:25Z, or "pgherd unfreeze"; leases and fencing go on$/m,
    );
  });

  test('an agent that reported before is silent, one that never did is told from it', () => {
    const text = renderShow(
      show({
        nodes: [
          node('n1', { state: 'unreachable', agent: { version: '0.1.0', seenMs: null } }),
          node('n2', { state: 'unreachable', agent: { version: null, seenMs: null } }),
        ],
      }),
      { style: plain, width: null },
    );
    assert.match(text, /^n1 .* silent$/m);
    assert.match(text, /^n2 .* never$/m);
  });

  test('a problem of several nodes is one line with their names', () => {
    const weak = (id: string): { code: string; text: string; remedy: string } => ({ code: 'fence.x', text: `${id}: fencing is weak`, remedy: 'r' });
    const nodes = ['n1', 'n2', 'n3'].map((id) => node(id, { problems: [weak(id)] }));
    const listed = { ...weak('n1'), text: 'n1, n2: fencing is weak' };
    assert.deepEqual(
      allProblems(show({ problems: [listed], nodes })).map((problem) => problem.text),
      ['n1, n2: fencing is weak', 'n3: fencing is weak'],
    );
  });

  test('text of other people cannot move the cursor of the terminal', () => {
    assert.equal(cell('a\u001b[2Jb\nc').text, 'a [2Jb c');
  });

  test('without a terminal nothing is cut or left out', () => {
    const text = renderShow(troubled(), { style: plain, width: null });
    assert.match(text, /上海-二号机房/);
    assert.doesNotMatch(text, /…|not shown/);
  });
});

describe('explain', () => {
  test('is prose with numbers', () => {
    const text = renderExplain(
      'demo',
      {
        rule: 'steady.ok',
        why: 'the primary n1 holds the write lease of term 3',
        candidates: [
          { node: 'n2', eligible: true, reasons: ['streams from n1, 0 bytes behind'] },
          { node: 'n3', eligible: false, reasons: ['priority 0: never promoted'] },
        ],
        ifPrimaryDies: {
          action: 'the lease expires, then the best standby is promoted',
          promoted: 'n2',
          mayLoseBytes: 1_048_576,
          estimatedOutageMs: 3500,
        },
      },
      { style: plain, width: 80 },
    );
    assertGolden('explain', `${text}\n`);
  });

  test('says what changed last, and why this node is the primary', () => {
    const text = renderExplain(
      'demo',
      {
        rule: 'cluster.steady',
        why: 'n1 is the primary of term 4',
        last: { rule: 'standby.back', why: 'n2 streams from n1', at: '2026-11-21T06:20:31.000Z' },
        term: {
          term: 4,
          primary: 'n1',
          startedAt: '2026-11-21T06:20:25.123Z',
          rule: 'primary.lost',
          reason: 'n2 is lost: its agent is silent',
          outageMs: 1474,
          lostBytes: null,
        },
        candidates: [],
        ifPrimaryDies: {
          action: 'once the write lease of n1 has expired, n2 is promoted',
          promoted: 'n2',
          mayLoseBytes: 0,
          mayLoseLater: true,
          estimatedOutageMs: 4000,
        },
      },
      { style: plain, width: 80 },
    );
    assertGolden('explain-after-failover', `${text}\n`);
  });

  test('promises nothing that asynchronous replication does not keep', () => {
    const words = (mayLoseBytes: number | null, mayLoseLater: boolean): string => {
      const ifPrimaryDies = { action: 'n2 is promoted', promoted: 'n2', mayLoseBytes, mayLoseLater, estimatedOutageMs: 4000 };
      return renderExplain('demo', { rule: 'x', why: 'y', candidates: [], ifPrimaryDies }, { style: plain, width: 300 });
    };
    assert.match(words(0, false), /Nothing that was acknowledged would be lost\./);
    assert.match(words(0, true), /By the last reports it has everything; what is acknowledged in the last moment before the death may be lost/);
    assert.match(words(512, true), /Up to 512 B of WAL \(512 bytes\) could be lost by the last reports, and what is acknowledged after them\./);
    assert.match(words(null, true), /How much could be lost is unknown\./);
  });
});

describe('units and widths', () => {
  test('durations are read in every unit, and nothing else is', () => {
    assert.deepEqual(
      ['500ms', '60s', '5m', '2h', '1d', '60', '1.5s', ' 2h '].map(parseDuration),
      [500, 60_000, 300_000, 7_200_000, 86_400_000, 60_000, 1500, 7_200_000],
    );
    assert.deepEqual(['', 'abc', '-1s', '1 week', '1e9s', '400d'].map(parseDuration), [null, null, null, null, null, null]);
  });

  test('sizes and times are short', () => {
    assert.deepEqual([0, 1023, 1024, 1536, 16_777_216, -2048, null].map(formatBytes), ['0 B', '1023 B', '1 KiB', '1.5 KiB', '16 MiB', '-2 KiB', '–']);
    assert.deepEqual([0, 999, 1500, 59_000, 185_000, 7_800_000, 90_000_000, null].map(formatDuration), [
      '0 ms',
      '999 ms',
      '1.5 s',
      '59 s',
      '3m 05s',
      '2h 10m',
      '1d 1h',
      '–',
    ]);
  });

  test('wide text is cut by columns, not by characters', () => {
    for (const width of [1, 2, 3, 5, 8]) assert.ok(displayWidth(cutTo('上海二号机房', width)) <= width, `${width}`);
    assert.equal(cutTo('abc', 3), 'abc');
  });

  test('Chinese prose is broken although it has no blanks; commands stay whole', () => {
    assert.ok(wrapText('这是一个没有空格的很长的句子所以必须折行', 10).every((line) => displayWidth(line) <= 10));
    assert.deepEqual(wrapText('run /usr/lib/postgresql/15/bin/pg_ctl now', 12), ['run', '/usr/lib/postgresql/15/bin/pg_ctl', 'now']);
    assert.deepEqual(hanging('  - ', 'aaaa bbbb cccc dddd eeee', 24), ['  - aaaa bbbb cccc dddd', '    eeee']);
  });

  test('colour: only on a terminal, and never with NO_COLOR or --no-color', () => {
    assert.equal(isColourWanted({ isTTY: true, noColorFlag: false, env: {} }), true);
    assert.equal(isColourWanted({ isTTY: false, noColorFlag: false, env: {} }), false);
    assert.equal(isColourWanted({ isTTY: true, noColorFlag: true, env: {} }), false);
    assert.equal(isColourWanted({ isTTY: true, noColorFlag: false, env: { NO_COLOR: '1' } }), false);
    assert.equal(isColourWanted({ isTTY: true, noColorFlag: false, env: { NO_COLOR: '' } }), true);
  });

  test('the bar shows percent, bytes and, once the rate is known, an ETA', () => {
    const state = { label: 'n2 base backup', doneBytes: 524_288_000, totalBytes: 1_048_576_000 };
    assert.equal(renderProgress(state, 10_000, 0), 'n2 base backup  [##########----------]  50 %  500 MiB of 1000 MiB  eta 10 s');
    assert.doesNotMatch(renderProgress(state, 100, 0), /eta/);
    assert.equal(renderProgress({ label: 'x', doneBytes: null, totalBytes: null }, 0, 0), 'x');
  });
});

describe('log and psql', () => {
  test('a followed log shows each new line once', () => {
    assert.deepEqual(newLines(['a', 'b'], ['a', 'b', 'c']), ['c']);
    assert.deepEqual(newLines(['a', 'b', 'c'], ['b', 'c', 'd']), ['d']);
    assert.deepEqual(newLines(['a', 'b'], ['a', 'b']), []);
    assert.deepEqual(newLines(['x'], ['a', 'b']), ['a', 'b']);
    assert.deepEqual(newLines([], ['a']), ['a']);
  });

  test('psql goes to the standby with the least lag, and to the primary only when asked or alone', () => {
    assert.equal(chooseNode(show(), { role: 'primary', node: null })?.id, 'n1');
    assert.equal(chooseNode(show(), { role: 'standby', node: null })?.id, 'n2');
    assert.equal(chooseNode(show({ nodes: [node('n1', { role: 'primary' })] }), { role: 'any', node: null })?.id, 'n1');
    assert.equal(chooseNode(show({ nodes: [node('n1', { role: 'primary' })] }), { role: 'standby', node: null }), null);
    const rogue = show({ primary: 'n2', nodes: [node('n1', { role: 'primary' }), node('n2', { role: 'primary' })] });
    assert.equal(chooseNode(rogue, { role: 'primary', node: null })?.id, 'n2', 'never one that was promoted behind the back of the cluster');
  });
});
