/**
 * One run: a cluster is made, the plan is carried out with every check at every step (safety), everything heals, and the cluster has to become whole
 * again within a budget (liveness), after which it stays so.
 */
import { type Beginning, begin, drawBeginning } from './beginning.ts';
import { runVirtually } from './clock.ts';
import { createClients } from './clients.ts';
import { createAcknowledgementChecks } from './checks/acknowledgements.ts';
import { missingForWhole } from './checks/convergence.ts';
import { type GoalChecks, createGoalChecks } from './checks/goals.ts';
import { createProxyChecks } from './checks/proxies.ts';
import { type ReadChecks, createReadChecks } from './checks/reads.ts';
import { createRecordChecks } from './checks/records.ts';
import { createSettingChecks } from './checks/settings.ts';
import { type SlotChecks, createSlotChecks } from './checks/slots.ts';
import { Excused, Violation } from './checks/violation.ts';
import { createWriterChecks } from './checks/writers.ts';
import { createDirectoryChecks } from './checks/directories.ts';
import { addRestores, addSetBack, createRestorer, isRestore } from './restores.ts';
import { type FaultContext, healEverything, scheduleEpisode, undoCommands } from './faults.ts';
import { createOperator } from './operator.ts';
import { type Plan, drawPlan, faultsOf, filterPlan } from './plan.ts';
import { addOperations } from './operation-faults.ts';
import { buildShape, chooseProfile } from './profiles.ts';
import { addSettingsByHand } from './settings-by-hand.ts';
import { addHunts } from './hunt-faults.ts';
import { addProxyFaults, addReadFaults } from './proxy-faults.ts';
import { createRandom } from './random.ts';
import { type World, createWorld } from './world/world.ts';

export interface RunOptions {
  readonly seed: bigint;
  /** Null: drawn from the seed. */
  readonly profile: string | null;
  /** Entries of the plan to leave out. */
  readonly without?: ReadonlySet<number>;
  /** Entries of the plan to keep, and no others. */
  readonly only?: ReadonlySet<number>;
  readonly verbose?: boolean;
}

export interface RunFailure {
  readonly invariant: string;
  readonly message: string;
  /** Events carried out until then. */
  readonly step: number;
  readonly atMs: number;
}

export interface RunResult {
  readonly seed: bigint;
  readonly profile: string;
  readonly plan: Plan;
  readonly failure: RunFailure | null;
  /** Why the run ended early without a finding; null: it did not. */
  readonly excused: string | null;
  readonly virtualMs: number;
  readonly steps: number;
  readonly hash: string;
  readonly trace: readonly string[];
  readonly promotions: number;
  readonly acknowledged: number;
  readonly lost: number;
  readonly longestOverlapMs: number;
}

/** A cluster is made and streams within this time. */
const SETTLE_MS = 40_000;
/** Two longest back-offs (60 s), the flapping window (60 s), a clone, and some rounds of recovery. */
export const LIVENESS_MS = 300_000;
/** Then a person looks, and does what `explain` says. */
export const PERSON_MS = 70_000;
/**
 * A cluster counts as whole when it was so for this long without a break: what happened just before is in the reports by then. An agent that fell
 * silent is noticed after its report's TTL (3 s), a lost lease after its TTL (5 s at most), a dead watch after 6 s.
 */
const SEEN_WHOLE_MS = 6500;
/** A whole cluster stays whole this long, without another term. */
export const CALM_MS = 5000;
/**
 * What a seed stands for: an hour of a cluster's life, of which the trouble is carried out event by event, and the rest, in which a whole cluster does the
 * same things every half second, is skipped once it was seen to do so (CALM_MS without any decision).
 */
export const LIFE_MS = 3_600_000;
/** Events in LOOK_MS of one world; more means that something wakes itself without end. An honest burst takes some thousands. */
const MAX_EVENTS = 40_000;
const LOOK_MS = 250;

export function runSeed(options: RunOptions): Promise<RunResult> {
  return runVirtually(() => run(options));
}

function run(options: RunOptions): RunResult {
  const drawn = createRandom(options.seed);
  const chosen = chooseProfile(drawn, options.profile);
  const { name, extras } = chosen;
  const shape = buildShape(chosen, drawn.stream('shape'));
  let full = drawPlan(drawn.stream('plan'), shape);
  if (extras.has('restore')) full = addRestores(drawn.stream('restores'), full);
  if (extras.has('setback')) full = addSetBack(drawn.stream('setback'), full);
  if (extras.has('proxy')) full = addProxyFaults(drawn.stream('proxy'), full, shape);
  if (extras.has('reads')) full = addReadFaults(drawn.stream('reads'), full, shape);
  if (extras.has('hunt')) full = addHunts(drawn.stream('hunt'), full, shape, chosen.story);
  if (extras.has('operations')) full = addOperations(drawn.stream('operations'), full, shape);
  if (extras.has('altered')) full = addSettingsByHand(drawn.stream('altered'), full, shape);
  const plan = filterPlan(full, (fault) => options.without?.has(fault.id) !== true && options.only?.has(fault.id) !== false);
  const world = createWorld({
    seed: options.seed,
    shape,
    verbose: options.verbose === true,
    restores: extras.has('restore'),
    proxy: extras.has('proxy') || extras.has('reads'),
    operations: extras.has('operations'),
  });
  const clients = createClients(world, drawn.stream('clients'), {
    writers: 2,
    paceMs: drawn.stream('pace').pick([40, 120, 400]),
    splitReads: extras.has('reads'),
  });
  const operator = createOperator(world);
  const writers = createWriterChecks(world);
  const settings = createSettingChecks(world);
  const acknowledgements = createAcknowledgementChecks(world, clients, { writers, settings });
  const records = createRecordChecks(world, clients, { writers, acknowledgements });
  const restorer = createRestorer(world);
  restorer.onReplaced(records.storeReplaced);
  const context: FaultContext = { world, operator, clients, writers, settings, restorer };
  const stage: Stage = {
    ...context,
    records,
    proxies: createProxyChecks(world),
    reads: createReadChecks(clients, writers),
    goals: createGoalChecks(world),
    slots: createSlotChecks(world),
    plan,
    beginning: extras.has('founding') ? 'adopt-late' : extras.has('operations') ? drawBeginning(drawn.stream('beginning')) : 'new',
    directories: createDirectoryChecks(world, clients, writers.wasPromotedByHand),
    nextLookAt: 0,
    stepsAtLook: 0,
    helped: new Set(),
    excused: null,
  };
  const failure = attempt(stage);
  return {
    seed: options.seed,
    profile: name,
    plan,
    failure,
    excused: stage.excused,
    virtualMs: world.clock.now(),
    steps: world.clock.steps(),
    hash: world.trace.hash(),
    trace: world.trace.lines(),
    promotions: records.promotions.length,
    acknowledged: clients.acknowledged.length,
    lost: records.lost.size,
    longestOverlapMs: writers.longestOverlapMs(),
  };
}

interface Stage extends FaultContext {
  readonly records: ReturnType<typeof createRecordChecks>;
  readonly proxies: ReturnType<typeof createProxyChecks>;
  readonly reads: ReadChecks;
  readonly goals: GoalChecks;
  readonly slots: SlotChecks;
  readonly plan: Plan;
  readonly beginning: Beginning;
  readonly directories: ReturnType<typeof createDirectoryChecks>;
  nextLookAt: number;
  stepsAtLook: number;
  excused: string | null;
  /** Nodes that a person tried to take back already. */
  readonly helped: Set<string>;
}

function attempt(stage: Stage): RunFailure | null {
  const { world } = stage;
  try {
    play(stage);
    return null;
  } catch (cause) {
    if (cause instanceof Excused) {
      world.trace.add('check', cause.message);
      stage.excused = cause.message;
      return null;
    }
    const invariant = cause instanceof Violation ? cause.invariant : 'crash';
    const message = cause instanceof Violation ? cause.message : cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    world.trace.add('check', `!! ${message}`);
    return { invariant, message, step: world.clock.steps(), atMs: Math.round(world.clock.now()) };
  }
}

function play(stage: Stage): void {
  const { world, plan, operator, clients } = stage;
  begin({ world, operator, advance: (ms) => advance(stage, ms) }, stage.beginning);
  untilWhole(stage, SETTLE_MS, 'a new cluster');
  if (faultsOf(plan).some(isRestore)) stage.restorer.takeBackups();
  for (const episode of plan.episodes) {
    calm(stage);
    stage.goals.forget();
    scheduleEpisode(stage, episode.faults);
    advance(stage, episode.lengthMs);
    healEverything(stage);
    untilWhole(stage, LIVENESS_MS, 'the healed cluster');
  }
  calm(stage);
  clients.setPace(null);
  advance(stage, 2500);
  const primary = world.state()?.primary ?? null;
  if (primary === null) throw new Violation('L1', 'no primary at the end');
  stage.records.finish(primary);
  stage.reads.finish(stage.records.isGivenUp);
}

/** L2: a whole cluster opens no further term by itself. */
function calm(stage: Stage): void {
  const before = stage.world.state()?.term ?? 0;
  advance(stage, CALM_MS);
  stage.directories.look();
  stage.slots.look();
  const after = stage.world.state()?.term ?? 0;
  if (after !== before) throw new Violation('L2', `term ${after} was opened ${CALM_MS} ms after the cluster was whole in term ${before}`);
  const missing = missingForWhole(stage.world, stage.writers, stage.operator);
  if (missing.length > 0) throw new Violation('L2', `the cluster was whole and is not any more: ${missing.join('; ')}`);
}

function untilWhole(stage: Stage, limitMs: number, what: string): void {
  const { world, writers, operator, clients } = stage;
  const end = world.clock.now() + limitMs;
  let lookedAfter = world.clock.now() + PERSON_MS;
  let wholeSince = world.clock.now();
  let term = world.state()?.term ?? 0;
  for (;;) {
    const missing = [
      ...missingForWhole(world, writers, operator),
      ...(stage.restorer.busy() ? ['the store is being restored'] : []),
      ...clients.missing(),
    ];
    const present = world.state()?.term ?? 0;
    if (missing.length > 0 || present !== term) wholeSince = world.clock.now();
    term = present;
    if (world.clock.now() - wholeSince >= SEEN_WHOLE_MS) return;
    if (missing.length > 0 && world.clock.now() >= end) throw new Violation('L1', `${what} is not whole after ${limitMs} ms: ${missing.join('; ')}`);
    advance(stage, LOOK_MS);
    stage.directories.look();
    stage.goals.look();
    if (world.clock.now() >= lookedAfter) {
      lookedAfter = world.clock.now() + PERSON_MS;
      helpAsAPerson(stage);
    }
  }
}

/** L3: a state that needs a person is named, and what it names helps. */
function helpAsAPerson(stage: Stage): void {
  const { world, operator } = stage;
  const state = world.state();
  if (state === null) return;
  undoCommands(world, operator);
  if (state.decided.rule.startsWith('failover.blocked-') || state.decided.rule.startsWith('primary.'))
    operator.ask({ kind: 'failover', to: null, acceptLoss: true });
  for (const node of world.dataNodes) {
    const goal = state.goals[node.name];
    if (goal?.kind !== 'fenced' || node.name === state.primary) continue;
    // What the failed task names as its remedy is the second try.
    operator.ask({ kind: 'nodeRejoin', node: node.name, via: stage.helped.has(node.name) ? 'clone' : null, source: null, rateKb: null });
    stage.helped.add(node.name);
  }
}

/** Carries out all events of the next `ms`, with every check after each. */
function advance(stage: Stage, ms: number): void {
  const { world, writers, records } = stage;
  const { clock, machines } = world;
  const end = clock.now() + ms;
  while (clock.step(end)) {
    writers.step();
    stage.directories.step();
    records.raise();
    stage.proxies.raise();
    if (clock.now() >= stage.nextLookAt) {
      stage.nextLookAt = clock.now() + LOOK_MS;
      stage.stepsAtLook = clock.steps();
      stage.settings.look();
    }
    if (machines.crashes.length > 0) throw machines.crashes[0];
    if (clock.steps() - stage.stepsAtLook > MAX_EVENTS)
      throw new Violation('I22', `${MAX_EVENTS} events within ${LOOK_MS} ms: something wakes itself without end`);
  }
  clock.advanceTo(end);
}

export type { World };
