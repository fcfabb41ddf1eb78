/**
 * One direction of a TCP connection between two hosts: messages arrive in order or not at all. While the link is cut they wait in the sender's
 * kernel and go out when it heals; who hears nothing for too long has to close the connection by itself.
 */
import type { Scheduler } from '../clock.ts';
import type { Network } from '../network.ts';

export interface Stream {
  /** Calls `arrive` at the other end, in the order of the calls. */
  send(arrive: () => void): void;
  /** Messages that the other end has not got yet. */
  pending(): number;
  /** Nothing arrives after it, also what is on its way. */
  close(): void;
}

/** A lost segment is sent again after this long at least. *Source:* Linux, TCP_RTO_MIN. */
const RETRANSMIT_MS = 200;

export interface StreamHub {
  open(from: string, to: string): Stream;
}

/** One hub for all streams of a network: it listens to the network once. */
export function createStreamHub(clock: Scheduler, network: Network): StreamHub {
  const waiting = new Set<() => void>();
  network.onChange(() => {
    for (const look of [...waiting]) look();
  });

  function open(from: string, to: string): Stream {
    let lastAt = 0;
    let sent = 0;
    let arrived = 0;
    let closed = false;
    let held: (() => void)[] = [];

    function transmit(arrive: () => void, extraMs: number): void {
      // What loss costs on average: a lost segment is sent again, and holds back what follows it.
      const againMs = from === to ? 0 : RETRANSMIT_MS * network.link(from, to).loss;
      lastAt = Math.max(lastAt, clock.now() + network.delayMs(from, to) + extraMs + againMs);
      clock.at(lastAt, () => {
        arrived++;
        if (!closed) arrive();
      });
    }

    function look(): void {
      if (closed || !network.isOpen(from, to)) return;
      waiting.delete(look);
      const due = held;
      held = [];
      for (const arrive of due) transmit(arrive, RETRANSMIT_MS);
    }

    return {
      send: (arrive) => {
        if (closed) return;
        sent++;
        if (held.length === 0 && network.isOpen(from, to)) {
          transmit(arrive, 0);
          return;
        }
        held.push(arrive);
        waiting.add(look);
      },
      pending: () => sent - arrived,
      close: () => {
        closed = true;
        held = [];
        waiting.delete(look);
      },
    };
  }
  return { open };
}
