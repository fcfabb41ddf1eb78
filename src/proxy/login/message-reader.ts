/** Whole messages of a login, one after the other, before the bytes of a session are only passed on. Bounded in bytes and time. */
import type { Clock } from '../../base/clock.ts';
import type { MonoMs } from '../../core/ids.ts';
import { readInt32 } from '../../wire/bytes.ts';
import type { Opening } from '../io/door.ts';

export interface Message {
  readonly type: number;
  /** A copy: it stays valid. */
  readonly body: Uint8Array;
}

export class MessageReader {
  readonly #opening: Opening;
  readonly #clock: Clock;
  readonly #deadline: MonoMs;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(opening: Opening, options: { readonly clock: Clock; readonly deadline: MonoMs }) {
    this.#opening = opening;
    this.#clock = options.clock;
    this.#deadline = options.deadline;
  }

  /** The bytes that came so far and were not taken. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  take(length: number): Buffer {
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  /** Until there are `length` bytes; false when the other side ended, or time is over. */
  async fill(length: number): Promise<boolean> {
    while (this.#bytes.length < length) {
      const more = await this.#opening.read(Math.max(0, this.#deadline - this.#clock.now().mono));
      if (more === null) return false;
      this.#bytes = this.#bytes.length === 0 ? more : Buffer.concat([this.#bytes, more]);
    }
    return true;
  }

  /** The next message; `ended` also when time is over, `bad` when its type or length is not allowed by `limits` (wire/protocol.ts). */
  async next(limits: Int32Array): Promise<Message | 'ended' | 'bad'> {
    if (!(await this.fill(5))) return 'ended';
    const type = this.#bytes[0] ?? 0;
    const length = readInt32(this.#bytes, 1);
    if (length < 4 || length > Math.min(limits[type] ?? 0, MAX_LOGIN_MESSAGE)) return 'bad';
    if (!(await this.fill(length + 1))) return 'ended';
    return { type, body: Uint8Array.from(this.take(length + 1).subarray(5)) };
  }
}

/** Nothing that is said before a session begins is longer: a server's error with detail and hint, a client's token. */
const MAX_LOGIN_MESSAGE = 1_048_576;
