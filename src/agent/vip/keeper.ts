/**
 * Keeps the virtual addresses of this host as `wantedVips` wants them.
 *
 * A round runs every few seconds and after each change of the wish: look, remove what must not be here, ask and take what must be, renew what is.
 * Nothing waits for it: neither a promotion (§4.11, S24) nor the fence, whose `drop` works beside a running round.
 *
 * Invariant: after `drop` has answered, no address that this keeper was adding is left. Because: it removes all, waits for an addition that is under way, and
 *   removes again; a round looks at the wish again right before it adds. Broken if: anything here adds an address outside `take`.
 */
import type { Clock } from '../../base/clock.ts';
import { type Loop, startLoop } from '../../base/loop.ts';
import type { Logger } from '../../base/log.ts';
import type { MonoMs, NodeId } from '../../core/ids.ts';
import { type VipFacts, type VipWish, wantedVips } from '../../core/node/vips.ts';
import type { NodeProblem, VipReport } from '../../core/report.ts';
import { type Failure, describeFailure } from '../../core/result.ts';
import type { ClusterSpec } from '../../core/spec.ts';
import type { ClusterState } from '../../core/state.ts';
import { VIP_ROLES, type VipRole, vipOf } from '../../core/vips.ts';
import { chooseInterface } from './interface.ts';
import { type LocalAddress, type Place, type VipKernel, prefixOf } from './kernel.ts';

export interface VipKeeperOptions {
  readonly node: NodeId;
  /** A witness is never to have an address: what it lacks for one is no problem. */
  readonly witness: boolean;
  readonly kernel: VipKernel;
  readonly clock: Clock;
  readonly log: Logger;
  readonly spec: () => ClusterSpec | null;
  readonly state: () => ClusterState | null;
  /** The hardware addresses of the other members. */
  readonly memberMacs: () => ReadonlySet<string>;
  /** agent.yaml's `vipInterface`: goes before the spec's. */
  readonly ownInterface: string | null;
  /** Null before the first look at PostgreSQL: then nothing is changed. */
  readonly facts: () => VipFacts | null;
  readonly onChange: () => void;
}

export interface VipKeeper {
  /** Something may have changed: the wish is looked at, and a round is started when it is another one. Cheap; never waits. */
  note(): void;
  /** The fence: nothing of ours stays on an interface. Errors are logged; the life time takes away what could not be removed. */
  drop(): Promise<void>;
  /** For the guard: every place where an address of this cluster may be on this host. */
  places(): readonly Place[];
  report(): readonly VipReport[];
  problems(): readonly NodeProblem[];
  /** Ends the rounds. The addresses stay, so that a restarted agent finds them; without one their life ends. */
  stop(): Promise<void>;
}

/** Two renewals fit into the life of an address. */
export const ROUND_MS = 3000;
/** Longest wait for somebody who has the address. A neighbour answers within a millisecond; a promotion is not held up by more than this. */
export const PROBE_MS = 200;
/** A member that still has it is about to drop it; after this it is taken all the same. */
export const MEMBER_GRACE_MS = 300;
/** A silence that was asked for ahead counts for this long. */
const PREPARED_MS = 2000;
/** An address of somebody else is asked for again. */
const CONFLICT_AGAIN_MS = 3000;
/** While it is held. */
const CHECK_HELD_MS = 10_000;
const CHECK_HELD_LIMIT_MS = 1000;
/** After it was taken: packets get lost, and a switch may need a moment. The kernel repeats each IPv4 one twice by itself. */
const ANNOUNCE_AGAIN_MS: readonly number[] = [300, 1200, 4000];

interface Kept {
  place: Place | null;
  state: VipReport['state'] | null;
  otherMac: string | null;
  detail: string;
  /** Nobody answered at this time. */
  silentAt: MonoMs | null;
  notBefore: number;
  heldCheckedAt: number;
  /** `next` is an index into ANNOUNCE_AGAIN_MS. Null: it was not taken by this run of the agent. */
  announce: { readonly takenAt: MonoMs; next: number } | null;
}

type Wishes = Readonly<Record<VipRole, VipWish>>;

export function createVipKeeper(options: VipKeeperOptions): VipKeeper {
  const { kernel, clock, log, node } = options;
  const kept: Record<VipRole, Kept> = { write: nothing(), read: nothing() };
  let lastWish = '';
  /** Set by `drop`: nothing is taken until the facts were looked at anew. */
  let dropped = false;
  let adding: Promise<unknown> = Promise.resolve();
  let checking: Promise<void> = Promise.resolve();
  let places: readonly Place[] = [];
  let listFailure: Failure | null = null;
  /** What would keep an address from coming here, known before it is wanted. */
  let unready: readonly NodeProblem[] = [];
  let ownMacs: ReadonlySet<string> = new Set();
  const said = new Map<string, string>();

  const wishes = (): Wishes | null => {
    if (dropped) return { write: 'none', read: 'none' };
    const facts = options.facts();
    return facts === null ? null : wantedVips(facts, node, options.state());
  };

  /** Also after the spec lost its addresses, until they are gone from here. */
  const configured = (): boolean => VIP_ROLES.some((role) => options.spec()?.vips[role] != null || kept[role].place !== null);

  async function round(): Promise<number | undefined> {
    const spec = options.spec();
    if (spec === null || wishes() === null || !configured()) return undefined;
    const listed = await kernel.list();
    listFailure = listed.ok ? null : listed.error;
    if (!listed.ok) {
      sayOnce('list', describeFailure(listed.error));
      return undefined;
    }
    said.delete('list');
    ownMacs = listed.value.macs;
    const { addresses } = listed.value;
    const before = JSON.stringify(report());
    unready = options.witness ? [] : findUnready(spec, addresses);
    const removed = new Set<string>();
    // What is leaving goes first: when the two addresses change places, neither waits for the other.
    for (const role of VIP_ROLES) if (wishes()?.[role] !== 'hold' || vipOf(spec, role) === null) await release(role, spec, addresses, removed);
    places = VIP_ROLES.flatMap((role) => kept[role].place ?? []);
    await Promise.all(VIP_ROLES.map((role) => (wishes()?.[role] === 'none' ? undefined : bring(role, spec, addresses))));
    if (JSON.stringify(report()) !== before) options.onChange();
    return soonest();
  }

  /** The time until something is due before the next regular round. */
  function soonest(): number | undefined {
    const now = clock.now().mono;
    const due = VIP_ROLES.flatMap((role) => {
      const { announce } = kept[role];
      const after = announce === null ? undefined : ANNOUNCE_AGAIN_MS[announce.next];
      return announce === null || after === undefined ? [] : [announce.takenAt + after - now];
    });
    return due.length === 0 ? undefined : Math.max(10, Math.min(...due));
  }

  function findUnready(spec: ClusterSpec, listed: readonly LocalAddress[]): readonly NodeProblem[] {
    const found: NodeProblem[] = [];
    const wanted = VIP_ROLES.flatMap((role) => vipOf(spec, role) ?? []);
    if (wanted.length > 0 && !kernel.mayChange())
      found.push(
        problem(
          'vip.not-permitted',
          'this agent has no right to add virtual addresses: none can come here',
          'Run the agent as root, or give it CAP_NET_ADMIN.',
        ),
      );
    for (const role of VIP_ROLES) {
      const vip = vipOf(spec, role);
      if (vip !== null && placeFor(role, spec, listed) === null)
        found.push(
          problem(
            'vip.no-interface',
            `no interface of this host has a network with the ${role} address ${vip.text}: it cannot come here`,
            `Name one in "vips.${role}.interface" ("pgherd meta edit"), or "vipInterface" in agent.yaml.`,
          ),
        );
    }
    return found;
  }

  function placeFor(role: VipRole, spec: ClusterSpec, listed: readonly LocalAddress[]): Place | null {
    const vip = vipOf(spec, role);
    if (vip === null) return null;
    const chosen = options.ownInterface ?? vip.interface ?? chooseInterface(vip.text, listed);
    return chosen === null ? null : { interface: chosen, address: vip.text };
  }

  /** Removes the address from every interface: it is not to be here. Also one that the spec named until a moment ago. */
  async function release(role: VipRole, spec: ClusterSpec, listed: readonly LocalAddress[], removed: Set<string>): Promise<void> {
    const mine = kept[role];
    const wanted = placeFor(role, spec, listed);
    const address = vipOf(spec, role)?.text ?? null;
    const old = mine.place !== null && mine.place.address !== address ? [mine.place] : [];
    const here = listed.filter((one) => one.address === address);
    const removable = [...here.filter((one) => one.prefix === prefixOf(one.address)), ...old];
    const wish = wishes()?.[role] ?? 'none';
    kept[role] = { ...nothing(), place: wanted, silentAt: wish === 'prepare' ? mine.silentAt : null };
    for (const place of removable) {
      const key = `${place.address}%${place.interface}`;
      if (removed.has(key)) continue;
      removed.add(key);
      const done = await kernel.remove(place);
      if (done.ok) log.info({ vip: role, address: place.address, interface: place.interface }, 'virtual address removed');
      else {
        Object.assign(kept[role], { state: 'failed', detail: describeFailure(done.error) });
        sayOnce(role, describeFailure(done.error));
      }
    }
    const fixed = here.find((one) => one.prefix !== prefixOf(one.address));
    if (fixed !== undefined) Object.assign(kept[role], { state: 'failed', detail: byHand(fixed) });
  }

  async function bring(role: VipRole, spec: ClusterSpec, listed: readonly LocalAddress[]): Promise<void> {
    const mine = kept[role];
    const address = vipOf(spec, role);
    if (address === null) return;
    const place = placeFor(role, spec, listed);
    // The spec has another address by now: the old one leaves at once.
    if (mine.place !== null && mine.state === 'held' && (place === null || !samePlace(mine.place, place))) {
      await kernel.remove(mine.place);
      Object.assign(mine, nothing());
    }
    mine.place = place;
    if (place === null) return fail(role, `no interface of this host has a network with ${address.text}`);
    const fixed = listed.find((one) => one.address === address.text && one.prefix !== prefixOf(one.address));
    if (fixed !== undefined) return fail(role, byHand(fixed));
    const elsewhere = listed.filter((one) => one.address === address.text && one.interface !== place.interface);
    for (const other of elsewhere) await kernel.remove(other);
    const here = listed.find((one) => one.address === address.text && one.interface === place.interface);
    if (here?.duplicate === true) {
      await kernel.remove(place);
      return conflict(role, null);
    }
    if (wishes()?.[role] === 'prepare') return prepare(mine, place);
    if (here !== undefined) return renew(role, place);
    if (clock.now().mono < mine.notBefore) return;
    await claim(role, place);
  }

  async function prepare(mine: Kept, place: Place): Promise<void> {
    const now = clock.now().mono;
    if (mine.silentAt !== null && now - mine.silentAt < PREPARED_MS / 2) return;
    mine.silentAt = (await kernel.probe(place, PROBE_MS)) === null ? clock.now().mono : null;
  }

  /** It was here when the round began: found after a restart of the agent, or taken before. */
  async function renew(role: VipRole, place: Place): Promise<void> {
    const mine = kept[role];
    const added = await adds(role, place);
    if (added === null) return;
    if (!added.ok) return fail(role, describeFailure(added.error));
    if (mine.state !== 'held') {
      log.info({ vip: role, ...place }, 'virtual address found in place');
      Object.assign(mine, { state: 'held', detail: '', otherMac: null });
    }
    await announceIfDue(mine, place);
    const now = clock.now().mono;
    if (now - mine.heldCheckedAt < CHECK_HELD_MS) return;
    mine.heldCheckedAt = now;
    // Not waited for: a silence takes a second, and another address may be wanted meanwhile.
    checking = checkHeld(role, mine, place).catch((cause: unknown) => log.error({ cause: String(cause) }, 'asking for a held address broke'));
  }

  async function checkHeld(role: VipRole, mine: Kept, place: Place): Promise<void> {
    const answered = await kernel.probeHeld(place, CHECK_HELD_LIMIT_MS);
    if (kept[role] !== mine || mine.state !== 'held') return;
    // This host answers too where two of its interfaces are on one network; a member is about to drop it.
    const other = answered === null || ownMacs.has(answered) || options.memberMacs().has(answered) ? null : answered;
    if (other === mine.otherMac) return;
    mine.otherMac = other;
    if (other !== null)
      log.error(
        { vip: role, ...place, other },
        'another host answers for this virtual address; it stays here, and is not announced against the other',
      );
    options.onChange();
  }

  async function announceIfDue(mine: Kept, place: Place): Promise<void> {
    const { announce } = mine;
    const after = announce === null ? undefined : ANNOUNCE_AGAIN_MS[announce.next];
    if (announce === null || after === undefined || clock.now().mono < announce.takenAt + after) return;
    announce.next += 1;
    await kernel.announce(place);
    if (dropped) await kernel.remove(place);
  }

  async function claim(role: VipRole, place: Place): Promise<void> {
    const mine = kept[role];
    const other = await askFor(mine, place);
    if (wishes()?.[role] !== 'hold') return;
    if (other !== null && !options.memberMacs().has(other)) return conflict(role, other);
    const added = await adds(role, place);
    if (added === null) return;
    if (!added.ok) return fail(role, describeFailure(added.error));
    Object.assign(mine, {
      state: 'held',
      detail: '',
      otherMac: null,
      heldCheckedAt: clock.now().mono,
      announce: { takenAt: clock.now().mono, next: 0 },
    });
    said.delete(role);
    const detail =
      other === null ? 'virtual address taken' : 'virtual address taken although another member still answers for it; it is announced again';
    log[other === null ? 'info' : 'warn']({ vip: role, ...place, ...(other === null ? {} : { other }) }, detail);
    await kernel.announce(place);
    if (dropped) await kernel.remove(place);
  }

  /** Who answers for it; a member is given a moment to drop it. A silence that was asked for ahead is not asked for again. */
  async function askFor(mine: Kept, place: Place): Promise<string | null> {
    const begin = clock.now().mono;
    if (mine.silentAt !== null && begin - mine.silentAt < PREPARED_MS) return null;
    for (;;) {
      const other = await kernel.probe(place, PROBE_MS);
      if (other === null || !options.memberMacs().has(other) || clock.now().mono - begin >= MEMBER_GRACE_MS) return other;
      await clock.sleep(20);
    }
  }

  /** The one place that adds. Null: it is not wanted any more. */
  async function adds(role: VipRole, place: Place): Promise<Awaited<ReturnType<VipKernel['add']>> | null> {
    if (wishes()?.[role] !== 'hold') return null;
    const work = kernel.add(place);
    adding = Promise.allSettled([adding, work]);
    const done = await work;
    if (!dropped) return done;
    await kernel.remove(place);
    return null;
  }

  function conflict(role: VipRole, other: string | null): void {
    Object.assign(kept[role], { state: 'conflict', otherMac: other, detail: '', silentAt: null, notBefore: clock.now().mono + CONFLICT_AGAIN_MS });
    sayOnce(
      role,
      `${role} address ${kept[role].place?.address ?? ''} is used by another host (${other ?? 'found by the kernel'}): it is not taken, and asked for again`,
    );
  }

  function fail(role: VipRole, detail: string): void {
    Object.assign(kept[role], { state: 'failed', detail });
    sayOnce(role, detail);
  }

  /** The same trouble every three seconds is one line. */
  function sayOnce(what: string, text: string): void {
    if (said.get(what) === text) return;
    said.set(what, text);
    log.error({ vip: what }, text);
  }

  function report(): readonly VipReport[] {
    const spec = options.spec();
    return VIP_ROLES.flatMap((role) => {
      const { place, state, otherMac, detail } = kept[role];
      const address = place?.address ?? spec?.vips[role]?.address;
      return state === null || address === undefined ? [] : [{ vip: role, address, state, otherMac, detail }];
    });
  }

  const loop: Loop = startLoop({ name: 'virtual addresses', intervalMs: ROUND_MS, aligned: true, log, clock, step: round });
  return {
    note: () => {
      dropped = false;
      const wish = `${JSON.stringify(wishes())} ${JSON.stringify(options.spec()?.vips)}`;
      if (wish === lastWish) return;
      lastWish = wish;
      loop.wake('wish');
    },
    drop: async () => {
      dropped = true;
      lastWish = '';
      const all = VIP_ROLES.flatMap((role) => kept[role].place ?? []);
      const remove = async (): Promise<void> => {
        const done = await Promise.all(all.map((place) => kernel.remove(place)));
        for (const one of done) if (!one.ok) sayOnce('fence', describeFailure(one.error));
      };
      await remove();
      for (const role of VIP_ROLES) Object.assign(kept[role], { ...nothing(), place: kept[role].place });
      await adding;
      await remove();
    },
    places: () => places,
    report,
    problems: () => [...problemsOf(report(), listFailure), ...unready],
    stop: async () => {
      await loop.stop();
      await checking;
    },
  };
}

function nothing(): Kept {
  return { place: null, state: null, otherMac: null, detail: '', silentAt: null, notBefore: 0, heldCheckedAt: -Infinity, announce: null };
}

function samePlace(a: Place, b: Place): boolean {
  return a.address === b.address && a.interface === b.interface;
}

function byHand(found: LocalAddress): string {
  return `${found.address}/${found.prefix} stands on ${found.interface} by hand, with a network of its own; it is left there, since removing it could cut this host off`;
}

const problem = (code: string, text: string, remedy: string): NodeProblem => ({ code, text, remedy });

function problemsOf(vips: readonly VipReport[], listing: Failure | null): readonly NodeProblem[] {
  const found = vips.flatMap((vip): readonly NodeProblem[] => {
    if (vip.state === 'failed')
      return [
        problem(
          'vip.failed',
          `the ${vip.vip} address ${vip.address} is not as it should be: ${vip.detail}`,
          'See "Virtual addresses" in the manual; it is tried again every few seconds.',
        ),
      ];
    if (vip.state === 'conflict' || vip.otherMac !== null)
      return [
        problem(
          'vip.conflict',
          `the ${vip.vip} address ${vip.address} is used by another host${vip.otherMac === null ? '' : ` (${vip.otherMac})`}`,
          'Find that host by its hardware address and take the address away there, or give the cluster another one with "pgherd meta edit".',
        ),
      ];
    return [];
  });
  return listing === null ? found : [...found, problem(listing.code, `${listing.what}: ${listing.cause}`, listing.remedy)];
}
