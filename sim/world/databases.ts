/** The modelled PostgreSQL servers of a world, as the rest of the world wants them (database.ts). */
import type { NodeId } from '../../src/core/ids.ts';
import type { VirtualClock } from '../clock.ts';
import type { StreamHub } from '../model/stream.ts';
import { createModelPort } from '../model/postgres/port.ts';
import { type Server, createServer } from '../model/postgres/server.ts';
import { type WalRecord, contains } from '../model/postgres/wal.ts';
import type { Network } from '../network.ts';
import type { Random } from '../random.ts';
import type { Trace } from '../trace.ts';
import type { Database } from './database.ts';
import type { Machines } from './machines.ts';
import type { Port } from './port.ts';

export interface DatabaseParts {
  readonly clock: VirtualClock;
  readonly network: Network;
  readonly streams: StreamHub;
  readonly trace: Trace;
  readonly machines: Machines;
}

const PORT = 5432;
/** SIGKILL for a tree of processes, and the look whether all are gone. */
const KILL_MS = 6;

export function createDatabases(parts: DatabaseParts): (node: { readonly name: NodeId; readonly port: Port; readonly random: Random }) => Database {
  const { clock, network, streams, trace, machines } = parts;
  const servers = new Map<string, Server>();
  const journal = new Map<number, WalRecord>();

  return ({ name, port, random }) => {
    const server = createServer({
      name,
      host: name,
      port: PORT,
      clock,
      machine: machines.of(name).scope(),
      network,
      streams,
      random,
      journal,
      find: (host) => servers.get(host)?.core ?? null,
      admits: () => port.lets('client') || port.lets('member'),
    });
    servers.set(name, server);
    server.onNote((text) => trace.add(`${name}/postgres`, text));
    const { core } = server;
    const isPublic = (): boolean => core.run !== null && !core.run.isPrivate;
    return {
      server,
      bind: (agent, options) =>
        createModelPort({ server, servers, agent, random: random.stream('port'), log: trace.logger(`${name}/agent`), ...options }),
      killAll: async () => {
        await clock.sleep(KILL_MS * (0.5 + random.next()));
        server.killAll();
        return core.run === null;
      },
      isAlive: (postmaster) => core.run?.pid === postmaster.pid,
      isWritable: () => server.isWritable() && isPublic(),
      isAliveAsPrimary: () => core.run?.role === 'primary',
      isReadable: () => server.answers() && isPublic(),
      powerOff: server.powerOff,
      powerOn: server.powerOn,
      kill: server.killPostmaster,
      stop: server.pause,
      resume: server.resume,
      shutdown: server.signal,
      pauseReplay: server.pauseReplay,
      resumeReplay: server.resumeReplay,
      promoteByHand: server.promote,
      alterSystem: (setting, value) => {
        if (core.disk.full || core.disk.readOnly) return;
        server.alterSystem({ [setting]: value });
        server.reload();
      },
      setDisk: ({ full, slowMs }) =>
        server.setDisk({ ...(full === undefined ? {} : { full }), ...(slowMs === undefined ? {} : { fsyncMs: 0.5 + slowMs }) }),
      commit: (commit, done) =>
        void server.commit({ id: commit.id, bytes: commit.bytes, durability: 'on' }, (outcome) => {
          if (outcome === 'acknowledged' || outcome === 'refused') done(outcome);
        }),
      probe: (answer) => {
        const status = core.run?.status ?? null;
        if (status === null) answer('failed');
        else if (!server.answers()) {
          // A stopped process accepts the connection and says nothing; one that starts or stops refuses.
          if (core.process?.paused() !== true) answer('blocked');
        } else if (status === 'standby') answer('standby');
        else {
          server.write(96);
          answer('primary');
        }
      },
      has: (id) => {
        const record = journal.get(id);
        return record !== undefined && server.sees(record);
      },
      hasDurably: (id) => {
        const record = journal.get(id);
        const durable = core.disk.directory?.durable ?? null;
        return record !== undefined && durable !== null && contains(durable, record);
      },
      holds: (id) => {
        const record = journal.get(id);
        const end = core.run?.role === 'primary' ? core.run.inserted : (core.disk.directory?.end ?? null);
        return record !== undefined && end !== null && contains(end, record);
      },
    };
  };
}
