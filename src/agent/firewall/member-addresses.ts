/**
 * The addresses of the cluster's members for the firewall, which knows no names. Names stay names everywhere else. They are looked up beside the
 * loop, again and again, and the last answer is kept: neither a renewal nor a promotion ever waits for a name server.
 */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { NodeProblem } from '../../core/report.ts';

/** A member that moved is let in again after this long; each look costs the name server a question a name. */
const AGAIN_MS = 30_000;
/** A look for new names, and for ones that failed: an agent often starts before its network. */
const SOON_MS = 2000;
/** Longer answers are not waited for. */
const LIMIT_MS = 3000;
const MAX_NAMES = 64;
const MAX_ADDRESSES = 8;

export interface MemberAddressesOptions {
  /** Hosts of the members: addresses and names. */
  readonly hosts: () => readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
  /** All addresses of a name; rejects when there are none. The system's resolver, with /etc/hosts, unless told. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

export interface MemberAddresses {
  /** Addresses as they are, names as they were last resolved; a name without an answer so far has none. */
  current(): readonly string[];
  /** Names that have no address now, or only an old one. */
  problems(): readonly NodeProblem[];
  stop(): void;
}

interface Known {
  addresses: readonly string[];
  failure: string | null;
  askedAt: number;
}

export function resolveMembers(options: MemberAddressesOptions): MemberAddresses {
  const { clock, log } = options;
  const resolve = options.resolve ?? resolveBySystem;
  const ended = new AbortController();
  const known = new Map<string, Known>();
  const names = (): readonly string[] => [...new Set(options.hosts().filter((host) => isIP(host) === 0))].slice(0, MAX_NAMES);

  /** One name at a time: a resolver that hangs holds one thread of the pool, and the agent's files go on through the others. */
  const ask = async (name: string): Promise<void> => {
    const before = known.get(name);
    const answer = resolve(name).then(
      (addresses) => ({ addresses: addresses.slice(0, MAX_ADDRESSES), failure: null }),
      (cause: unknown) => ({ addresses: null, failure: cause instanceof Error ? cause.message : String(cause) }),
    );
    const late = clock.sleep(LIMIT_MS, ended.signal).then(() => ({ addresses: null, failure: `no answer within ${LIMIT_MS} ms` }));
    const { addresses, failure } = await Promise.race([answer, late]);
    const next: Known = { addresses: addresses ?? before?.addresses ?? [], failure, askedAt: clock.now().mono };
    known.set(name, next);
    if (failure !== null && before?.failure == null)
      log.warn({ code: 'member.unresolved', name, failure, kept: next.addresses }, `the address of the member ${name} cannot be found: ${failure}`);
    else if (failure === null && (before === undefined || before.failure !== null || before.addresses.join() !== next.addresses.join()))
      log.info({ name, addresses: next.addresses }, `the member ${name} is ${next.addresses.join(', ')} for the firewall`);
    // Not asked again before the slow answer is there: hanging questions must not pile up.
    await answer;
  };
  const run = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      const wanted = names();
      for (const name of [...known.keys()]) if (!wanted.includes(name)) known.delete(name);
      for (const name of wanted) {
        const found = known.get(name);
        const waitMs = found === undefined || found.failure !== null ? 0 : AGAIN_MS;
        if (!ended.signal.aborted && (found === undefined || clock.now().mono - found.askedAt >= waitMs)) await ask(name);
      }
      await clock.sleep(SOON_MS, ended.signal);
    }
  };
  run().catch((cause: unknown) =>
    log.error({ error: cause }, 'looking up the members broke; the last addresses stay in use until the agent restarts'),
  );

  return {
    current: () => options.hosts().flatMap((host) => (isIP(host) === 0 ? (known.get(host)?.addresses ?? []) : [host])),
    problems: () =>
      [...known].flatMap(([name, found]) =>
        found.failure === null
          ? []
          : [
              {
                code: 'member.unresolved',
                text:
                  found.addresses.length === 0
                    ? `the member ${name} has no address (${found.failure}): the firewall lets it in only once a new primary is open`
                    : `the member ${name} cannot be looked up (${found.failure}); its last address ${found.addresses.join(', ')} stays in use`,
                remedy: `Correct /etc/hosts or the name server of this host ("getent hosts ${name}"), or give the member by its address.`,
              },
            ],
      ),
    stop: () => ended.abort(),
  };
}

async function resolveBySystem(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true })).map((found) => found.address);
}
