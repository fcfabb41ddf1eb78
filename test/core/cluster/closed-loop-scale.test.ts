/**
 * Nodes come and go in the closed loop, interrupted at every point: each tick checks that no primary opens without what was acknowledged, and that an
 * old one acknowledges nothing (I1, I4); at the end nothing half done stays.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { id, makeTask } from './picture.ts';
import { ADD, N4, REMOVE } from './scale-views.ts';
import { TICK_MS, type World, addTask, boot, createWorld, host, isHealthy, killHost, killPostgres, runFor, runUntil } from './world.ts';

const n3 = id('n3');
const QUORUM = { durability: { mode: 'quorum', k: 1 } };

/** A cluster of three beside a fourth host whose agent joined. */
function three(extra: object = QUORUM): World {
  const world = createWorld(['n1', 'n2', 'n3', 'n4'], extra);
  world.spec = { ...world.spec, nodes: world.spec.nodes.slice(0, 3) };
  addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
  runUntil(world, 'created', (one) => one.tasks.get('create')?.status === 'done', 20_000);
  runFor(world, 2000);
  return world;
}

function four(extra: object = QUORUM): World {
  const world = createWorld(['n1', 'n2', 'n3', 'n4'], extra);
  addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
  runUntil(world, 'created', (one) => one.tasks.get('create')?.status === 'done', 20_000);
  runFor(world, 3000);
  return world;
}

const ended = (world: World): boolean => ['done', 'failed', 'cancelled', 'refused'].includes(world.tasks.get('t')?.status ?? '');
const membership = (world: World, node: typeof N4): string => world.spec.nodes.find((one) => one.id === node)?.membership ?? 'gone';

/** Healthy without the host that is no member. */
function isWhole(world: World): boolean {
  const members = new Map([...world.hosts].filter(([node]) => membership(world, node) === 'full'));
  return isHealthy({ ...world, hosts: members });
}

/** Nothing is half done: whoever is in the settings is a full member and is counted, whoever is not is named nowhere. */
function assertSettled(world: World): void {
  assert.deepEqual(
    world.spec.nodes.map((node) => node.membership).filter((one) => one !== 'full'),
    [],
  );
  const names = world.spec.nodes.map((node) => node.id);
  assert.deepEqual([world.state?.electorate.members, world.state?.electorate.former], [names, []]);
  const { quorum, goals } = world.state ?? {};
  for (const voter of [...(quorum?.voters ?? []), ...(quorum?.wanted.members ?? [])]) assert.ok(names.includes(id(voter.split('.')[0] ?? '')), voter);
  assert.deepEqual(
    Object.keys(goals ?? {}).filter((node) => !names.includes(id(node))),
    [],
  );
}

test('a node is added: copied, caught up, counted; the default durability follows the number of nodes', () => {
  const world = createWorld(['n1', 'n2', 'n3'], { durability: null });
  world.spec = { ...world.spec, nodes: world.spec.nodes.slice(0, 2) };
  addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
  runUntil(world, 'created', (one) => one.tasks.get('create')?.status === 'done', 20_000);
  assert.equal(world.state?.quorum.wanted.k, 0, 'two nodes: asynchronous');
  addTask(world, makeTask({ ...ADD, node: n3 }, { id: 't' }));
  runUntil(world, 'added', ended, 20_000);
  assert.equal(world.tasks.get('t')?.status, 'done');
  runUntil(world, 'protected by it', (one) => one.state?.quorum.k === 1, 10_000);
  assertSettled(world);
});

test('a node that was removed with its data in this term is copied again when it comes back', () => {
  const world = four();
  for (const round of [1, 2]) {
    addTask(world, makeTask({ ...REMOVE, node: N4, dropData: true }, { id: 't' }));
    runUntil(world, 'removed', ended, 20_000);
    assert.deepEqual([world.tasks.get('t')?.status, host(world, 'n4').pg.state], ['done', 'absent'], `round ${round}`);
    runFor(world, 1000);
    addTask(world, makeTask(ADD, { id: 't' }));
    runUntil(world, 'added', ended, 20_000);
    assert.equal(world.tasks.get('t')?.status, 'done', `round ${round}`);
  }
  assertSettled(world);
});

interface Fault {
  readonly strike: (world: World) => void;
  /** What must hold five seconds after it. */
  readonly meanwhile?: (world: World) => void;
  readonly heal: (world: World) => void;
}

const FAULTS: Readonly<Record<string, Fault>> = {
  'the controller is gone for some seconds': {
    strike: (world) => {
      world.controllerUp = false;
    },
    heal: (world) => {
      world.controllerUp = true;
      world.controllerSince = world.t;
    },
  },
  "the primary's host dies": {
    strike: (world) => killHost(host(world, 'n1')),
    // A node that leaves, or comes, never stands in the way of a failover.
    meanwhile: (world) =>
      assert.ok(
        [...world.hosts.values()].some((one) => one.id !== 'n1' && one.open),
        'nobody took over',
      ),
    heal: (world) => boot(host(world, 'n1')),
  },
  "the primary's PostgreSQL dies": { strike: (world) => killPostgres(host(world, 'n1')), heal: () => undefined },
  'the host that comes or goes dies': { strike: (world) => killHost(host(world, 'n4')), heal: (world) => boot(host(world, 'n4')) },
  'the member that is copied dies': { strike: (world) => killHost(host(world, 'n2')), heal: (world) => boot(host(world, 'n2')) },
  'it is cancelled': {
    strike: (world) => {
      const task = world.tasks.get('t');
      if (task !== undefined && !ended(world)) world.tasks.set('t', { ...task, cancelRequested: true });
    },
    heal: () => undefined,
  },
};

/** Every tick of the first second, then now and then: each step of the journal is met by each fault. */
const MOMENTS = [...Array.from({ length: 20 }, (_, n) => n * TICK_MS), ...Array.from({ length: 7 }, (_, n) => 1000 + n * 400)];

describe('interrupted at every point, nothing half done stays', () => {
  for (const [name, fault] of Object.entries(FAULTS)) {
    for (const [what, begin, request] of [
      ['node add', three, ADD],
      ['node remove', four, { ...REMOVE, node: N4 }],
      ['node remove --drop-data', four, { ...REMOVE, node: N4, dropData: true }],
    ] as const) {
      test(`${what}: ${name}`, () => {
        for (const moment of MOMENTS) {
          const world = begin();
          addTask(world, makeTask(request, { id: 't' }));
          runFor(world, moment);
          fault.strike(world);
          runFor(world, 5000);
          fault.meanwhile?.(world);
          fault.heal(world);
          runUntil(world, `${what} ends, ${name} after ${moment} ms`, ended, 120_000);
          runUntil(world, `whole again, ${name} after ${moment} ms`, isWhole, 60_000);
          runFor(world, 3000);
          assertSettled(world);
          const status = world.tasks.get('t')?.status;
          const wanted = (what === 'node add') === (status === 'done') ? 'full' : 'gone';
          assert.equal(membership(world, N4), wanted, `${status} after ${moment} ms`);
        }
      });
    }
  }
});
