/** Real servers behind the driver: the product's own operations where it has them, statements and signals where it has not. */
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { realClock } from '../../../src/base/clock.ts';
import { makeTimeline } from '../../../src/core/ids.ts';
import type { Failure, Result } from '../../../src/core/result.ts';
import { runCheckpoint } from '../../../src/agent/postgres/checkpoint.ts';
import { cloneFrom } from '../../../src/agent/postgres/clone.ts';
import { readControlData } from '../../../src/agent/postgres/control-data.ts';
import { detachStandby } from '../../../src/agent/postgres/detach.ts';
import { followUpstream } from '../../../src/agent/postgres/follow.ts';
import type { Instance } from '../../../src/agent/postgres/instance.ts';
import { killAll } from '../../../src/agent/postgres/kill-all.ts';
import { createObserver } from '../../../src/agent/postgres/observe.ts';
import { findPostmaster, listDescendants } from '../../../src/agent/postgres/postmaster.ts';
import { promotePostgres } from '../../../src/agent/postgres/promote.ts';
import { rewindTo } from '../../../src/agent/postgres/rewind.ts';
import { startPostgres } from '../../../src/agent/postgres/start.ts';
import { stopPostgres } from '../../../src/agent/postgres/stop.ts';
import { createLab, createPrimary, must, settings, signalServer, sql, until } from '../../postgres/harness.ts';
import type { Driver, Node, RunningCommit } from './driver.ts';

const outcomeOf = (result: Result<unknown, Failure>): string => (result.ok ? 'ok' : result.error.code);

export function createRealDriver(): Driver {
  const lab = createLab();
  const made: RealNode[] = [];
  return {
    node: async (name) => {
      const instance = await lab.node(name);
      const node = createNode(instance, () => made.map((one) => one.instance));
      made.push(node);
      return node;
    },
    until,
    sleep: (ms) => realClock.sleep(ms),
    close: async () => {
      for (const node of made) node.close();
      await lab.close();
    },
  };
}

interface RealNode extends Node {
  readonly instance: Instance;
  close(): void;
}

function createNode(instance: Instance, all: () => readonly Instance[]): RealNode {
  const observer = createObserver(instance, {
    members: () => all().map((one) => ({ id: one.node, host: one.host, internalHost: null, port: one.port })),
  });
  const clients = new Set<pg.Client>();
  let ids = 0;
  let blocked: number | null = null;
  const upstream = (node: Node): Instance => (node as RealNode).instance;
  const nextId = (): number => Number(`${instance.port}${++ids}`);
  const one = async (text: string): Promise<Readonly<Record<string, unknown>>> => (await sql(instance, (db) => db.query(text)))[0] ?? {};

  const clone = async (from: Node, signal?: AbortSignal, onProgress?: () => void): Promise<string> =>
    outcomeOf(
      await cloneFrom(instance, {
        upstream: upstream(from),
        settings,
        systemIdentifier: null,
        keepSaved: 1,
        applicationName: instance.node,
        ...(signal === undefined ? {} : { signal, maxRateKb: 8192 }),
        ...(onProgress === undefined ? {} : { onProgress }),
      }),
    );

  return {
    name: instance.node,
    instance,
    close: () => {
      if (blocked !== null) process.kill(blocked, 'SIGCONT');
      observer.close();
      for (const client of clients) client.end().catch(() => undefined);
    },
    create: async () => {
      await createPrimary(instance);
      await sql(instance, (db) => db.query('CREATE TABLE public.t (id bigint PRIMARY KEY)'));
    },
    clone: (from) => clone(from),
    cloneInterrupted: (from) => {
      const stop = new AbortController();
      return clone(from, stop.signal, () => stop.abort());
    },
    start: async (role) => outcomeOf(await startPostgres(instance, { mode: role, mayStart: () => true })),
    stop: async (mode) => {
      if (mode !== 'kill') return outcomeOf(await stopPostgres(instance, { from: mode, immediateMs: 5000 }));
      return (await killAll(instance.dataDirectory)).survivors.length === 0 ? 'ok' : 'survivors';
    },
    promote: async () => {
      await sql(instance, (db) => db.query('SELECT pg_promote(false)'));
      await until('out of recovery', async () => (await one('SELECT pg_is_in_recovery() AS recovery'))['recovery'] === false);
    },
    promoteAbove: async (used, mayPromote) =>
      outcomeOf(await promotePostgres(instance, { requiredLsn: null, usedTimeline: makeTimeline(used), mayPromote: () => mayPromote })),
    follow: async (node, limitMs) =>
      outcomeOf(
        await followUpstream(instance, { upstream: upstream(node), applicationName: instance.node, ...(limitMs === undefined ? {} : { limitMs }) }),
      ),
    rewind: async (node) => outcomeOf(await rewindTo(instance, { upstream: upstream(node), settings, keepSaved: 1, applicationName: instance.node })),
    detach: async () => {
      const detached = await detachStandby(instance);
      return detached.ok ? { ...detached.value.position, final: detached.value.final } : detached.error.code;
    },
    checkpoint: async () => void must(await runCheckpoint(instance)),
    report: () => observer.observe(),
    controlTimeline: async () => must(await readControlData(instance)).timeline,
    write: async () => {
      const id = nextId();
      await sql(instance, (db) => db.query('INSERT INTO public.t VALUES ($1)', [id]));
      return id;
    },
    fillWal: async (bytes) => {
      for (let left = bytes; left > 0; left -= 16 * 1024 * 1024) {
        await sql(instance, (db) => db.query("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000)), pg_switch_wal()"));
      }
    },
    commit: async (): Promise<RunningCommit> => {
      const id = nextId();
      const client = new pg.Client({ host: instance.socketDirectory, port: instance.port, user: 'pgherd', database: 'postgres' });
      let warned = false;
      let state: ReturnType<RunningCommit['state']> = 'running';
      client.on('notice', () => {
        warned = true;
      });
      client.on('error', () => {
        if (state === 'running') state = 'lost';
      });
      clients.add(client);
      await client.connect();
      client.query('INSERT INTO public.t VALUES ($1)', [id]).then(
        () => {
          state = warned ? 'unprotected' : 'acknowledged';
        },
        () => {
          state = 'lost';
        },
      );
      return { id, state: () => state };
    },
    syncWaiters: async () => Number((await one("SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))['n']),
    cancelSyncWaits: async () => void (await one("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")),
    sees: async (id) => Number((await one(`SELECT count(*)::int AS n FROM public.t WHERE id = ${id}`))['n']) === 1,
    set: async (name, value) => {
      await sql(instance, async (db) => {
        await db.query(`ALTER SYSTEM SET ${name} = '${value}'`);
        await db.query('SELECT pg_reload_conf()');
      });
    },
    priorities: async () => {
      const rows = await sql(instance, (db) => db.query('SELECT application_name, sync_priority FROM pg_stat_replication'));
      return Object.fromEntries(rows.map((row) => [String(row['application_name']), Number(row['sync_priority'])]));
    },
    slots: async () => {
      const rows = await sql(instance, (db) => db.query('SELECT slot_name, wal_status FROM pg_replication_slots'));
      return Object.fromEntries(rows.map((row) => [String(row['slot_name']), row['wal_status'] === null ? null : String(row['wal_status'])]));
    },
    makeSlot: async (name) => void (await one(`SELECT pg_create_physical_replication_slot('${name}', true)`)),
    hasWalreceiver: async () => Number((await one("SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type = 'walreceiver'"))['n']) > 0,
    pauseReplay: async () => void (await one('SELECT pg_wal_replay_pause()')),
    resumeReplay: async () => void (await one('SELECT pg_wal_replay_resume()')),
    blockStartup: async () => {
      blocked = startupProcess(instance);
      process.kill(blocked, 'SIGSTOP');
    },
    unblockStartup: async () => {
      if (blocked !== null) process.kill(blocked, 'SIGCONT');
      blocked = null;
    },
    freeze: () => signalServer(instance.dataDirectory, 'SIGSTOP'),
    thaw: () => signalServer(instance.dataDirectory, 'SIGCONT'),
  };
}

function startupProcess(instance: Instance): number {
  const postmaster = findPostmaster(instance.dataDirectory);
  const found = listDescendants(postmaster?.pid ?? -1).find((child) => readFileSync(`/proc/${child.pid}/cmdline`, 'latin1').includes('startup'));
  if (found === undefined) throw new Error(`${instance.node} has no startup process`);
  return found.pid;
}
