/**
 * A session of the split port: each cycle that only reads goes to a standby that has everything the session wrote or saw; all else, and everything
 * inside a transaction, goes to the primary.
 *
 * The session is at the primary (`current`) but for the time of one cycle at the standby. What the client sends meanwhile waits, so that answers come in
 * order. The connection to the standby is opened at the first read, and kept as long as it serves.
 */
import { monoMs, realClock } from '../base/clock.ts';
import { FRAME, type FrameWalker, beginChunk, createFrameWalker, stepFrame } from '../wire/frames.ts';
import { buildQuery, buildSync } from '../wire/frontend.ts';
import { buildNotice, hasSqlState } from '../wire/backend.ts';
import { joinBytes } from '../wire/bytes.ts';
import { BACKEND, BACKEND_LIMITS, TRANSACTION } from '../wire/protocol.ts';
import type { Backend } from './login/backend.ts';
import { isIdleTalk } from './idle-talk.ts';
import { type NextCycle, nextCycle } from './next-cycle.ts';
import { type Wishes, formatToken, readWishes } from './consistency.ts';
import { PATIENCE_MS, type Token } from './positions.ts';
import { runOn } from './restore.ts';
import { Session } from './session.ts';
import { isBetween } from './traffic.ts';

/** Before another connection to a standby is tried. */
const RETRY_MS = 500;
const PARSE_LIMIT_MS = 3000;
const LEARN_MS = 1000;
/** Making the state anew takes as long as it is large: a driver that prepares one statement after the other must not cause it each time. */
const RENEW_MS = 100;
/**
 * A read that a standby refuses (SERIALIZABLE is 0A000), or breaks off in favour of replay, is run by the primary.
 * Source: PostgreSQL manual, appendix A; "Hot Standby", query conflicts.
 */
const GOES_TO_PRIMARY = ['25006', '40001', '57P01', '57P02', '57P03', '55000', '0A000'];

export class SplitSession extends Session {
  #standby: Backend | null = null;
  /** While a cycle is at the standby: where the session is at home. */
  #home: Backend | null = null;
  #away = false;
  #opening = false;
  #notBeforeMs = 0;
  /** `memory.version` that the standby's connection has. */
  #version = -1;
  #renewing = false;
  #renewNotBeforeMs = 0;
  #token: Token | null = null;
  /** A question for the token that was asked before this number rose does not count any more. */
  #asked = 0;
  #wanted = false;
  #learnNotBeforeMs = 0;
  /** The cycle that is at the standby, as long as nothing of its answer was passed on. */
  #replay: Uint8Array | null = null;
  #swallowing = false;
  /** Message of the unnamed statement that only the standby has. */
  #unnamed: Uint8Array | null = null;
  readonly #swallow: FrameWalker = createFrameWalker();
  readonly #next: NextCycle = { end: 0, read: false, usesUnnamed: false, parsesUnnamed: false, showsToken: false };
  /** A read waits for its standby. */
  #patience: AbortController | null = null;
  /** It has waited long enough. */
  #impatient = false;
  #wishes: Wishes | null = null;
  /** The session has shown its token before: what PostgreSQL remembers of that must not be shown again. */
  #usesToken = false;
  /** The primary's setting holds the present token. */
  #tokenShown = false;

  override get backend(): Backend | null {
    return this.#away ? this.#home : this.current;
  }

  protected override get mayWrite(): boolean {
    return !this.#away;
  }

  protected override forward(bytes: Uint8Array, length: number): void {
    if (this.#away) {
      this.park(bytes.slice(0, length));
      return;
    }
    if (this.current === null || !this.idle || this.repairing || this.host.holding() || this.memory.pinned() !== null) {
      if (this.#usesToken && this.#forwardAroundToken(bytes, length)) return;
      if (this.current !== null && this.idle && !this.repairing && this.#mayLearn()) {
        this.park(bytes.slice(0, length));
        void this.ask();
      } else super.forward(bytes, length);
      return;
    }
    const next = this.#next;
    nextCycle(bytes, length, this.memory, next);
    if (next.showsToken && next.end > 0 && !this.#tokenShown) {
      this.park(bytes.slice(0, length));
      if (!this.blocked) void this.#showToken();
      return;
    }
    this.#tokenShown = false;
    const way = next.read ? this.#wayOfRead() : 'primary';
    if (way === 'soon') {
      this.park(bytes.slice(0, length));
      this.#wait();
      return;
    }
    this.#endWait();
    this.#impatient = false;
    const away = way === 'standby';
    if (next.read) this.host.readers?.onRead(away ? 'standby' : 'primary');
    if (!away && next.usesUnnamed && this.#unnamed !== null) {
      this.park(bytes.slice(0, length));
      if (!this.blocked) void this.#bringUnnamed(this.#unnamed);
      return;
    }
    if (away) this.#leave(bytes.slice(0, next.end), next.parsesUnnamed);
    else if (next.parsesUnnamed) this.#unnamed = null;
    super.forward(bytes, next.end);
    if (next.end >= length || this.closed) return;
    const rest = bytes.slice(next.end, length);
    this.park(this.parked === null ? rest : joinBytes([this.parked, rest]));
    // The primary takes what comes next at once, unless that is a read, which waits for the answers before it.
    if (!this.#away && this.idle) this.advance();
  }

  /** A function of unknown effect keeps the session at the primary, until the primary says that it did nothing. Not after each such statement. */
  #mayLearn(): boolean {
    const now = monoMs();
    if (!this.memory.doubtful || this.host.holding() || now < this.#learnNotBeforeMs) return false;
    this.#learnNotBeforeMs = now + LEARN_MS;
    return true;
  }

  /** `standby`: it knows the session's state and has replayed all that the session wrote or saw. `soon`: it may have in a moment. */
  #wayOfRead(): 'standby' | 'primary' | 'soon' {
    const readers = this.host.readers;
    const standby = this.#standby;
    const wishes = this.#wish();
    if (readers === null || wishes.consistency === 'strong') return 'primary';
    if (standby === null) {
      this.#open();
      return 'primary';
    }
    if (!readers.serves(standby)) {
      this.#drop();
      return 'primary';
    }
    if (this.#renewing) return 'primary';
    if (this.#version !== this.memory.version) {
      if (monoMs() >= this.#renewNotBeforeMs && !this.blocked) void this.#renew(standby);
      return 'primary';
    }
    const needed = wishes.consistency === 'eventual' ? [wishes.floor] : [wishes.floor, this.#token];
    const patient = !this.#impatient && !readers.positions.late(standby.target);
    for (const token of needed) {
      if (token === null) continue;
      // A term that this proxy does not know yet: nobody it knows of is sure to have that.
      if (token.term > readers.term()) return 'primary';
      if (!readers.positions.reached(standby.target, token, () => this.#goOn())) return patient ? 'soon' : 'primary';
    }
    if (wishes.consistency === 'eventual' || this.#token !== null) return 'standby';
    this.#want();
    return patient ? 'soon' : 'primary';
  }

  #wait(): void {
    if (this.#patience !== null) return;
    const patience = new AbortController();
    this.#patience = patience;
    void realClock.sleep(PATIENCE_MS, patience.signal).then(() => {
      if (patience.signal.aborted) return;
      this.#impatient = true;
      this.#goOn();
    });
  }

  #endWait(): void {
    this.#patience?.abort();
    this.#patience = null;
  }

  /** The read that waits is looked at again. */
  #goOn(): void {
    if (this.#patience === null || this.closed) return;
    if (this.#impatient) this.#endWait();
    this.advance();
  }

  /** Read anew after each change of the session's settings; the client is told once what is not understood. */
  #wish(): Wishes {
    const revision = this.memory.settingsRevision;
    if (this.#wishes !== null && this.#wishesRevision === revision) return this.#wishes;
    const wishes = readWishes(this.memory, this.login.startup);
    if (wishes.problem !== null && wishes.problem !== this.#wishes?.problem)
      this.client.write(buildNotice({ severity: 'WARNING', sqlState: '22023', message: `${wishes.problem}: everything is read on the primary` }));
    this.#wishes = wishes;
    this.#wishesRevision = revision;
    return wishes;
  }

  #wishesRevision = -1;

  /**
   * Inside a transaction, behind other cycles, or while something keeps the session at the primary: whoever has shown the token before finds it in PostgreSQL's
   * memory, where it must not be older than what was seen since. False: nothing of this is about the token.
   */
  #forwardAroundToken(bytes: Uint8Array, length: number): boolean {
    const { traffic } = this;
    if (this.current === null || this.repairing || this.asking || traffic.client.have !== 0 || traffic.copyIn || traffic.batchOpen) return false;
    if (this.host.holding() && this.idle) return false;
    if (this.#tokenShown) {
      this.#tokenShown = false;
      return false;
    }
    const next = this.#next;
    nextCycle(bytes, length, this.memory, next);
    if (next.showsToken) {
      this.park(bytes.slice(0, length));
      // Else the answers before it call `advance`.
      if (isBetween(traffic) && !this.blocked) void this.#showToken();
      return true;
    }
    if (next.end >= length) return false;
    super.forward(bytes, next.end);
    if (this.closed) return true;
    const rest = bytes.slice(next.end, length);
    this.park(this.parked === null ? rest : joinBytes([this.parked, rest]));
    return true;
  }

  /** The primary learns the token as a setting of the session, and then answers the client itself, in whatever protocol it asks. */
  async #showToken(): Promise<void> {
    const home = this.current;
    if (home === null) return;
    this.#usesToken = true;
    this.asking = true;
    const token = this.#token ?? (await this.#askToken());
    const text = token === null ? '' : formatToken(token);
    const question = buildQuery(`select pg_catalog.set_config('pgherd.lsn', '${text}', false)`);
    const answered = this.current === home ? await runOn(home, question, { cycles: 1, limitMs: PARSE_LIMIT_MS }) : null;
    this.asking = false;
    if (this.current !== home) return;
    this.#tokenShown = true;
    if (answered === null) this.lose(`${home.target.node} did not answer in time`);
    else this.hear(home);
    this.advance();
  }

  /** Null when nobody tells it in time. */
  #askToken(): Promise<Token | null> {
    const { promise, resolve } = Promise.withResolvers<Token | null>();
    const ended = new AbortController();
    this.host.readers?.positions.want({
      onToken: (token) => {
        ended.abort();
        resolve(token);
      },
    });
    void realClock.sleep(PARSE_LIMIT_MS, ended.signal).then(() => resolve(null));
    return promise;
  }

  #want(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    const asked = this.#asked;
    this.host.readers?.positions.want({
      onToken: (token) => {
        if (asked !== this.#asked) return;
        this.#token = token;
        if (this.#patience !== null) this.#goOn();
        // Asked now, the standby's answer is there when the client reads next.
        else if (this.#standby !== null) this.host.readers?.positions.reached(this.#standby.target, token);
      },
    });
  }

  /** Something newer was seen than the token stands for. */
  #outdate(): void {
    this.#token = null;
    this.#wanted = false;
    this.#asked += 1;
  }

  #leave(cycle: Uint8Array, parsesUnnamed: boolean): void {
    this.#home = this.current;
    this.#away = true;
    this.current = this.#standby;
    this.#replay = cycle;
    if (parsesUnnamed) this.#unnamed = firstMessage(cycle);
  }

  #return(): void {
    this.current = this.#home;
    this.#home = null;
    this.#away = false;
    this.#replay = null;
  }

  protected override onCycle(status: number): void {
    super.onCycle(status);
    if (this.#away) {
      this.#return();
      return;
    }
    // What the primary has shown, a standby may not have yet. Asked when the session is idle, since only then it may leave.
    this.#outdate();
    if (status === TRANSACTION.idle && this.#standby !== null) this.#want();
  }

  protected override fromServer(backend: Backend, bytes: Uint8Array, length: number): void {
    if (backend !== this.current) {
      this.#heardIdle(backend, bytes, length);
      return;
    }
    if (!this.#away) {
      super.fromServer(backend, bytes, length);
      return;
    }
    if (this.#swallowing || (this.#replay !== null && this.#isRefusal(bytes, length))) {
      this.#swallowUntilReady(bytes, length);
      return;
    }
    this.#replay = null;
    super.fromServer(backend, bytes, length);
  }

  /**
   * What the node says where nothing was asked: the standby between two reads, the primary meanwhile.
   * Invariant: no statement is sent to a node that has said goodbye. Because: all but notices and settings ends the connection at once. Broken if: the end of the
   * connection is waited for, which comes later than the goodbye: a statement sent in between meets a closed socket, and its outcome is unknown.
   */
  #heardIdle(backend: Backend, bytes: Uint8Array, length: number): void {
    if (backend !== this.#standby && !(this.#away && backend === this.#home)) return;
    if (isIdleTalk(bytes, length)) return;
    backend.stream.destroy();
    this.onServerEnd(backend, `${backend.target.node} ended the session`);
  }

  /** What the standby says first ends in an error that the primary would not give. Descriptions and rows before it have not been passed on either. */
  #isRefusal(bytes: Uint8Array, length: number): boolean {
    const walker = this.#swallow;
    walker.have = 0;
    beginChunk(walker, 0);
    while (stepFrame(walker, bytes, length, BACKEND_LIMITS) === FRAME.end) {
      const { type, bodyAt, at } = walker;
      if (type === BACKEND.errorResponse) return bodyAt >= 0 && GOES_TO_PRIMARY.some((code) => hasSqlState(bytes, bodyAt, at, code));
    }
    return false;
  }

  #swallowUntilReady(bytes: Uint8Array, length: number): void {
    const walker = this.#swallow;
    if (!this.#swallowing) walker.have = 0;
    this.#swallowing = true;
    beginChunk(walker, 0);
    while (stepFrame(walker, bytes, length, BACKEND_LIMITS) === FRAME.end)
      if (walker.type === BACKEND.readyForQuery) {
        this.#again();
        return;
      }
  }

  /**
   * The cycle runs once more, on the primary.
   * Invariant: nothing is done twice. Because: a standby changes nothing, and none of its answer was passed on.
   */
  #again(): void {
    const cycle = this.#replay;
    this.#swallowing = false;
    if (this.#home === null) {
      this.lose('the primary was lost while the statement was at a standby');
      this.#return();
      this.advance();
      return;
    }
    this.#return();
    if (cycle !== null) this.current?.stream.write(cycle);
  }

  protected override onServerEnd(backend: Backend, why: string | null): void {
    if (backend === this.#standby) {
      this.#standby = null;
      this.host.readers?.positions.forget(backend.target);
      if (!this.#away) return;
      // While the standby still serves, the statement itself may have ended the connection: it must not be carried to the primary (read-session.ts). Whoever
      // said before that it stops has not crashed.
      if (this.#replay !== null && (this.#swallowing || this.host.readers?.serves(backend) !== true)) {
        this.#again();
        return;
      }
      const home = this.#home;
      super.onServerEnd(backend, why);
      this.#return();
      this.current = this.closed ? null : home;
      if (this.closed && home !== null) home.stream.destroy();
      else this.advance();
      return;
    }
    if (this.#away && backend === this.#home) {
      // Idle there: the session goes on without it.
      this.#home = null;
      return;
    }
    super.onServerEnd(backend, why);
  }

  protected override resumeNodes(): void {
    for (const backend of [this.current, this.#standby, this.#home]) backend?.stream.resume();
  }

  override loseReader(node: string): void {
    const standby = this.#standby;
    if (standby === null || standby.target.node !== node) return;
    standby.stream.destroy();
    this.onServerEnd(standby, `${node} does not answer`);
  }

  override abandon(why: string): void {
    if (!this.#away) {
      super.abandon(why);
      return;
    }
    this.#home?.stream.destroy();
    this.#home = null;
  }

  override close(): void {
    if (this.closed) return;
    this.#endWait();
    const others = [this.#standby, this.#home].filter((one) => one !== null && one !== this.current);
    super.close();
    for (const one of others) one?.stream.destroy();
    this.#standby = null;
    this.#home = null;
  }

  #open(): void {
    const readers = this.host.readers;
    const now = monoMs();
    if (readers === null || this.#opening || now < this.#notBeforeMs) return;
    this.#opening = true;
    this.#notBeforeMs = now + RETRY_MS;
    void readers.open(this).then((opened) => {
      this.#opening = false;
      if (opened === null) return;
      if (this.closed || !readers.serves(opened)) {
        opened.stream.destroy();
        return;
      }
      readers.positions.forget(opened.target);
      this.#standby = opened;
      this.#version = this.memory.version;
      this.hear(opened);
      // The standby before may have been further ahead.
      this.#outdate();
      this.#want();
    });
  }

  #drop(): void {
    this.#standby?.stream.destroy();
    this.#standby = null;
  }

  async #renew(standby: Backend): Promise<void> {
    const version = this.memory.version;
    this.#renewNotBeforeMs = monoMs() + RENEW_MS;
    this.#renewing = true;
    const renewed = (await this.host.readers?.renew(this, standby)) === true;
    this.#renewing = false;
    if (this.#standby !== standby || this.closed) return;
    if (!renewed) {
      this.#drop();
      return;
    }
    this.#version = version;
    this.hear(standby);
  }

  /** The primary learns the unnamed statement that went to the standby only; then the client goes on. */
  async #bringUnnamed(message: Uint8Array): Promise<void> {
    const home = this.current;
    if (home === null) return;
    this.asking = true;
    const answered = await runOn(home, joinBytes([message, buildSync()]), { cycles: 1, limitMs: PARSE_LIMIT_MS });
    this.asking = false;
    if (this.current !== home) return;
    this.#unnamed = null;
    if (answered === null) this.lose(`${home.target.node} did not answer in time`);
    else this.hear(home);
    this.advance();
  }
}

/** Of a cycle that begins with Parse, as each one that prepares the unnamed statement and may leave does. */
function firstMessage(cycle: Uint8Array): Uint8Array {
  const walker = createFrameWalker();
  beginChunk(walker, 0);
  const step = stepFrame(walker, cycle, cycle.length, ANY_LENGTH);
  return step === FRAME.end ? cycle.slice(0, walker.at) : cycle;
}

const ANY_LENGTH = new Int32Array(256).fill(0x3ffffffe);
