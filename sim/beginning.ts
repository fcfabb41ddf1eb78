/** How a cluster comes to be: out of nothing, or of servers that people set up by hand and that are adopted. */
import type { NodeId } from '../src/core/ids.ts';
import { internalHost } from '../src/core/spec.ts';
import type { Operator } from './operator.ts';
import type { Random } from './random.ts';
import { type World, startWorld } from './world/world.ts';

/**
 * `late`: one agent comes later than the others. `adopt-refused`: a standby that people forgot to start has to be started first. `adopt-late`: there is one server,
 * and its agent comes later than the others, which have no data.
 */
export type Beginning = 'new' | 'late' | 'adopt' | 'adopt-refused' | 'adopt-late';

export function drawBeginning(random: Random): Beginning {
  return random.pick(['new', 'new', 'late', 'adopt', 'adopt', 'adopt-refused']);
}

export interface BeginningParts {
  readonly world: World;
  readonly operator: Operator;
  readonly advance: (ms: number) => void;
}

/** Agents run and the cluster is asked for. */
export function begin(parts: BeginningParts, beginning: Beginning): void {
  const { world, operator, advance } = parts;
  const isSetUp = beginning === 'adopt' || beginning === 'adopt-refused';
  const last = membersOf(world).at(-1);
  if (isSetUp) settle(parts, setUpByHand(world, membersOf(world), { startsLast: beginning === 'adopt' }));
  if (beginning === 'adopt-late' && last !== undefined) settle(parts, setUpByHand(world, [last], { startsLast: true }));
  const late = beginning === 'late' || beginning === 'adopt-late' ? (last?.name ?? null) : null;
  startWorld(world, late);
  world.clock.settle();
  advance(300);
  operator.ask({ kind: 'create' });
  if (late !== null) {
    advance(3000);
    world.nodes.get(late)?.startAgent();
  }
  if (beginning !== 'adopt-refused') return;
  advance(3000);
  settle(parts, startForgotten(world));
  advance(3000);
  operator.ask({ kind: 'create' });
}

/** People's work by hand takes its time and ends. */
function settle({ world, advance }: BeginningParts, work: Promise<void>): void {
  let isOver = false;
  void work.then(() => {
    isOver = true;
  });
  for (let waitedMs = 0; !isOver; waitedMs += STEP_MS) {
    if (waitedMs > LIMIT_MS) throw new Error('servers that were set up by hand do not run');
    advance(STEP_MS);
    world.clock.settle();
  }
}

const STEP_MS = 100;
const LIMIT_MS = 60_000;

type Port = ReturnType<NonNullable<World['dataNodes'][number]['database']>['bind']>;

function portOf(world: World, node: World['dataNodes'][number]): Port | null {
  const scope = world.machines.of(node.name).scope();
  return node.database?.bind(scope, { spec: () => world.spec, closeFirewall: async () => undefined }) ?? null;
}

const membersOf = (world: World): World['dataNodes'] => world.dataNodes.filter((node) => world.spec.nodes.some((one) => one.id === node.name));

/** The tools of the model in the hands of a person: a primary, and standbys that stream from it. */
async function setUpByHand(world: World, members: World['dataNodes'], { startsLast }: { readonly startsLast: boolean }): Promise<void> {
  const { signal } = new AbortController();
  const [first, ...others] = members;
  const primary = first === undefined ? null : portOf(world, first);
  if (first === undefined || primary === null) return;
  await primary.initdb(world.spec, signal);
  await primary.startPrimary(world.spec, () => true, signal);
  await primary.ensureSlots(world.spec, {});
  primary.close();
  for (const [index, node] of others.entries()) {
    const port = portOf(world, node);
    const upstream = upstreamOf(world, first.name);
    await port?.clone(world.spec, { upstream, source: upstream, rateKb: null }, signal, () => undefined);
    if (startsLast || index < others.length - 1) await port?.startStandby(world.spec, upstream, signal);
    port?.close();
  }
}

async function startForgotten(world: World): Promise<void> {
  const members = membersOf(world);
  const [first] = members;
  const last = members.at(-1);
  const port = last === undefined ? null : portOf(world, last);
  if (first === undefined || port === null) return;
  await port.startStandby(world.spec, upstreamOf(world, first.name), new AbortController().signal);
  port.close();
}

function upstreamOf(world: World, node: NodeId): { readonly node: NodeId; readonly host: string; readonly port: number } {
  const member = world.spec.nodes.find((one) => one.id === node);
  if (member === undefined) throw new Error(`no member ${node}`);
  return { node, host: internalHost(member), port: member.port };
}
