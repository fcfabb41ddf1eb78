/** Carries out the entries of a plan. Each beginning answers how to end it; ends are harmless when the thing ended meanwhile. */
import { assertNever } from '../src/core/result.ts';
import { beginOperation, undoSettings } from './operation-faults.ts';
import type { Operator } from './operator.ts';
import { type Fault, type FaultKind, describeFault } from './plan.ts';
import type { SettingChecks } from './checks/settings.ts';
import type { WriterChecks } from './checks/writers.ts';
import type { Clients } from './clients.ts';
import { beginHunt } from './hunt-faults.ts';
import { NAMES } from './model/postgres/sync-doors.ts';
import type { Restorer } from './restores.ts';
import { type World, nodeOf } from './world/world.ts';

export interface FaultContext {
  readonly world: World;
  readonly operator: Operator;
  readonly clients: Clients;
  readonly writers: WriterChecks;
  readonly settings: SettingChecks;
  readonly restorer: Restorer;
}

type End = () => void;
const nothing: End = () => undefined;

/** Puts every fault of an episode that begins now on the clock. */
export function scheduleEpisode(context: FaultContext, faults: readonly Fault[]): void {
  const { world } = context;
  const begun = world.clock.now();
  const cuts = createCutCounter(world);
  for (const fault of faults) {
    world.clock.at(begun + fault.at, () => {
      world.trace.add('fault', describeFault(fault));
      const end = begin(context, fault.what, cuts);
      if (fault.forMs > 0)
        world.clock.after(fault.forMs, () => {
          if (end !== nothing) world.trace.add('fault', `#${fault.id} ${fault.what.kind} ends`);
          end();
        });
      else end();
    });
  }
}

function begin(context: FaultContext, what: FaultKind, cuts: CutCounter): End {
  const { world, operator, clients } = context;
  switch (what.kind) {
    case 'agent-kill':
    case 'agent-stop':
    case 'guard-kill':
    case 'guard-stop':
    case 'agent-and-guard-kill':
      return beginAgent(world, what);
    case 'postgres-kill':
    case 'postgres-stop':
    case 'postgres-shutdown':
    case 'postgres-immediate':
    case 'replay-pause':
    case 'promote-by-hand':
      return beginPostgres(context, what);
    case 'power-loss':
    case 'suspend':
    case 'freeze':
      return beginMachine(world, what);
    case 'server-kill':
    case 'server-stop': {
      const server = world.servers.find((one) => one.name === what.server);
      if (what.kind === 'server-kill') {
        server?.kill();
        return () => server?.start();
      }
      server?.stop();
      return () => server?.resume();
    }
    case 'store-kill':
    case 'store-stop':
    case 'store-leader-loss':
    case 'store-slow':
    case 'store-lost':
      return beginStore(world, what);
    case 'proxy-kill':
      world.proxy?.kill();
      return nothing;
    case 'proxy-stop':
      world.proxy?.stop();
      return () => world.proxy?.resume();
    case 'store-restore':
      context.restorer.begin(what);
      return nothing;
    case 'cut':
      for (const [from, to] of what.links) cuts.cut(from, to);
      return () => {
        for (const [from, to] of what.links) cuts.heal(from, to);
      };
    case 'bad-links':
      for (const [from, to] of what.links) world.network.setLink(from, to, { extraMs: what.extraMs, loss: what.loss });
      return () => {
        for (const [from, to] of what.links) world.network.setLink(from, to, { extraMs: 0, loss: 0 });
      };
    case 'wall-jump':
      world.machines.of(what.host).clock.jumpWall(what.ms);
      return nothing;
    case 'disk-full': {
      const node = nodeOf(world, what.node);
      node.disk.full = true;
      node.database?.setDisk({ full: true });
      return () => {
        node.disk.full = false;
        node.database?.setDisk({ full: false });
      };
    }
    case 'disk-slow': {
      const node = nodeOf(world, what.node);
      node.disk.slowMs = 400;
      node.database?.setDisk({ slowMs: 400 });
      return () => {
        node.disk.slowMs = 0;
        node.database?.setDisk({ slowMs: 0 });
      };
    }
    case 'primary-pause':
    case 'primary-cut':
    case 'primary-power-loss':
    case 'primary-agent-stop':
    case 'primary-guard-stop':
    case 'primary-load':
    case 'primary-whispers':
    case 'voter-loss':
    case 'most-power-loss':
    case 'whispers-when-raised':
    case 'candidate-trouble':
    case 'other-agents-kill':
    case 'others-in-maintenance':
      return beginHunt(world, operator, what, cuts) ?? nothing;
    case 'others-power-loss':
    case 'settings':
    case 'cancel':
    case 'address-taken':
      return beginOperation(world, operator, what) ?? nothing;
    case 'alter-system':
      alterByHand(context, what);
      return nothing;
    case 'burst':
      clients.burst(what.bytes);
      return nothing;
    case 'task':
      operator.ask(what.request);
      return nothing;
    default:
      return assertNever(what, 'fault');
  }
}

type Of<K extends FaultKind['kind']> = Extract<FaultKind, { kind: K }>;

function beginAgent(world: World, what: FaultKind & { readonly node: string }): End {
  const node = nodeOf(world, what.node);
  switch (what.kind) {
    case 'agent-kill':
      node.holdAgent();
      node.killAgent();
      return node.startAgent;
    case 'agent-stop':
      node.stopAgent();
      return node.resumeAgent;
    case 'guard-kill':
      node.guard.kill();
      return nothing;
    case 'guard-stop':
      node.guard.pause();
      return node.guard.resume;
    default:
      node.holdAgent();
      node.killAgent();
      node.guard.kill();
      return node.startAgent;
  }
}

function beginPostgres({ world, writers }: FaultContext, what: FaultKind & { readonly node: string }): End {
  const { database } = nodeOf(world, what.node);
  if (database === null) return nothing;
  switch (what.kind) {
    case 'postgres-kill':
      database.kill();
      return nothing;
    case 'postgres-stop':
      database.stop();
      return database.resume;
    case 'postgres-shutdown':
      database.shutdown('fast');
      return nothing;
    case 'postgres-immediate':
      database.shutdown('immediate');
      return nothing;
    case 'replay-pause':
      database.pauseReplay();
      return database.resumeReplay;
    default:
      if (database.isReadable() && !database.isWritable()) {
        writers.tampered(what.node);
        database.promoteByHand();
      }
      return nothing;
  }
}

function alterByHand({ world, settings }: FaultContext, { node, name, value }: Of<'alter-system'>): void {
  const on = node ?? world.state()?.primary ?? null;
  const database = on === null ? null : nodeOf(world, on).database;
  if (on === null || database === null || !database.isReadable()) return;
  database.alterSystem(name, value);
  if (name === NAMES) settings.altered(on, value);
}

function beginMachine(world: World, what: Of<'power-loss' | 'suspend' | 'freeze'>): End {
  const machine = world.machines.of(what.node);
  if (what.kind === 'power-loss') {
    machine.powerOff();
    return machine.powerOn;
  }
  machine.suspend(what.kind === 'suspend' ? 'suspended' : 'frozen');
  return machine.resume;
}

function beginStore(world: World, what: FaultKind): End {
  const { store } = world;
  switch (what.kind) {
    case 'store-kill':
      store.kill(what.member);
      return () => restartMember(world, what.member);
    case 'store-stop':
      store.pause(what.member);
      return () => store.resume(what.member);
    case 'store-leader-loss':
      store.loseLeader();
      return nothing;
    case 'store-slow':
      store.setDelays({ commitMs: what.commitMs, watchMs: what.watchMs });
      return () => store.setDelays({ commitMs: 0, watchMs: 0 });
    case 'store-lost':
      for (const member of store.members) store.kill(member);
      return () => {
        for (const member of store.members) restartMember(world, member);
      };
    default:
      return nothing;
  }
}

export function restartMember(world: World, member: string): void {
  const machine = world.machines.of(member);
  if (machine.scope().alive() && !world.store.accepts(member)) world.store.start(member, machine.scope());
}

interface CutCounter {
  cut(from: string, to: string): void;
  heal(from: string, to: string): void;
}

/** Two cuts of one link overlap: it is open again when both have ended. */
function createCutCounter(world: World): CutCounter {
  const counts = new Map<string, number>();
  const count = (from: string, to: string, by: number): number => {
    const name = `${from}>${to}`;
    const next = Math.max(0, (counts.get(name) ?? 0) + by);
    counts.set(name, next);
    return next;
  };
  return {
    cut: (from, to) => {
      if (count(from, to, 1) === 1) world.network.setLink(from, to, { cut: true });
    },
    heal: (from, to) => {
      if (count(from, to, -1) === 0) world.network.setLink(from, to, { cut: false });
    },
  };
}

/** Everything works again: what the plan broke, and what operators asked for in its course. */
export function healEverything(context: FaultContext): void {
  const { world, operator } = context;
  world.trace.add('fault', 'everything heals');
  world.network.healAll();
  world.store.setDelays({ commitMs: 0, watchMs: 0 });
  for (const machine of world.machines.all()) {
    machine.resume();
    machine.powerOn();
  }
  for (const member of world.store.members) {
    world.store.resume(member);
    restartMember(world, member);
  }
  for (const server of world.servers) {
    server.resume();
    server.start();
  }
  world.proxy?.resume();
  world.proxy?.start();
  for (const node of world.nodes.values()) {
    node.disk.full = false;
    node.disk.slowMs = 0;
    node.database?.setDisk({ full: false, slowMs: 0 });
    node.database?.resume();
    node.database?.resumeReplay();
    node.guard.resume();
    node.resumeAgent();
    node.startAgent();
  }
  world.lan?.withdrawAll();
  if (world.lan !== null) undoSettings(world);
  undoCommands(world, operator);
}

/** What people stopped, froze or took out, they put back: in the end the cluster is to be whole. */
export function undoCommands(world: World, operator: Operator): void {
  const state = world.state();
  if (state === null) return;
  if (state.frozen !== null) operator.ask({ kind: 'unfreeze' });
  if (state.phase === 'stopped' || state.phase === 'stopping') operator.ask({ kind: 'clusterStart' });
  for (const [node, override] of Object.entries(state.overrides)) {
    if (override.kind === 'stopped') operator.ask({ kind: 'nodeStart', node });
    else if (override.kind === 'maintenance') operator.ask({ kind: 'nodeMaintenance', node, on: false });
    else operator.ask({ kind: 'nodeRejoin', node, via: null, source: null, rateKb: null });
  }
}
