/** The primary's disk: full, broken so that nothing can be written, and stuck so that nothing answers. Each has a diagnosis of its own. */
import { monoMs } from '../../src/base/clock.ts';
import { waitUntil } from '../../src/demo/children.ts';
import type { LabDisks } from '../disks.ts';
import type { Scenario } from '../scenario.ts';
import type { Stage } from '../stage.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover } from '../steps.ts';

const quorum = { durability: { mode: 'quorum', k: 1 } };
const PROTECTION_MS = 20_000;
const SAID_MS = 15_000;
/** A WAL segment that is switched to is one that was made ahead; after this many a new one is needed. */
const MOST_SEGMENTS = 200;

interface DiskLoss {
  readonly name: string;
  readonly about: string;
  readonly expect: Scenario['expect'];
  readonly disks: NonNullable<Scenario['disks']>;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly fault: (stage: Stage, disks: LabDisks) => Promise<void> | void;
  /** The problem that `show` names for the old primary while the fault lasts. */
  readonly diagnosis: string;
  readonly back: (stage: Stage, disks: LabDisks) => void;
}

function diskLoss(loss: DiskLoss): Scenario {
  const protectedBy = 'durability' in loss.spec ? 2 : 0;
  const expectProtected = (stage: Stage): Promise<readonly string[]> =>
    protectedBy === 0 ? Promise.resolve([]) : expectProtection(stage, { voters: protectedBy, limitMs: PROTECTION_MS });
  return {
    name: loss.name,
    about: loss.about,
    expect: loss.expect,
    disks: loss.disks,
    spec: loss.spec,
    run: async (stage) => {
      const { disks, primary } = stage;
      if (disks === null) throw new Error('this scenario needs disks');
      const wrong = [...(await expectProtected(stage))];
      const faultMs = monoMs();
      await loss.fault(stage, disks);
      wrong.push(...(await expectTakeover(stage, { faultMs, victim: primary })));
      const said = await diagnosed(stage, primary, loss.diagnosis);
      if (said === null) wrong.push(`no problem ${loss.diagnosis} of ${primary}: ${await problemsOf(stage, primary)}`);
      const events = await stage.herd.verb(['events', '--json'], 5000);
      if (!events.stdout.includes(loss.diagnosis)) wrong.push(`no event names ${loss.diagnosis}`);
      await calm();
      const fromMs = monoMs();
      loss.back(stage, disks);
      const rejoin = await expectRejoin(stage, { node: primary, fromMs });
      wrong.push(...rejoin.wrong, ...(await expectProtected(stage)));
      const over = await waitUntil(async () => !(await problemsOf(stage, primary)).includes(loss.diagnosis), SAID_MS, 500);
      if (!over) wrong.push(`${loss.diagnosis} is still said of ${primary} after it was mended`);
      return { faultMs, rejoinMs: rejoin.rejoinMs, wrong, detail: said ?? '' };
    },
  };
}

/** The text of the problem, as soon as `show` names it; null when it does not. */
async function diagnosed(stage: Stage, node: string, code: string): Promise<string | null> {
  let text: string | null = null;
  await waitUntil(
    async () => {
      const problems = (await stage.herd.show())?.nodes.find((one) => one.id === node)?.problems ?? [];
      text = problems.find((one) => one.code === code)?.text ?? null;
      return text !== null;
    },
    SAID_MS,
    500,
  );
  return text;
}

async function problemsOf(stage: Stage, node: string): Promise<string> {
  const problems = (await stage.herd.show())?.nodes.find((one) => one.id === node)?.problems ?? [];
  return problems.map((one) => `${one.code}: ${one.text}`).join('; ') || 'none';
}

/** Writes go on in the segments that are there until a new one is needed; so that it is soon, many are begun. */
async function useSegments(stage: Stage): Promise<void> {
  for (let count = 0; count < MOST_SEGMENTS; count++) {
    try {
      await stage.herd.sql(stage.primary, "select pg_logical_emit_message(true, 'lab', 'x'), pg_switch_wal()");
    } catch {
      // The server is gone, as it is to be.
      return;
    }
  }
}

export const diskFull = diskLoss({
  name: 'disk-full',
  about:
    "quorum mode: the disk of the primary's data and WAL is full: PostgreSQL ends itself, another one serves; with space it comes back by itself",
  expect: { outageMs: 3000, clientErrors: null, lostRows: 0, rejoinMs: 60_000 },
  disks: 'tmpfs',
  spec: quorum,
  fault: async (stage, disks) => {
    disks.fill(stage.primary);
    await useSegments(stage);
  },
  diagnosis: 'disk.full',
  back: (stage, disks) => disks.empty(stage.primary),
});

export const diskReadOnly = diskLoss({
  name: 'disk-read-only',
  about: "quorum mode: the file system of the primary's data refuses every write; later its host is booted with a repaired one",
  expect: { outageMs: 3000, clientErrors: null, lostRows: 0, rejoinMs: 60_000 },
  disks: 'ext4',
  spec: quorum,
  fault: (stage, disks) => disks.breakDown(stage.primary),
  diagnosis: 'disk.read-only',
  back: (stage, disks) => {
    stage.network.killAll(stage.primary);
    disks.repair(stage.primary);
    bootHost(stage, stage.primary);
  },
});

/** `writeStallMs` and three seconds. */
const STUCK_OUTAGE_MS = 8000;

export const diskStuckQuorum = diskLoss({
  name: 'disk-stuck-quorum',
  about:
    "quorum mode: every write to the primary's disk waits, its processes cannot even be killed, reads go on: another one serves; then the disk goes on",
  expect: { outageMs: STUCK_OUTAGE_MS, clientErrors: null, lostRows: 0, rejoinMs: 60_000 },
  disks: 'ext4',
  spec: quorum,
  fault: (stage, disks) => disks.freeze(stage.primary),
  diagnosis: 'disk.stuck',
  back: (stage, disks) => disks.thaw(stage.primary),
});

export const diskStuck = diskLoss({
  name: 'disk-stuck',
  about: "asynchronous: every write to the primary's disk waits, its processes cannot even be killed: its lease runs out, and another one serves",
  // The lease of a server that cannot be ended has to run out.
  expect: { outageMs: STUCK_OUTAGE_MS + 4000, clientErrors: null, lostRows: null, rejoinMs: 60_000 },
  disks: 'ext4',
  spec: {},
  fault: (stage, disks) => disks.freeze(stage.primary),
  diagnosis: 'disk.stuck',
  back: (stage, disks) => disks.thaw(stage.primary),
});
