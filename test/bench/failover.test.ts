import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseWanted } from '../../bench/failover/command.ts';
import { renderFault, renderPage, spread, whereBetter } from '../../bench/failover/table.ts';
import type { RunLine, System } from '../../bench/failover/types.ts';

function system(id: string, options: { readonly product: System['product']; readonly syncStandbys?: number }): System {
  return {
    id,
    product: options.product,
    variant: '',
    durability: options.syncStandbys === undefined ? 'asynchronous' : 'quorum',
    syncStandbys: options.syncStandbys ?? 0,
    settings: `settings of ${id}`,
    rejoin: 'itself',
    remark: null,
    version: () => '1',
    start: () => Promise.reject(new Error('not in this test')),
  };
}

function line(id: string, outageMs: number | null, more: Partial<RunLine> = {}): RunLine {
  const nothing = { clientErrors: 0, lostRows: 0, doubleWritableMs: 0, staleAckRows: 0, rejoinMs: null, stolenPercent: null };
  return { system: id, fault: 'host-kill', run: 1, ok: outageMs !== null, outageMs, ...nothing, detail: '', ...more };
}

const OURS = system('ours', { product: 'pgherd' });
const OURS_QUORUM = system('ours-quorum', { product: 'pgherd', syncStandbys: 2 });
const THEIRS = system('theirs', { product: 'patroni' });
const THEIRS_SYNC = system('theirs-sync', { product: 'patroni', syncStandbys: 1 });

describe('the page that compares failovers', () => {
  test('shows the median and, in brackets, the worst', () => {
    assert.equal(spread([3, 1, 2]), '2 (3)');
    assert.equal(spread([2, 2, null]), '2');
    assert.equal(spread([null]), '–');
  });

  test('counts the runs that were not served again and leaves out what was not measured', () => {
    const unserved = line('ours', 90, { run: 2, ok: false });
    const unstarted = line('ours', null, { run: 3 });
    const table = renderFault('host-kill', [OURS, THEIRS, OURS_QUORUM], [line('ours', 10), unserved, unstarted, line('theirs', 7)]) ?? '';
    assert.match(table, /\| ours \| asynchronous \| 1 of 2 \| 10 \(90\) \|/);
    assert.match(table, /\| theirs \| asynchronous \| 1 of 1 \| 7 \|/);
    assert.doesNotMatch(table, /ours-quorum/);
    assert.equal(renderFault('switchover', [OURS], [line('ours', 10)]), null);
  });

  test('names where a peer is better, only against the same kind of durability', () => {
    const lines = [line('ours', 10), line('ours-quorum', 5), line('theirs', 7, { clientErrors: 3 }), line('theirs-sync', 6)];
    assert.deepEqual(whereBetter([OURS, OURS_QUORUM, THEIRS, THEIRS_SYNC], lines), ['host-kill, outage: theirs 7 ms (1 run), ours 10 ms (1 run)']);
  });

  test('a figure that only one of both has is no comparison', () => {
    assert.deepEqual(whereBetter([OURS, THEIRS], [line('ours', 10), line('theirs', null, { rejoinMs: 3 })]), []);
  });

  test('names the peers that were not measured, and every run that went wrong with its words', () => {
    const page = renderPage({
      systems: [OURS, THEIRS],
      lines: [
        line('ours', 10),
        line('ours', null, { run: 3, detail: 'no start' }),
        line('theirs', 90, { run: 2, ok: false, detail: 'no other node\nserved' }),
      ],
      versions: new Map([['patroni', 'patroni 9.9']]),
      machine: 'A machine.',
    });
    assert.match(page, /Not measured in this session: repmgr, pg_auto_failover\./);
    assert.match(page, /- \*\*theirs\*\*, host-kill, run 2: no other node served/);
    assert.match(page, /count nowhere\n\n- \*\*ours\*\*, host-kill, run 3: no start/);
    assert.match(page, /\| theirs \| patroni 9\.9 \| asynchronous \| settings of theirs \|/);
  });
});

describe('the arguments of the failover benchmark', () => {
  test('choose peers, and pgherd is always there', () => {
    const wanted = parseWanted(['--against', 'patroni', '--faults', 'switchover', '--runs', '2']);
    assert.ok(typeof wanted !== 'string');
    assert.deepEqual([...new Set(wanted.systems.map(({ product }) => product))], ['pgherd', 'patroni']);
    assert.deepEqual(wanted.faults, ['switchover']);
    assert.equal(wanted.runs, 2);
  });

  test('that name nothing known are refused with what is known', () => {
    assert.match(String(parseWanted(['--against', 'clup'])), /expected some of patroni, repmgr, pg_auto_failover/);
    assert.match(String(parseWanted(['--faults', 'flood'])), /expected some of host-kill/);
    assert.match(String(parseWanted(['--runs', '0'])), /whole number/);
    assert.match(String(parseWanted(['--limit', 'soon'])), /seconds/);
  });
});
