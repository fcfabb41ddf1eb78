/**
 * The plan of a run: what goes wrong when, and what operators ask for, as data drawn from the seed before the run begins. A failing run is shrunk by
 * leaving entries out, which moves no other draw.
 */
import type { Shape } from './profiles.ts';
import type { Random } from './random.ts';

interface Timed {
  /** Place in the full plan; keeps its name when others are left out. */
  readonly id: number;
  /** Which episode, from 0. */
  readonly episode: number;
  /** Milliseconds since the episode began. */
  readonly at: number;
}

/** A fault that begins and ends. */
export interface Fault extends Timed {
  readonly forMs: number;
  readonly what: FaultKind;
}

export type FaultKind =
  | { readonly kind: 'agent-kill' | 'agent-stop' | 'guard-kill' | 'guard-stop' | 'agent-and-guard-kill'; readonly node: string }
  | { readonly kind: 'postgres-kill' | 'postgres-stop' | 'postgres-shutdown' | 'postgres-immediate'; readonly node: string }
  | { readonly kind: 'power-loss'; readonly node: string }
  | { readonly kind: 'suspend' | 'freeze'; readonly node: string }
  | { readonly kind: 'server-kill' | 'server-stop'; readonly server: string }
  | { readonly kind: 'proxy-kill' | 'proxy-stop' }
  | { readonly kind: 'store-kill' | 'store-stop'; readonly member: string }
  | { readonly kind: 'store-leader-loss' }
  | { readonly kind: 'store-slow'; readonly commitMs: number; readonly watchMs: number }
  | { readonly kind: 'store-lost' }
  | { readonly kind: 'store-restore'; readonly backupAgeMs: number; readonly into: 'same' | 'new' | 'in-place' }
  | { readonly kind: 'cut'; readonly links: readonly (readonly [string, string])[]; readonly what: string }
  | { readonly kind: 'bad-links'; readonly links: readonly (readonly [string, string])[]; readonly extraMs: number; readonly loss: number }
  | { readonly kind: 'wall-jump'; readonly host: string; readonly ms: number }
  | { readonly kind: 'disk-full' | 'disk-slow'; readonly node: string }
  | { readonly kind: 'replay-pause' | 'promote-by-hand'; readonly node: string }
  | { readonly kind: 'burst'; readonly bytes: number }
  /** Its machine is suspended or frozen; for `silentMs` after it goes on, only clients reach it (its network comes back late). */
  | { readonly kind: 'primary-pause'; readonly how: 'suspended' | 'frozen'; readonly silentMs: number }
  /**
   * `store`: from the hosts of the store. `others`: from everybody but clients. `most`: the same, but one standby stays with it. `deaf`: from the store, and it
   * hears nobody, but standbys get its WAL. `one`: from one other node. `standbys`: from every other data node.
   */
  | { readonly kind: 'primary-cut'; readonly from: 'store' | 'others' | 'most' | 'deaf' | 'one' | 'standbys' }
  /** `primary-load`: a session that does not commit yet writes WAL all the time. */
  | { readonly kind: 'primary-power-loss' | 'primary-agent-stop' | 'primary-guard-stop' | 'primary-load' | 'other-agents-kill' }
  /** As soon as somebody is ordered to open a term, `afterMs` later. */
  | { readonly kind: 'candidate-trouble'; readonly what: 'postgres-kill' | 'agent-kill' | 'power-loss' | 'store-cut'; readonly afterMs: number }
  /** What it says reaches only one of the standbys. */
  | { readonly kind: 'primary-whispers' }
  /** That one loses power as soon as members are asked to vote. */
  | { readonly kind: 'voter-loss' }
  /** Every data node but the primary and that one. */
  | { readonly kind: 'most-power-loss' }
  /** As soon as more than one standby is promised to hold each row, and was not before, what the primary says reaches only that one for a moment. */
  | { readonly kind: 'whispers-when-raised' }
  /** People take every other data node, or one of them, out of service. */
  | { readonly kind: 'others-in-maintenance'; readonly all: boolean }
  /** Every node but the primary, at once. */
  | { readonly kind: 'others-power-loss' }
  /** Somebody edits the settings of the cluster. */
  | {
      readonly kind: 'settings';
      readonly change: 'failover-manual' | 'trusted-address' | 'addresses' | 'no-addresses' | 'fencing' | 'fencing-required';
    }
  /** Somebody's ALTER SYSTEM with a reload. `node` null: on the primary of the moment. */
  | { readonly kind: 'alter-system'; readonly node: string | null; readonly name: string; readonly value: string }
  /** Somebody takes back the newest command that has not ended. */
  | { readonly kind: 'cancel' }
  /** A host that is none of the cluster's has a virtual address. */
  | { readonly kind: 'address-taken'; readonly address: string }
  | { readonly kind: 'task'; readonly request: Readonly<Record<string, unknown>> };

/** Some minutes of trouble, after which everything heals. */
export interface Episode {
  readonly faults: readonly Fault[];
  /** When every fault has ended and liveness begins. */
  readonly lengthMs: number;
}

export interface Plan {
  readonly episodes: readonly Episode[];
}

export function faultsOf(plan: Plan): readonly Fault[] {
  return plan.episodes.flatMap((episode) => episode.faults);
}

/** What a part of the plan is made of before it has its place: `at` counts from wherever that part begins. */
export type Entry = Omit<Fault, 'id' | 'episode'>;

/** The plan with what `draw` adds to each episode, in its order, numbered after all its other entries. */
export function withMore(plan: Plan, draw: (episode: Episode, index: number) => readonly Entry[]): Plan {
  let nextId = faultsOf(plan).length;
  return {
    episodes: plan.episodes.map((episode, index) => {
      const added = draw(episode, index).map((one): Fault => ({ ...one, id: nextId++, episode: index }));
      return { ...episode, faults: [...episode.faults, ...added] };
    }),
  };
}

/** A story that begins at `begin`, with what would come after the end of its episode drawn into it. */
export function placeStory(story: readonly Entry[], begin: number, { lengthMs }: Episode): readonly Entry[] {
  return story.map(({ at, forMs, what }) => {
    const from = Math.round(Math.min(begin + at, lengthMs - 200));
    return { at: from, forMs: Math.round(Math.min(forMs, lengthMs - from)), what };
  });
}

/** The plan with only those entries for which `keep` says so. */
export function filterPlan(plan: Plan, keep: (fault: Fault) => boolean): Plan {
  return { episodes: plan.episodes.map((episode) => ({ ...episode, faults: episode.faults.filter(keep) })) };
}

interface Maker {
  readonly weight: number;
  readonly make: (draw: Draw) => FaultKind | null;
  /** Mean length; 0: an instant. */
  readonly meanMs: number;
}

interface Draw {
  readonly random: Random;
  readonly shape: Shape;
  readonly dataNodes: readonly string[];
  readonly allNodes: readonly string[];
  readonly hosts: readonly string[];
}

const node =
  (
    kind:
      | 'agent-kill'
      | 'agent-stop'
      | 'guard-kill'
      | 'guard-stop'
      | 'agent-and-guard-kill'
      | 'power-loss'
      | 'suspend'
      | 'freeze'
      | 'disk-full'
      | 'disk-slow',
  ) =>
  ({ random, dataNodes, allNodes }: Draw): FaultKind => ({ kind, node: random.chance(0.85) ? random.pick(dataNodes) : random.pick(allNodes) });

const dataNode =
  (kind: 'postgres-kill' | 'postgres-stop' | 'postgres-shutdown' | 'postgres-immediate' | 'replay-pause' | 'promote-by-hand') =>
  ({ random, dataNodes }: Draw): FaultKind => ({ kind, node: random.pick(dataNodes) });

/** In alphabetical order of what they break; weights are relative. */
const makers: readonly Maker[] = [
  { weight: 5, meanMs: 4000, make: node('agent-kill') },
  { weight: 6, meanMs: 4000, make: node('agent-stop') },
  { weight: 2, meanMs: 0, make: node('guard-kill') },
  { weight: 2, meanMs: 4000, make: node('guard-stop') },
  { weight: 2, meanMs: 6000, make: node('agent-and-guard-kill') },
  { weight: 8, meanMs: 0, make: dataNode('postgres-kill') },
  { weight: 5, meanMs: 6000, make: dataNode('postgres-stop') },
  { weight: 2, meanMs: 0, make: dataNode('postgres-shutdown') },
  { weight: 2, meanMs: 0, make: dataNode('postgres-immediate') },
  { weight: 8, meanMs: 15_000, make: node('power-loss') },
  { weight: 3, meanMs: 5000, make: node('suspend') },
  { weight: 2, meanMs: 5000, make: node('freeze') },
  { weight: 4, meanMs: 6000, make: ({ random, shape }) => ({ kind: 'server-kill', server: random.pick(shape.servers) }) },
  { weight: 3, meanMs: 4000, make: ({ random, shape }) => ({ kind: 'server-stop', server: random.pick(shape.servers) }) },
  { weight: 3, meanMs: 6000, make: ({ random, shape }) => ({ kind: 'store-kill', member: random.pick(shape.store) }) },
  { weight: 2, meanMs: 4000, make: ({ random, shape }) => ({ kind: 'store-stop', member: random.pick(shape.store) }) },
  { weight: 3, meanMs: 0, make: () => ({ kind: 'store-leader-loss' }) },
  {
    weight: 2,
    meanMs: 6000,
    make: ({ random }) => ({ kind: 'store-slow', commitMs: random.pick([20, 200, 1500]), watchMs: random.pick([0, 300, 3000]) }),
  },
  { weight: 3, meanMs: 12_000, make: () => ({ kind: 'store-lost' }) },
  { weight: 12, meanMs: 8000, make: drawCut },
  { weight: 4, meanMs: 8000, make: drawBadLinks },
  {
    weight: 2,
    meanMs: 0,
    make: ({ random, hosts }) => ({ kind: 'wall-jump', host: random.pick(hosts), ms: random.pick([-3_600_000, -5000, 700, 5000, 3_600_000]) }),
  },
  { weight: 2, meanMs: 8000, make: node('disk-full') },
  { weight: 2, meanMs: 8000, make: node('disk-slow') },
  { weight: 2, meanMs: 8000, make: dataNode('replay-pause') },
  { weight: 1, meanMs: 0, make: dataNode('promote-by-hand') },
  { weight: 3, meanMs: 0, make: ({ random }) => ({ kind: 'burst', bytes: random.pick([100_000, 2_000_000, 40_000_000]) }) },
  { weight: 9, meanMs: 0, make: drawTask },
];

export function drawPlan(random: Random, shape: Shape): Plan {
  const episodes: Episode[] = [];
  let nextId = 0;
  for (let episode = random.pick([1, 1, 1, 2, 3]); episode > 0; episode--) {
    const drawn = drawEpisode(random, shape, { episode: episodes.length, firstId: nextId });
    nextId += drawn.faults.length;
    episodes.push(drawn);
  }
  return { episodes };
}

/** More would be noise. */
const MAX_FAULTS = 80;

function drawEpisode(random: Random, shape: Shape, place: { readonly episode: number; readonly firstId: number }): Episode {
  /** Mean time between two beginnings. */
  const calmMs = random.pick([3000, 6000, 12_000]);
  const lengthMs = random.pick([30_000, 60_000, 120_000]);
  // A swarm: an episode leaves some kinds out altogether, so that the others meet undisturbed.
  const left = makers.filter(() => random.chance(0.55));
  const used = left.length === 0 ? makers : left;
  const draw: Draw = {
    random,
    shape,
    dataNodes: shape.nodes.filter((one) => one.kind === 'data').map((one) => one.name),
    allNodes: shape.nodes.map((one) => one.name),
    hosts: hostsOf(shape),
  };
  const found: { readonly at: number; readonly forMs: number; readonly what: FaultKind }[] = [];
  for (let at = random.next() * calmMs; at < lengthMs - 1000 && found.length < MAX_FAULTS; ) {
    const maker = pickWeighted(random, used);
    const what = maker.make(draw);
    const forMs = maker.meanMs === 0 ? 0 : Math.min(lengthMs - at, 100 - Math.log(1 - random.next()) * maker.meanMs);
    if (what !== null) found.push({ at: Math.round(at), forMs: Math.round(forMs), what });
    // Troubles like company: what comes a moment later meets the reaction to the first.
    at += random.chance(0.3) ? random.next() * 1500 : -Math.log(1 - random.next()) * calmMs;
  }
  return { faults: found.map((one, index) => ({ id: place.firstId + index, episode: place.episode, ...one })), lengthMs };
}

export function hostsOf(shape: Shape): readonly string[] {
  return [
    ...new Set([...shape.nodes.map((one) => one.name), ...shape.spare.map((one) => one.name), ...shape.servers, ...shape.store, ...shape.clients]),
  ];
}

function pickWeighted(random: Random, from: readonly Maker[]): Maker {
  let left = random.next() * from.reduce((sum, maker) => sum + maker.weight, 0);
  for (const maker of from) {
    left -= maker.weight;
    if (left < 0) return maker;
  }
  return from[from.length - 1] as Maker;
}

function drawCut(draw: Draw): FaultKind {
  const { random, shape, hosts } = draw;
  const one = random.pick(draw.allNodes);
  const others = hosts.filter((host) => host !== one);
  const both = (a: string, b: string): [string, string][] => [
    [a, b],
    [b, a],
  ];
  switch (random.int(7)) {
    case 0:
      return { kind: 'cut', what: `${one} from everybody`, links: others.flatMap((other) => both(one, other)) };
    case 1:
      return {
        kind: 'cut',
        what: `${one} from the store`,
        links: shape.store.filter((member) => member !== one).flatMap((member) => both(one, member)),
      };
    case 2: {
      const kept = shape.clients;
      return {
        kind: 'cut',
        what: `${one} from all but clients`,
        links: others.filter((other) => !kept.includes(other)).flatMap((other) => both(one, other)),
      };
    }
    case 3: {
      const half = random.shuffle(hosts).slice(0, Math.ceil(hosts.length / 2));
      const rest = hosts.filter((host) => !half.includes(host));
      return { kind: 'cut', what: `${half.join('+')} from ${rest.join('+')}`, links: half.flatMap((a) => rest.flatMap((b) => both(a, b))) };
    }
    case 4: {
      const other = random.pick(others);
      return { kind: 'cut', what: `${one} > ${other} one way`, links: [[one, other]] };
    }
    case 5:
      return { kind: 'cut', what: `what others say to ${one}`, links: others.map((other) => [other, one]) };
    default: {
      const nodes = draw.allNodes.filter((other) => other !== one);
      return { kind: 'cut', what: `${one} from the other nodes`, links: nodes.flatMap((other) => both(one, other)) };
    }
  }
}

function drawBadLinks({ random, hosts }: Draw): FaultKind {
  const one = random.pick(hosts);
  const links = hosts
    .filter((host) => host !== one)
    .flatMap((host): [string, string][] => [
      [one, host],
      [host, one],
    ]);
  return { kind: 'bad-links', links, extraMs: random.pick([5, 50, 300, 900]), loss: random.pick([0, 0.05, 0.3]) };
}

function drawTask({ random, dataNodes, allNodes }: Draw): FaultKind {
  const one = random.pick(dataNodes);
  const requests: readonly Readonly<Record<string, unknown>>[] = [
    { kind: 'switchover', to: random.chance(0.5) ? null : one },
    { kind: 'switchover', to: random.chance(0.5) ? null : one },
    { kind: 'switchover', to: null },
    { kind: 'failover', to: random.chance(0.6) ? null : one, acceptLoss: random.chance(0.2) },
    { kind: 'nodeRestart', node: one },
    { kind: 'nodeStop', node: one },
    { kind: 'nodeStart', node: one },
    { kind: 'nodeRejoin', node: one, via: random.pick([null, 'stream', 'rewind', 'clone']), source: null, rateKb: null },
    { kind: 'nodeMaintenance', node: random.pick(allNodes), on: random.chance(0.5) },
    { kind: 'clusterRestart', rolling: random.chance(0.7) },
    { kind: 'freeze', forMs: random.chance(0.5) ? null : 10_000 },
    { kind: 'unfreeze' },
    { kind: 'clusterStop' },
    { kind: 'clusterStart' },
  ];
  return { kind: 'task', request: random.pick(requests) };
}

/** One line for a trace. */
export function describeFault(fault: Fault): string {
  const { kind, ...rest } = fault.what as FaultKind & Record<string, unknown>;
  const words = Object.entries(rest).flatMap(([name, value]) =>
    name === 'links' ? [] : [`${name}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`],
  );
  return `#${fault.id} ${kind} ${words.join(' ')}${fault.forMs === 0 ? '' : ` for ${fault.forMs} ms`}`;
}
