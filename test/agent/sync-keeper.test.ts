/** What the keeper of the synchronous set says while orders overtake its work; the server is told when to load what was written. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { realClock } from '../../src/base/clock.ts';
import { NO_SET, renderSyncNames } from '../../src/core/cluster/sync-set.ts';
import { ok } from '../../src/core/result.ts';
import type { PostgresReport } from '../../src/core/report.ts';
import type { SyncSet } from '../../src/core/state.ts';
import { createSyncKeeper } from '../../src/agent/postgres/sync-keeper.ts';
import type { SyncDoors, SyncSender } from '../../src/agent/postgres/sync-set.ts';
import { blankReport, id } from '../core/cluster/picture.ts';

const N2: SyncSet = { method: 'any', k: 1, members: ['n2.0123abcd'] };
const PRIMARY: PostgresReport = { ...blankReport(id('n1')).postgres, state: 'running', role: 'primary', postmasterPid: 7, flushLsn: 5n as never };

/** `hold` keeps the next write of the file until it is called again. */
function server() {
  let file = '';
  let loaded = '';
  let loads = true;
  let gate: Promise<void> = Promise.resolve();
  const senders = new Map<number, SyncSender>();
  const doors: SyncDoors = {
    written: async () => renderSyncNames(N2),
    apply: async (set) => {
      await gate;
      const changed = file !== renderSyncNames(set);
      file = renderSyncNames(set);
      if (loads) loaded = file;
      return ok({ changed });
    },
    look: async () => ok({ names: loaded, recovery: false, nowMs: 1000, senders: [...senders.values()], checkpointer: 'idle' }),
    end: async (pids) => {
      for (const pid of pids) senders.delete(pid);
      return ok(null);
    },
  };
  return {
    doors,
    file: () => file,
    senders,
    /** Nothing that is written from now on is loaded, or all of it at once. */
    load: (yes: boolean) => {
      loads = yes;
      if (yes) loaded = file;
    },
    hold: (): (() => void) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      gate = promise;
      return resolve;
    },
  };
}

function start() {
  const { doors, ...rest } = server();
  const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as never;
  const keeper = createSyncKeeper({ instance: null as never, doors, clock: realClock, log: quiet, wake: () => undefined });
  const ask = (set: SyncSet, revision: number): number => {
    keeper.step(PRIMARY, { set, term: 1, revision });
    return keeper.report()?.revision ?? -1;
  };
  const bring = async (set: SyncSet, revision: number): Promise<void> => {
    for (let round = 0; ask(set, revision) !== revision; round++) {
      assert.ok(round < 400, `revision ${revision} is not in force`);
      await realClock.sleep(5);
    }
  };
  return { keeper, ask, bring, ...rest };
}

test('a set that is asked for again is in force again only after it was looked at, since another one was written meanwhile (I7)', async () => {
  const { ask, bring, file, load, keeper } = start();
  await bring(N2, 1);
  load(false);
  assert.equal(ask(NO_SET, 2), 0);
  for (let round = 0; file() !== ''; round++) {
    assert.ok(round < 1000, 'the empty set was not written');
    await realClock.sleep(1);
  }
  assert.equal(ask(N2, 3), 0, 'the server is about to load the empty set');
  assert.equal(keeper.report()?.inForceLsn, null);
  load(true);
  await bring(N2, 3);
  assert.equal(file(), renderSyncNames(N2));
});

test('also while the other one is only about to be written', async () => {
  const { ask, bring, file, hold } = start();
  await bring(N2, 1);
  const write = hold();
  assert.equal(ask(NO_SET, 2), 0);
  await realClock.sleep(1);
  assert.equal(ask(N2, 3), 0, 'the write of the empty set is under way');
  write();
  await bring(N2, 3);
  assert.equal(file(), renderSyncNames(N2));
});

test('the same set under another number is in force at once: nothing is written', async () => {
  const { ask, bring } = start();
  await bring(N2, 1);
  assert.equal(ask(N2, 2), 2);
});

test('who takes the name of a member after the set is in force is found and ended, and the facts are not promised until then (Z58)', async () => {
  const { keeper, ask, bring, senders } = start();
  const name = N2.members[0] ?? '';
  const sender = (pid: number, user: string): SyncSender => ({ pid, name, user, priority: 1, flushLsn: null, startedMs: 2000 });
  const walsender = (voter: string | null, syncState: string): PostgresReport['walsenders'][number] => ({
    node: id('n2'),
    state: 'streaming',
    sentLsn: null,
    writeLsn: null,
    flushLsn: null,
    replayLsn: null,
    replayLagMs: null,
    syncState,
    voter,
  });
  const impostors: readonly (readonly [string, readonly SyncSender[], PostgresReport['walsenders']])[] = [
    ['of another role', [sender(1, 'pgherd_replication'), sender(2, 'postgres')], [walsender(name, 'quorum'), walsender(null, 'quorum')]],
    ['of the same role', [sender(1, 'pgherd_replication'), sender(2, 'pgherd_replication')], [walsender(name, 'quorum'), walsender(name, 'quorum')]],
  ];
  for (const [what, theirs, seen] of impostors) {
    await bring(N2, 1);
    for (const one of theirs) senders.set(one.pid, one);
    assert.equal(ask(N2, 1), 1, what);
    keeper.step({ ...PRIMARY, walsenders: seen }, { set: N2, term: 1, revision: 1 });
    assert.equal(keeper.report()?.revision, 0, what);
    await bring(N2, 1);
    assert.equal(senders.has(2), false, what);
    senders.clear();
  }
  // Who replicates beside the members, and counts for nobody, is nobody's concern.
  await bring(N2, 1);
  keeper.step({ ...PRIMARY, walsenders: [walsender(name, 'quorum'), walsender(null, 'async')] }, { set: N2, term: 1, revision: 1 });
  assert.equal(keeper.report()?.revision, 1);
});
