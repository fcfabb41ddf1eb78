/**
 * One client's session on the write or the read port: bytes are passed on as they come, and only headers are looked at, so that it is known at any
 * moment whether the session can be moved to another node.
 *
 *   attaching → attached ⇄ (held) → detached → attaching → …          any → closed
 *
 * attached: the node's connection is there. held: new transactions wait (the client's bytes are parked, it is not read any more).
 * detached: no node; what the client sends is parked and asks for a node. A session is detached only when it is idle, or after its client was told
 * what was lost.
 */
import { randomBytes } from 'node:crypto';
import { buildBackendKey, buildError, buildParameters, buildReady, readParameterStatus } from '../wire/backend.ts';
import { joinBytes } from '../wire/bytes.ts';
import { createGather } from '../wire/gather.ts';
import { buildQuery } from '../wire/frontend.ts';
import { BACKEND, FRONTEND } from '../wire/protocol.ts';
import type { CancelKey } from '../wire/startup.ts';
import type { ByteStream } from './io/stream.ts';
import type { Backend, BackendFailure } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import type { SessionMemory } from './memory.ts';
import type { Served, SessionHost } from './session-host.ts';
import { mayUseUnnamed } from './next-cycle.ts';
import { type Repair, beginRepair, createRepair, lossText, takeRepair, walkRepair } from './repair.ts';
import { leave, runOn } from './restore.ts';
import {
  type ClientWalk,
  type OnMessage,
  type ServerEvents,
  type ServerFindings,
  type Traffic,
  createTraffic,
  isBetween,
  isIdle,
  readGoodbye,
  walkClient,
  walkServer,
} from './traffic.ts';

/** Longer statements are passed on like any other, but not looked at. */
const MAX_STATEMENT = 1_048_576;
/** Short: nobody may write while a hold waits for it. */
const ASK_LIMIT_MS = 1000;

export class Session {
  readonly login: Login;
  readonly key: CancelKey;
  readonly remote: string;
  readonly memory: SessionMemory;
  protected readonly host: SessionHost;
  protected readonly client: ByteStream;
  protected readonly traffic: Traffic = createTraffic();
  protected readonly findings: ServerFindings = { goodbyeAt: -1, ready: false };
  readonly #walk: ClientWalk;
  /** The counter of the node that answered last. */
  #served: Served = { count: 0 };
  #servedBy: Backend | null = null;
  protected current: Backend | null = null;
  protected parked: Uint8Array | null = null;
  /** The client has the answer to its login. */
  welcomed = false;
  closed = false;
  readonly #repair: Repair = createRepair();
  protected asking = false;
  /** The node has not taken all of what the client sent: the client's buffer is not ours, and it is not read. */
  #nodeBlocked = false;
  /** More answers are awaited than are kept in mind. */
  #crowded = false;
  /** The client has not taken all of what the node sent. */
  #clientBlocked = false;
  /** Set while the session waits for a node: since when it cannot be read any more, for the port's limit. */
  waitingSinceMs: number | null = null;
  statements = 0;
  /** Cancel requests that are on their way to its node: until they are there, nobody else may get the connection. */
  #cancelling = 0;

  constructor(options: {
    readonly host: SessionHost;
    readonly login: Login;
    readonly client: ByteStream;
    readonly processId: number;
    readonly memory: SessionMemory;
    readonly rest: Uint8Array | null;
  }) {
    this.login = options.login;
    this.memory = options.memory;
    this.host = options.host;
    this.client = options.client;
    this.remote = options.client.remote;
    this.key = { processId: options.processId, secret: randomBytes(4) };
    this.parked = options.rest;
    const onMessage: OnMessage = (type, bytes, bodyAt, end) => this.memory.onClientMessage(type, bytes, bodyAt, end);
    this.#walk = { hold: false, onMessage, gather: createGather(MAX_STATEMENT) };
    this.client.listen({
      onData: (bytes, length) => this.#fromClient(bytes, length),
      onDrain: () => {
        this.#clientBlocked = false;
        if (!this.asking) this.resumeNodes();
        if (this.current === null) return;
        if (this.parked !== null) this.advance();
        this.checkQuiet();
      },
      onEnd: () => this.close(),
    });
  }

  /** The node that the session is at. */
  get backend(): Backend | null {
    return this.current;
  }

  /** What a cancel request is for. */
  get active(): Backend | null {
    return this.current;
  }

  protected get repairing(): boolean {
    return this.#repair.kind !== 'none';
  }

  /** No statement and no transaction is under way. */
  get idle(): boolean {
    return this.current === null ? true : isIdle(this.traffic) && !this.asking;
  }

  /** The client wants something that waits for a node. */
  get waiting(): boolean {
    return this.current === null && (this.parked !== null || !this.welcomed);
  }

  /** For people: what the session does now. */
  get state(): 'idle' | 'active' | 'transaction' | 'waiting' | 'detached' {
    if (this.waiting || (this.parked !== null && this.host.holding())) return 'waiting';
    if (this.current === null) return 'detached';
    if (isIdle(this.traffic)) return 'idle';
    return isBetween(this.traffic) ? 'transaction' : 'active';
  }

  /** A node's connection, logged in as this user, with the session's state restored. The session owns it from here on. */
  adopt(backend: Backend): void {
    if (this.closed || this.current !== null) {
      leave(backend);
      return;
    }
    this.current = backend;
    this.#nodeBlocked = false;
    this.waitingSinceMs = null;
    this.hear(backend);
    this.#greet(backend);
    this.advance();
  }

  /** No node will come: the client is told why. Before its first answer, and when it waits, that ends the session. */
  refuse(failure: Pick<BackendFailure, 'message'>): void {
    if (this.closed) return;
    this.client.write(failure.message);
    this.close();
  }

  /** It waited too long: its statement is answered with the error, and the session goes on; a login that waits ends. */
  giveUp(message: string, detail: string, sqlState = '57P03'): void {
    const parked = this.parked;
    if (this.closed || this.current !== null) return;
    if (!this.welcomed || parked === null) {
      this.terminate(sqlState, `${message}: ${detail}`);
      return;
    }
    this.#repair.loss = { sqlState, message, detail, hint: 'Nothing of it was done; try again. The session goes on.' };
    this.#repair.kind = 'answer';
    this.parked = null;
    this.waitingSinceMs = null;
    this.forward(parked, parked.length);
    this.resumeClient();
  }

  /** Goes on with what was parked, as far as the port allows now. Called when that may have changed. */
  advance(): void {
    const parked = this.parked;
    if (this.closed) return;
    if (this.current === null) {
      if (this.waiting) this.host.attach(this);
      return;
    }
    if (parked !== null) {
      this.parked = null;
      this.forward(parked, parked.length);
    }
    this.resumeClient();
  }

  /** Gives the node back, in order. Only while idle; false when the session holds something there that cannot be made again. */
  detach(): boolean {
    const backend = this.release();
    if (backend !== null) leave(backend);
    return backend !== null;
  }

  /**
   * The node's connection, for somebody else: idle, and with this session's state. Null as `detach` is false.
   * Invariant: nobody reads into a buffer that is still on its way to a client. Because: a connection whose bytes the client has not taken stays where it is.
   */
  release(): Backend | null {
    const backend = this.current;
    if (backend === null || !this.idle || this.blocked || this.memory.pinned() !== null) return null;
    this.current = null;
    return { ...backend, parameters: new Map(this.memory.parameters) };
  }

  /** True when it has arrived: else it may hit whoever has the connection, for as long as that lives. */
  async whileCancelling(sent: Promise<boolean>): Promise<void> {
    this.#cancelling += 1;
    if (await sent) this.#cancelling -= 1;
    this.checkQuiet();
  }

  /** Nothing that waits here, or is on its way, needs the connection. */
  get isSpare(): boolean {
    return this.parked === null && this.isQuiet;
  }

  /** Nothing is on its way between the client and its node, in either direction or beside them. */
  get isQuiet(): boolean {
    return this.current !== null && this.#cancelling === 0 && this.idle && !this.blocked && !this.traffic.stray && !this.repairing;
  }

  protected get blocked(): boolean {
    return this.#clientBlocked || this.#nodeBlocked;
  }

  get usesUnnamed(): boolean {
    return this.parked === null || mayUseUnnamed(this.parked);
  }

  /** The node does not answer: for sessions that read there beside their own node. */
  loseReader(_node: string): void {}

  /** The node may not be used any more, whatever it is doing. */
  abandon(why: string): void {
    if (this.current === null) return;
    this.current.stream.destroy();
    this.lose(why);
  }

  close(): void {
    if (this.closed) return;
    const spare = this.isSpare;
    this.closed = true;
    const backend = this.current;
    this.current = null;
    this.parked = null;
    // Its bytes are still on their way to the client: they stay untouched until that is gone.
    if (this.#clientBlocked && backend !== null) this.client.onClose(() => leave(backend));
    else if (backend !== null) this.host.giveBack(this, { ...backend, parameters: new Map(this.memory.parameters) }, spare);
    this.client.end();
    this.host.onClosed(this);
  }

  /** A last word, and the end. */
  terminate(sqlState: string, message: string): void {
    if (this.closed) return;
    if (this.traffic.server.have === 0) this.client.write(buildError({ severity: 'FATAL', sqlState, message }));
    this.close();
  }

  /** A node may report other values than the one before (its own configuration, in_hot_standby); clients rely on being told. */
  #greet({ parameters }: Backend): void {
    const changed = [...parameters].filter(([name, value]) => this.memory.onParameter(name, value));
    if (!this.welcomed) this.client.write(joinBytes([buildParameters(parameters), buildBackendKey(this.key), buildReady('idle')]));
    else if (changed.length > 0) this.client.write(buildParameters(changed));
    this.welcomed = true;
  }

  #fromClient(bytes: Uint8Array, length: number): void {
    // A chunk that was on its way when reading was stopped.
    if (this.parked !== null) this.park(joinBytes([this.parked, bytes.subarray(0, length)]));
    else this.forward(bytes, length);
  }

  protected park(bytes: Uint8Array): void {
    this.parked = bytes;
    this.client.pause();
  }

  /** `bytes` may belong to the client's stream: what waits is copied. */
  protected forward(bytes: Uint8Array, length: number): void {
    const backend = this.current;
    if (this.#repair.kind !== 'none') {
      this.#repairFrom(bytes, length);
      return;
    }
    if (backend === null) {
      const isGoodbye = bytes[0] === FRONTEND.terminate && this.traffic.client.have === 0;
      if (!isGoodbye) this.park(bytes.slice(0, length));
      if (isGoodbye) this.close();
      else this.host.attach(this);
      return;
    }
    if (this.asking) {
      this.park(bytes.slice(0, length));
      return;
    }
    this.#walk.hold = this.host.holding();
    const upTo = walkClient(this.traffic, bytes, length, this.#walk);
    if (upTo === -1) {
      this.terminate('08P01', 'the proxy received bytes that are no message of the PostgreSQL protocol');
      return;
    }
    if (this.traffic.terminated) {
      // The goodbye itself is not passed on: the connection may serve others. With a part of it there already it cannot.
      const before = upTo - 1 - this.traffic.client.length;
      if (before !== 0) backend.stream.write(bytes.slice(0, before > 0 ? before : upTo));
      this.traffic.uncertain ||= before < 0;
      this.close();
      return;
    }
    if (upTo > 0 && !backend.stream.write(bytes, upTo)) {
      this.#nodeBlocked = true;
      this.client.pause();
    }
    if (this.memory.crowded) {
      this.#crowded = true;
      this.client.pause();
    }
    if (upTo < length) {
      this.park(bytes.slice(upTo, length));
      this.checkQuiet();
    }
  }

  protected fromServer(backend: Backend, bytes: Uint8Array, length: number): void {
    if (backend !== this.current) return;
    const findings = this.findings;
    if (!walkServer(this.traffic, bytes, length, findings, this.serverEvents)) {
      this.abandon(`${backend.target.node} sent bytes that are no message of the PostgreSQL protocol`);
      return;
    }
    if (this.#crowded && !this.memory.crowded) this.resumeClient();
    const upTo = findings.goodbyeAt === -1 ? length : findings.goodbyeAt;
    if (upTo > 0) this.toClient(backend, bytes, upTo);
    if (findings.goodbyeAt !== -1) {
      this.#onGoodbye(backend, bytes, findings.goodbyeAt);
      return;
    }
    if (!findings.ready) {
      if (this.parked !== null && this.traffic.copyIn) this.advance();
      return;
    }
    this.statements += 1;
    if (this.#servedBy !== backend) {
      this.#servedBy = backend;
      this.#served = this.host.servedBy(backend.target.node);
    }
    this.#served.count += 1;
    if (this.parked !== null) this.advance();
    this.checkQuiet();
  }

  /** The node has answered one cycle, and `traffic` counts it already. */
  protected onCycle(status: number): void {
    this.memory.onReady(status);
  }

  /** The statement that is under way may have changed data. */
  protected get mayWrite(): boolean {
    return this.host.writes;
  }

  /** Invariant: a buffer that is with the kernel is not read into: its reader stops until the write is through (`onDrain`). */
  protected toClient(backend: Backend, bytes: Uint8Array, upTo: number): void {
    if (this.client.write(bytes, upTo)) return;
    this.#clientBlocked = true;
    backend.stream.pause();
  }

  protected resumeNodes(): void {
    this.current?.stream.resume();
  }

  protected resumeClient(): void {
    this.#crowded &&= this.memory.crowded;
    if (this.parked === null && !this.#nodeBlocked && !this.#crowded && !this.closed) this.client.resume();
  }

  protected readonly serverEvents: ServerEvents = {
    onMessage: (type, bytes, bodyAt, end) => {
      if (type !== BACKEND.parameterStatus) this.memory.onServerMessage(type, bytes, bodyAt, end);
      else if (bodyAt >= 0) {
        const found = readParameterStatus(bytes, bodyAt, end);
        if (found !== null) this.memory.onParameter(found.name, found.value);
      }
    },
    onReady: (status) => this.onCycle(status),
  };

  /** Asks the node what the session has made there, where the texts leave doubt. The client's messages wait meanwhile. Only while idle. */
  async ask(limitMs = ASK_LIMIT_MS): Promise<void> {
    const backend = this.current;
    if (backend === null || this.asking || this.#clientBlocked || !isIdle(this.traffic)) return this.host.onQuiet(this);
    this.asking = true;
    const answered = await runOn(backend, buildQuery(this.memory.question), { cycles: 1, limitMs });
    this.asking = false;
    if (this.current !== backend) return;
    if (answered === null) return this.lose(`${backend.target.node} did not answer in time`);
    if (answered.error === null) this.memory.learn(answered.rows);
    this.hear(backend);
    this.host.onAsked(this);
    this.advance();
    this.checkQuiet();
  }

  protected hear(backend: Backend): void {
    backend.stream.listen({
      onData: (bytes, length) => this.fromServer(backend, bytes, length),
      onDrain: () => {
        if (backend !== this.current) return;
        this.#nodeBlocked = false;
        this.resumeClient();
        this.checkQuiet();
      },
      onEnd: (why) => this.onServerEnd(backend, why),
    });
    if (!this.#clientBlocked) backend.stream.resume();
  }

  protected checkQuiet(): void {
    if (this.idle) this.host.onQuiet(this);
  }

  /** The server's last words: those of a stop are kept from the client, whose session goes on elsewhere; others end the session, as they would without a proxy. */
  #onGoodbye(backend: Backend, bytes: Uint8Array, at: number): void {
    const walker = this.traffic.server;
    const { isStop, text } = readGoodbye(bytes, walker);
    backend.stream.destroy();
    if (isStop) {
      this.lose(`${backend.target.node}: ${text}`);
      return;
    }
    this.client.write(bytes.slice(at, walker.at));
    this.current = null;
    this.close();
  }

  protected onServerEnd(backend: Backend, why: string | null): void {
    if (backend !== this.current) return;
    this.lose(why ?? `${backend.target.node} closed the connection`);
  }

  /**
   * The node is gone. Idle: the session goes on without it. Else the client is told exactly one error for each thing that it waits for.
   * Invariant: nothing is sent a second time, and an outcome that is not known is called unknown (08007), never failed.
   * Because: a statement that was sent may have been committed before its answer was lost.
   */
  protected lose(why: string): void {
    const traffic = this.traffic;
    this.current = null;
    this.#nodeBlocked = false;
    const pinned = this.memory.pinned();
    const torn = traffic.server.have !== 0 || traffic.uncertain;
    this.host.log.debug({ why, cycles: traffic.cycles, pinned }, 'a session lost its node');
    if (torn || pinned !== null || !this.welcomed) {
      // Half an answer is with the client, or what the session held is gone with the node: only the end is honest.
      if (!torn) this.terminate('57P01', pinned === null ? why : `the session ends with its node, because it had ${pinned}: ${why}`);
      else this.close();
      return;
    }
    const answers = beginRepair(this.#repair, traffic, lossText(this.mayWrite && this.memory.mayHaveCommitted(), why));
    if (answers !== null) this.client.write(answers);
    this.memory.onNodeLost();
    this.host.onQuiet(this);
    if (this.parked !== null) {
      const parked = this.parked;
      this.parked = null;
      this.forward(parked, parked.length);
    }
    this.resumeClient();
  }

  /** The client goes on with a transaction that is lost. */
  #repairFrom(bytes: Uint8Array, length: number): void {
    const repair = this.#repair;
    const answered: Uint8Array[] = [];
    const scratch = this.traffic;
    const take = (type: number, chunk: Uint8Array, bodyAt: number, end: number): void =>
      takeRepair(repair, { type, bytes: chunk, bodyAt, end }, answered);
    const rest = walkRepair(scratch, bytes, length, take, () => repair.kind === 'none');
    if (rest === -1) {
      this.terminate('08P01', 'the proxy received bytes that are no message of the PostgreSQL protocol');
      return;
    }
    if (answered.length > 0) this.client.write(joinBytes(answered));
    if (scratch.terminated) {
      this.close();
      return;
    }
    if (rest < length) this.forward(bytes.slice(rest, length), length - rest);
  }
}
