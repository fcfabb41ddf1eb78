/**
 * One client's connections to the members of the modelled store, one in use at a time. The rules are those of `src/store/connection.ts`: sent only on
 * a connection that stands; silent twice in a row: made anew; so "never sent" and "maybe applied" stay apart.
 */
import { foreignMessage } from '../../../src/store/foreign.ts';
import type { Scope } from '../../clock.ts';
import type { Network } from '../../network.ts';
import type { Stream, StreamHub } from '../stream.ts';
import type { Answer, Request, StoreService } from './service.ts';

/** As in src/store/connection.ts. */
export const TRY_MS = 800;
const SILENT_TRIES = 2;

export type Attempt =
  | { readonly kind: 'answer'; readonly value: Answer }
  | { readonly kind: 'foreign'; readonly message: string }
  /** `sent`: it may have reached the server. */
  | { readonly kind: 'lost'; readonly sent: boolean; readonly message: string };

export interface Link {
  readonly member: string;
  /** Of the member when the connection was made (service.ts). */
  readonly generation: number;
  readonly up: Stream;
  readonly down: Stream;
  /** Calls that wait for an answer; called when the connection breaks. */
  readonly waiting: Set<() => void>;
  readonly onBroken: Set<() => void>;
}

export interface ClientConnection {
  current(): string;
  /** Leaves `member` for the next one, unless somebody did already. */
  leave(member: string): void;
  /** One try at the present member; settles within `limitMs`. */
  attempt(request: Request, limitMs: number): Promise<Attempt>;
  /** The standing connection to the present member; made when that is possible at once, else null. */
  link(): Link | null;
  /** Something was sent on it to a server that does not know it any more: the answer is a reset, and the connection is over. */
  reset(link: Link): void;
  foreign(): string | null;
  /** Notes the incarnation of an answer; null when it is the one that was seen first. */
  check(incarnation: string): string | null;
  closed(): boolean;
  close(): void;
}

export interface ConnectionParts {
  readonly service: StoreService;
  readonly streams: StreamHub;
  readonly network: Network;
  readonly host: string;
  readonly scope: Scope;
}

export function createClientConnection({ service, streams, network, host, scope }: ConnectionParts): ClientConnection {
  const links = new Map<string, Link>();
  const silent = new Map<string, number>();
  let index = 0;
  let incarnation: string | null = null;
  let foreign: string | null = null;
  let closed = false;

  const current = (): string => service.members[index] as string;

  function drop(member: string): void {
    const link = links.get(member);
    if (link === undefined) return;
    links.delete(member);
    link.up.close();
    link.down.close();
    for (const call of [...link.waiting]) call();
    for (const call of [...link.onBroken]) call();
  }

  // The server's kernel says at once that a connection is over, if its words get here.
  service.onReset((member) => {
    if (!links.has(member) || !scope.alive()) return;
    if (service.hostAnswers(member) && network.isOpen(member, host)) scope.after(network.delayMs(member, host), () => drop(member));
  });

  function reset(dead: Link): void {
    scope.after(network.delayMs(dead.member, host), () => {
      if (links.get(dead.member) === dead) drop(dead.member);
    });
  }

  function link(): Link | null {
    const member = current();
    const known = links.get(member);
    if (known !== undefined || closed) return known ?? null;
    if (!network.isConnected(host, member) || !service.accepts(member)) return null;
    if (check(service.incarnation()) !== null) return null;
    const made: Link = {
      member,
      generation: service.generation(member),
      up: streams.open(host, member),
      down: streams.open(member, host),
      waiting: new Set(),
      onBroken: new Set(),
    };
    links.set(member, made);
    return made;
  }

  function check(seen: string): string | null {
    if (foreign !== null) return foreign;
    if (incarnation === null) incarnation = seen;
    else if (incarnation !== seen) foreign = foreignMessage({ seen, known: incarnation });
    return foreign;
  }

  function unconnected(member: string, limitMs: number): Promise<Attempt> {
    const refused = network.isConnected(host, member) && service.hostAnswers(member);
    const waitMs = refused ? Math.min(limitMs, 2 * network.delayMs(host, member)) : limitMs;
    const message = foreign ?? (refused ? `connection to ${member} refused` : `no connection to ${member} in time`);
    return new Promise((resolve) => {
      scope.after(waitMs, () => resolve(foreign === null ? { kind: 'lost', sent: false, message } : { kind: 'foreign', message: foreign }));
    });
  }

  return {
    current,
    leave: (member) => {
      if (current() === member) index = (index + 1) % service.members.length;
    },
    attempt: (request, limitMs) => {
      const member = current();
      const on = link();
      if (on === null) return unconnected(member, limitMs);
      return new Promise((resolve) => {
        const finish = (attempt: Attempt): void => {
          timer.cancel();
          on.waiting.delete(broken);
          resolve(attempt);
        };
        const broken = (): void => finish({ kind: 'lost', sent: true, message: `the connection to ${member} broke` });
        const timer = scope.after(limitMs, () => {
          const tries = (silent.get(member) ?? 0) + 1;
          silent.set(member, tries);
          finish({ kind: 'lost', sent: true, message: `no answer from ${member} within ${Math.round(limitMs)} ms` });
          if (tries >= SILENT_TRIES && links.get(member) === on) {
            silent.set(member, 0);
            drop(member);
          }
        });
        on.waiting.add(broken);
        on.up.send(() => {
          if (service.generation(member) !== on.generation) {
            if (service.hostAnswers(member)) reset(on);
            return;
          }
          service.handle(member, request, (value) => {
            const from = service.incarnation();
            on.down.send(() =>
              scope.deliver(() => {
                if (!on.waiting.has(broken)) return;
                silent.set(member, 0);
                const refusal = check(from);
                finish(refusal === null ? { kind: 'answer', value } : { kind: 'foreign', message: refusal });
              }),
            );
          });
        });
      });
    },
    link,
    reset,
    foreign: () => foreign,
    check,
    closed: () => closed,
    close: () => {
      closed = true;
      for (const member of [...links.keys()]) drop(member);
    },
  };
}
