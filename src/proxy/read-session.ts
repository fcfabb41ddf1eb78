/**
 * A session of the read port: a statement that only reads, and whose node left the route before anything of its answer was passed on, is run once more elsewhere.
 *
 * Invariant: a statement that brings its server down is not carried to the next one.
 * Because: a connection that ends while its node still serves by the route may have been ended by the statement itself, and is told to the client as before.
 *   It is run again only when the node is known to be promoted, drained or silent.
 * Broken if: the end of the connection alone were reason enough.
 */
import { joinBytes } from '../wire/bytes.ts';
import type { Backend } from './login/backend.ts';
import { type NextCycle, nextCycle } from './next-cycle.ts';
import { Session } from './session.ts';
import { createTraffic } from './traffic.ts';

/** Longer statements are not kept: their client gets the error. */
const MAX_KEPT = 65_536;

export class ReadSession extends Session {
  /** The cycle that is under way, as long as nothing of its answer was passed on. */
  #kept: Uint8Array | null = null;
  /** It was run again already. */
  #again = false;
  readonly #next: NextCycle = { end: 0, read: false, usesUnnamed: false, parsesUnnamed: false, showsToken: false };

  protected override forward(bytes: Uint8Array, length: number): void {
    if (this.current !== null && this.idle && !this.repairing && length <= MAX_KEPT) {
      nextCycle(bytes, length, this.memory, this.#next);
      this.#kept = this.#next.read && this.#next.end === length ? bytes.slice(0, length) : null;
    } else if (this.current !== null) this.#kept = null;
    super.forward(bytes, length);
  }

  /** What a server says just before its goodbye (it empties its buffer then) is no answer yet: a read that is run again brings its own. */
  protected override toClient(backend: Backend, bytes: Uint8Array, upTo: number): void {
    if (this.#kept !== null && this.findings.goodbyeAt !== -1) return;
    this.#kept = null;
    this.#again = false;
    super.toClient(backend, bytes, upTo);
  }

  protected override lose(why: string): void {
    const cycle = this.#kept;
    const node = this.current?.target ?? null;
    this.#kept = null;
    const torn = this.traffic.server.have !== 0 || this.traffic.client.have !== 0;
    if (cycle === null || this.#again || torn || node === null || this.host.serves(node) || this.memory.pinned() !== null) {
      this.#again = false;
      super.lose(why);
      return;
    }
    this.#again = true;
    this.host.log.debug({ why, node: node.node }, 'a read is run again on another node');
    this.current = null;
    Object.assign(this.traffic, createTraffic());
    this.memory.onNodeLost();
    this.park(this.parked === null ? cycle : joinBytes([cycle, this.parked]));
    this.host.onQuiet(this);
    this.advance();
  }
}
