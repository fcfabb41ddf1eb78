/**
 * Trouble that follows the primary of the moment, in the orders in which it is worst: what is cut off first and what later, what comes back first, who is
 * lost right after whom. Drawn from a stream of its own, after everything else of a plan.
 */
import { assertNever } from '../src/core/result.ts';
import type { Operator } from './operator.ts';
import { type Entry, type FaultKind, type Plan, hostsOf, placeStory, withMore } from './plan.ts';
import type { Shape } from './profiles.ts';
import type { Random } from './random.ts';
import type { SimNode } from './world/node.ts';
import { type World, nodeOf } from './world/world.ts';

export type HuntFault = Extract<
  FaultKind,
  {
    kind:
      | 'primary-pause'
      | 'primary-cut'
      | 'primary-power-loss'
      | 'primary-agent-stop'
      | 'primary-guard-stop'
      | 'primary-load'
      | 'primary-whispers'
      | 'voter-loss'
      | 'most-power-loss'
      | 'whispers-when-raised'
      | 'candidate-trouble'
      | 'other-agents-kill'
      | 'others-in-maintenance';
  }
>;

/** The plan with one or two such stories in each episode, numbered after all its other entries. `story`: only this one; null: any. */
export function addHunts(random: Random, plan: Plan, shape: Shape, story: string | null): Plan {
  return withMore(plan, (episode) =>
    Array.from({ length: random.pick([1, 1, 2]) }, () => {
      const begin = random.between(1000, Math.max(1500, episode.lengthMs - 25_000));
      return placeStory(drawStory(random, shape, story), begin, episode);
    }).flat(),
  );
}

type Story = (random: Random, shape: Shape) => readonly Entry[];

/** By the name under which one alone is asked for (`--profile quorum+hunt.deaf`). */
const stories: Readonly<Record<string, Story>> = {
  pause: longPause,
  widening: wideningCut,
  narrowing: narrowingCut,
  company: strandedWithCompany,
  returned: lossAfterReturn,
  maintenance: lossInMaintenance,
  failover: failoverUnderLoad,
  deaf: deafUnderLoad,
  stale: backWithOldNews,
  opening: troubleInTheOpening,
  voter: lossOfTheBestVoter,
};

/** Each is told for one rule. They are drawn in the place of all others (profiles.ts), so that a run that does not ask for one is the same as ever. */
const rare: Readonly<Record<string, Story>> = {
  alone: seenByAllButOne,
  unguarded: lossOfTheGuard,
  lonely: lossOfTheOthers,
  behind: lossAheadOfAll,
  frozen: lossWhileFrozen,
  raised: silenceAfterTheRaise,
  returning: storeReturnsElsewhere,
};

const common: readonly string[] = Object.keys(stories);
export const rareStories: readonly string[] = Object.keys(rare);
export const huntStories: readonly string[] = [...common, ...rareStories];

function drawStory(random: Random, shape: Shape, asked: string | null): readonly Entry[] {
  const drawn = random.pick(common);
  return { ...stories, ...rare }[asked ?? drawn]?.(random, shape) ?? [];
}

/** Longer than any lease: when it goes on, another one is the primary, and nobody can tell it. */
function longPause(random: Random): readonly Entry[] {
  const what: FaultKind = { kind: 'primary-pause', how: random.pick(['suspended', 'frozen']), silentMs: random.between(2000, 8000) };
  return [{ at: 0, forMs: random.between(5000, 16_000), what }];
}

/** It lives on promises when the members that gave them lose it too; some of those begin anew at that moment. */
function wideningCut(random: Random): readonly Entry[] {
  const at = random.between(3000, 8000);
  const silentMs = random.between(6000, 12_000);
  const entries: Entry[] = [
    { at: 0, forMs: at + silentMs, what: { kind: 'primary-cut', from: 'store' } },
    { at, forMs: silentMs, what: { kind: 'primary-cut', from: 'others' } },
  ];
  if (random.chance(0.5)) entries.push({ at: at + random.between(0, 100), forMs: 0, what: { kind: 'other-agents-kill' } });
  return entries;
}

/** The store comes back for all but the primary, which lives on what the members promised while they were without it too: for longer than a lease. */
function storeReturnsElsewhere(random: Random): readonly Entry[] {
  const lostMs = random.between(6000, 14_000);
  const silentMs = random.between(12_000, 20_000);
  return [
    { at: 0, forMs: lostMs, what: { kind: 'store-lost' } },
    { at: lostMs - 400, forMs: silentMs, what: { kind: 'primary-cut', from: 'store' } },
    { at: lostMs - random.between(0, 400), forMs: silentMs, what: { kind: 'primary-cut', from: 'others' } },
  ];
}

/** Members hear it again when they have just voted for another. */
function narrowingCut(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: random.between(8000, 14_000), what: { kind: 'primary-cut', from: 'store' } },
    { at: 0, forMs: random.between(1500, 4500), what: { kind: 'primary-cut', from: 'others' } },
  ];
}

/** One standby stays on its side, and acknowledges. */
function strandedWithCompany(random: Random): readonly Entry[] {
  return [{ at: 0, forMs: random.between(4000, 14_000), what: { kind: 'primary-cut', from: 'most' } }];
}

/** The old primary is back with rows that nobody has, and the new one is lost. */
function lossAfterReturn(random: Random): readonly Entry[] {
  const cutMs = random.between(6000, 12_000);
  return [
    { at: 0, forMs: cutMs, what: { kind: 'primary-cut', from: 'others' } },
    { at: cutMs + random.between(0, 4000), forMs: random.between(8000, 25_000), what: { kind: 'primary-power-loss' } },
  ];
}

function lossInMaintenance(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: 0, what: { kind: 'others-in-maintenance', all: random.chance(0.5) } },
    { at: random.between(1000, 4000), forMs: random.between(8000, 25_000), what: { kind: 'primary-power-loss' } },
  ];
}

/** One standby alone has what was acknowledged last, and it is lost while the members vote. */
function lossOfTheBestVoter(random: Random): readonly Entry[] {
  const forMs = random.between(9000, 16_000);
  return [
    { at: 0, forMs, what: { kind: 'voter-loss' } },
    { at: 100, forMs: 3000, what: { kind: 'primary-whispers' } },
    { at: random.between(400, 800), forMs, what: { kind: 'primary-power-loss' } },
  ];
}

/** Whoever is to be the next primary meets its own trouble in the middle of it, twice perhaps. */
function troubleInTheOpening(random: Random): readonly Entry[] {
  const forMs = random.between(10_000, 20_000);
  const trouble = (): Entry => {
    const what = random.pick(['postgres-kill', 'postgres-kill', 'agent-kill', 'power-loss', 'store-cut'] as const);
    return { at: 0, forMs, what: { kind: 'candidate-trouble', what, afterMs: random.pick([0, 10, 40, 80, 300]) * random.between(0.5, 1.5) } };
  };
  return [
    trouble(),
    ...(random.chance(0.3) ? [trouble()] : []),
    { at: 500, forMs: random.between(8000, 18_000), what: { kind: 'primary-power-loss' } },
  ];
}

/** It is back when its lease is gone and another is being chosen, and hears of that late. */
function backWithOldNews(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: 20_000, what: { kind: 'store-slow', commitMs: 20, watchMs: random.pick([1000, 1500, 2500]) } },
    { at: 500, forMs: random.between(3500, 6500), what: { kind: 'primary-cut', from: 'others' } },
  ];
}

/** Standbys vote while WAL still comes: its agent asks nobody for promises, or nobody is heard by it. */
function deafUnderLoad(random: Random): readonly Entry[] {
  const forMs = random.between(5000, 10_000);
  const stopped: readonly Entry[] = random.chance(0.7) ? [{ at: 500, forMs, what: { kind: 'primary-agent-stop' } }] : [];
  return [
    ...stopped,
    { at: 0, forMs: forMs + 1000, what: { kind: 'primary-load' } },
    { at: 500, forMs, what: { kind: 'primary-cut', from: 'deaf' } },
  ];
}

/** WAL is on its way while standbys are asked to vote. */
function failoverUnderLoad(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: 0, what: { kind: 'burst', bytes: random.pick([2_000_000, 40_000_000]) } },
    { at: random.between(5, 400), forMs: 0, what: { kind: 'task', request: { kind: 'failover', to: null, acceptLoss: false } } },
  ];
}

/** It lives on the promises of those who reach it; one member says that it is down. */
function seenByAllButOne(random: Random): readonly Entry[] {
  const forMs = random.between(8000, 14_000);
  return [
    { at: 0, forMs, what: { kind: 'primary-cut', from: 'store' } },
    { at: 0, forMs, what: { kind: 'primary-cut', from: 'one' } },
  ];
}

/** What is to fence it when its agent cannot is gone first, and then the agent. */
function lossOfTheGuard(random: Random): readonly Entry[] {
  const at = random.between(3000, 7000);
  const forMs = random.between(4000, 9000);
  return [
    { at: 0, forMs: at + forMs, what: { kind: 'primary-guard-stop' } },
    { at, forMs, what: { kind: 'primary-agent-stop' } },
  ];
}

/** Nobody is left to acknowledge. */
function lossOfTheOthers(random: Random): readonly Entry[] {
  return [{ at: 0, forMs: random.between(6000, 14_000), what: { kind: 'others-power-loss' } }];
}

/** Its agent still says how far it has come when standbys get nothing any more. */
function lossAheadOfAll(random: Random): readonly Entry[] {
  const at = random.between(2500, 4000);
  return [
    { at: 0, forMs: at + 500, what: { kind: 'primary-cut', from: 'standbys' } },
    { at: 300, forMs: 0, what: { kind: 'burst', bytes: random.pick([2_000_000, 40_000_000]) } },
    { at, forMs: random.between(8000, 14_000), what: { kind: 'primary-power-loss' } },
  ];
}

/** The old primary comes back, and somebody is lost, while nobody may do anything about it. */
function lossWhileFrozen(random: Random): readonly Entry[] {
  const lost: FaultKind = { kind: random.pick(['primary-power-loss', 'others-power-loss'] as const) };
  return [
    { at: 0, forMs: random.between(7000, 9000), what: { kind: 'primary-cut', from: 'others' } },
    { at: random.between(5000, 6500), forMs: 0, what: { kind: 'task', request: { kind: 'freeze', forMs: 40_000 } } },
    { at: random.between(10_000, 18_000), forMs: random.between(4000, 8000), what: lost },
  ];
}

/** Of the walsenders that count by more, some may have been there before. */
function silenceAfterTheRaise(random: Random): readonly Entry[] {
  return [
    { at: 0, forMs: random.between(3000, 6000), what: { kind: 'most-power-loss' } },
    { at: 2500, forMs: 22_000, what: { kind: 'whispers-when-raised' } },
  ];
}

interface Cuts {
  cut(from: string, to: string): void;
  heal(from: string, to: string): void;
}

/** Answers how to end it; without a primary nothing is done. */
export function beginHunt(world: World, operator: Operator, what: HuntFault, cuts: Cuts): (() => void) | null {
  const primary = world.dataNodes.find((node) => node.name === world.state()?.primary);
  if (primary === undefined) return null;
  switch (what.kind) {
    case 'primary-pause': {
      const machine = world.machines.of(primary.name);
      const heal = cutOff(cuts, [primary.name], othersOf(world, [primary.name]));
      machine.suspend(what.how);
      return () => {
        machine.resume();
        world.clock.after(what.silentMs, heal);
      };
    }
    case 'primary-cut': {
      if (what.from === 'deaf') return makeDeaf(world, cuts, primary.name);
      if (what.from === 'one' || what.from === 'standbys') {
        const others = world.dataNodes.filter((node) => node !== primary).map((node) => node.name);
        return cutOff(cuts, [primary.name], what.from === 'one' ? others.slice(0, 1) : others);
      }
      const company = companyOf(world, primary.name);
      const side = what.from === 'most' && company !== null ? [primary.name, company] : [primary.name];
      return cutOff(cuts, side, what.from === 'store' ? world.shape.store.filter((host) => host !== primary.name) : othersOf(world, side));
    }
    case 'primary-power-loss': {
      const machine = world.machines.of(primary.name);
      machine.powerOff();
      return machine.powerOn;
    }
    case 'primary-agent-stop':
      primary.stopAgent();
      return primary.resumeAgent;
    case 'primary-guard-stop':
      primary.guard.pause();
      return primary.guard.resume;
    case 'primary-load':
      return load(world, primary);
    case 'primary-whispers':
      return whisper(world, cuts, primary.name);
    case 'most-power-loss': {
      const company = companyOf(world, primary.name);
      const lost = world.dataNodes.filter((node) => node !== primary && node.name !== company).map((node) => world.machines.of(node.name));
      for (const machine of lost) machine.powerOff();
      return () => {
        for (const machine of lost) machine.powerOn();
      };
    }
    case 'whispers-when-raised':
      return waitForRaise(world, cuts);
    case 'voter-loss':
      return waitForVote(world, primary.name);
    case 'candidate-trouble':
      return waitForOrder(world, what, cuts);
    case 'other-agents-kill':
      for (const node of world.nodes.values()) if (node !== primary) node.killAgent();
      return null;
    case 'others-in-maintenance':
      takeOut(world, operator, primary, what.all);
      return null;
    default:
      return assertNever(what, 'hunt');
  }
}

const companyOf = (world: World, primary: string): string | null => world.dataNodes.find((node) => node.name !== primary)?.name ?? null;

function whisper(world: World, cuts: Cuts, primary: string): () => void {
  const company = companyOf(world, primary);
  const others = world.dataNodes.filter((node) => node.name !== primary && node.name !== company);
  return cutAll(
    cuts,
    others.map((node): [string, string] => [primary, node.name]),
  );
}

function waitForVote(world: World, primary: string): () => void {
  const company = companyOf(world, primary);
  const machine = company === null ? null : world.machines.of(company);
  let isOver = false;
  world.store.onCommit(() => {
    if (isOver || world.state()?.attempt?.phase !== 'vote') return;
    isOver = true;
    machine?.powerOff();
  });
  return () => {
    isOver = true;
    machine?.powerOn();
  };
}

const WHISPER_MS = 1500;

/** Once. */
function waitForRaise(world: World, cuts: Cuts): () => void {
  let isOver = false;
  let before = world.state()?.quorum.k ?? 0;
  world.store.onCommit(() => {
    const { primary = null, quorum } = world.state() ?? {};
    const k = quorum?.k ?? 0;
    const isRaised = k > Math.max(1, before);
    before = k;
    if (isOver || !isRaised || primary === null) return;
    isOver = true;
    world.trace.add('fault', `what ${primary} says reaches one standby only`);
    world.clock.after(WHISPER_MS, whisper(world, cuts, primary));
  });
  return () => {
    isOver = true;
  };
}

/** Once; what was cut is healed at the end. */
function waitForOrder(world: World, what: Extract<HuntFault, { kind: 'candidate-trouble' }>, cuts: Cuts): () => void {
  let isOver = false;
  let heal: () => void = () => undefined;
  world.store.onCommit(() => {
    const { phase = null, candidate = null } = world.state()?.attempt ?? {};
    if (isOver || phase !== 'promote' || candidate === null) return;
    isOver = true;
    world.clock.after(what.afterMs, () => {
      world.trace.add('fault', `${what.what} of ${candidate} in its opening`);
      heal = troubleAt(world, candidate, what.what, cuts);
    });
  });
  return () => {
    isOver = true;
    heal();
  };
}

function troubleAt(world: World, name: string, what: Extract<HuntFault, { kind: 'candidate-trouble' }>['what'], cuts: Cuts): () => void {
  const node = nodeOf(world, name);
  const machine = world.machines.of(name);
  switch (what) {
    case 'postgres-kill':
      node.database?.kill();
      return () => undefined;
    case 'agent-kill':
      node.killAgent();
      return () => undefined;
    case 'power-loss':
      machine.powerOff();
      return machine.powerOn;
    case 'store-cut':
      return cutOff(
        cuts,
        [name],
        world.shape.store.filter((host) => host !== name),
      );
    default:
      return assertNever(what, 'candidate trouble');
  }
}

const LOAD_EVERY_MS = 10;
const LOAD_BYTES = 8192;

function load(world: World, { database }: SimNode): () => void {
  let isOver = false;
  const write = (): void => {
    if (isOver) return;
    if (database?.isWritable() === true) database.server.write(LOAD_BYTES);
    world.clock.after(LOAD_EVERY_MS, write);
  };
  write();
  return () => {
    isOver = true;
  };
}

/** What others say to it is lost, and what it says to the store. */
function makeDeaf(world: World, cuts: Cuts, primary: string): () => void {
  const store = world.shape.store.filter((host) => host !== primary);
  const links = [
    ...othersOf(world, [primary]).map((host): [string, string] => [host, primary]),
    ...store.map((host): [string, string] => [primary, host]),
  ];
  return cutAll(cuts, links);
}

function takeOut(world: World, operator: Operator, primary: SimNode, all: boolean): void {
  const others = world.dataNodes.filter((node) => node !== primary);
  for (const node of all ? others : others.slice(0, 1)) operator.ask({ kind: 'nodeMaintenance', node: node.name, on: true });
}

const othersOf = (world: World, side: readonly string[]): readonly string[] =>
  hostsOf(world.shape).filter((host) => !side.includes(host) && !world.shape.clients.includes(host));

function cutOff(cuts: Cuts, side: readonly string[], others: readonly string[]): () => void {
  const links = side.flatMap((one) =>
    others.flatMap((other): [string, string][] => [
      [one, other],
      [other, one],
    ]),
  );
  return cutAll(cuts, links);
}

function cutAll(cuts: Cuts, links: readonly (readonly [string, string])[]): () => void {
  for (const [from, to] of links) cuts.cut(from, to);
  return () => {
    for (const [from, to] of links) cuts.heal(from, to);
  };
}
