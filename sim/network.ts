/**
 * The network between hosts: one-way links with delay, loss and cuts. A host is named by a word ('n1', 'store', 'client'); a host reaches itself at once.
 *
 * Nothing here knows of connections: a sender that hears nothing has to give up by itself (a cut link drops silently).
 */
import type { Scheduler } from './clock.ts';
import type { Random } from './random.ts';

export interface Link {
  /** Nothing gets through. */
  cut: boolean;
  /** Added to every one-way delay. */
  extraMs: number;
  /** Probability that one message is lost. */
  loss: number;
}

export interface Network {
  /** A message sent now would arrive (loss aside). */
  isOpen(from: string, to: string): boolean;
  /** Both directions are open. */
  isConnected(a: string, b: string): boolean;
  /** One-way delay of a message sent now. Draws from the network's randomness. */
  delayMs(from: string, to: string): number;
  /** Calls `arrive` after the delay; never when the message is lost. A message that is on its way when a link is cut still arrives. */
  send(from: string, to: string, arrive: () => void): void;
  link(from: string, to: string): Link;
  /** Called after every change of a link, so that those who hold connections can look. */
  onChange(callback: () => void): void;
  cut(from: string, to: string): void;
  heal(from: string, to: string): void;
  /** All links as they were at the beginning. */
  healAll(): void;
  setLink(from: string, to: string, change: Partial<Link>): void;
}

/** A link, and how long it takes at its best. */
interface Way extends Link {
  readonly baseMs: number;
}

/** One way between two hosts of a data centre. */
const BASE_MS = 0.2;

export function createNetwork(
  scheduler: Scheduler,
  random: Random,
  options: { readonly baseMs?: (from: string, to: string) => number } = {},
): Network {
  const links = new Map<string, Map<string, Way>>();
  const callbacks: (() => void)[] = [];

  function link(from: string, to: string): Way {
    let ways = links.get(from);
    if (ways === undefined) {
      ways = new Map();
      links.set(from, ways);
    }
    let found = ways.get(to);
    if (found === undefined) {
      found = { cut: false, extraMs: 0, loss: 0, baseMs: options.baseMs?.(from, to) ?? BASE_MS };
      ways.set(to, found);
    }
    return found;
  }

  function changed(): void {
    for (const callback of callbacks) callback();
  }

  const isOpen = (from: string, to: string): boolean => from === to || !link(from, to).cut;

  function delayMs(from: string, to: string): number {
    if (from === to) return 0.02;
    return delayOf(link(from, to));
  }

  function delayOf({ baseMs, extraMs }: Way): number {
    return baseMs * (1 + random.next()) + (extraMs === 0 ? 0 : extraMs * (0.5 + random.next()));
  }

  function setLink(from: string, to: string, change: Partial<Link>): void {
    Object.assign(link(from, to), change);
    changed();
  }

  return {
    isOpen,
    isConnected: (a, b) => isOpen(a, b) && isOpen(b, a),
    delayMs,
    send: (from, to, arrive) => {
      if (from === to) {
        scheduler.after(delayMs(from, to), arrive);
        return;
      }
      const way = link(from, to);
      if (way.cut || (way.loss > 0 && random.chance(way.loss))) return;
      scheduler.after(delayOf(way), arrive);
    },
    link,
    onChange: (callback) => void callbacks.push(callback),
    cut: (from, to) => setLink(from, to, { cut: true }),
    heal: (from, to) => setLink(from, to, { cut: false, extraMs: 0, loss: 0 }),
    healAll: () => {
      for (const ways of links.values()) for (const one of ways.values()) Object.assign(one, { cut: false, extraMs: 0, loss: 0 });
      changed();
    },
    setLink,
  };
}
