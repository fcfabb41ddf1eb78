/**
 * Who takes writes, looked at after every step.
 *
 * I1 *Invariant:* at most one node of the cluster takes writes of clients; beside a primary that was promoted on the quorum path the former one may be
 *    writable until its lease ends, and acknowledge nothing that the newer one lacks (acknowledgements.ts). Excepted, because the product says so itself: the moment after a suspended
 *    machine goes on; a server that somebody promoted by hand, until it is fenced; without the firewall, a server whose agent and guard are both dead.
 * I2 *Invariant:* a node takes writes only before the deadline that its guard or agent holds, plus the margin that a fence may take; and its agent counts on no
 *    deadline that no guard was told of, since that guard is what fences when the agent cannot (architecture 4.3).
 */
import type { SimNode } from '../world/node.ts';
import type { World } from '../world/world.ts';
import { Violation } from './violation.ts';

export interface WriterChecks {
  step(): void;
  /** Somebody promoted it by hand. */
  tampered(node: string): void;
  /** At any time in this run. */
  wasPromotedByHand(node: string): boolean;
  /** The last time, on the world's clock; null: never. */
  promotedByHandAt(node: string): number | null;
  /** What it answers now counts for nothing: see above. */
  isExcepted(node: string): boolean;
  /** A term that needs no lease to end: whoever was primary before can acknowledge nothing that its primary lacks. */
  openedByQuorum(term: number): void;
  /** Who takes writes in a higher term than that node holds, and whether it did not have to wait for that node's lease; null: nobody. */
  supersededBy(node: string): { readonly node: string; readonly byQuorum: boolean } | null;
  /** Called in the step in which a node begins to take writes of clients. */
  onOpen(callback: (node: SimNode) => void): void;
  /** Nodes that take writes of clients now. */
  writers(): readonly SimNode[];
  /** Longest time that two took writes within an excepted window, for the report. */
  longestOverlapMs(): number;
}

/**
 * After a pause the agent notices within two intervals; the fence, or the closed port, follows (§4.2). One that was started meanwhile, and the guard, know
 * nothing of the pause: what was left of the lease before it, at most a TTL, runs on.
 */
const AFTER_PAUSE_MS = 2 * 500 + 600;
/** An agent that comes back looks at the store (bounded: 500 ms), at PostgreSQL, and fences. */
const AGENT_BACK_MS = 3000;
/** Drift of two clocks over the longest TTL (5 s), each by at most 100 parts in a million, and a timer's lateness. */
const CLOCK_TOLERANCE_MS = 1.5;

export function createWriterChecks(world: World): WriterChecks {
  const { spec, clock, dataNodes } = world;
  /** Value: it was seen out of recovery since. */
  const everTampered = new Map<string, number>();
  const tampered = new Map<string, boolean>();
  /** Without the firewall: agent and guard were both dead while it ran. */
  const unguarded = new Map<string, number>();
  const mayBeUnguarded = world.shape.firewall === 'off';
  const openCalls: ((node: SimNode) => void)[] = [];
  /** Gone through after every event. A guard that fenced has forgotten the deadline; what was armed last is what counts. */
  const seats = dataNodes.map((node) => ({
    node,
    machine: world.machines.of(node.name),
    isOpen: false,
    armed: 0,
    deadline: 0,
    /** The latest that a guard of this boot acknowledged. */
    told: 0,
    boot: '',
  }));
  type Seat = (typeof seats)[number];
  const quorumTerms = new Set<number>();
  let overlapSince: number | null = null;
  let longest = 0;

  const takes = ({ node, machine }: Seat): boolean => {
    if (node.database === null || !node.database.isWritable()) return false;
    const scope = machine.scope();
    return scope.alive() && !scope.paused() && node.port.lets('client');
  };
  const takesWrites = (node: SimNode): boolean => seats.some((seat) => seat.node === node && takes(seat));
  const isExcepted = (node: SimNode): boolean =>
    (tampered.size > 0 && tampered.has(node.name)) || (unguarded.size > 0 && unguarded.has(node.name)) || isJustBack(node);

  /** Of its agent or guard; while both are dead, what runs there runs in the term that one of them knew last. */
  const lastTerms = new Map<string, number>();
  const termOf = (node: SimNode): number => {
    const known = Math.max(node.guard.armed()?.term ?? 0, node.agent()?.heldTerm() ?? 0);
    if (known === 0 && node.agent() === null) return lastTerms.get(node.name) ?? 0;
    lastTerms.set(node.name, known);
    return known;
  };

  function isHarmless(a: SimNode, b: SimNode): boolean {
    const sinceMs = clock.now() - (overlapSince ?? clock.now());
    return wasReplacedByQuorum(Math.min(termOf(a), termOf(b)), Math.max(termOf(a), termOf(b))) && sinceMs <= spec.leaseTtlMs + spec.leaseMarginMs;
  }

  /** A term that needed no end of the older one's lease was opened after it: those that follow take their place by votes, or by the end of that one's. */
  function wasReplacedByQuorum(older: number, newer: number): boolean {
    return [...quorumTerms].some((term) => term > older && term <= newer);
  }

  function isJustBack({ lastPause, agentSince }: SimNode): boolean {
    if (lastPause === null) return false;
    const windowMs = agentSince() > lastPause.from - 1000 ? spec.leaseTtlMs : AFTER_PAUSE_MS;
    return clock.now() - lastPause.until < windowMs;
  }

  function noteWeakness(node: SimNode): void {
    const scope = node.agentScope();
    const agentWorks = scope?.alive() === true && !scope.paused();
    if (!agentWorks && !node.guard.works()) unguarded.set(node.name, clock.now());
    else if (clock.now() - (unguarded.get(node.name) ?? Number.POSITIVE_INFINITY) > AGENT_BACK_MS) unguarded.delete(node.name);
  }

  function checkDeadline({ node, deadline: last, told }: Seat): void {
    const now = node.clock.monoMs();
    const own = node.agent()?.deadline() ?? 0;
    if (own > told + CLOCK_TOLERANCE_MS)
      throw new Violation('I2', `${node.name} counts on its write lease ${Math.round(own - told)} ms longer than any guard of it was told`);
    const deadline = Math.max(node.guard.armed()?.deadline ?? 0, own, last);
    // Servers that people set up are theirs until they are adopted.
    if (deadline === 0 && (world.state()?.primary ?? null) === null) return;
    if (now > deadline + spec.leaseMarginMs)
      throw new Violation('I2', `${node.name} takes writes ${Math.round(now - deadline)} ms after the deadline of its write lease`);
  }

  /**
   * *Invariant:* the store lets a lease expire only a margin after its holder's own deadline. Not looked at while promises may have moved the deadline,
   * and not on a clock that stood still.
   */
  function checkAgainstStore(node: SimNode, armed: { readonly deadline: number; readonly leaseId: string }): void {
    if (clock.now() - node.lastAskedAt < 2000 || isExcepted(node)) return;
    const left = world.store.leaseLeftMs(armed.leaseId);
    if (left === null) return;
    const own = armed.deadline - node.clock.monoMs() + spec.leaseMarginMs;
    if (own > left + CLOCK_TOLERANCE_MS)
      throw new Violation('I2', `${node.name} counts on its write lease ${Math.round(own - left)} ms longer than the store keeps it`);
  }

  function noteDeadline(seat: Seat): void {
    const { node, machine } = seat;
    const armed = node.guard.armed();
    if (armed === null || seat.armed === armed.deadline) return;
    const boot = machine.bootId();
    seat.told = boot === seat.boot ? Math.max(seat.told, armed.deadline) : armed.deadline;
    seat.boot = boot;
    const before = seat.armed;
    seat.armed = armed.deadline;
    // Lost time was taken off: the fence is due from now, not from a moment that has passed.
    if (armed.deadline < before) {
      seat.deadline = Math.max(armed.deadline, node.clock.monoMs());
      return;
    }
    seat.deadline = armed.deadline;
    checkAgainstStore(node, armed);
  }

  function noteOpen(seat: Seat, isOpen: boolean): void {
    if (isOpen === seat.isOpen) return;
    seat.isOpen = isOpen;
    if (isOpen) for (const call of openCalls) call(seat.node);
  }

  function noteTampering(node: SimNode, runsAsPrimary: boolean): void {
    if (!tampered.has(node.name)) return;
    if (node.database?.isWritable() === true) tampered.set(node.name, true);
    else if (tampered.get(node.name) === true && !runsAsPrimary) tampered.delete(node.name);
  }

  function step(): void {
    let first: SimNode | null = null;
    let second: SimNode | null = null;
    for (const seat of seats) {
      const { node } = seat;
      noteDeadline(seat);
      // Also while it answers nobody: what was left without agent and guard is still there when it goes on.
      const runsAsPrimary = node.database?.isAliveAsPrimary() === true;
      if (runsAsPrimary && mayBeUnguarded) noteWeakness(node);
      const isOpen = runsAsPrimary && takes(seat);
      noteOpen(seat, isOpen);
      if (tampered.size > 0) noteTampering(node, runsAsPrimary);
      if (!isOpen) continue;
      if (!isExcepted(node)) checkDeadline(seat);
      if (first === null) first = node;
      else second = node;
    }
    if (first === null || second === null) {
      if (overlapSince !== null) longest = Math.max(longest, clock.now() - overlapSince);
      overlapSince = null;
      return;
    }
    overlapSince ??= clock.now();
    if (!isExcepted(first) && !isExcepted(second) && !isHarmless(first, second))
      throw new Violation('I1', `${first.name} and ${second.name} take writes at the same time`);
  }

  return {
    step,
    isExcepted: (name) => dataNodes.some((node) => node.name === name && isExcepted(node)),
    onOpen: (callback) => void openCalls.push(callback),
    openedByQuorum: (term) => void quorumTerms.add(term),
    supersededBy: (name) => {
      const node = dataNodes.find((one) => one.name === name);
      if (node === undefined || quorumTerms.size === 0) return null;
      const newer = dataNodes.find((one) => one !== node && termOf(one) > termOf(node) && takesWrites(one));
      return newer === undefined ? null : { node: newer.name, byQuorum: wasReplacedByQuorum(termOf(node), termOf(newer)) };
    },
    wasPromotedByHand: (node) => everTampered.has(node),
    promotedByHandAt: (node) => everTampered.get(node) ?? null,
    tampered: (node) => {
      tampered.set(node, false);
      everTampered.set(node, clock.now());
    },
    writers: () => dataNodes.filter(takesWrites),
    longestOverlapMs: () => longest,
  };
}
