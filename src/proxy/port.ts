/**
 * One port: its sessions, and which node each of them gets.
 *
 * Hold (write port): new transactions wait; when every session is idle, `onHeld` is told, and connections to the next primary are made while the old one
 * stops. The route's next change releases: waiting sessions get the connection that was made for them.
 */
import { surplusOf } from '../core/route/balance.ts';
import { type Clock, realClock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { type Route, type RouteTarget, type Reader, NO_ROUTE, pickReader } from '../core/route/decide.ts';
import { leastLoaded, sameTarget, sameWeights } from '../core/route/targets.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type MonoMs, addMono, makeMonoMs } from '../core/ids.ts';
import type { ProxyConfig } from '../core/proxy-config.ts';
import { buildQuery } from '../wire/frontend.ts';
import { joinBytes } from '../wire/bytes.ts';
import type { Io } from './io/door.ts';
import { type Backend, type BackendFailure, backendStartup, openBackend } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import type { Positions } from './positions.ts';
import { type PreparedBackends, createPreparedBackends } from './prepared-backends.ts';
import { createPools } from './pool.ts';
import type { Pools } from './pool-contract.ts';
import { leave, makeState } from './restore.ts';
import type { RulesCache } from './rules.ts';
import type { Session } from './session.ts';
import type { ReaderHost, Served, SessionHost } from './session-host.ts';

/** `split`: as `write`, and statements that only read go to standbys. */
export type PortKind = 'write' | 'read' | 'split';

export interface PortOptions {
  readonly kind: PortKind;
  readonly io: Io;
  readonly ca: string | null;
  readonly log: Logger;
  readonly connectMs: number;
  readonly waitMs: number;
  readonly rules: RulesCache;
  /** Of the split port; null on the others. */
  readonly positions: Positions | null;
  /** Every session is idle under the hold of this epoch. */
  readonly onHeld: (epoch: number) => void;
  /** Null: each client has a connection of its own. */
  readonly pooling: ProxyConfig['pooling'] | null;
  readonly clock?: Clock;
}

/** Logins that a node gets at once from one port: it forks for each of them, and those who wait longest come first. */
const MAX_CONNECTING = 16;
/** Under a hold: what stops and promotes must get its share of the processors. */
const MAX_CONNECTING_HELD = 4;
/** Between two tries of one session. */
const RETRY_MS = 50;
/** A switchover waits this long for statements on the standby that becomes the primary; a report that runs for minutes must not keep it for ever. */
const READ_PATIENCE_MS = 1000;
const STOPS = 'the proxy stops';
const DRAIN_LOOK_MS = 10;
/** How often is looked for sessions that waited too long. */
const SWEEP_MS = 250;
/** A node that is starting, stopping, or full: another try may succeed. Source: PostgreSQL manual, appendix A. */
const FULL = new Set(['53300', '53400']);
const PASSING = new Set(['57P03', '57P01', '57P02', '08006', ...FULL]);

export class Port {
  readonly kind: PortKind;
  readonly sessions = new Set<Session>();
  readonly host: SessionHost;
  readonly #options: PortOptions;
  readonly #clock: Clock;
  readonly #waiting = new Set<Session>();
  readonly #connecting = new Set<Session>();
  readonly #prepared: PreparedBackends;
  readonly pools: Pools;
  readonly #busy = new Set<Session>();
  readonly #asked = new Set<Session>();
  readonly #sweeper: NodeJS.Timeout;
  #route: Route = NO_ROUTE;
  #heldEpoch = 0;
  #holdDeadline: MonoMs = makeMonoMs(0);
  /** Cycles that each node has answered. */
  readonly served = new Map<string, Served>();
  /** Statements of the split port that only read, by where they went. */
  readonly reads = { standby: 0, primary: 0 };
  #closed = false;
  #draining = false;

  constructor(options: PortOptions) {
    this.kind = options.kind;
    this.#options = options;
    this.#clock = options.clock ?? realClock;
    this.host = {
      log: options.log,
      writes: options.kind !== 'read',
      holding: () => this.#holding(),
      closedBecause: () => this.#route.closed,
      serves: (target) => this.#serves(target),
      attach: (session) => this.#attach(session),
      onQuiet: (session) => this.#onQuiet(session),
      onClosed: (session) => this.#onClosed(session),
      onAsked: (session) => this.pools.noteAsked(session),
      giveBack: (session, backend, spare) => {
        if (this.#draining || !this.pools.take(session, backend, spare)) leave(backend);
      },
      servedBy: (node) => this.#servedBy(node),
      readers: options.positions === null ? null : this.#readerHost(options.positions),
    };
    this.#prepared = createPreparedBackends({
      open: (session, target) => this.#openFor(session, target),
      fits: (target) => !this.#closed && this.#route.next !== null && sameTarget(this.#route.next, target),
      onMade: (session, backend, version) => this.#deliver(session, backend, version),
      onMissing: (session) => {
        if (session.waiting) this.#attach(session);
      },
    });
    const { rules, idleMs, lifetimeMs } = options.pooling ?? { rules: [], idleMs: 1, lifetimeMs: 1 };
    this.pools = createPools({
      ...{ poolRules: rules, catalog: options.rules, idleMs, lifetimeMs, limitMs: options.connectMs, clock: this.#clock },
      mayOpen: () => !this.#closed && !this.#isCrowded(),
      open: (session, target) => this.#begin(session, target),
      keeps: (target) => {
        const { hold, next } = this.#route;
        return (next !== null && sameTarget(next, target)) || (!(hold && this.kind !== 'read') && this.#serves(target));
      },
      deliver: (session, backend, version) => this.#deliver(session, backend, version),
      onRefused: (session, why) => session.terminate('57P01', why),
      onLost: (session) => session.waiting && this.#attach(session),
      onBroken: (session, cause) => this.#onBroken(session, cause),
    });
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS);
  }

  /** How many sessions keep a hold from being complete. */
  get busy(): number {
    return this.#busy.size;
  }

  get waiting(): number {
    return this.#waiting.size + this.#connecting.size + this.pools.waiting();
  }

  add(session: Session): void {
    this.sessions.add(session);
    session.advance();
  }

  /** Brings every session in line with the route. */
  apply(route: Route): void {
    const before = this.#route;
    this.#route = route;
    for (const session of this.pools.applyRoute()) this.#waiting.add(session);
    if (this.kind !== 'read') this.#applyWriter(before, route);
    else this.#applyReaders(before, route);
    for (const node of route.unreachable) if (!before.unreachable.includes(node)) for (const session of this.sessions) session.loseReader(node);
    this.#pump();
  }

  /** Sessions end when they are idle, all of them after `limitMs`. Whoever listens has stopped by then. */
  async drain(limitMs: number): Promise<void> {
    this.#draining = true;
    for (const session of [...this.sessions]) if (session.idle && !session.waiting) session.terminate('57P01', STOPS);
    const endMs = this.#clock.now().mono + limitMs;
    while (this.sessions.size > 0 && this.#clock.now().mono < endMs) await this.#clock.sleep(DRAIN_LOOK_MS);
    this.close();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#sweeper);
    for (const session of [...this.sessions]) session.terminate('57P01', STOPS);
    this.#prepared.clear();
    this.pools.clear();
  }

  #readerHost(positions: Positions): ReaderHost {
    return {
      positions,
      term: () => this.#route.term,
      serves: (backend) => !this.#route.hold && this.#standbys().some((reader) => sameTarget(reader, backend.target)),
      onRead: (served) => {
        this.reads[served] += 1;
      },
      renew: async (session, backend) => {
        const made = await makeState(session.memory, backend, { reset: 'DISCARD ALL', unnamed: false, limitMs: this.#options.connectMs });
        return made.ok;
      },
      open: async (session) => {
        const target = pickReader(this.#standbys(), Math.random());
        return target === null || this.#closed ? null : this.#openFor(session, target);
      },
    };
  }

  /** Null: it could not be opened, or not be given the session's state. */
  async #openFor(session: Session, target: RouteTarget): Promise<Backend | null> {
    const opened = await this.#open(session, target);
    if (!opened.ok) return null;
    const ready = await this.#restore(session, opened.value);
    if (!ready.ok) opened.value.stream.destroy();
    return ready.ok ? ready.value : null;
  }

  #standbys(): readonly Reader[] {
    return this.#route.readers.filter((reader) => reader.node !== this.#route.writer?.node);
  }

  async #open(session: Session, target: RouteTarget): ReturnType<typeof openBackend> {
    const { io, ca, connectMs } = this.#options;
    const opened = await openBackend(target, {
      io,
      ca,
      limitMs: connectMs,
      startup: backendStartup(session.login.startup),
      credentials: { kind: 'keys', keys: session.login.keys, secret: session.login.secret },
    });
    if (opened.ok) this.pools.noteOpened(session, opened.value);
    else this.pools.noteFailed(session, target, FULL.has(opened.error.sqlState));
    return opened;
  }

  #serves(target: RouteTarget): boolean {
    const { writer, readers } = this.#route;
    return this.kind === 'read' ? readers.some((reader) => sameTarget(reader, target)) : writer !== null && sameTarget(writer, target);
  }

  #servedBy(node: string): Served {
    const known = this.served.get(node) ?? { count: 0 };
    this.served.set(node, known);
    return known;
  }

  #holding(): boolean {
    return this.kind !== 'read' && this.#route.hold;
  }

  #applyWriter(before: Route, route: Route): void {
    const { writer, hold } = route;
    if (!hold) this.#heldEpoch = 0;
    for (const session of [...this.sessions]) {
      const at = session.backend?.target ?? null;
      if (at === null || (writer !== null && sameTarget(at, writer))) continue;
      const why = route.closed ?? `${writer?.node ?? 'nobody'} is the primary now`;
      if (!session.detach()) session.abandon(`${at.node} is not the primary any more: ${why}`);
    }
    if (hold) {
      if (!before.hold || before.epoch !== route.epoch) this.#beginHold();
      return;
    }
    this.#busy.clear();
    if (route.next !== null) {
      if (before.next === null || !sameTarget(before.next, route.next)) this.#prepared.begin(this.sessions, route.next);
      return;
    }
    for (const [session, backend] of this.#prepared.takeAll()) {
      if (backend !== null && writer !== null && sameTarget(backend.target, writer)) this.#adopt(session, backend);
      else {
        backend?.stream.destroy();
        session.advance();
      }
    }
    if (before.hold) for (const session of [...this.sessions]) session.advance();
  }

  #applyReaders(before: Route, route: Route): void {
    this.#busy.clear();
    this.#asked.clear();
    for (const session of [...this.sessions]) {
      const at = session.backend?.target ?? null;
      if (at === null || route.readers.some((reader) => sameTarget(reader, at))) continue;
      if (route.unreachable.includes(at.node)) {
        session.abandon(`${at.node} does not answer`);
        continue;
      }
      // In the middle of a statement the node may finish it; if it is gone, the connection says so.
      if (session.detach()) continue;
      if (session.idle && session.memory.doubtful && !this.#asked.has(session)) {
        this.#asked.add(session);
        this.#busy.add(session);
      } else if (!session.idle) this.#busy.add(session);
    }
    for (const session of this.#asked) void session.ask();
    if (!route.hold) {
      this.#heldEpoch = 0;
      if (!sameWeights(before.readers, route.readers)) this.#balance();
      return;
    }
    if (!before.hold) this.#holdDeadline = addMono(this.#clock.now().mono, READ_PATIENCE_MS);
    this.#checkHeld();
  }

  /** A reader came, or has another weight: idle sessions move until each reader has its share. Others stay where they are. */
  #balance(): void {
    const surplus = new Map(surplusOf(this.#route.readers, this.#load()));
    for (const session of this.sessions) {
      const node = session.backend?.target.node ?? '';
      const left = surplus.get(node) ?? 0;
      if (left > 0 && session.detach()) surplus.set(node, left - 1);
    }
  }

  /** Sessions by node. */
  #load(): Map<string, number> {
    const load = new Map<string, number>();
    for (const session of this.sessions) {
      const node = session.backend?.target.node;
      if (node !== undefined) load.set(node, (load.get(node) ?? 0) + 1);
    }
    return load;
  }

  #beginHold(): void {
    this.#busy.clear();
    this.#asked.clear();
    for (const session of this.sessions) {
      if (session.backend === null) continue;
      if (!session.idle) this.#busy.add(session);
      else if (session.memory.doubtful) {
        this.#busy.add(session);
        this.#asked.add(session);
      }
    }
    // Only now: one that cannot be asked is quiet at once, and the hold would be complete without those that were not looked at yet.
    for (const session of this.#asked) void session.ask();
    this.#checkHeld();
  }

  #checkHeld(): void {
    if (!this.#route.hold || this.#busy.size > 0 || this.#heldEpoch === this.#route.epoch) return;
    this.#heldEpoch = this.#route.epoch;
    this.#options.onHeld(this.#route.epoch);
    if (this.kind === 'read') return;
    // The old primary then stops without having to end them.
    for (const session of this.sessions) session.detach();
    for (const session of this.sessions) session.advance();
  }

  #onQuiet(session: Session): void {
    if (this.#draining) {
      session.terminate('57P01', STOPS);
      return;
    }
    this.pools.noteQuiet(session);
    if (this.kind === 'read') {
      const at = session.backend?.target;
      if (at !== undefined && !this.#route.readers.some((reader) => sameTarget(reader, at))) session.detach();
      if (this.#busy.delete(session)) this.#checkHeld();
      return;
    }
    if (this.#busy.size === 0 || !this.#busy.has(session)) return;
    // Once: an answer that does not come leaves the doubt, and with it the session on its node.
    if (this.#holding() && session.backend !== null && session.memory.doubtful && !this.#asked.has(session)) {
      this.#asked.add(session);
      void session.ask();
      return;
    }
    this.#busy.delete(session);
    this.#checkHeld();
  }

  #onClosed(session: Session): void {
    this.sessions.delete(session);
    this.#waiting.delete(session);
    this.pools.forget(session);
    this.#prepared.drop(session);
    if (this.#busy.delete(session)) this.#checkHeld();
  }

  #attach(session: Session): void {
    session.waitingSinceMs ??= this.#clock.now().mono;
    if (this.#connecting.has(session) || (this.#holding() && this.#prepared.awaits(session))) return;
    this.#waiting.add(session);
    this.#pump();
  }

  #pump(): void {
    for (const session of this.#waiting) {
      if (this.#closed || (!this.pools.isUsed && this.#isCrowded())) return;
      const isPooled = this.pools.has(session.login);
      if (!isPooled && this.#isCrowded()) continue;
      const target = this.#targetOf(isPooled ? session : null);
      if (target === null) return;
      this.#waiting.delete(session);
      if (isPooled) this.pools.request(session, target);
      else this.#begin(session, target);
    }
    this.pools.pump();
  }

  #isCrowded(): boolean {
    return this.#connecting.size >= (this.#holding() ? MAX_CONNECTING_HELD : MAX_CONNECTING);
  }

  #begin(session: Session, target: RouteTarget): void {
    this.#connecting.add(session);
    this.#connect(session, target).catch((cause: unknown) => {
      this.#connecting.delete(session);
      this.#onBroken(session, cause);
    });
  }

  #onBroken(session: Session, cause: unknown): void {
    this.#options.log.error({ error: cause }, 'connecting a session broke');
    session.terminate('XX000', 'the proxy failed; its log says why');
  }

  #targetOf(pooled: Session | null): RouteTarget | null {
    if (this.kind !== 'read') return this.#route.hold ? this.#route.next : this.#route.writer;
    const load = pooled === null ? this.#load() : null;
    return leastLoaded(this.#route.readers, (reader) => load?.get(reader.node) ?? (pooled === null ? 0 : this.pools.load(pooled.login, reader)));
  }

  async #connect(session: Session, target: RouteTarget): Promise<void> {
    const { version } = session.memory;
    const opened = await this.#open(session, target);
    const ready = opened.ok ? await this.#prepare(session, opened.value) : opened;
    this.#connecting.delete(session);
    if (ready.ok && !session.closed && !this.#closed) this.#deliver(session, ready.value, version);
    else if (opened.ok) opened.value.stream.destroy();
    if (!ready.ok && !session.closed && !this.#closed) this.#onFailure(session, ready.error);
    this.#pump();
  }

  #deliver(session: Session, backend: Backend, version: number): void {
    const { next } = this.#route;
    const whole = !session.closed && !this.#closed && version === session.memory.version;
    if (whole && this.kind !== 'read' && next !== null && sameTarget(next, backend.target)) this.#prepared.keep(session, backend, version);
    else if (whole && this.#serves(backend.target) && !this.#holding()) {
      this.#adopt(session, backend);
    } else {
      backend.stream.destroy();
      if (session.waiting && !session.closed) this.#attach(session);
    }
  }

  #adopt(session: Session, backend: Backend): void {
    session.adopt(backend);
    if (session.idle) this.pools.noteQuiet(session);
  }

  async #prepare(session: Session, backend: Backend): Promise<Result<Backend, BackendFailure>> {
    if (session.login.replication) return ok(backend);
    const { database } = session.login;
    if (session.memory.takeCatalogChange()) this.#options.rules.forget(database);
    if ((await this.#options.rules.refresh(database, backend)) !== null) return this.#restore(session, backend);
    return err({
      kind: 'unreachable',
      sqlState: '08006',
      message: new Uint8Array(0),
      why: `${backend.target.node} did not answer about its catalog`,
    });
  }

  async #restore(session: Session, backend: Backend): Promise<Result<Backend, BackendFailure>> {
    const made = await makeState(session.memory, backend, {
      reset: null,
      unnamed: session.waiting && session.usesUnnamed,
      limitMs: this.#options.connectMs,
    });
    if (made.ok) return ok({ ...backend, parameters: new Map([...backend.parameters, ...made.value]) });
    const { kind, why } = made.error;
    const failure = { why, message: new Uint8Array(0) };
    return err(kind === 'lost' ? { ...failure, kind: 'unreachable', sqlState: '08006' } : { ...failure, kind: 'refused', sqlState: 'XX000' });
  }

  #onFailure(session: Session, failure: BackendFailure): void {
    if (failure.kind === 'stale') {
      session.terminate('28P01', 'the password was changed since this session logged in; log in again');
      return;
    }
    if (failure.kind === 'refused' && !PASSING.has(failure.sqlState)) {
      if (failure.message.length > 0) session.refuse(failure);
      else session.terminate('57P01', failure.why);
      return;
    }
    this.#options.log.debug({ why: failure.why, sqlState: failure.sqlState }, 'a session could not be connected; it tries again');
    void this.#clock.sleep(RETRY_MS).then(() => {
      if (session.closed) return;
      this.#waiting.add(session);
      this.#pump();
    });
  }

  #sweep(): void {
    const now = this.#clock.now().mono;
    if (this.kind === 'read' && this.#route.hold && this.#busy.size > 0 && now > this.#holdDeadline)
      for (const session of [...this.#busy]) session.abandon('its node becomes the primary');
    this.pools.sweep();
    for (const session of [...this.sessions]) {
      if (session.waitingSinceMs === null || session.backend !== null || now - session.waitingSinceMs < this.#options.waitMs) continue;
      this.#waiting.delete(session);
      const full = this.pools.reason(session);
      this.pools.forget(session);
      const { closed, hold } = this.#route;
      if (full !== null) session.giveUp('there is no connection for this statement', full);
      else if (this.kind === 'read') session.giveUp('there is no node for this statement', 'no node takes reads now');
      else
        session.giveUp('there is no primary for this statement', closed ?? (hold ? 'a switchover takes too long' : 'it does not take connections'));
    }
  }
}
