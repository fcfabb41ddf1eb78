import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { type Observation, type Scenario, judgeRun } from '../../lab/scenario.ts';
import { SCENARIOS } from '../../lab/scenarios/all.ts';
import { median, renderMeasurements, renderSummary, renderTable, summarise } from '../../lab/table.ts';
import type { Verdict } from '../../src/demo/check.ts';

const scenario: Scenario = {
  name: 'something-breaks',
  about: '',
  expect: { outageMs: 1000, clientErrors: null, lostRows: 0, rejoinMs: 5000 },
  run: () => Promise.reject(new Error('never run here')),
};
const good: Verdict = { outageMs: 900, clientErrors: 3, lostRows: 0, doubleWritableMs: 0, staleAckRows: 0, ackedRows: 100 };
const seen: Observation = { faultMs: 0, rejoinMs: 2000, detail: 'failed over', wrong: [] };

describe('the result of a run', () => {
  it('is good when every figure is within its bound', () => {
    assert.deepEqual(judgeRun(scenario, good, seen), {
      scenario: 'something-breaks',
      ok: true,
      outageMs: 900,
      clientErrors: 3,
      lostRows: 0,
      doubleWritableMs: 0,
      staleAckRows: 0,
      rejoinMs: 2000,
      detail: 'failed over',
    });
  });
  it('is good without a rejoin when the primary kept its role', () => {
    assert.equal(judgeRun(scenario, good, { ...seen, rejoinMs: null, stayed: true }).ok, true);
    assert.equal(judgeRun(scenario, good, { ...seen, rejoinMs: null, stayed: false }).ok, false);
  });
  const bad: readonly [string, Partial<Verdict>, Partial<Observation>, RegExp][] = [
    ['a longer outage', { outageMs: 1001 }, {}, /outage 1001 ms is more than 1000 ms/],
    ['an outage that was never measured', { outageMs: null }, {}, /outage could not be measured/],
    ['a lost row', { lostRows: 1 }, {}, /lost rows 1 is more than 0/],
    ['rows that could not be compared', { lostRows: null }, {}, /could not be compared/],
    ['a millisecond with two writable nodes (I19)', { doubleWritableMs: 1 }, {}, /two writable nodes 1 ms/],
    ['a stale acknowledgement', { staleAckRows: 1 }, {}, /stale acknowledgements 1/],
    ['a late rejoin', {}, { rejoinMs: 5001 }, /rejoin 5001 ms/],
    ['a rejoin that never came', {}, { rejoinMs: null }, /rejoin could not be measured/],
    ['anything that the scenario itself saw go wrong', {}, { wrong: ['the primary changed'] }, /the primary changed; failed over/],
  ];
  for (const [what, verdict, observation, detail] of bad) {
    it(`is bad with ${what}`, () => {
      const line = judgeRun(scenario, { ...good, ...verdict }, { ...seen, ...observation });
      assert.equal(line.ok, false);
      assert.match(line.detail, detail);
    });
  }
});

describe('the one exception from "never two writable nodes"', () => {
  const paused: Scenario = { ...scenario, expect: { ...scenario.expect, windowMs: 1500 } };
  it('is as long as the scenario says, and what was acknowledged in it is counted', () => {
    const line = judgeRun(paused, { ...good, doubleWritableMs: 1500, staleAckRows: 12 }, seen);
    assert.deepEqual([line.ok, line.doubleWritableMs, line.staleAckRows], [true, 1500, 12]);
    assert.equal(judgeRun(paused, { ...good, doubleWritableMs: 1501 }, seen).ok, false);
  });
  it('is made by one scenario only, and by none with synchronous replication', () => {
    assert.deepEqual(
      SCENARIOS.filter((entry) => entry.expect.windowMs !== undefined).map((entry) => entry.name),
      ['vm-pause'],
    );
  });
});

describe('the table of runs', () => {
  it('takes the middle value that was measured', () => {
    assert.deepEqual([median([5, 1, 9]), median([4, 2]), median([null, 7]), median([null])], [5, 2, 7, null]);
  });
  it('shows the median, the worst, and how many runs were good', () => {
    const lines = [900, 700, 1500].map((outageMs) => judgeRun(scenario, { ...good, outageMs }, seen));
    const table = renderTable(summarise([scenario], lines));
    assert.match(table, /\| something-breaks \| 2 of 3 \| ≤ 1000 \| 900 \(1500\) \| 3 \| 0 \| 0 \| 0 \| 2000 \|/);
  });
  it('is also made of what runs wrote, in any number of sessions, each store by itself', () => {
    const of = (outageMs: number, store: string | null, stolenPercent: number): string =>
      JSON.stringify({ ...judgeRun(scenario, { ...good, outageMs }, seen), store, stolenPercent });
    const text = renderSummary([scenario], ['rc 0', of(900, null, 1), of(700, null, 2), '', of(1500, 'etcd', 5), '{"name":"other"}'].join('\n'));
    const rows = text.split('\n').filter((line) => line.startsWith('| something'));
    assert.deepEqual(
      rows.map((row) => row.split(' | ').slice(0, 4).join(' ')),
      ['| something-breaks 2 of 2 ≤ 1000 700 (900)', '| something-breaks, etcd 0 of 1 ≤ 1000 1500'],
    );
    assert.match(text, /2 % of the processors in the middle one, 5 % at most/);
    assert.match(text, /- \*\*something-breaks, etcd\*\*: .*outage 1500 ms is more than 1000 ms/);
    assert.doesNotMatch(renderSummary([scenario], 'nothing'), /something/);
  });
  it('names its command, how quick the machine was, and every run that was left out', () => {
    const [counted, slow] = [900, 1500].map((outageMs) => judgeRun(scenario, { ...good, outageMs }, seen));
    assert.ok(counted !== undefined && slow !== undefined);
    const about = {
      runs: 1,
      agent: { ok: true, nodes: [], detail: 'small' },
      names: ['something-breaks'],
      calmMs: 60,
      calm: [{ referenceMs: 44, stolenPercent: 0.3 }],
      disturbed: [{ line: slow, calm: { referenceMs: 140, stolenPercent: 35 } }],
    };
    const text = renderMeasurements(summarise([scenario], [counted]), about, 'Machine: one.');
    assert.match(text, /`npm run lab -- table --runs 1 --calm 60 something-breaks`/);
    assert.match(
      text,
      /44 ms beside the middle run, 44 to 44 ms in all; its hypervisor gave up to 0\.3 % of the processors to others\. A run counts when it took at most 60 ms/,
    );
    assert.match(text, /slower than 60 ms, or not its own\n\n- reference 140 ms, 35 % stolen: BAD something-breaks outage 1500 ms/);
    assert.doesNotMatch(text, /What did not hold/);
  });
});

describe('the lab command', () => {
  const lab = (...args: readonly string[]) => spawnSync(process.execPath, ['lab/main.ts', ...args], { encoding: 'utf8' });
  it('lists at least the scenarios that were asked for', () => {
    const names = SCENARIOS.map((entry) => entry.name);
    const wanted = [
      'postgres-crash',
      'host-loss',
      'host-kill',
      'postgres-hang',
      'agent-kill',
      'agent-freeze',
      'partition-primary',
      'partition-standby',
      'store-loss',
      'controller-loss',
      'standby-loss',
      'old-primary-returns',
      'switchover',
      'switchover-candidate-dies',
      'promote-fails',
      'two-failures',
      'disk-full',
      'disk-read-only',
      'disk-stuck',
      'vm-pause',
      'vm-pause-quorum',
      'strict',
      'sync-mode',
      'quorum-k2',
      'crash-in-place-quorum',
      'agent-and-guard-killed',
      'agent-and-guard-killed-quorum',
      'restore-over-failover',
      'server-loss-etcd-leader',
      'location-lost',
      'location-lost-manual',
      'location-preferred',
      'freeze',
      'promote-fails-quorum',
    ];
    assert.deepEqual(
      wanted.filter((name) => !names.includes(name)),
      [],
    );
    assert.equal(new Set(names).size, names.length);
    const listed = lab('list', '--json');
    assert.equal(listed.status, 0);
    assert.deepEqual(
      listed.stdout
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { name: string }).name),
      names,
    );
  });
  it('refuses an unknown scenario and wrong numbers as wrong usage', () => {
    assert.equal(lab('run', 'nonsense').status, 2);
    assert.equal(lab('run', 'switchover', '--runs', '0').status, 2);
    assert.equal(lab('run').status, 2);
    assert.match(lab('run', 'nonsense').stderr, /no scenario "nonsense"/);
  });
  it('prints its usage without arguments', () => {
    const usage = lab();
    assert.equal(usage.status, 0);
    assert.match(usage.stdout, /npm run lab -- run NAME/);
  });
});
