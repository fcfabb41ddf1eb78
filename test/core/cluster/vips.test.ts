import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCluster } from '../../../src/core/cluster/decide.ts';
import { showCluster } from '../../../src/core/cluster/describe.ts';
import { type Now, makeWallMs } from '../../../src/core/ids.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { NOW, type Picture, WALL, id, later, picture } from './picture.ts';
import { expectDecision, expectRule } from './rule-case.ts';

const VIPS = { vips: { write: { address: '10.0.0.8' }, read: { address: '10.0.0.9' } } };
const LONG_AGO = makeWallMs(WALL - 600_000);

/** `read`: who has the read address; `routed`: who read before. */
const withVips = (
  read: string | null,
  change: { readonly since?: number; readonly routed?: readonly string[]; readonly spec?: object } = {},
): Picture => ({
  spec: { ...VIPS, ...change.spec },
  state: (state: ClusterState) => ({
    ...state,
    route: { ...state.route, readers: (change.routed ?? ['n2', 'n3']).map(id) },
    vips: { ...state.vips, read: read === null ? null : { node: id(read), sinceWallMs: makeWallMs(change.since ?? LONG_AGO), why: 'test' } },
  }),
});

/** The read address after the decision, whatever else was decided. */
function readAfter(view: ClusterView, now: Now = NOW): string | null {
  return (decideCluster(view, now).state ?? view.state).vips.read?.node ?? null;
}

const HEALTHY = `term 3 primary n1 lease n1/3
  n1 primary @0/5000
  n2 standby @0/5000
  n3 standby @0/5000`;

test('the read address goes to a standby that streams (H40)', () => {
  const state = expectRule(picture(HEALTHY, withVips(null)), 'vip.read-moved');
  assert.equal(state.vips.read?.node, 'n2');
});

test('it goes to the node that is the least likely to be promoted, in the location of the primary', () => {
  const text = HEALTHY.replace('n3 standby', 'n3 standby prio50');
  assert.equal(readAfter(picture(text, withVips(null))), 'n3');
  const far = HEALTHY.replace('n1 primary', 'n1 primary loc:a')
    .replace('n2 standby', 'n2 standby loc:a')
    .replace('n3 standby', 'n3 standby prio0 loc:b');
  assert.equal(readAfter(picture(far, withVips(null))), 'n2');
});

test('it stays where it is while its node serves reads, whoever would be the better place', () => {
  const view = picture(HEALTHY.replace('n2 standby', 'n2 standby prio1'), withVips('n3'));
  assert.equal(readAfter(view), 'n3');
});

test('it leaves a dead standby at once, also one that got it a moment ago', () => {
  const view = picture(HEALTHY.replace('n2 standby', 'n2 dead'), withVips('n2', { since: WALL - 100 }));
  assert.equal(expectRule(view, 'vip.read-moved').vips.read?.node, 'n3');
});

test('it goes to the primary only when no standby serves reads, and back when one does', () => {
  const alone = HEALTHY.replace('n2 standby', 'n2 dead').replace('n3 standby', 'n3 dead');
  const event = expectDecision(picture(alone, withVips('n2')), 'vip.read-moved').events[0];
  assert.match(event?.text ?? '', /goes to n1: no standby can serve reads: n1 is the primary; n2 does not report/);
  assert.equal(event?.level, 'warn');
  assert.equal(readAfter(picture(HEALTHY, withVips('n1'))), 'n2');
});

test('a new primary gives it to a standby (H40)', () => {
  const view = picture(HEALTHY.replaceAll('n1', 'nx').replaceAll('n2', 'n1').replaceAll('nx', 'n2'), withVips('n2', { routed: ['n1', 'n3'] }));
  assert.equal(view.state.primary, 'n2');
  assert.equal(readAfter(view), 'n1');
});

test('a standby that flaps does not carry it to and fro: what still serves keeps it for five seconds', () => {
  const view = picture(HEALTHY, withVips('n1', { since: WALL - 4900 }));
  assert.equal(readAfter(view), 'n1');
  assert.equal(readAfter(view, later(100)), 'n2');
});

test('a standby that is far behind is no place for it, and one that has it loses it (H41)', () => {
  const text = (n2: string): string => `term 3 primary n1 lease n1/3 lsn 0/8000000
    n1 primary @0/8000000
    n2 standby @${n2}
    n3 standby @0/8000000`;
  assert.equal(readAfter(picture(text('0/7000001'), withVips('n2'))), 'n2');
  assert.equal(readAfter(picture(text('0/6FFFFFF'), withVips('n2'))), 'n3');
  // Back in the set only when it has caught up by half of that.
  assert.equal(readAfter(picture(text('0/7000001').replace('n3 standby', 'n3 dead'), withVips('n1'))), 'n1');
  assert.equal(readAfter(picture(text('0/7800001').replace('n3 standby', 'n3 dead'), withVips('n1'))), 'n2');
});

test('a maintained standby has none of it', () => {
  assert.equal(readAfter(picture(HEALTHY.replace('n2 standby', 'n2 standby maint'), withVips('n2'))), 'n3');
});

test('the primary is lost: readers keep it as long as they run, and nothing is written while a term is attempted', () => {
  const lost = `term 3 primary n1 attempt 4 vote
    n1 dead
    n2 detached vote4@0/5000
    n3 dead`;
  assert.equal(readAfter(picture(lost, withVips('n3'))), 'n3');
  const waiting = `term 3 primary n1 lease n1/3
    n1 dead
    n2 detached
    n3 detached`;
  assert.equal(readAfter(picture(waiting, withVips('n2'))), 'n2');
});

test('a frozen cluster leaves it; without one in the spec it is forgotten', () => {
  assert.equal(readAfter(picture(HEALTHY.replace('lease n1/3', 'lease n1/3 frozen').replace('n2 standby', 'n2 dead'), withVips('n2'))), 'n2');
  assert.equal(readAfter(picture(HEALTHY, withVips('n2', { spec: { vips: {} } }))), null);
});

test('where an address is, is what its holder says: events and show follow it (H15)', () => {
  const view = picture(HEALTHY.replace('n1 primary', 'n1 primary vip:write=held').replace('n2 standby', 'n2 standby vip:read=held'), withVips('n2'));
  const decision = expectDecision(view, 'vip.held');
  assert.deepEqual(
    decision.events.map((event) => `${event.level} ${event.node} ${event.text}`),
    ['info n1 write address 10.0.0.8 is on n1', 'info n2 read address 10.0.0.9 is on n2'],
  );
  assert.deepEqual(showCluster(view, NOW).vips, { write: { address: '10.0.0.8', node: 'n1' }, read: { address: '10.0.0.9', node: 'n2' } });
  const known = { ...view, state: decision.state ?? view.state };
  assert.equal(decideCluster(known, NOW).rule, 'cluster.steady');
  const gone = picture(HEALTHY.replace('n2 standby', 'n2 standby vip:read=held'), { spec: VIPS, state: () => known.state });
  assert.equal(expectDecision(gone, 'vip.held').events[0]?.text, 'write address 10.0.0.8 is on no node (it was on n1)');
  assert.deepEqual(showCluster(gone, NOW).vips.write, { address: '10.0.0.8', node: null });
});

test('a conflict that the kernel found is an event too, and another one when the host is known', () => {
  const found = picture(HEALTHY.replace('n1 primary', 'n1 primary vip:write=conflict'), withVips('n2'));
  const decision = expectDecision(found, 'vip.conflict');
  assert.deepEqual(
    decision.events.map((event) => event.text),
    ['write address 10.0.0.8 is used by another host, one without a known hardware address'],
  );
  const state = (): ClusterState => decision.state ?? found.state;
  assert.equal(decideCluster({ ...found, state: state() }, NOW).rule, 'cluster.steady', 'said once');
  const named = picture(HEALTHY.replace('n1 primary', 'n1 primary vip:write=conflict/aa:bb:cc:dd:ee:ff'), { spec: VIPS, state });
  assert.match(expectDecision(named, 'vip.conflict').events[0]?.text ?? '', /aa:bb:cc:dd:ee:ff$/);
});

test('another host with the address is one event with its hardware address, and one when it is over', () => {
  const view = picture(HEALTHY.replace('n1 primary', 'n1 primary vip:write=conflict/aa:bb:cc:dd:ee:ff'), withVips('n2'));
  const decision = expectDecision(view, 'vip.conflict');
  assert.deepEqual(
    decision.events.map((event) => `${event.level} ${event.text}`),
    ['error write address 10.0.0.8 is used by another host, aa:bb:cc:dd:ee:ff'],
  );
  const known = { ...view, state: decision.state ?? view.state };
  assert.equal(decideCluster(known, NOW).rule, 'cluster.steady');
  const over = picture(HEALTHY.replace('n1 primary', 'n1 primary vip:write=held'), { spec: VIPS, state: () => known.state });
  const after = decideCluster(over, NOW);
  assert.deepEqual(
    after.events.map((event) => `${event.rule} ${event.text}`),
    ['vip.held write address 10.0.0.8 is on n1', 'vip.conflict-over write address 10.0.0.8 is no longer used by aa:bb:cc:dd:ee:ff'],
  );
  expectRule(
    {
      ...over,
      state: { ...known.state, vips: { ...known.state.vips, seen: { ...known.state.vips.seen, write: { node: id('n1'), otherMac: 'aa' } } } },
    },
    'vip.conflict-over',
  );
});
