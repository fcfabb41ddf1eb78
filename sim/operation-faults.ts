/**
 * What people do to a cluster over the years, in minutes: nodes come and go, go behind one another, settings change, commands are taken back in the middle; and
 * what meets a whole room at once. Drawn from a stream of its own, after everything else of a plan.
 */
import { decodeJson, encodeJson } from '../src/core/decode.ts';
import { assertNever } from '../src/core/result.ts';
import { type ClusterSpec, clusterSpec } from '../src/core/spec.ts';
import type { Operator } from './operator.ts';
import { type Entry, type FaultKind, type Plan, placeStory, withMore } from './plan.ts';
import { READ_ADDRESS, SPARE_NODE, WRITE_ADDRESS, type Shape } from './profiles.ts';
import type { Random } from './random.ts';
import type { World } from './world/world.ts';

export type OperationFault = Extract<FaultKind, { kind: 'settings' | 'cancel' | 'others-power-loss' | 'address-taken' }>;
type Change = Extract<OperationFault, { kind: 'settings' }>['change'];

/** The plan with a few such stories in each episode, numbered after all its other entries. */
export function addOperations(random: Random, plan: Plan, shape: Shape): Plan {
  return withMore(plan, (episode) =>
    Array.from({ length: random.pick([2, 3, 4]) }, () => {
      const begin = random.between(500, Math.max(1000, episode.lengthMs - 20_000));
      return placeStory(drawStory(random, shape), begin, episode);
    }).flat(),
  );
}

const task = (at: number, request: Readonly<Record<string, unknown>>): Entry => ({ at, forMs: 0, what: { kind: 'task', request } });
const settings = (at: number, forMs: number, change: Change): Entry => ({ at, forMs, what: { kind: 'settings', change } });

export const addRequest = (node: string): Readonly<Record<string, unknown>> => ({
  kind: 'nodeAdd',
  node,
  host: null,
  internalHost: null,
  port: null,
  role: 'data',
  priority: 100,
  location: null,
  tags: {},
  source: null,
  rateKb: null,
});

type Story = (random: Random, dataNodes: readonly string[], shape: Shape) => readonly Entry[];

const stories: readonly Story[] = [
  addAndRemove,
  addAndRemove,
  removeAndAdd,
  goBehind,
  takenBack,
  takenBack,
  lossWhileManual,
  lossOutOfTrust,
  everythingOff,
  stopAndStart,
  addressesComeAndGo,
  addressesComeAndGo,
  frozenForAWhile,
  lossWithFencing,
];

function drawStory(random: Random, shape: Shape): readonly Entry[] {
  const dataNodes = shape.nodes.filter((node) => node.kind === 'data').map((node) => node.name);
  return random.pick(stories)(random, dataNodes, shape);
}

function addAndRemove(random: Random): readonly Entry[] {
  const entries = [task(0, addRequest(SPARE_NODE))];
  if (random.chance(0.6)) entries.push(task(random.between(3000, 30_000), { kind: 'nodeRemove', node: SPARE_NODE, dropData: random.chance(0.5) }));
  return entries;
}

/** It comes back with the data that it left with, or with none. */
function removeAndAdd(random: Random, dataNodes: readonly string[]): readonly Entry[] {
  const node = random.pick(dataNodes);
  return [task(0, { kind: 'nodeRemove', node, dropData: random.chance(0.5) }), task(random.between(6000, 25_000), addRequest(node))];
}

function goBehind(random: Random, dataNodes: readonly string[]): readonly Entry[] {
  const [node = '', upstream = ''] = random.shuffle(dataNodes);
  const back = random.chance(0.7) ? [task(random.between(3000, 20_000), { kind: 'nodeFollow', node, upstream: null })] : [];
  return [task(0, { kind: 'nodeFollow', node, upstream }), ...back];
}

function takenBack(random: Random, dataNodes: readonly string[]): readonly Entry[] {
  const node = random.pick(dataNodes);
  const request = random.pick([
    { kind: 'switchover', to: null },
    { kind: 'clusterRestart', rolling: true },
    { kind: 'clusterStop' },
    { kind: 'nodeStop', node },
    { kind: 'nodeRejoin', node, via: 'clone', source: null, rateKb: null },
    { kind: 'nodeRemove', node, dropData: false },
    addRequest(SPARE_NODE),
    { kind: 'failover', to: null, acceptLoss: false },
  ]);
  const cancel: FaultKind = { kind: 'cancel' };
  return [task(0, request), { at: random.pick([1, 30, 300, 2000, 6000]) * random.between(0.5, 1.5), forMs: 0, what: cancel }];
}

function lossWhileManual(random: Random): readonly Entry[] {
  const forMs = random.between(10_000, 20_000);
  return [settings(0, forMs, 'failover-manual'), { at: 1000, forMs: random.between(4000, 15_000), what: { kind: 'primary-power-loss' } }];
}

/** The members that see the primary down reach no trusted address either. */
function lossOutOfTrust(random: Random, dataNodes: readonly string[], { clients }: Shape): readonly Entry[] {
  const forMs = random.between(8000, 15_000);
  const links = clients.flatMap((client) =>
    dataNodes.flatMap((node): [string, string][] => [
      [node, client],
      [client, node],
    ]),
  );
  return [
    settings(0, forMs + 5000, 'trusted-address'),
    { at: 2000, forMs, what: { kind: 'cut', what: 'every node from the clients', links } },
    { at: 2500, forMs: random.between(4000, 15_000), what: { kind: 'primary-power-loss' } },
  ];
}

/** The room loses power; the primary's host stays away longer than the others. */
function everythingOff(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: random.between(2000, 5000), what: { kind: 'others-power-loss' } },
    { at: random.pick([0, 200]), forMs: random.between(8000, 30_000), what: { kind: 'primary-power-loss' } },
  ];
}

function stopAndStart(random: Random): readonly Entry[] {
  return [task(0, { kind: 'clusterStop' }), task(random.between(100, 6000), { kind: 'clusterStart' })];
}

function frozenForAWhile(random: Random): readonly Entry[] {
  return [
    task(0, { kind: 'freeze', forMs: random.pick([2000, 6000]) }),
    { at: 500, forMs: random.between(1000, 8000), what: { kind: 'primary-power-loss' } },
  ];
}

/** Whoever is turned off by the command is off, whatever its lease says. */
function lossWithFencing(random: Random): readonly Entry[] {
  const change = random.pick(['fencing', 'fencing-required'] as const);
  const lost: FaultKind = random.chance(0.5) ? { kind: 'primary-power-loss' } : { kind: 'primary-cut', from: 'others' };
  return [settings(0, 0, change), { at: 1000, forMs: random.between(6000, 15_000), what: lost }];
}

function addressesComeAndGo(random: Random): readonly Entry[] {
  const entries = [settings(0, 0, 'addresses')];
  if (random.chance(0.5))
    entries.push({
      at: random.between(2000, 20_000),
      forMs: random.between(2000, 15_000),
      what: { kind: 'address-taken', address: random.pick([WRITE_ADDRESS, READ_ADDRESS]) },
    });
  if (random.chance(0.3)) entries.push(settings(random.between(10_000, 25_000), 0, 'no-addresses'));
  return entries;
}

/** Answers how to end it. */
export function beginOperation(world: World, operator: Operator, what: OperationFault): (() => void) | null {
  switch (what.kind) {
    case 'settings':
      editSettings(world, (spec) => ({ ...spec, ...CHANGES[what.change] }));
      return () => undo(world, what.change);
    case 'cancel':
      operator.cancelNewest();
      return null;
    case 'others-power-loss': {
      const primary = world.state()?.primary ?? null;
      const others = [...world.nodes.values()].filter((node) => node.name !== primary).map((node) => world.machines.of(node.name));
      for (const machine of others) machine.powerOff();
      return () => {
        for (const machine of others) machine.powerOn();
      };
    }
    case 'address-taken':
      world.lan?.intrude(what.address);
      return () => world.lan?.withdraw(what.address);
    default:
      return assertNever(what, 'operation');
  }
}

const CHANGES: Readonly<Record<Change, Partial<ClusterSpec>>> = {
  'failover-manual': { failover: 'manual' },
  'trusted-address': { trustedAddresses: ['192.0.2.250'] },
  addresses: { vips: { write: { address: WRITE_ADDRESS, interface: null }, read: { address: READ_ADDRESS, interface: null } } },
  'no-addresses': { vips: { write: null, read: null } },
  fencing: { fencing: 'automatic' },
  'fencing-required': { fencing: 'required' },
};

function undo(world: World, change: Change): void {
  if (change === 'failover-manual') editSettings(world, (spec) => ({ ...spec, failover: 'automatic' }));
  if (change === 'trusted-address') editSettings(world, (spec) => ({ ...spec, trustedAddresses: [] }));
}

/** What would keep a healed cluster from deciding by itself is as it was in the beginning. */
export function undoSettings(world: World): void {
  editSettings(world, (spec) =>
    spec.failover === 'automatic' && spec.trustedAddresses.length === 0 && spec.fencing !== 'required'
      ? null
      : { ...spec, failover: 'automatic', trustedAddresses: [], fencing: 'automatic' },
  );
}

/** As `pgherd meta edit`: read, changed, written if nobody else has written; else again. A store that does not answer is left alone. `change` null: nothing. */
function editSettings(world: World, change: (spec: ClusterSpec) => ClusterSpec | null): void {
  const { office, keys } = world;
  const edit = async (): Promise<void> => {
    for (let tries = 0; tries < 5; tries++) {
      const found = await office.store.get(keys.spec);
      if (!found.ok || found.value === null) continue;
      const spec = decodeJson(clusterSpec, found.value.value);
      const wanted = spec.ok ? change(spec.value) : null;
      if (wanted === null) return;
      const compares = [{ target: 'mod' as const, key: keys.spec, op: '=' as const, revision: found.value.modRevision }];
      const written = await office.store.txn(compares, [{ kind: 'put', key: keys.spec, value: encodeJson(wanted) }]);
      if (written.ok && written.value.succeeded) return;
    }
  };
  void edit();
}
