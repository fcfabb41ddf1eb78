/** Clients that know the virtual addresses and nothing else, through the loss of the primary's host, a partition, and a foreign host that has the address. */
import { execFileSync } from 'node:child_process';
import { monoMs } from '../../src/base/clock.ts';
import { waitUntil } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import type { Stage } from '../stage.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import { VIPS, type VipClientReport, type VipStage, WRITE_VIP, eventsOf, heldAfter, lostRows, openVips } from '../virtual-addresses.ts';

const spec = { durability: { mode: 'quorum', k: 1 }, vips: VIPS };
const WARM_MS = 2000;
/** The lease's TTL, the fence, and the next look at the interface. */
const DROPPED_MS = 4000;
/** The client's own limits (0.5 s to connect, 1 s a statement) are part of the gap. */
const WRITE_GAP_MS = 3500;
const READ_GAP_MS = 3000;

interface Limits {
  readonly writeGapMs: number | null;
  readonly readGapMs: number | null;
}

async function judge(
  stage: Stage,
  vips: VipStage,
  limits: Limits,
): Promise<{ readonly wrong: readonly string[]; readonly detail: string; readonly report: VipClientReport | null }> {
  const report = await vips.stop();
  if (report === null) return { wrong: ['the clients of the virtual addresses ended without a report'], detail: '', report };
  const { writes, reads } = report;
  const wrong: string[] = [];
  if (limits.writeGapMs !== null && writes.gap.ms > limits.writeGapMs)
    wrong.push(`gap of the writer ${writes.gap.ms} ms is more than ${limits.writeGapMs} ms`);
  if (limits.readGapMs !== null && reads.gap.ms > limits.readGapMs)
    wrong.push(`gap of the reader ${reads.gap.ms} ms is more than ${limits.readGapMs} ms`);
  const lost = await lostRows(stage, vips, report.acknowledged);
  if (lost !== 0) wrong.push(lost === null ? 'the rows of the write address could not be compared' : `${lost} rows of the write address are missing`);
  const side = (name: string, one: typeof writes): string => `${name} ${one.answers} answers, ${one.errorCount} errors, longest gap ${one.gap.ms} ms`;
  return { wrong, detail: `through the addresses: ${side('writes', writes)}; ${side('reads', reads)}`, report };
}

/** The primary is cut off by `cut`; its addresses must leave in time, and must not come back with it. */
async function cutOff(stage: Stage, cut: () => void, heal: () => void): ReturnType<Scenario['run']> {
  const vips = await openVips(stage);
  await calm(WARM_MS);
  const faultMs = monoMs();
  cut();
  const wrong = [...(await expectTakeover(stage, { faultMs, victim: stage.primary }))];
  const next = await nextPrimary(stage);
  const takenMs = await vips.waitHeld(WRITE_VIP, next, 5000);
  if (takenMs === null) wrong.push(`${next} did not take the write address`);
  const takenAfter = Math.round((vips.times(WRITE_VIP, next)[0]?.fromMs ?? monoMs()) - faultMs);
  await calm(5000);
  const dropped = heldAfter(vips, WRITE_VIP, stage.primary, faultMs);
  if (dropped !== null && dropped > DROPPED_MS) wrong.push(`the old primary had the write address for ${dropped} ms`);
  const healMs = monoMs();
  heal();
  const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: healMs });
  await calm(3000);
  const again = heldAfter(vips, WRITE_VIP, stage.primary, healMs);
  if (again !== null) wrong.push(`the returned host had the write address again, ${again} ms after it came back`);
  const shown = await vips.shown();
  if (shown?.write !== next) wrong.push(`show says that the write address is on ${shown?.write}`);
  if (shown?.read === next || shown?.read == null) wrong.push(`show says that the read address is on ${shown?.read}, and ${next} is the primary`);
  const seen = await judge(stage, vips, { writeGapMs: WRITE_GAP_MS, readGapMs: READ_GAP_MS });
  const detail = `the new primary had the write address after ${takenAfter} ms, the old one until ${dropped ?? 0} ms; ${seen.detail}`;
  return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong, ...seen.wrong], detail };
}

export const vipFailover: Scenario = {
  name: 'vip-failover',
  about: "clients know the virtual addresses only: the cable of the primary's host is pulled, and put back later",
  expect: { outageMs: 2500, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec,
  run: (stage) =>
    cutOff(
      stage,
      () => stage.network.unplug(stage.primary),
      () => stage.network.plug(stage.primary),
    ),
};

export const vipPartition: Scenario = {
  name: 'vip-partition',
  about: 'clients know the virtual addresses only: the primary is cut from the other nodes and from the store, its clients still reach it',
  expect: { outageMs: 3000, clientErrors: null, lostRows: 0, rejoinMs: 15_000 },
  spec,
  run: (stage) =>
    cutOff(
      stage,
      () => stage.separate(stage.primary, [stage.serverHost, ...stage.standbys]),
      () => stage.network.heal(),
    ),
};

export const vipConflict: Scenario = {
  name: 'vip-conflict',
  about: 'a foreign host takes the write address while the primary has it, and keeps it while that one is lost: it is named, and not fought',
  expect: { outageMs: 2500, clientErrors: null, lostRows: 0, rejoinMs: null },
  spec,
  run: async (stage) => {
    const vips = await openVips(stage);
    await calm(WARM_MS);
    const mac = foreign(stage, 'link', 'show', 'eth0').match(/link\/ether (\S+)/)?.[1] ?? '';
    const wrong: string[] = [];
    const takenBefore = (await eventsOf(stage, 'vip.held')).length;
    foreign(stage, 'addr', 'add', `${WRITE_VIP}/32`, 'dev', 'eth0');
    const toldMs = await named(stage, mac, 1);
    if (toldMs === null) wrong.push(`no event names ${mac} while the address is held`);
    if (!vips.holders(WRITE_VIP).includes(stage.primary)) wrong.push('the primary gave the address up');
    const faultMs = monoMs();
    stage.network.unplug(stage.primary);
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    const next = await nextPrimary(stage);
    await calm(10_000);
    if (vips.times(WRITE_VIP, next).length > 0) wrong.push(`${next} took the address of a foreign host`);
    const told = (await eventsOf(stage, 'vip.conflict')).filter((text) => text.includes(mac)).length;
    if (told < 1 || told > 3) wrong.push(`${told} events name the foreign host`);
    foreign(stage, 'addr', 'del', `${WRITE_VIP}/32`, 'dev', 'eth0');
    const freeMs = await vips.waitHeld(WRITE_VIP, next, 10_000);
    if (freeMs === null || freeMs > 5000) wrong.push(`the free address was taken after ${freeMs} ms`);
    await calm(4000);
    const moves = (await eventsOf(stage, 'vip.held')).filter((text) => text.startsWith('write')).length;
    // Gone with its host, and taken once.
    if (moves - takenBefore > 2)
      wrong.push(`the write address moved ${moves - takenBefore} times: ${(await eventsOf(stage, 'vip.held')).join('; ')}`);
    const seen = await judge(stage, vips, { writeGapMs: null, readGapMs: READ_GAP_MS });
    const detail = `named after ${toldMs} ms while held; taken ${freeMs} ms after it was free; ${told} events; ${seen.detail}`;
    stage.network.plug(stage.primary);
    return { faultMs, rejoinMs: null, wrong: [...wrong, ...seen.wrong], detail };
  },
};

/** The old one may be writable by its own word until its lease ends, although it acknowledges nothing. */
async function nextPrimary(stage: Stage): Promise<string> {
  let next: string | null = null;
  await waitUntil(
    async () => {
      next = await stage.writableNode();
      return next !== null && next !== stage.primary;
    },
    10_000,
    50,
  );
  return next ?? '';
}

/** Milliseconds until `events` events name the hardware address; null when they do not. */
async function named(stage: Stage, mac: string, events: number): Promise<number | null> {
  const fromMs = monoMs();
  const found = await waitUntil(
    async () => (await eventsOf(stage, 'vip.conflict')).filter((text) => text.includes(mac)).length >= events,
    20_000,
    250,
  );
  return found ? Math.round(monoMs() - fromMs) : null;
}

/** `ip` on the host that stands beside the cluster. */
function foreign(stage: Stage, ...argv: readonly string[]): string {
  const [program = '', ...rest] = [...stage.network.inside(stage.proxyHost), 'ip', ...argv];
  return execFileSync(program, rest, { encoding: 'utf8', timeout: 5000 });
}
