import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { publishRoute } from '../../../src/core/cluster/route.ts';
import type { NodeReport } from '../../../src/core/report.ts';
import type { ClusterState } from '../../../src/core/state.ts';
import type { ClusterView } from '../../../src/core/view.ts';
import { id, picture } from './picture.ts';

/** n1 has been the primary, and `was` have served reads. */
function view(
  text: string,
  options: { readonly was?: readonly string[]; readonly seen?: readonly string[]; readonly state?: Partial<ClusterState> } = {},
): ClusterView {
  const { was = ['n2', 'n3'], seen = ['n2', 'n3'] } = options;
  const made = picture(text, {
    state: (state) => ({ ...state, route: { ...state.route, writer: id('n1'), readers: was.map((node) => id(node)) }, ...options.state }),
  });
  const primary = made.reports[id('n1')];
  if (primary === undefined) return made;
  const walsenders = seen.map((node) => ({ node: id(node), state: 'streaming' })) as unknown as NodeReport['postgres']['walsenders'];
  const report = { ...primary.report, postgres: { ...primary.report.postgres, walsenders } };
  return { ...made, reports: { ...made.reports, [id('n1')]: { ...primary, report } } };
}

const head = 'term 4 primary n1 lsn 0/6000 lease n1/4\n';
const readers = (of: ClusterView): readonly string[] => publishRoute(of).route.readers;

describe('who gets writes', () => {
  test('in a restored store: the primary that it names, unless a member knows a newer term and that primary is not open', () => {
    const writer = (text: string): string | null => publishRoute(view(text, { state: { incarnation: 'restored from store-0' } })).route.writer;
    assert.equal(writer('term 3 primary n1\n n1 dead knows3 @0/5000\n n2 standby knows3 @0/5000'), 'n1', 'nothing speaks against it');
    assert.equal(writer('term 3 primary n1\n n1 standby knows3 @0/5000\n n2 standby knows4 @0/5000'), null);
    assert.equal(writer('term 3 primary n1 lease n1/3\n n1 primary knows4 @0/5000\n n2 standby knows4 @0/5000'), 'n1', 'an attempt was given up');
    assert.equal(publishRoute(view('term 3 primary n1\n n1 standby @0/5000\n n2 standby knows4 @0/5000')).route.writer, 'n1');
  });
});

describe('who serves reads', () => {
  test('who streams from the primary, on its history', () => {
    assert.deepEqual(readers(view(`${head} n1 primary @0/6000\n n2 standby @0/6000\n n3 standby @0/6000`, { was: [] })), ['n2', 'n3']);
    const one = `${head} n1 primary @0/6000\n n2 standby @0/6000\n n3 detached @0/5000`;
    assert.deepEqual(readers(view(one, { seen: ['n2'] })), ['n2']);
    assert.deepEqual(readers(view(one)), ['n2', 'n3'], 'it may only be the first to notice that the primary is gone');
    const forked = 'term 4 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000 lease n1/4\n';
    assert.deepEqual(
      readers(view(`${forked} n1 primary @0/6000\n n2 detached tl1 fork0@0/1 @0/5800\n n3 dead`, { seen: [] })),
      [],
      'it has diverged',
    );
  });

  test('when none streams any more and the primary did not say so, it is the primary that is gone: reads go on', () => {
    const text = `${head} n1 primary @0/6000\n n2 detached @0/6000\n n3 detached @0/5000`;
    assert.deepEqual(readers(view(text)), ['n2', 'n3'], 'its report is older than its death');
    assert.deepEqual(readers(view(text.replace('n1 primary', 'n1 crashed'), { seen: [] })), ['n2', 'n3']);
    assert.deepEqual(readers(view(text.replace('n1 primary', 'n1 hung'), { seen: [] })), ['n2', 'n3']);
    assert.deepEqual(readers(view(text.replace('n1 primary @0/6000', 'n1 dead'))), ['n2', 'n3']);
    assert.deepEqual(readers(view(text, { was: ['n3'] })), ['n3'], 'who did not read before does not begin now');
  });

  test('a standby that a living primary has lost gets no reads, though no other streams either', () => {
    const two = `${head} n1 primary @0/6000\n n2 detached @0/5000`;
    assert.deepEqual(readers(view(two, { seen: [], was: ['n2'] })), []);
    assert.deepEqual(readers(view(`${head} n1 primary @0/6000\n n2 detached @0/5000\n n3 detached @0/5000`, { seen: ['n3'] })), ['n3']);
  });

  test('while a candidate is chosen the detached go on, but not one that has diverged', () => {
    const text =
      'term 4 primary n1 timeline 2 forks 1@0/5000 lsn 0/6000 attempt 5 vote\n n1 dead\n n2 detached tl2 fork1@0/5000 @0/6000\n n3 detached tl1 fork0@0/1 @0/5800';
    assert.deepEqual(readers(view(text)), ['n2']);
  });
});
