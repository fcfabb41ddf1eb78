/**
 * A person restores the store from an old backup, with the product's own code (src/store/snapshot.ts): over the data of the store that is there, or into a
 * new one that answers in its place, which hosts follow by its mark. Or somebody puts older files in the place of the store's, which nothing marks. Drawn from a stream of its own, so that the rest of a plan is what it is without it.
 */
import { describeFailure } from '../src/core/result.ts';
import { backupStore, restoreStore } from '../src/store/snapshot.ts';
import { createKeyspace } from './model/store/keyspace.ts';
import { type Entry, type Fault, type FaultKind, type Plan, withMore } from './plan.ts';
import type { Random } from './random.ts';
import type { World } from './world/world.ts';

export type StoreRestore = Extract<FaultKind, { kind: 'store-restore' }>;

/** Backups are made this often, and so many are kept. */
const BACKUP_EVERY_MS = 10_000;
const KEPT = 30;
/** Between two tries: the store did not answer, or somebody wrote in the middle. */
const AGAIN_MS = 1000;
/** A new server is there after this time. */
const DEPLOY_MS = 700;

/** The plan with one or two restores, numbered after all its other entries. */
export function addRestores(random: Random, plan: Plan): Plan {
  const where = random.int(plan.episodes.length);
  const count = random.pick([1, 1, 2]);
  return withMore(plan, ({ lengthMs }, index) =>
    Array.from({ length: index === where ? count : 0 }, () => drawRestore(random, lengthMs, () => random.pick(['same', 'new']))),
  );
}

/** The plan with one moment at which the store's files are set back, numbered after all its other entries. */
export function addSetBack(random: Random, plan: Plan): Plan {
  const where = random.int(plan.episodes.length);
  return withMore(plan, ({ lengthMs }, index) => (index === where ? [drawRestore(random, lengthMs, () => 'in-place')] : []));
}

function drawRestore(random: Random, lengthMs: number, into: () => StoreRestore['into']): Entry {
  const what: StoreRestore = { kind: 'store-restore', backupAgeMs: random.pick([0, 5000, 20_000, 60_000]), into: into() };
  return { at: Math.round(random.between(1000, lengthMs - 5000)), forMs: 0, what };
}

export const isRestore = ({ what }: Fault): boolean => what.kind === 'store-restore';

export interface Restorer {
  /** Takes backups from now on, for as long as the run lasts. */
  takeBackups(): void;
  begin(what: StoreRestore): void;
  /** A restore is under way: everything else that people do waits for it. */
  busy(): boolean;
  /** Called when the data of another store, or none, stands in the place of what was there. */
  onReplaced(callback: () => void): void;
}

export function createRestorer(world: World): Restorer {
  const { clock, office, store, trace } = world;
  const desk = world.machines.of('office');
  const backups: { readonly at: number; readonly text: string; readonly files: ReturnType<World['store']['backup']> }[] = [];
  const replaced: (() => void)[] = [];
  let taking = false;
  let busy = false;

  async function take(): Promise<void> {
    for (;;) {
      const at = clock.now();
      const made = busy ? null : await backupStore(office.store, desk.clock.of(desk.scope()));
      if (made?.ok === true && !busy) backups.push({ at, text: made.value, files: store.backup() });
      if (backups.length > KEPT) backups.shift();
      await clock.sleep(BACKUP_EVERY_MS);
    }
  }

  /** Until it succeeded: a store with half of a backup serves nobody. */
  async function restore(text: string, into: StoreRestore['into']): Promise<void> {
    if (into === 'new') {
      for (const server of world.servers) server.kill();
      store.restore({ keyspace: createKeyspace(), incarnation: '' }, String(BigInt(store.incarnation()) + 1n));
      for (const call of replaced) call();
      office.replace(world.openOffice());
      await clock.sleep(DEPLOY_MS);
      for (const server of world.servers) server.start();
    }
    for (let tries = 0; ; tries++) {
      const done = await restoreStore(office.store, text, { existing: into === 'new' && tries === 0 ? 'refuse' : 'replace' });
      if (done.ok) {
        trace.add('operator', `the store is restored: ${done.value.keys} keys of revision ${done.value.revision}`);
        return;
      }
      trace.add('operator', describeFailure(done.error));
      await clock.sleep(AGAIN_MS);
    }
  }

  /** Every server ends, finds the older files at its start, and knows nothing of it. */
  async function setBack(files: (typeof backups)[number]['files']): Promise<void> {
    for (const server of world.servers) server.kill();
    store.restore(files, files.incarnation);
    for (const call of replaced) call();
    await clock.sleep(DEPLOY_MS);
    for (const server of world.servers) server.start();
  }

  return {
    takeBackups: () => {
      if (taking) return;
      taking = true;
      void take();
    },
    begin: ({ backupAgeMs, into }) => {
      const old = backups.findLast((one) => one.at <= clock.now() - backupAgeMs) ?? backups[0];
      if (old === undefined || busy) return;
      busy = true;
      trace.add(
        'operator',
        into === 'in-place'
          ? `puts files that are ${Math.round(clock.now() - old.at)} ms old in the place of the store's`
          : `restores a backup that is ${Math.round(clock.now() - old.at)} ms old into ${into === 'new' ? 'a new store' : 'the store'}`,
      );
      const done = into === 'in-place' ? setBack(old.files) : restore(old.text, into);
      void done.finally(() => {
        busy = false;
      });
    },
    busy: () => busy,
    onReplaced: (callback) => void replaced.push(callback),
  };
}
