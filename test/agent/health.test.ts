import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HealthInput, answerHealth, parseSize } from '../../src/agent/http/health.ts';
import { buildReport } from '../../src/agent/publish.ts';
import { makeNodeId, makeRevision, makeTerm, makeWallMs } from '../../src/core/ids.ts';
import { makeLsn } from '../../src/core/lsn.ts';
import type { PostgresReport } from '../../src/core/report.ts';
import { down, postgres, primaryRunning } from '../core/node/facts.ts';

function input(pg: PostgresReport, change: Partial<HealthInput> & { open?: boolean } = {}): HealthInput {
  const { open = false, ...rest } = change;
  const report = buildReport({
    node: makeNodeId('n1'),
    agentVersion: '0',
    agentRun: 'r',
    bootId: 'b',
    at: makeWallMs(0),
    status: { postgres: pg, leaseTerm: open ? makeTerm(1) : null, open, activity: { kind: 'idle' }, stateRevision: makeRevision(1) },
    memory: { vote: () => null, refusedTerms: () => [] } as never,
    viewpoints: { probes: () => ({}), trustedReachable: () => null },
    firewall: 'off',
    guard: 'alive',
    slots: [],
    problems: [],
  });
  return { report, leaseValid: open, primaryLsn: makeLsn(0x3000000n), syncState: 'async', ...rest };
}
const status = (path: string, health: HealthInput): number => {
  const url = new URL(path, 'https://a');
  return answerHealth(url.pathname, url.searchParams, health).status;
};

test('/primary is 200 only while the lease is valid at this moment (Z24)', () => {
  const open = input(primaryRunning, { open: true });
  assert.equal(status('/primary', open), 200);
  assert.equal(status('/primary', { ...open, leaseValid: false }), 503);
  assert.equal(status('/primary', input(primaryRunning)), 503);
  assert.equal(status('/primary', input(postgres())), 503);
});

test('/replica is 200 for a streaming standby within the lag', () => {
  const behind = input(postgres({ replayedLsn: makeLsn(0x2000000n) }));
  assert.equal(status('/replica', behind), 200);
  assert.equal(status('/replica?lag=16MB', behind), 200);
  assert.equal(status('/replica?lag=1MB', behind), 503);
  assert.equal(status('/replica?lag=much', behind), 400);
  assert.equal(status('/replica', input(postgres({ streamingFrom: null }))), 503);
  assert.equal(status('/replica', input(down('stopped', 'standby'))), 503);
});

test('/read-only is either, /health any running server, /sync and /async what the primary says', () => {
  assert.equal(status('/read-only', input(primaryRunning, { open: true })), 200);
  assert.equal(status('/read-only', input(postgres())), 200);
  assert.equal(status('/health', input(primaryRunning)), 200);
  assert.equal(status('/sync', input(postgres())), 503);
  assert.equal(status('/async', input(postgres())), 200);
  assert.equal(status('/nothing', input(postgres())), 404);
  assert.equal(status('/livez', { report: null, leaseValid: false, primaryLsn: null, syncState: null }), 200);
});

test('sizes have PostgreSQL’s units', () => {
  assert.deepEqual(['1024', '16MB', '2gb', '1 kB', '', 'x', '1PB'].map(parseSize), [1024, 16777216, 2147483648, 1024, null, null, null]);
});
