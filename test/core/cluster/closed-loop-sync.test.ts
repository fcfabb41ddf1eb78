/** Quorum replication in the closed loop. Each tick checks that no primary opens without what was acknowledged, and that an old one acknowledges nothing (I1, I4). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { id, makeTask } from './picture.ts';
import { restoreBackup, takeBackup } from './world-faults.ts';
import { TICK_MS, type World, addTask, boot, createWorld, host, isHealthy, killHost, killPostgres, runFor, runUntil } from './world.ts';
import '../../fixed-seed.ts';

const QUORUM = { durability: { mode: 'quorum', k: 1 } };

const isProtected = (world: World): boolean => isHealthy(world) && (world.state?.quorum.k ?? 0) >= 1 && world.state?.quorum.lowered === null;

function created(extra: object = QUORUM, names?: readonly string[]): World {
  const world = createWorld(names, extra);
  addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
  runUntil(world, 'created', (one) => one.tasks.get('create')?.status === 'done', 20_000);
  runUntil(world, 'protected', isProtected, 10_000);
  runFor(world, 1000);
  assert.ok(world.acked.length > 0);
  return world;
}

const another =
  (than: string) =>
  (world: World): boolean =>
    [...world.hosts.values()].some((one) => one.id !== than && one.up && one.open);

test('a new cluster is protected by itself, and then nothing more is written', () => {
  const world = created();
  const { length } = world.decisions;
  runFor(world, 5000);
  assert.ok(world.decisions.length - length <= 2, `steady, yet ${world.decisions.slice(length).join()}`);
});

test('the host lost: another opens without waiting for the lease, with everything that was acknowledged', () => {
  const world = created();
  killHost(host(world, 'n1'));
  const ms = runUntil(world, 'open again', another('n1'), 10_000);
  assert.ok(ms <= 2000, `${ms} ms`);
  runUntil(world, 'protected by the remaining one', (one) => one.state?.quorum.k === 1, 5000);
  boot(host(world, 'n1'));
  runUntil(world, 'protected by both', (one) => isProtected(one) && one.state?.quorum.voters.length === 2, 20_000);
});

test('the primary cut off from everybody but its clients acknowledges nothing, and the next one has all (architecture 4.5)', () => {
  const world = created();
  const old = host(world, 'n1');
  old.isolated = true;
  old.linked = false;
  const ms = runUntil(world, 'open again', another('n1'), 10_000);
  assert.ok(ms <= 2500, `${ms} ms`);
  assert.ok(old.open, 'it is still open then: the lease was not waited for');
  runFor(world, 5000);
  assert.equal(old.open, false);
  old.isolated = false;
  old.linked = true;
  runUntil(world, 'protected', isProtected, 30_000);
});

test('both standbys lost: lowered within two seconds, raised by itself when they return', () => {
  const world = created();
  for (const name of ['n2', 'n3']) killHost(host(world, name));
  const ms = runUntil(
    world,
    'writes go on',
    (one) => one.state?.quorum.lowered !== null && host(one, 'n1').sync.report?.revision === one.state?.quorum.wantedRevision,
    5000,
  );
  assert.ok(ms <= 2000, `${ms} ms`);
  for (const name of ['n2', 'n3']) boot(host(world, name));
  runUntil(world, 'protected', (one) => isProtected(one) && one.state?.quorum.voters.length === 2, 30_000);
  assert.equal(world.state?.term, 1);
});

test('strict: nothing is acknowledged without a standby, and nothing is promoted without enough of them (H35, I6)', () => {
  const world = created({ durability: { mode: 'quorum', k: 1, strict: true } });
  for (const name of ['n2', 'n3']) killHost(host(world, name));
  runFor(world, 3000);
  const [acked] = world.acked;
  const before = acked?.lsn;
  runFor(world, 10_000);
  assert.equal(acked?.lsn, before);
  killHost(host(world, 'n1'));
  boot(host(world, 'n2'));
  runFor(world, 15_000);
  assert.equal(world.state?.primary, 'n1', 'n3 may hold what n2 has not');
  boot(host(world, 'n3'));
  boot(host(world, 'n1'));
  runUntil(world, 'protected', isProtected, 30_000);
});

test('one voter and the primary lost together: no failover, the missing one is named, its return ends the wait (Q7)', () => {
  const world = created();
  for (const name of ['n1', 'n3']) killHost(host(world, name));
  runFor(world, 10_000);
  assert.equal(world.state?.primary, 'n1');
  assert.match(world.state?.decided.why ?? '', /missing: n3/);
  boot(host(world, 'n3'));
  runUntil(world, 'open again', another('n1'), 15_000);
  boot(host(world, 'n1'));
  runUntil(world, 'protected', isProtected, 30_000);
});

test('of four, a standby lost first and the primary some seconds later: the set has followed, and the other two are enough', () => {
  const world = created(QUORUM, ['n1', 'n2', 'n3', 'n4']);
  killHost(host(world, 'n3'));
  runUntil(world, 'two are promised', (one) => one.state?.quorum.voters.length === 2, 5000);
  killHost(host(world, 'n1'));
  const ms = runUntil(world, 'another opens', another('n1'), 5000);
  assert.ok(ms <= 2000, `${ms} ms`);
});

test('of three, two lost one after the other: the last one holds everything and lacks the votes, so no attempt is begun', () => {
  const world = created();
  killHost(host(world, 'n3'));
  runUntil(world, 'n2 alone is promised', (one) => one.state?.quorum.voters.length === 1, 5000);
  killHost(host(world, 'n1'));
  runFor(world, 10_000);
  assert.equal(world.state?.attempt, null);
  assert.match(world.state?.decided.why ?? '', /1 of 2 needed votes/);
  boot(host(world, 'n3'));
  runUntil(world, 'n2 opens', another('n1'), 20_000);
});

test('PostgreSQL killed with records of its own: promoted all the same, what was acknowledged is there', () => {
  const world = created();
  killPostgres(host(world, 'n1'));
  host(world, 'n1').pg.lsn += 5000n;
  const ms = runUntil(world, 'open again', another('n1'), 5000);
  assert.ok(ms <= 1000, `${ms} ms`);
  runUntil(world, 'protected', isProtected, 30_000);
});

test('a crash that must be restarted in place opens only once a voter holds what it recovered (Q27, I8)', () => {
  const world = created({ ...QUORUM, onCrash: 'restart' });
  killPostgres(host(world, 'n1'));
  runUntil(world, 'open again', (one) => host(one, 'n1').open, 10_000);
  assert.equal(world.state?.term, 1);
  assert.equal(world.state?.quorum.lowered, null);
});

test('two nodes, quorum: the survivor goes on alone and says so; the other one is taken back', () => {
  const world = created(QUORUM, ['n1', 'n2']);
  killHost(host(world, 'n1'));
  runUntil(world, 'n2 opens', (one) => host(one, 'n2').open, 5000);
  assert.notEqual(world.state?.quorum.lowered ?? null, null);
  boot(host(world, 'n1'));
  runUntil(world, 'protected', isProtected, 30_000);
});

test('switchover under quorum: nothing lost, protected again', () => {
  const world = created();
  addTask(world, makeTask({ kind: 'switchover', to: id('n2') }, { id: 's' }));
  runUntil(world, 'done', (one) => one.tasks.get('s')?.status === 'done', 20_000);
  assert.equal(world.state?.primary, 'n2');
  runUntil(world, 'protected', (one) => isProtected(one) && one.state?.quorum.voters.length === 2, 20_000);
});

test('a candidate that cannot promote refuses; no other one is far enough, and the old primary comes back (Z38)', () => {
  const world = created();
  host(world, 'n2').broken.add('promote');
  host(world, 'n3').broken.add('promote');
  killHost(host(world, 'n1'));
  runFor(world, 8000);
  boot(host(world, 'n1'));
  for (const name of ['n2', 'n3']) host(world, name).broken.clear();
  runUntil(world, 'protected', isProtected, 120_000);
});

/** The controller dies after its k-th decision and another one takes over 2.5 s later. */
function interrupted(k: number, scenario: (world: World) => void): number {
  const world = created({ ...QUORUM, antiFlappingMs: 0 });
  scenario(world);
  const from = world.decisions.length;
  let died = false;
  runUntil(
    world,
    `protected, controller died after decision ${k}`,
    (one) => {
      if (!died && one.decisions.length - from >= k) {
        died = true;
        one.controllerUp = false;
        one.controllerSince = one.t + 2500;
      }
      if (died && !one.controllerUp && one.t >= one.controllerSince) one.controllerUp = true;
      return one.controllerUp && one.decisions.length > from && isProtected(one);
    },
    60_000,
  );
  return world.decisions.length - from;
}

const SCENARIOS: Readonly<Record<string, (world: World) => void>> = {
  crash: (world) => killPostgres(host(world, 'n1')),
  'host lost and back': (world) => {
    killHost(host(world, 'n1'));
    runFor(world, 3000);
    boot(host(world, 'n1'));
  },
  'standbys lost and back': (world) => {
    for (const name of ['n2', 'n3']) killHost(host(world, name));
    runFor(world, 2500);
    for (const name of ['n2', 'n3']) boot(host(world, name));
  },
};

for (const [name, scenario] of Object.entries(SCENARIOS)) {
  test(`${name}: the controller may die after any decision (H45)`, () => {
    const steps = interrupted(1000, scenario);
    for (let k = 1; k <= steps; k++) interrupted(k, scenario);
  });
}

/** One fault or command, by number, on a host. Nobody accepts a loss. */
const FAULTS: readonly ((world: World, name: string, n: number) => void)[] = [
  (world, name) => host(world, name).up && killPostgres(host(world, name)),
  (world, name) => killHost(host(world, name)),
  (world, name) => !host(world, name).up && boot(host(world, name)),
  (world, name) => {
    host(world, name).linked = !host(world, name).linked;
  },
  (world, name) => {
    const one = host(world, name);
    one.isolated = !one.isolated;
    one.linked = !one.isolated;
  },
  (world, name, n) => addTask(world, makeTask({ kind: 'switchover', to: id(name) }, { id: `s${n}` })),
  (world, name, n) => addTask(world, makeTask({ kind: 'failover', to: id(name), acceptLoss: false, acceptTwoPrimaries: false }, { id: `f${n}` })),
  (world, name, n) => addTask(world, makeTask({ kind: 'nodeRejoin', node: id(name), via: 'clone', source: null, rateKb: null }, { id: `c${n}` })),
  (world) => {
    world.controllerUp = !world.controllerUp;
    world.controllerSince = world.t;
  },
  (world, name) => {
    const { broken } = host(world, name);
    if (broken.has('promote')) broken.clear();
    else broken.add('promote');
  },
  (world, name, n) => addTask(world, makeTask({ kind: 'nodeRestart', node: id(name) }, { id: `r${n}` })),
  // A backup of the middle of an attempt is another story: nobody knows then how it went on.
  (world) => world.state?.attempt === null && world.state.switchover === null && takeBackup(world),
  (world) => restoreBackup(world),
  (world, name) => {
    if (host(world, name).pg.role === 'primary' && host(world, name).pg.state !== 'running') host(world, name).pg.lsn += 777n;
  },
];

const DURABILITIES = [
  { mode: 'quorum', k: 1 },
  { mode: 'quorum', k: 1, strict: true },
  { mode: 'quorum', k: 2, minSync: 1 },
  { mode: 'sync', k: 1 },
];

test('random faults and commands in each mode: no later primary lacks what was acknowledged, no two acknowledge; healed, all is protected again (I1, I4, L1)', () => {
  const action = fc.tuple(fc.integer({ min: 0, max: FAULTS.length - 1 }), fc.constantFrom('n1', 'n2', 'n3'), fc.integer({ min: 1, max: 80 }));
  fc.assert(
    fc.property(fc.constantFrom(...DURABILITIES), fc.array(action, { minLength: 1, maxLength: 14 }), (durability, actions) => {
      const world = createWorld(['n1', 'n2', 'n3'], { durability, antiFlappingMs: 0, maxLagOnFailoverBytes: 100_000 });
      addTask(world, makeTask({ kind: 'create' }, { id: 'create' }));
      runUntil(world, 'protected', isProtected, 30_000);
      for (const [index, [what, name, ticks]] of actions.entries()) {
        FAULTS[what]?.(world, name, index);
        runFor(world, ticks * TICK_MS);
      }
      world.controllerUp = true;
      for (const one of world.hosts.values()) {
        one.linked = true;
        one.isolated = false;
        one.broken.clear();
        if (!one.up) boot(one);
      }
      for (let i = 0; i < 600 && !isProtected(world); i++) runFor(world, TICK_MS);
      if (!isProtected(world)) {
        // What only a person can know, after a restore or when a diverged voter is the only one: that what is left counts.
        world.acked = [];
        addTask(world, makeTask({ kind: 'failover', to: null, acceptLoss: true, acceptTwoPrimaries: false }, { id: 'person' }));
      }
      runUntil(world, 'healed', isProtected, 180_000);
    }),
    // More of them by hand, for hours: PGHERD_RUNS=100000.
    {
      numRuns: Number(process.env['PGHERD_RUNS'] ?? 200),
      // The old primary opens a further term while none of its voters can attach inside of the attempt.
      examples: [
        // A term that opened with nobody to wait for, lost at once: what the former one acknowledged must not be lost with it.
        [
          { mode: 'quorum', k: 1 },
          [
            [9, 'n3', 1],
            [5, 'n3', 1],
            [5, 'n1', 11],
            [4, 'n1', 1],
            [0, 'n1', 26],
            [4, 'n2', 10],
            [0, 'n1', 50],
          ],
        ],
        [
          { mode: 'quorum', k: 1, strict: true },
          [
            [4, 'n1', 1],
            [9, 'n2', 30],
            [6, 'n1', 1],
            [0, 'n1', 1],
          ],
        ],
        [
          { mode: 'quorum', k: 1 },
          [
            [5, 'n3', 1],
            [0, 'n2', 8],
            [3, 'n3', 55],
            [8, 'n1', 1],
            [7, 'n2', 1],
            [5, 'n2', 1],
            [2, 'n1', 1],
          ],
        ],
      ],
    },
  );
});
