/**
 * The servers of the modelled store: one (embedded) or several (etcd) members, a leader, leases, watchers.
 *
 * What is promised is `src/store/store.ts`; what may go wrong here: members die, stop and return, the leader is lost and another elected (leases get a
 * full TTL then), writes that were on their way at that moment happen or do not, a deposed leader still answers bare keep-alives, commits are slow,
 * watches lag, the store is lost and comes back from an old backup, with the same or with another incarnation.
 */
import type { makeRevision } from '../../../src/core/ids.ts';
import type { KeyValue, TxnResult, WatchBatch } from '../../../src/store/store.ts';
import type { Scheduler, Scope } from '../../clock.ts';
import type { Network } from '../../network.ts';
import type { Random } from '../../random.ts';
import { type Keyspace, type Txn, createKeyspace } from './keyspace.ts';
import { type LeaseTable, createLeaseTable } from './leases.ts';

export interface StoreHost {
  readonly host: string;
  /** The machine; the server process is a child of it. */
  readonly scope: Scope;
}

export interface ServiceOptions {
  readonly clock: Scheduler;
  readonly network: Network;
  readonly random: Random;
  /** One: the embedded engine. Three or five: etcd. */
  readonly members: readonly StoreHost[];
  /** Decimal text. */
  readonly incarnation: string;
}

export type Request =
  | { readonly kind: 'txn'; readonly txn: Txn; readonly writes: boolean }
  | { readonly kind: 'get'; readonly key: string }
  | { readonly kind: 'list'; readonly prefix: string; readonly limit: number }
  | { readonly kind: 'grant'; readonly id: string; readonly ttlMs: number }
  | { readonly kind: 'keep-alive' | 'revoke' | 'time-to-live'; readonly id: string }
  | { readonly kind: 'status' };

export type Answer =
  | { readonly kind: 'txn'; readonly result: TxnResult }
  | { readonly kind: 'kvs'; readonly revision: number; readonly incarnation: string; readonly kvs: readonly KeyValue[] }
  | { readonly kind: 'lease'; readonly ttlMs: number }
  | { readonly kind: 'status'; readonly revision: number }
  | {
      readonly kind: 'failed';
      /** As the client's table of gRPC codes has it; `compacted` does not come on these requests. */
      readonly outcome: 'not-applied' | 'unclear' | 'lease-not-found' | 'lease-exists' | 'refused';
      readonly message: string;
    };

export interface ServerWatch {
  readonly prefix: string;
  readonly member: string;
  /** Events up to here were handed to `push`. */
  last: number;
  readonly push: (batch: WatchBatch) => void;
  /** What it would have to get first was compacted: it is over. */
  readonly refuse: (compacted: number) => void;
}

export interface Backup {
  readonly keyspace: Keyspace;
  readonly incarnation: string;
}

export interface StoreService {
  readonly members: readonly string[];
  incarnation(): string;
  keyspace(): Keyspace;
  /** A request that arrived at a member's process. `reply` is called there, or never. */
  handle(member: string, request: Request, reply: (answer: Answer) => void): void;
  /** False: its process is not there or stopped. */
  isUp(member: string): boolean;
  /** The process of the member is there (it may be stopped): a connection is accepted. */
  accepts(member: string): boolean;
  /** The machine of the member answers at all, so that a connection to a dead process is refused at once. */
  hostAnswers(member: string): boolean;
  /** The member follows the leader: its watches are up to date. */
  isInSync(member: string): boolean;
  /** Null: attached. Else why not. */
  attach(watch: ServerWatch): { readonly kind: 'compacted'; readonly revision: number } | null;
  detach(watch: ServerWatch): void;
  /** Counts the times that every connection to the member broke: one that was made under another number is dead, whether its client knows or not. */
  generation(member: string): number;
  /** Called when connections to that member break. */
  onReset(callback: (member: string) => void): void;
  /** Called with each commit, for checkers. */
  onCommit(callback: (batch: WatchBatch) => void): void;

  /** The server's process dies; its data stays. */
  kill(member: string): void;
  /** It starts again, on the same machine or (after a crash of the machine) on `scope`. */
  start(member: string, scope?: Scope): void;
  pause(member: string): void;
  resume(member: string): void;
  leader(): string | null;
  /** How long the leader keeps a lease yet, for checkers; null: it knows none of that id, or nobody leads. */
  leaseLeftMs(id: string): number | null;
  /** The leader steps down; another member (or the same) is elected after the usual time. */
  loseLeader(): void;
  /** Looks at who can reach whom. Called by itself when links change and when requests come. */
  review(): void;
  /** Added to each commit (slow disk), and to each delivery of a watch. */
  setDelays(delays: { readonly commitMs?: number; readonly watchMs?: number }): void;
  watchDelayMs(): number;
  backup(): Backup;
  /** Everything after the backup is gone, every connection breaks, leases get a full TTL. */
  restore(backup: Backup, incarnation: string): void;
}

/** One commit on a healthy disk. */
const COMMIT_MS = 0.6;
/** *Source:* etcd 3.4, `--election-timeout` 1000 ms; a follower waits one to two of them. */
const ELECTION_MS = 1000;
/** The embedded server is there again this long after its start. */
const EMBEDDED_START_MS = 150;
/** A deposed leader that cannot hear anybody answers keep-alives for at most so long. *Source:* etcd raft, CheckQuorum every election time-out. */
const STALE_LEADER_MS = 1000;

interface Member {
  machine: Scope;
  process: Scope | null;
}

export function createStoreService(options: ServiceOptions): StoreService {
  const { clock, network, random } = options;
  const names = options.members.map((member) => member.host);
  const members = new Map<string, Member>(
    options.members.map(({ host, scope }) => [host, { machine: scope, process: scope.child(`store@${host}`) }]),
  );
  const single = names.length === 1;
  const resets: ((member: string) => void)[] = [];
  const commits: ((batch: WatchBatch) => void)[] = [];
  const watches = new Set<ServerWatch>();
  let keyspace = createKeyspace();
  let incarnation = options.incarnation;
  let leader: string | null = names[0] ?? null;
  let epoch = 1;
  let electing = false;
  let readyAt = 0;
  let commitMs = 0;
  let watchMs = 0;
  let lostAt = Number.NEGATIVE_INFINITY;
  let deposed: { readonly member: string; readonly leases: ReadonlySet<string>; readonly until: number } | null = null;
  /** Writes that the leader has taken and not yet made durable. */
  const proposed = new Set<() => void>();
  /** Writes that a leader took before it was lost: the next one has them or not. */
  let limbo: (() => void)[] = [];

  const memberOf = (name: string): Member => {
    const found = members.get(name);
    if (found === undefined) throw new Error(`no store member ${name}`);
    return found;
  };
  const isUp = (name: string): boolean => {
    const { process } = memberOf(name);
    return process?.alive() === true && !process.paused();
  };
  const hears = (a: string, b: string): boolean => a === b || (isUp(a) && isUp(b) && network.isConnected(a, b));
  /** A stopped embedded server is still the only one: its timers wait with it. */
  const hasMajority = (name: string): boolean =>
    single ? memberOf(name).process?.alive() === true && clock.now() >= readyAt : isUp(name) && heardBy(name) * 2 > names.length;
  function heardBy(name: string): number {
    let heard = 0;
    for (const other of names) if (hears(name, other)) heard++;
    return heard;
  }

  const leases: LeaseTable = createLeaseTable({
    now: clock.now,
    schedule: (at, run) => {
      const armed = epoch;
      const process = leader === null ? null : memberOf(leader).process;
      process?.at(at, () => {
        if (armed === epoch) run();
      });
    },
    // etcd looks for expired leases every 500 ms, the embedded engine every 20 ms.
    lateMs: () => (single ? 20 : 500) * random.next(),
    minimumTtlMs: single ? 1000 : 2000,
    expire: (id) => {
      if (leader === null || !hasMajority(leader)) return false;
      announce(keyspace.removeLease(id));
      return true;
    },
  });

  function announce(batch: WatchBatch | null): void {
    if (batch === null) return;
    for (const callback of commits) callback(batch);
    bringUp();
  }

  /** What a watch has missed comes first, also when its member is in step again with the very write that is announced. */
  function bringUp(): void {
    for (const watch of watches) {
      if (watch.last >= keyspace.revision() || !isInSync(watch.member)) continue;
      const refused = catchUp(watch);
      if (refused === null) continue;
      watches.delete(watch);
      watch.refuse(refused.revision);
    }
  }

  function offer(watch: ServerWatch, batch: WatchBatch): void {
    if (batch.revision <= watch.last) return;
    watch.last = batch.revision;
    const mine = batch.events.filter((event) => (event.kind === 'put' ? event.kv.key : event.key).startsWith(watch.prefix));
    if (mine.length > 0) watch.push(mine.length === batch.events.length ? batch : { revision: batch.revision, events: mine });
  }

  function catchUp(watch: ServerWatch): { readonly kind: 'compacted'; readonly revision: number } | null {
    const missed = keyspace.since(watch.last);
    if (missed === null) return { kind: 'compacted', revision: keyspace.compactRevision() };
    for (const batch of missed) offer(watch, batch);
    return null;
  }

  function isInSync(name: string): boolean {
    return leader !== null && isUp(name) && hasMajority(leader) && hears(name, leader);
  }

  function depose(): void {
    if (leader === null) return;
    lostAt = clock.now();
    deposed = { member: leader, leases: new Set(keyspace.leases()), until: lostAt + STALE_LEADER_MS };
    leader = null;
    epoch++;
    limbo.push(...proposed);
    proposed.clear();
  }

  function review(): void {
    if (leader !== null && hasMajority(leader)) {
      bringUp();
      return;
    }
    depose();
    if (electing || single || !names.some(hasMajority)) return;
    electing = true;
    clock.after(ELECTION_MS * (1 + random.next()), elect);
  }

  function elect(): void {
    electing = false;
    if (leader !== null) return;
    const able = names.filter(hasMajority);
    if (able.length === 0) return;
    leader = random.pick(able);
    epoch++;
    // Invariant: no lease ends sooner under a new leader than it would have under the old one (§4.10).
    leases.renewAll();
    const undecided = limbo;
    limbo = [];
    for (const apply of undecided) if (random.chance(0.5)) apply();
    bringUp();
  }

  /** Runs at the leader once the write is durable; whether it happens at all is open when the leader is lost meanwhile. */
  function commit(apply: () => Answer, reply: (answer: Answer) => void): void {
    const process = leader === null ? null : memberOf(leader).process;
    if (process === null) return;
    const write = (): void => void apply();
    proposed.add(write);
    process.after(COMMIT_MS * (0.5 + random.next()) + commitMs, () => {
      review();
      if (proposed.delete(write)) reply(apply());
      else reply({ kind: 'failed', outcome: 'unclear', message: 'etcdserver: leader changed' });
    });
  }

  function applyTxn(txn: Txn): Answer {
    const done = keyspace.txn(txn);
    if (!done.ok) {
      const outcome = done.error.kind === 'lease-not-found' ? 'lease-not-found' : 'refused';
      return { kind: 'failed', outcome, message: done.error.message };
    }
    announce(done.value.batch);
    return { kind: 'txn', result: done.value.result };
  }

  function applyGrant(id: string, ttlMs: number): Answer {
    if (!keyspace.addLease(id)) return { kind: 'failed', outcome: 'lease-exists', message: 'etcdserver: lease already exists' };
    return { kind: 'lease', ttlMs: leases.add(id, ttlMs) };
  }

  function applyRevoke(id: string): Answer {
    if (!keyspace.hasLease(id)) return noSuchLease;
    leases.remove(id);
    announce(keyspace.removeLease(id));
    return { kind: 'lease', ttlMs: 0 };
  }

  function serve(member: string, request: Request, reply: (answer: Answer) => void): void {
    review();
    if (request.kind === 'status') {
      reply({ kind: 'status', revision: keyspace.revision() });
      return;
    }
    const stale = deposed !== null && deposed.member === member && leader !== member && clock.now() < deposed.until ? deposed : null;
    if (request.kind === 'keep-alive' && stale !== null) {
      // It does not know yet, and a bare keep-alive needs no majority (Z5).
      const ttlMs = leases.ttlOf(request.id);
      reply(stale.leases.has(request.id) && ttlMs !== null ? { kind: 'lease', ttlMs } : noSuchLease);
      return;
    }
    if (!isInSync(member)) {
      // Right after the loss members still wait for the leader and answer nothing; later they say so.
      if (leader !== null || clock.now() > lostAt + ELECTION_MS) reply(noLeader);
      else if (request.kind === 'txn' && request.writes) limbo.push(() => void applyTxn(request.txn));
      return;
    }
    switch (request.kind) {
      case 'get': {
        const kv = keyspace.get(request.key);
        reply({ kind: 'kvs', revision: keyspace.revision(), incarnation, kvs: kv === null ? [] : [kv] });
        return;
      }
      case 'list':
        reply({ kind: 'kvs', revision: keyspace.revision(), incarnation, kvs: keyspace.list(request.prefix, request.limit) });
        return;
      case 'txn':
        if (!request.writes) reply(applyTxn(request.txn));
        else commit(() => applyTxn(request.txn), reply);
        return;
      case 'grant':
        commit(() => applyGrant(request.id, request.ttlMs), reply);
        return;
      case 'revoke':
        commit(() => applyRevoke(request.id), reply);
        return;
      default: {
        const ttlMs = request.kind === 'keep-alive' ? leases.renew(request.id) : leases.ttlOf(request.id);
        reply(ttlMs === null ? noSuchLease : { kind: 'lease', ttlMs });
      }
    }
  }

  const generations = new Map<string, number>();
  const generation = (member: string): number => generations.get(member) ?? 0;

  function breakConnections(member: string): void {
    generations.set(member, generation(member) + 1);
    for (const watch of [...watches]) if (watch.member === member) watches.delete(watch);
    for (const callback of resets) callback(member);
  }

  network.onChange(review);
  return {
    members: names,
    incarnation: () => incarnation,
    keyspace: () => keyspace,
    handle: (member, request, reply) => memberOf(member).process?.deliver(() => serve(member, request, reply)),
    isUp,
    accepts: (name) => memberOf(name).process?.alive() === true && clock.now() >= readyAt,
    hostAnswers: (name) => memberOf(name).machine.alive() && !memberOf(name).machine.paused(),
    isInSync,
    attach: (watch) => {
      const refused = isInSync(watch.member) ? catchUp(watch) : null;
      if (refused === null) watches.add(watch);
      return refused;
    },
    detach: (watch) => void watches.delete(watch),
    generation,
    onReset: (callback) => void resets.push(callback),
    onCommit: (callback) => void commits.push(callback),
    kill: (name) => {
      const member = memberOf(name);
      member.process?.kill();
      member.process = null;
      review();
      breakConnections(name);
    },
    start: (name, scope) => {
      const member = memberOf(name);
      if (scope !== undefined) member.machine = scope;
      member.process?.kill();
      member.process = null;
      // A leader that is started anew leads no more: the timers of its leases died with the process.
      if (leader === name) depose();
      member.process = member.machine.child(`store@${name}`);
      if (!single) {
        review();
        return;
      }
      readyAt = clock.now() + EMBEDDED_START_MS;
      member.process.at(readyAt, elect);
    },
    pause: (name) => {
      memberOf(name).process?.pause();
      if (!single) review();
    },
    resume: (name) => {
      memberOf(name).process?.resume();
      review();
    },
    leader: () => leader,
    leaseLeftMs: (id) => (leader === null ? null : leases.leftOf(id)),
    loseLeader: () => {
      if (single) return;
      depose();
      review();
    },
    review,
    setDelays: (delays) => {
      commitMs = delays.commitMs ?? commitMs;
      watchMs = delays.watchMs ?? watchMs;
    },
    watchDelayMs: () => watchMs,
    backup: () => ({ keyspace: keyspace.copy(), incarnation }),
    restore: (backup, newIncarnation) => {
      keyspace = backup.keyspace.copy();
      incarnation = newIncarnation;
      epoch++;
      limbo = [];
      proposed.clear();
      deposed = null;
      leases.replace(keyspace.leases());
      for (const name of names) breakConnections(name);
      review();
    },
  };
}

const noSuchLease: Answer = { kind: 'failed', outcome: 'lease-not-found', message: 'etcdserver: requested lease not found' };
const noLeader: Answer = { kind: 'failed', outcome: 'not-applied', message: 'etcdserver: no leader' };

/** For tests: the revision as a branded number. */
export function revisionOf(service: StoreService): ReturnType<typeof makeRevision> {
  return service.keyspace().revision();
}
