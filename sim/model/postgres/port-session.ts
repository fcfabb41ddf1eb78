/** How the modelled door of the agent reaches a server: local statements, settings that win, reaching another member. Codes and limits are those of src/agent/postgres. */
import { cancelled, failure } from '../../../src/agent/postgres/failure.ts';
import type { Logger } from '../../../src/base/log.ts';
import type { Upstream } from '../../../src/agent/ports.ts';
import { type Failure, type Result, err, ok } from '../../../src/core/result.ts';
import type { ClusterSpec } from '../../../src/core/spec.ts';
import type { Scope } from '../../clock.ts';
import type { Random } from '../../random.ts';
import { type Core, type Run, isResponsive, setting } from './core.ts';
import { forgetSkipped } from './directory.ts';
import type { Server } from './server.ts';

export interface PortContext {
  readonly server: Server;
  readonly core: Core;
  /** The agent's process: what waits here ends with it. */
  readonly agent: Scope;
  readonly random: Random;
  readonly log: Logger;
  readonly spec: () => ClusterSpec | null;
  readonly closeFirewall: () => Promise<void>;
  readonly servers: ReadonlyMap<string, Server>;
  /** What this node's walreceiver calls itself. */
  readonly applicationName: () => string;
  /** A stop ladder works: the end of the postmaster is no surprise. */
  stopping: boolean;
}

const CONNECT_MS = 2000;
/** statement_timeout of the agent's sessions, and what the driver adds. */
const STATEMENT_MS = 5500;

/** Asked as a function: it changes while one waits. */
const isAborted = (signal: AbortSignal | null): boolean => signal?.aborted === true;

/** A connection that broke; becomes `postgres.query`. */
class SessionLost extends Error {}

export interface Session {
  readonly run: Run;
  /** One statement: some time, or the loss of the session. */
  query(): Promise<void>;
}

/** As withLocalSql. Errors: `postgres.connect`, `postgres.query`, `postgres.cancelled`. */
export async function withSession<T>(
  context: PortContext,
  signal: AbortSignal | null,
  work: (session: Session) => Promise<T>,
): Promise<Result<T, Failure>> {
  const { core, agent, random } = context;
  const where = `pgherd@${core.name}`;
  if (isAborted(signal)) return err(cancelled(where));
  if (core.run !== null && !isResponsive(core)) await agent.sleep(CONNECT_MS);
  else await agent.sleep(0.5 + random.next());
  const { run } = core;
  if (run === null || !isResponsive(core) || (run.status !== 'standby' && run.status !== 'primary'))
    return err(
      failure(
        'postgres.connect',
        `cannot connect to ${where}`,
        run === null ? 'ECONNREFUSED' : `the server is ${run.status}`,
        'it is tried again',
        '',
        true,
      ),
    );
  const query = async (): Promise<void> => {
    await agent.sleep(0.2 + 0.4 * random.next());
    for (let waited = 0; core.run === run && core.process?.paused() === true && !isAborted(signal); waited += 100) {
      if (waited >= STATEMENT_MS) throw new SessionLost('Query read timeout');
      await agent.sleep(100);
    }
    if (isAborted(signal)) throw new SessionLost('cancelled');
    if (core.run !== run || !isResponsive(core)) throw new SessionLost('Connection terminated unexpectedly');
    if (run.status === 'stopping') throw new SessionLost('terminating connection due to administrator command (SQLSTATE 57P01)');
  };
  try {
    return ok(await work({ run, query }));
  } catch (cause) {
    if (!(cause instanceof SessionLost)) throw cause;
    if (isAborted(signal)) return err(cancelled(where));
    return err(failure('postgres.query', `a statement on ${where} failed`, cause.message, 'it is tried again', '', true));
  }
}

/** As setWinning: by ALTER SYSTEM and a reload while the server runs, by rewriting the file while it does not. */
export async function setWinning(
  context: PortContext,
  changes: Readonly<Record<string, string | null>>,
  signal: AbortSignal | null,
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  const { core, server } = context;
  const { directory } = core.disk;
  const wanted = Object.entries(changes).filter(([name, value]) => (directory?.settings.get(name) ?? null) !== value);
  if (wanted.length === 0) return ok({ changed: false });
  if (core.run === null) {
    // A half copy takes the line like any directory, and is not started for it.
    if (directory === null && core.disk.incomplete !== null) return ok({ changed: true });
    if (directory === null || core.disk.full || core.disk.readOnly)
      return err(
        failure(
          'postgres.auto-conf',
          `cannot write the settings of ${core.name}`,
          'no space left on device',
          'they stay as they were',
          'check the disk',
          true,
        ),
      );
    server.alterSystem(Object.fromEntries(wanted));
    return ok({ changed: true });
  }
  const done = await withSession(context, signal, async (session) => {
    await session.query();
    if (core.disk.full || core.disk.readOnly) return false;
    server.alterSystem(Object.fromEntries(wanted));
    server.reload();
    return true;
  });
  if (!done.ok) return done;
  if (done.value) return ok({ changed: true });
  return err(
    failure('postgres.query', `a statement on pgherd@${core.name} failed`, 'No space left on device (SQLSTATE 53100)', 'it is tried again', '', true),
  );
}

export function clearUpstream(context: PortContext, signal: AbortSignal | null): Promise<Result<{ readonly changed: boolean }, Failure>> {
  return setWinning(context, { primary_conninfo: '', primary_slot_name: '' }, signal);
}

export function setUpstream(
  context: PortContext,
  upstream: Upstream,
  signal: AbortSignal | null,
): Promise<Result<{ readonly changed: boolean }, Failure>> {
  if (context.core.disk.directory !== null) forgetSkipped(context.core.disk.directory);
  return setWinning(context, { primary_conninfo: conninfoTo(context, upstream), primary_slot_name: slotName(context.core.name) }, signal);
}

export function conninfoTo(context: PortContext, upstream: Upstream): string {
  return `host=${upstream.host} port=${upstream.port} user=pgherd_replicator application_name=${context.applicationName()}`;
}

export function isEffective(run: Run, name: string, value: string): boolean {
  return setting(run.loaded, name) === value;
}

export function slotName(node: string): string {
  return `pgherd_${node.replaceAll('-', '_x2d_')}`;
}

/** A connection to another member's server, as a tool or a replication session: the server that answered, or why none did. Takes its time. */
export async function reach(context: PortContext, upstream: Upstream, signal: AbortSignal): Promise<Server | string> {
  const { core, agent } = context;
  const other = context.servers.get(upstream.host) ?? null;
  const open = (): boolean => other?.core.machine.alive() === true && canTalk(core, other.core);
  if (!open()) {
    await agent.sleep(CONNECT_MS, signal);
    return 'connection timed out';
  }
  await agent.sleep(2 + context.random.next());
  if (other === null || !open()) return 'connection timed out';
  if (other.core.run === null || other.core.run.isPrivate) return 'ECONNREFUSED';
  if (!isResponsive(other.core)) {
    await agent.sleep(CONNECT_MS, signal);
    return isResponsive(other.core) && other.answers() ? other : 'no answer within 2000 ms';
  }
  return other.answers() ? other : `the database system is ${other.core.run.status}`;
}

export function canTalk(core: Core, other: Core): boolean {
  return core.network.isConnected(core.host, other.host) && other.admits();
}
