/** Decides at start how bytes are moved: by raw handles when they do on this Node what they are relied on for, else by public sockets. */
import { type Io, type Listener, type Opening, dial, listen } from './door.ts';
import { openRawBinding } from './raw-handle.ts';
import type { ByteStream } from './stream.ts';

export interface IoChoice {
  readonly io: Io;
  /** For the log. */
  readonly why: string;
}

/** Larger than the kernel's buffers of one connection, so that writes are refused on the way. */
const PROBE_BYTES = 24 * 1024 * 1024;
const CHUNK_BYTES = 60_000;
const LIMIT_MS = 5000;

/** Sends a known pattern through two raw streams on loopback, against back-pressure, and compares every byte. Never rejects. */
export async function chooseIo(): Promise<IoChoice> {
  const binding = openRawBinding();
  if (binding === null) return { io: null, why: 'this Node has no raw TCP handles' };
  const problem = await probe(binding).catch((cause: unknown) => (cause instanceof Error ? cause.message : String(cause)));
  return problem === null
    ? { io: binding, why: 'raw TCP handles passed the self-test' }
    : { io: null, why: `raw TCP handles failed the self-test: ${problem}` };
}

async function probe(io: Io): Promise<string | null> {
  const opened = Promise.withResolvers<Opening>();
  const listener: Listener = await listen({ host: '127.0.0.1', port: 0, onOpen: opened.resolve });
  try {
    const dialled = await dial({ host: '127.0.0.1', port: listener.port }, LIMIT_MS);
    if (!dialled.ok) return dialled.error;
    const from = dialled.value.stream(io).stream;
    const to = (await opened.promise).stream(io).stream;
    const verdict = await transfer(from, to);
    from.destroy();
    to.destroy();
    return verdict;
  } finally {
    listener.close();
  }
}

function transfer(from: ByteStream, to: ByteStream): Promise<string | null> {
  return new Promise((resolve) => {
    let sent = 0;
    let received = 0;
    let refused = 0;
    const finish = (verdict: string | null): void => {
      clearTimeout(timer);
      resolve(verdict);
    };
    const timer = setTimeout(() => finish(`${received} of ${PROBE_BYTES} bytes arrived in ${LIMIT_MS} ms`), LIMIT_MS);
    const send = (): void => {
      while (sent < PROBE_BYTES) {
        const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, PROBE_BYTES - sent));
        for (let i = 0; i < chunk.length; i++) chunk[i] = patternAt(sent + i);
        sent += chunk.length;
        if (!from.write(chunk)) {
          refused += 1;
          // The reader starts only now, so that the kernel's buffers were full at least once.
          to.resume();
          return;
        }
      }
      from.end();
    };
    from.listen({ onData: () => finish('bytes came from the wrong side'), onDrain: send, onEnd: (why) => finish(why ?? 'the sender was closed') });
    to.listen({
      onData: (bytes, length) => {
        for (let i = 0; i < length; i++) if (bytes[i] !== patternAt(received + i)) return finish(`byte ${received + i} is wrong`);
        received += length;
      },
      onDrain: () => undefined,
      onEnd: (why) =>
        finish(why !== null ? why : received !== PROBE_BYTES ? `only ${received} bytes arrived` : refused === 0 ? 'no write was ever refused' : null),
    });
    send();
  });
}

function patternAt(at: number): number {
  return (at ^ (at >>> 8) ^ (at >>> 16)) & 0xff;
}
