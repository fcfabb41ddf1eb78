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
import type { Logger } from '../base/log.ts';
import {
  buildBackendKey,
  buildCommandComplete,
  buildError,
  buildParameterStatus,
  buildReady,
  readErrorFields,
  readParameterStatus,
} from '../wire/backend.ts';
import { joinBytes } from '../wire/bytes.ts';
import { type Gather, createGather } from '../wire/gather.ts';
import { BACKEND, FRONTEND, TRANSACTION } from '../wire/protocol.ts';
import type { CancelKey } from '../wire/startup.ts';
import type { ByteStream } from './io/stream.ts';
import type { Backend, BackendFailure } from './login/backend.ts';
import type { Login } from './login/client-login.ts';
import type { SessionMemory } from './memory.ts';
import { type ServerFindings, type Traffic, createTraffic, isBetween, isIdle, walkClient, walkServer } from './traffic.ts';

/** What a session needs of its port. */
export interface SessionHost {
  readonly log: Logger;
  /** New transactions wait now. */
  readonly holding: () => boolean;
  /** Why nobody can be attached now, in words; null: nothing speaks against it. */
  readonly closedBecause: () => string | null;
  /** Writes may have happened on this port: an answer that was lost is an unknown outcome. */
  readonly writes: boolean;
  /** Asks for a node; `adopt` or `refuse` is called later, unless the session was closed. */
  readonly attach: (session: Session) => void;
  /** The session was attached and busy, and is idle now (or gone). */
  readonly onQuiet: (session: Session) => void;
  readonly onClosed: (session: Session) => void;
}

/** Longer statements are passed on like any other, but not looked at. */
const MAX_STATEMENT = 1_048_576;
const TERMINATE = Uint8Array.of(FRONTEND.terminate, 0, 0, 0, 4);

/**
 * What happens to a client's messages after its transaction was lost: `none`; `answer` the next statement with the error; `skip` up to the next Sync;
 * `half`: throw away the rest of the message that was under way.
 */
type Repair = 'none' | 'answer' | 'skip' | 'half';

export class Session {
  readonly login: Login;
  readonly key: CancelKey;
  readonly remote: string;
  readonly memory: SessionMemory;
  readonly #host: SessionHost;
  readonly #client: ByteStream;
  readonly #traffic: Traffic = createTraffic();
  readonly #findings: ServerFindings = { goodbyeAt: -1, ready: false };
  readonly #onClientMessage: (type: number, bytes: Uint8Array, bodyAt: number, end: number) => void;
  readonly #gather: Gather = createGather(MAX_STATEMENT);
  #backend: Backend | null = null;
  #parked: Uint8Array | null = null;
  #welcomed = false;
  #closed = false;
  #repair: Repair = 'none';
  /** Set while the session waits for a node: since when it cannot be read any more, for the port's limit. */
  waitingSinceMs: number | null = null;
  statements = 0;

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
    this.#host = options.host;
    this.#client = options.client;
    this.remote = options.client.remote;
    this.key = { processId: options.processId, secret: randomBytes(4) };
    this.#parked = options.rest;
    this.#onClientMessage = (type, bytes, bodyAt, end) => this.memory.onClientMessage(type, bytes, bodyAt, end);
    this.#client.listen({
      onData: (bytes, length) => this.#fromClient(bytes, length),
      onDrain: () => this.#backend?.stream.resume(),
      onEnd: () => this.close(),
    });
  }

  get backend(): Backend | null {
    return this.#backend;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** No statement and no transaction is under way. */
  get idle(): boolean {
    return this.#backend === null ? true : isIdle(this.#traffic);
  }

  /** The client wants something that waits for a node. */
  get waiting(): boolean {
    return this.#backend === null && (this.#parked !== null || !this.#welcomed);
  }

  /** For people: what the session does now. */
  get state(): 'idle' | 'active' | 'transaction' | 'waiting' | 'detached' {
    if (this.waiting || (this.#parked !== null && this.#host.holding())) return 'waiting';
    if (this.#backend === null) return 'detached';
    if (isIdle(this.#traffic)) return 'idle';
    return isBetween(this.#traffic) ? 'transaction' : 'active';
  }

  /** A node's connection, logged in as this user, with the session's state restored. The session owns it from here on. */
  adopt(backend: Backend): void {
    if (this.#closed || this.#backend !== null) {
      backend.stream.write(TERMINATE);
      backend.stream.end();
      return;
    }
    this.#backend = backend;
    this.waitingSinceMs = null;
    backend.stream.listen({
      onData: (bytes, length) => this.#fromServer(backend, bytes, length),
      onDrain: () => {
        if (this.#parked === null) this.#client.resume();
      },
      onEnd: (why) => this.#onServerEnd(backend, why),
    });
    backend.stream.resume();
    if (!this.#welcomed) this.#welcome(backend);
    else this.#tellParameters(backend);
    this.advance();
  }

  /** No node will come: the client is told why. Before its first answer, and when it waits, that ends the session. */
  refuse(failure: Pick<BackendFailure, 'message'>): void {
    if (this.#closed) return;
    this.#client.write(failure.message);
    this.close();
  }

  /** It waited too long: its statement is answered with the error, and the session goes on; a login that waits ends. */
  giveUp(message: string, detail: string): void {
    const parked = this.#parked;
    if (this.#closed || this.#backend !== null) return;
    if (!this.#welcomed || parked === null) {
      this.terminate('57P03', `${message}: ${detail}`);
      return;
    }
    this.#lossMessage = { sqlState: '57P03', message, detail, hint: 'Nothing of it was done; try again. The session goes on.' };
    this.#repair = 'answer';
    this.#parked = null;
    this.waitingSinceMs = null;
    this.#forward(parked, parked.length);
    if (this.#parked === null && !this.#closed) this.#client.resume();
  }

  /** Goes on with what was parked, as far as the port allows now. Called when that may have changed. */
  advance(): void {
    const parked = this.#parked;
    if (this.#closed) return;
    if (this.#backend === null) {
      if (this.waiting) this.#host.attach(this);
      return;
    }
    if (parked !== null) {
      this.#parked = null;
      this.#forward(parked, parked.length);
    }
    if (this.#parked === null && !this.#closed) this.#client.resume();
  }

  /** Gives the node back, in order. Only while idle; false when the session holds something there that cannot be made again. */
  detach(): boolean {
    const backend = this.#backend;
    if (backend === null || !isIdle(this.#traffic) || this.memory.pinned() !== null) return false;
    this.#backend = null;
    backend.stream.write(TERMINATE);
    backend.stream.end();
    return true;
  }

  /** The node may not be used any more, whatever it is doing. */
  abandon(why: string): void {
    const backend = this.#backend;
    if (backend === null) return;
    backend.stream.destroy();
    this.#lose(why);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const backend = this.#backend;
    this.#backend = null;
    this.#parked = null;
    if (backend !== null) {
      backend.stream.write(TERMINATE);
      backend.stream.end();
    }
    this.#client.end();
    this.#host.onClosed(this);
  }

  /** A last word, and the end. */
  terminate(sqlState: string, message: string): void {
    if (this.#closed) return;
    if (this.#traffic.server.have === 0) this.#client.write(buildError({ severity: 'FATAL', sqlState, message }));
    this.close();
  }

  #welcome(backend: Backend): void {
    this.#welcomed = true;
    const parameters = [...backend.parameters].map(([name, value]) => buildParameterStatus(name, value));
    this.memory.onParameters(backend.parameters);
    this.#client.write(joinBytes([...parameters, buildBackendKey(this.key), buildReady('idle')]));
  }

  /** The new node may report other values (its own configuration, in_hot_standby); clients rely on being told. */
  #tellParameters(backend: Backend): void {
    const changed = [...backend.parameters].filter(([name, value]) => this.memory.onParameter(name, value));
    if (changed.length > 0) this.#client.write(joinBytes(changed.map(([name, value]) => buildParameterStatus(name, value))));
  }

  #fromClient(bytes: Uint8Array, length: number): void {
    if (this.#parked !== null) {
      // A chunk that was on its way when reading was stopped.
      this.#park(joinBytes([this.#parked, bytes.subarray(0, length)]));
      return;
    }
    this.#forward(bytes, length);
  }

  #park(bytes: Uint8Array): void {
    this.#parked = bytes;
    this.#client.pause();
  }

  /** `bytes` may belong to the client's stream: what waits is copied. */
  #forward(bytes: Uint8Array, length: number): void {
    const backend = this.#backend;
    if (this.#repair !== 'none') {
      this.#repairFrom(bytes, length);
      return;
    }
    if (backend === null) {
      this.#park(bytes.slice(0, length));
      this.#host.attach(this);
      return;
    }
    const upTo = walkClient(this.#traffic, bytes, length, { hold: this.#host.holding(), onMessage: this.#onClientMessage, gather: this.#gather });
    if (upTo === -1) {
      this.terminate('08P01', 'the proxy received bytes that are no message of the PostgreSQL protocol');
      return;
    }
    if (this.#traffic.terminated) {
      if (upTo > 0) backend.stream.write(bytes.slice(0, upTo));
      this.close();
      return;
    }
    if (upTo > 0 && !backend.stream.write(upTo === bytes.length ? bytes : bytes.subarray(0, upTo))) this.#client.pause();
    if (upTo < length) {
      this.#park(bytes.slice(upTo, length));
      this.#checkQuiet();
    }
  }

  #fromServer(backend: Backend, bytes: Uint8Array, length: number): void {
    if (backend !== this.#backend) return;
    const findings = this.#findings;
    if (!walkServer(this.#traffic, bytes, length, findings, this.#onServerMessage)) {
      this.abandon(`${backend.target.node} sent bytes that are no message of the PostgreSQL protocol`);
      return;
    }
    const upTo = findings.goodbyeAt === -1 ? length : findings.goodbyeAt;
    if (upTo > 0 && !this.#client.write(upTo === bytes.length ? bytes : bytes.subarray(0, upTo))) backend.stream.pause();
    if (findings.goodbyeAt !== -1) {
      this.#onGoodbye(backend, bytes, findings.goodbyeAt);
      return;
    }
    if (!findings.ready) {
      if (this.#parked !== null && this.#traffic.copyIn) this.advance();
      return;
    }
    this.statements += 1;
    if (this.#parked !== null) this.advance();
    this.#checkQuiet();
  }

  readonly #onServerMessage = (type: number, bytes: Uint8Array, bodyAt: number, end: number): void => {
    if (type === BACKEND.parameterStatus && bodyAt >= 0) {
      const found = readParameterStatus(bytes, bodyAt, end);
      if (found !== null) this.memory.onParameter(found.name, found.value);
    } else this.memory.onServerMessage(type, bytes, bodyAt, end);
  };

  #checkQuiet(): void {
    if (isIdle(this.#traffic)) this.#host.onQuiet(this);
  }

  /** The server's last words: those of a stop are kept from the client, whose session goes on elsewhere; others end the session, as they would without a proxy. */
  #onGoodbye(backend: Backend, bytes: Uint8Array, at: number): void {
    const walker = this.#traffic.server;
    const fields = walker.bodyAt < 0 ? null : readErrorFields(bytes, walker.bodyAt, walker.at);
    const sqlState = fields?.get('C') ?? '';
    const text = `${backend.target.node}: ${fields?.get('M') ?? 'the server ended the session'}`;
    if (sqlState === '57P01' || sqlState === '57P02' || sqlState === '57P03') {
      backend.stream.destroy();
      this.#lose(text);
      return;
    }
    this.#client.write(bytes.slice(at, walker.at));
    backend.stream.destroy();
    this.#backend = null;
    this.close();
  }

  #onServerEnd(backend: Backend, why: string | null): void {
    if (backend !== this.#backend) return;
    this.#lose(why ?? `${backend.target.node} closed the connection`);
  }

  /**
   * The node is gone. Idle: the session goes on without it. Else the client is told exactly one error for each thing that it waits for.
   * Invariant: nothing is sent a second time, and an outcome that is not known is called unknown (08007), never failed.
   * Because: a statement that was sent may have been committed before its answer was lost.
   */
  #lose(why: string): void {
    const traffic = this.#traffic;
    this.#backend = null;
    const pinned = this.memory.pinned();
    const { cycles, batchOpen, status } = traffic;
    const between = isBetween(traffic);
    const torn = traffic.server.have !== 0 || traffic.uncertain;
    this.#host.log.debug({ why, cycles, pinned }, 'a session lost its node');
    if (torn || pinned !== null || !this.#welcomed) {
      // Half an answer is with the client, or what the session held is gone with the node: only the end is honest.
      if (!torn) this.terminate('57P01', pinned === null ? why : `the session ends with its node, because it had ${pinned}: ${why}`);
      else this.close();
      return;
    }
    const text = this.#lossText(status !== TRANSACTION.idle, between, why);
    if (between) {
      if (status !== TRANSACTION.idle) this.#repair = 'answer';
    } else {
      const answers = Array.from({ length: cycles }, () => joinBytes([buildError({ severity: 'ERROR', ...text }), buildReady('idle')]));
      const half = traffic.client.have !== 0;
      if (batchOpen || (half && !isCopy(traffic.client.type))) answers.push(buildError({ severity: 'ERROR', ...text }));
      this.#client.write(joinBytes(answers));
      this.#repair = batchOpen ? 'skip' : half ? 'half' : 'none';
    }
    this.#lossMessage = text;
    const head = traffic.client;
    this.#half = traffic.client.have !== 0;
    Object.assign(traffic, { ...createTraffic(), client: head });
    this.memory.onNodeLost();
    this.#host.onQuiet(this);
    if (this.#parked !== null) {
      const parked = this.#parked;
      this.#parked = null;
      this.#forward(parked, parked.length);
    }
    if (this.#parked === null && !this.#closed) this.#client.resume();
  }

  #lossMessage: { readonly sqlState: string; readonly message: string; readonly detail: string; readonly hint: string } | null = null;
  #half = false;

  #lossText(inTransaction: boolean, between: boolean, why: string): { sqlState: string; message: string; detail: string; hint: string } {
    if (!this.#host.writes || (inTransaction && (between || !this.memory.commitSent())))
      return {
        sqlState: '40001',
        message: 'the transaction was rolled back because its node was lost',
        detail: why,
        hint: 'Nothing of it was committed; run it again. The session goes on.',
      };
    return {
      sqlState: '08007',
      message: 'it is not known whether the statement took effect, because its node was lost before it answered',
      detail: why,
      hint: 'Look whether it did before you run it again. The session goes on.',
    };
  }

  /**
   * The client goes on with a transaction that is lost: its next statement is answered with the error (a ROLLBACK with what it wants), or its messages
   * are thrown away up to the Sync that ends them, as a server would do after an error.
   */
  #repairFrom(bytes: Uint8Array, length: number): void {
    const answered: Uint8Array[] = [];
    const message = this.#lossMessage;
    const scratch = this.#traffic;
    const take = (type: number, chunk: Uint8Array, bodyAt: number, end: number): void => {
      if (this.#half) {
        // The message that was under way when the node was lost has its answer already, except for the ReadyForQuery.
        this.#half = false;
        if (isCopy(type)) {
          if (this.#repair === 'half') this.#repair = 'none';
        } else if (type === FRONTEND.query || type === FRONTEND.functionCall || type === FRONTEND.sync) {
          answered.push(buildReady('idle'));
          this.#repair = 'none';
        } else this.#repair = 'skip';
      } else if (isCopy(type)) {
        return;
      } else if (this.#repair === 'skip') {
        if (type !== FRONTEND.sync) return;
        answered.push(buildReady('idle'));
        this.#repair = 'none';
      } else if (type === FRONTEND.sync) {
        answered.push(buildReady('idle'));
      } else if (type === FRONTEND.query && bodyAt >= 0 && isRollback(chunk, bodyAt, end)) {
        answered.push(joinBytes([buildCommandComplete('ROLLBACK'), buildReady('idle')]));
        this.#repair = 'none';
      } else if (type !== FRONTEND.terminate && message !== null) {
        const whole = type === FRONTEND.query || type === FRONTEND.functionCall;
        answered.push(buildError({ severity: 'ERROR', ...message }));
        if (whole) answered.push(buildReady('idle'));
        this.#repair = whole ? 'none' : 'skip';
      }
    };
    const rest = walkRepair(scratch, bytes, length, take, () => this.#repair === 'none');
    if (rest === -1) {
      this.terminate('08P01', 'the proxy received bytes that are no message of the PostgreSQL protocol');
      return;
    }
    if (answered.length > 0) this.#client.write(joinBytes(answered));
    if (scratch.terminated) {
      this.close();
      return;
    }
    if (rest < length) this.#forward(bytes.slice(rest, length), length - rest);
  }
}

/** Walks messages without counting them; stops behind the message after which `done` is true. −1: not the protocol. */
function walkRepair(
  traffic: Traffic,
  bytes: Uint8Array,
  length: number,
  take: (type: number, bytes: Uint8Array, bodyAt: number, end: number) => void,
  done: () => boolean,
): number {
  let stop = -1;
  const fresh = createTraffic();
  const walking: Traffic = { ...fresh, client: traffic.client };
  const upTo = walkClient(walking, bytes, length, {
    hold: false,
    gather: null,
    onMessage: (type, chunk, bodyAt, end) => {
      if (stop !== -1) return;
      take(type, chunk, bodyAt, end);
      if (done()) stop = end;
    },
  });
  if (upTo === -1) return -1;
  traffic.terminated = walking.terminated && stop === -1;
  if (stop === -1) return length;
  // The rest is walked again by whoever gets it.
  traffic.client.have = 0;
  return stop;
}

/** Messages of a COPY that has ended with an error are thrown away, as a server does. */
function isCopy(type: number): boolean {
  return type === FRONTEND.copyData || type === FRONTEND.copyDone || type === FRONTEND.copyFail;
}

function isRollback(bytes: Uint8Array, at: number, end: number): boolean {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(end - at, 64)).toString('latin1');
  return /^\s*(rollback|abort)\s*(work|transaction)?\s*;?\s*\0/i.test(head);
}
