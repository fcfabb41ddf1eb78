/** What a promotion goes past is given to the archive, so that a restore finds its way along the newest timeline. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cloneFrom } from '../../src/agent/postgres/clone.ts';
import { detachStandby } from '../../src/agent/postgres/detach.ts';
import { runInitdb } from '../../src/agent/postgres/initdb.ts';
import { promotePostgres } from '../../src/agent/postgres/promote.ts';
import { setUpstream } from '../../src/agent/postgres/follow.ts';
import { skipTimelines } from '../../src/agent/postgres/skipped-timelines.ts';
import { stopPostgres } from '../../src/agent/postgres/stop.ts';
import { setupRoles } from '../../src/agent/postgres/setup-roles.ts';
import { startPostgres } from '../../src/agent/postgres/start.ts';
import { makeTimeline } from '../../src/core/ids.ts';
import { createLab, must, settings, until } from './harness.ts';

const lab = createLab();
after(() => lab.close());
const [n1, n2, n3] = [await lab.node('n1'), await lab.node('n2'), await lab.node('n3')];
const archive = join(lab.root, 'archive');
const archiving = {
  ...settings,
  parameters: { ...settings.parameters, archive_mode: 'on', archive_command: `test ! -f ${archive}/%f && cp %p ${archive}/%f` },
};

test('numbers that a promotion goes past are archived; where the archive has another history of that name, it keeps it and is not held up', async () => {
  mkdirSync(archive);
  chmodSync(archive, 0o777);
  must(await runInitdb(n1, { checksums: true, settings: archiving }));
  must(await startPostgres(n1, { mode: 'primary', mayStart: () => true }));
  must(await setupRoles(n1));
  must(await cloneFrom(n2, { upstream: n1, settings: archiving, systemIdentifier: null, keepSaved: 1 }));
  must(await startPostgres(n2, { mode: 'standby' }));
  must(await detachStandby(n2));
  const theirs = '1\t0/3000000\tno recovery target specified\n';
  writeFileSync(join(archive, '00000003.history'), theirs);
  assert.equal(must(await promotePostgres(n2, { requiredLsn: null, usedTimeline: makeTimeline(4), mayPromote: () => true })).timeline, 5);
  const names = ['00000002.history', '00000003.history', '00000004.history', '00000005.history'];
  await until('all are there', () => names.every((name) => existsSync(join(archive, name))), 30_000);
  assert.equal(readFileSync(join(archive, '00000003.history'), 'utf8'), theirs);
  const status = join(n2.dataDirectory, 'pg_wal', 'archive_status');
  await until('nothing waits', () => readdirSync(status).every((name) => !name.endsWith('.ready')), 30_000);
});

test('a copy has the histories of the gap, for standbys that ask it for them', async () => {
  must(await cloneFrom(n3, { upstream: n2, settings: archiving, systemIdentifier: null, keepSaved: 1 }));
  const histories = readdirSync(join(n3.dataDirectory, 'pg_wal')).filter((name) => name.endsWith('.history'));
  assert.deepEqual(histories.sort(), ['00000002.history', '00000003.history', '00000004.history', '00000005.history']);
  must(await startPostgres(n3, { mode: 'standby' }));
});

test('what was laid for a promotion that did not come to be goes: when it is refused, or its agent died on the way, at the next upstream and the next start', async () => {
  const histories = (): readonly string[] => readdirSync(join(n3.dataDirectory, 'pg_wal')).filter((name) => name.endsWith('.history'));
  const before = histories();
  let seen: readonly string[] = [];
  const mayPromote = (): boolean => {
    seen = histories();
    return false;
  };
  const refused = await promotePostgres(n3, { requiredLsn: null, usedTimeline: makeTimeline(8), mayPromote });
  assert.equal(refused.ok ? '' : refused.error.code, 'promote.refused');
  assert.equal(seen.length, before.length + 3);
  assert.deepEqual(histories(), before, 'refused');
  for (const next of ['upstream', 'start'] as const) {
    must(await skipTimelines(n3, makeTimeline(8)));
    assert.equal(histories().length, before.length + 3);
    if (next === 'upstream') must(await setUpstream(n3, n2));
    else {
      must(await stopPostgres(n3, { from: 'immediate', immediateMs: 5000 }));
      must(await startPostgres(n3, { mode: 'standby' }));
    }
    assert.deepEqual(histories(), before, next);
  }
});
