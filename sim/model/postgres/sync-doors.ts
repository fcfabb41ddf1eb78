/**
 * What an agent sees of synchronous replication on its modelled server, and does to it: as src/agent/postgres/sync-set.ts asks a real one. The same
 * fields, so that the real judgement (`judgeInForce`) works on them.
 */
import type { SyncDoors, SyncLook } from '../../../src/agent/postgres/sync-set.ts';
import { ROLES } from '../../../src/agent/postgres/instance.ts';
import { renderSyncNames } from '../../../src/core/cluster/sync-set.ts';
import { makeLsn } from '../../../src/core/lsn.ts';
import type { Failure, Result } from '../../../src/core/result.ts';
import { setting } from './core.ts';
import { type PortContext, setWinning, withSession } from './port-session.ts';
import { endSender } from './replication.ts';

export const NAMES = 'synchronous_standby_names';

export function createSyncDoors(context: PortContext): SyncDoors {
  return {
    apply: (set) => applyNames(context, renderSyncNames(set)),
    written: async () => context.core.disk.directory?.settings.get(NAMES) ?? null,
    look: () => lookAtNames(context),
    end: (pids) => endWalsenders(context, pids),
  };
}

/** Brings the setting to `names`; a server that runs is told to reload. */
function applyNames(context: PortContext, names: string): Promise<Result<{ readonly changed: boolean }, Failure>> {
  return setWinning(context, { [NAMES]: names }, null);
}

/** One look: what a process that starts now acts on, every walsender with the priority that it has computed, and whether the checkpointer has it all. */
function lookAtNames(context: PortContext): Promise<Result<SyncLook, Failure>> {
  return withSession(context, null, async (session) => {
    await session.query();
    const { run } = session;
    return {
      names: setting(run.loaded, NAMES),
      recovery: run.role === 'standby',
      nowMs: context.core.clock.now(),
      senders: [...run.links]
        .filter((link) => !link.senderGone)
        .map((link) => ({
          pid: link.pid,
          name: link.application,
          user: ROLES.replication,
          priority: link.flush === null ? 0 : link.priority,
          flushLsn: link.flush === null ? null : makeLsn(BigInt(link.flush)),
          startedMs: link.startedAt,
        })),
      checkpointer: run.checkpointerLoaded === run.loaded ? ('idle' as const) : ('busy' as const),
    };
  });
}

/** pg_terminate_backend: the walreceivers come again, to walsenders that know the newest settings. */
function endWalsenders(context: PortContext, pids: readonly number[]): Promise<Result<null, Failure>> {
  return withSession(context, null, async (session) => {
    await session.query();
    for (const link of [...session.run.links]) if (pids.includes(link.pid)) endSender(link);
    return null;
  });
}
