/** Modelled servers behind the driver, on virtual time; the agent's operations go through the same port that the simulated agents have. */
import assert from 'node:assert/strict';
import type { Logger } from '../../../src/base/log.ts';
import type { Upstream } from '../../../src/agent/ports.ts';
import { makeNodeId, makeTimeline } from '../../../src/core/ids.ts';
import type { Failure, Result } from '../../../src/core/result.ts';
import { type ClusterSpec, clusterSpec } from '../../../src/core/spec.ts';
import { type VirtualClock, createClock } from '../../../sim/clock.ts';
import { type ModelPort, createModelPort } from '../../../sim/model/postgres/port.ts';
import { type Server, createServer } from '../../../sim/model/postgres/server.ts';
import type { WalRecord } from '../../../sim/model/postgres/wal.ts';
import { createStreamHub } from '../../../sim/model/stream.ts';
import { type Network, createNetwork } from '../../../sim/network.ts';
import { createRandom } from '../../../sim/random.ts';
import type { Driver, Node, RunningCommit } from './driver.ts';
import { startVirtualTime } from './virtual-time.ts';

const LIMIT_MS = 10_000;
const PORT = 5432;
const never = new AbortController().signal;
const outcomeOf = (result: Result<unknown, Failure>): string => (result.ok ? 'ok' : result.error.code);
const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } as unknown as Logger;

/** With what only a model can offer. */
export interface ModelDriver extends Driver {
  readonly clock: VirtualClock;
  readonly network: Network;
  server(name: string): Server;
  port(name: string): ModelPort;
}

export function createModelDriver(seed: bigint): ModelDriver {
  const clock = createClock();
  const time = startVirtualTime(clock);
  const random = createRandom(seed);
  const network = createNetwork(clock, random.stream('network'));
  const streams = createStreamHub(clock, network);
  const servers = new Map<string, Server>();
  const ports = new Map<string, ModelPort>();
  const journal = new Map<number, WalRecord>();
  let ids = 0;

  async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
    const deadline = clock.now() + LIMIT_MS;
    while (!(await condition())) {
      if (clock.now() > deadline) assert.fail(`not within ${LIMIT_MS} ms of virtual time: ${what}`);
      await clock.sleep(5);
    }
  }

  function makeNode(name: string): Node {
    const machine = clock.scope(name);
    const server = createServer({
      name,
      host: name,
      port: PORT,
      clock,
      machine,
      network,
      streams,
      random: random.stream(name),
      journal,
      find: (host) => servers.get(host)?.core ?? null,
      // No process is late with its settings here: that is no fact but chance.
      timings: { reloadLate: 8 },
    });
    servers.set(name, server);
    const spec = (): ClusterSpec => specOf([...servers.keys()]);
    const port = createModelPort({
      server,
      servers,
      agent: machine.child('agent'),
      random: random.stream(`port ${name}`),
      log: silent,
      spec,
      closeFirewall: () => Promise.resolve(),
      names: 'plain',
    });
    ports.set(name, port);
    const { core } = server;
    const at = (node: Node): Upstream => ({ node: makeNodeId(node.name), host: node.name, port: PORT });
    const nothing = (): void => undefined;
    const commit = (durability: 'on' | 'local'): RunningCommit => {
      const id = ++ids;
      let state: ReturnType<RunningCommit['state']> = 'running';
      server.commit({ id, durability }, (outcome) => {
        state = outcome === 'refused' ? 'lost' : outcome;
      });
      return { id, state: () => state };
    };
    const copyOf = (from: Parameters<typeof at>[0]) => ({ upstream: at(from), source: at(from), rateKb: null });
    return {
      name,
      create: async () => {
        assert.equal(outcomeOf(await port.initdb(spec(), never)), 'ok');
        assert.equal(outcomeOf(await port.startPrimary(spec(), () => true, never)), 'ok');
      },
      clone: async (from) => outcomeOf(await port.clone(spec(), copyOf(from), never, nothing)),
      cloneInterrupted: async (from) => {
        const stop = new AbortController();
        return outcomeOf(await port.clone(spec(), copyOf(from), stop.signal, () => stop.abort()));
      },
      start: async (role) => {
        const upstream = server.disk.directory?.settings.get('primary_conninfo') ?? '';
        const host = /host=(\S+)/.exec(upstream)?.[1];
        const started =
          role === 'primary'
            ? await port.startPrimary(spec(), () => true, never)
            : await port.startStandby(spec(), host === undefined ? null : { node: makeNodeId(host), host, port: PORT }, never);
        return outcomeOf(started);
      },
      stop: async (mode) => {
        if (mode === 'fast') return outcomeOf(await port.stop(spec(), never));
        if (mode === 'kill') server.killAll();
        else server.signal('immediate');
        await until('the processes are gone', () => core.run === null);
        return 'ok';
      },
      promote: async () => {
        server.promote();
        await until('out of recovery', () => core.run?.role === 'primary');
      },
      promoteAbove: async (used, mayPromote) =>
        outcomeOf(
          await port.promote({
            requiredLsn: null,
            usedTimeline: makeTimeline(used),
            mayPromote: () => mayPromote,
            ready: Promise.resolve(),
            onWritable: nothing,
            signal: never,
          }),
        ),
      follow: async (node) => outcomeOf(await port.follow(at(node), never)),
      rewind: async (node) => outcomeOf(await port.rewind(spec(), at(node), never, nothing)),
      detach: async () => {
        const detached = await port.detach(never);
        if (!detached.ok) return detached.error.code;
        assert.ok(detached.value.position !== null);
        return { ...detached.value.position, final: detached.value.final };
      },
      checkpoint: async () => assert.equal(outcomeOf(await port.checkpoint(never)), 'ok'),
      report: () => port.observe(),
      controlTimeline: async () => server.disk.directory?.checkpointTli ?? 0,
      write: async () => {
        const done = commit('local');
        await until('the row is committed', () => done.state() === 'acknowledged');
        return done.id;
      },
      fillWal: async (bytes) => server.write(bytes),
      commit: async () => commit('on'),
      syncWaiters: async () => core.run?.syncWait.length ?? 0,
      cancelSyncWaits: async () => server.cancelSyncWaits(),
      sees: async (id) => {
        const record = journal.get(id);
        return record !== undefined && server.sees(record);
      },
      set: async (setting, value) => {
        server.alterSystem({ [setting]: value });
        server.reload();
      },
      priorities: async () => Object.fromEntries([...(core.run?.links ?? [])].map((link) => [link.application, link.priority])),
      slots: async () => Object.fromEntries((await port.listSlots()).map((slot) => [slot.name, slot.walStatus])),
      makeSlot: async (slot) => {
        const directory = server.disk.directory;
        assert.ok(directory !== null);
        directory.slots.set(slot, { name: slot, restartLsn: directory.checkpoint.lsn, active: false, lost: false });
      },
      hasWalreceiver: async () => core.run?.receiver != null,
      pauseReplay: async () => server.pauseReplay(),
      resumeReplay: async () => server.resumeReplay(),
      blockStartup: async () => server.blockStartup(),
      unblockStartup: async () => server.unblockStartup(),
      freeze: () => server.pause(),
      thaw: () => server.resume(),
    };
  }

  const found = <T>(all: ReadonlyMap<string, T>, name: string): T => {
    const one = all.get(name);
    assert.ok(one !== undefined, name);
    return one;
  };
  return {
    node: (name) => Promise.resolve(makeNode(name)),
    until,
    sleep: (ms) => clock.sleep(ms),
    close: () => time.stop(),
    clock,
    network,
    server: (name) => found(servers, name),
    port: (name) => found(ports, name),
  };
}

function specOf(names: readonly string[]): ClusterSpec {
  const decoded = clusterSpec({ name: 'c', nodes: names.map((name) => ({ id: name, host: name, port: PORT })) }, '');
  if (!decoded.ok) throw new Error(decoded.error.message);
  return decoded.value;
}
