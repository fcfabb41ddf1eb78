/**
 * Virtual addresses in the kernel of this host, by iproute2; no shell, everything bounded (docs/decisions/0018).
 *
 * An address is added as /32 or /128, without a route (`noprefixroute`), never chosen as a source (scope link and deprecated), and with a life time:
 * when nobody renews it, the kernel takes it away.
 * *Source:* ip-address(8), ip-neighbour(8) ("use"), arping(8) of iputils; Linux net/ipv4/arp.c (arp_solicit), net/ipv6/addrconf.c (addrconf_dad_begin).
 */
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { type Clock, realClock } from '../../base/clock.ts';
import { runProcess } from '../../base/process.ts';
import { parseAddress } from '../../core/address.ts';
import { bool, integer, list, nullable, object, text, withDefault, decodeJson } from '../../core/decode.ts';
import { type Failure, type Result, err, ok } from '../../core/result.ts';

/** An address on an interface of this host. */
export interface LocalAddress {
  readonly interface: string;
  /** Canonical. */
  readonly address: string;
  readonly prefix: number;
  /** Added with a life time: by us, or by whoever does the same. */
  readonly expires: boolean;
  /** IPv6: the kernel found that another host has it, and does not use it. */
  readonly duplicate: boolean;
}

export interface Place {
  readonly interface: string;
  /** Canonical. */
  readonly address: string;
}

export interface LocalNetwork {
  /** Of all interfaces, also of those without a carrier. */
  readonly addresses: readonly LocalAddress[];
  /** Hardware addresses of this host, lower case. */
  readonly macs: ReadonlySet<string>;
}

export interface VipKernel {
  /** This process has the right to add and remove addresses. */
  mayChange(): boolean;
  list(): Promise<Result<LocalNetwork, Failure>>;
  /** Adds it, or renews its life. */
  add(place: Place): Promise<Result<null, Failure>>;
  /** Ok too when it was not there. */
  remove(place: Place): Promise<Result<null, Failure>>;
  /** Asks who has an address that is not on this host. The other's hardware address (lower case), or null when nobody answered within the limit. */
  probe(place: Place, limitMs: number): Promise<string | null>;
  /** Tells the neighbours that an address that is on this host is here. */
  announce(place: Place): Promise<void>;
  /** As `probe`, for an address that is on this host; null too where this host has no means to ask (IPv6, or no `arping` of iputils). */
  probeHeld(place: Place, limitMs: number): Promise<string | null>;
}

/** Eight seconds outlast a restart of the agent. Longer would leave the address of a host whose agent and guard are both gone in the way for longer. */
export const LIFE_SECONDS = 8;
/** `ip` takes 2 ms. A host that needs longer than this is too loaded to be waited for; the next round tries again. */
const IP_LIMIT_MS = 2000;
/** First looks for an answer: a neighbour on the same network answers within a millisecond. Then every 50 ms. */
const LOOK_MS: readonly number[] = [5, 15, 30];
const LOOK_AGAIN_MS = 50;

const addressInfo = object({
  local: withDefault(nullable(text), null),
  prefixlen: withDefault(integer, 0),
  dynamic: withDefault(bool, false),
  dadfailed: withDefault(bool, false),
});
const interfaces = list(
  object({ ifname: withDefault(text, ''), address: withDefault(nullable(text), null), addr_info: withDefault(list(addressInfo), []) }),
);
const neighbours = list(object({ lladdr: withDefault(nullable(text), null), state: withDefault(list(text), []) }));

export function prefixOf(address: string): 32 | 128 {
  return address.includes(':') ? 128 : 32;
}

export function createVipKernel(options: { readonly clock?: Clock } = {}): VipKernel {
  const clock = options.clock ?? realClock;
  let arping: Promise<boolean> | null = null;

  const ip = async (argv: readonly string[], what: string, stdin = ''): Promise<Result<string, Failure>> => {
    const done = await runProcess(['ip', ...argv], { timeoutMs: IP_LIMIT_MS, stdin });
    if (!done.ok) return err(failed(what, done.error.message));
    return done.value.exitCode === 0 ? ok(done.value.stdout) : err(failed(what, firstLine(done.value.stderr)));
  };

  /** Answers of neighbours that were asked before prove nothing about now. */
  const forgetNeighbour = async ({ interface: device, address }: Place): Promise<void> => {
    // It fails when there is no such entry, which is as good.
    await ip(['neigh', 'del', address, 'dev', device], 'forgetting a neighbour');
  };

  const neighbour = async ({ interface: device, address }: Place): Promise<string | null> => {
    const shown = await ip(['-json', 'neigh', 'show', address, 'dev', device], 'reading the neighbours');
    const decoded = shown.ok ? decodeJson(neighbours, shown.value === '' ? '[]' : shown.value) : null;
    const found = decoded?.ok === true ? decoded.value.find((one) => one.lladdr !== null && one.state.includes('REACHABLE')) : undefined;
    return found?.lladdr?.toLowerCase() ?? null;
  };

  const add = async ({ interface: device, address }: Place): Promise<Result<null, Failure>> => {
    const life = ['valid_lft', String(LIFE_SECONDS), 'preferred_lft', '0'];
    const scope = prefixOf(address) === 32 ? ['scope', 'link'] : [];
    const argv = ['addr', 'replace', `${address}/${prefixOf(address)}`, 'dev', device, ...scope, 'noprefixroute', ...life];
    const added = await ip(argv, `adding ${address} to ${device}`);
    return added.ok ? ok(null) : added;
  };

  return {
    mayChange: hasNetAdmin,
    list: async () => {
      const shown = await ip(['-json', 'addr', 'show'], 'listing the addresses of this host');
      if (!shown.ok) return shown;
      const decoded = decodeJson(interfaces, shown.value);
      if (!decoded.ok)
        return err(failed('listing the addresses of this host', `the output of "ip -json addr show" has no known form (${decoded.error.message})`));
      const addresses = decoded.value.flatMap(({ ifname, addr_info: infos }) =>
        infos.flatMap((info): readonly LocalAddress[] => {
          const address = info.local === null ? null : parseAddress(info.local);
          if (address === null) return [];
          return [{ interface: ifname, address: address.text, prefix: info.prefixlen, expires: info.dynamic, duplicate: info.dadfailed }];
        }),
      );
      return ok({ addresses, macs: new Set(decoded.value.flatMap((one) => one.address?.toLowerCase() ?? [])) });
    },
    add: (place) => (prefixOf(place.address) === 128 ? withoutWaiting(place.interface, () => add(place)) : add(place)),
    remove: async ({ interface: device, address }) => {
      const removed = await ip(['addr', 'del', `${address}/${prefixOf(address)}`, 'dev', device], `removing ${address} from ${device}`);
      if (removed.ok || /cannot assign requested address|address not found|cannot find device/i.test(removed.error.cause)) return ok(null);
      return removed;
    },
    probe: async (place, limitMs) => {
      await forgetNeighbour(place);
      // `use` makes the kernel ask, three times, one second apart. Source: ip-neighbour(8).
      const asked = await ip(['neigh', 'replace', place.address, 'dev', place.interface, 'use'], 'asking for an address');
      if (!asked.ok) return null;
      const until = clock.now().mono + limitMs;
      for (let look = 0; ; look++) {
        await clock.sleep(Math.min(LOOK_MS[look] ?? LOOK_AGAIN_MS, Math.max(1, until - clock.now().mono)));
        const mac = await neighbour(place);
        if (mac !== null || clock.now().mono >= until) return mac;
      }
    },
    announce: async (place) => {
      if (prefixOf(place.address) === 128) {
        // The kernel advertises an address when it is added; taken out and added in one go it is gone for less than a millisecond.
        await ip(['addr', 'del', `${place.address}/128`, 'dev', place.interface], 'announcing an address');
        await withoutWaiting(place.interface, () => add(place));
        return;
      }
      // Asking for an address of one's own makes a gratuitous ARP request: source and target are the same. Repeated by the kernel three times.
      await forgetNeighbour(place);
      await ip(['neigh', 'replace', place.address, 'dev', place.interface, 'use'], 'announcing an address');
    },
    probeHeld: async (place, limitMs) => {
      arping ??= hasArping();
      if (prefixOf(place.address) === 128 || !(await arping)) return null;
      const seconds = String(Math.max(1, Math.ceil(limitMs / 1000)));
      const argv = ['arping', '-D', '-c', '1', '-w', seconds, '-I', place.interface, place.address];
      const asked = await runProcess(argv, { timeoutMs: limitMs + 1000 });
      const mac = asked.ok ? /\[([0-9a-f]{2}(?::[0-9a-f]{2}){5})\]/i.exec(asked.value.stdout)?.[1] : undefined;
      return mac?.toLowerCase() ?? null;
    },
  };
}

/** CAP_NET_ADMIN is bit 12 of the effective set. False where /proc does not tell. *Source:* capabilities(7), proc(5). */
function hasNetAdmin(): boolean {
  try {
    const set = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    return set !== undefined && ((BigInt(`0x${set}`) >> 12n) & 1n) === 1n;
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause) return false;
    throw cause;
  }
}

/** Another program of that name has other options. */
async function hasArping(): Promise<boolean> {
  const shown = await runProcess(['arping', '-V'], { timeoutMs: IP_LIMIT_MS });
  return shown.ok && shown.value.stdout.includes('iputils');
}

/**
 * IPv6: the kernel would use the address only after its own look for a duplicate, up to two seconds, and advertises it then if `ndisc_notify` is set. We have
 * looked already; without that look it uses and advertises it at once. The interface's setting is put back. Where the settings cannot be written the
 * kernel looks by itself, and all of this is only slower.
 */
async function withoutWaiting<T>(device: string, work: () => Promise<T>): Promise<T> {
  const setting = (name: string): string => `/proc/sys/net/ipv6/conf/${device}/${name}`;
  const before = await readSetting(setting('accept_dad'));
  await writeSetting(setting('ndisc_notify'), '1');
  if (before === null || before === '0') return work();
  await writeSetting(setting('accept_dad'), '0');
  try {
    return await work();
  } finally {
    await writeSetting(setting('accept_dad'), before);
  }
}

async function readSetting(path: string): Promise<string | null> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause) return null;
    throw cause;
  }
}

async function writeSetting(path: string, value: string): Promise<void> {
  try {
    await writeFile(path, value);
  } catch (cause) {
    // A container's /proc/sys may be read-only; see withoutWaiting.
    if (!(cause instanceof Error && 'code' in cause)) throw cause;
  }
}

function firstLine(output: string): string {
  return output.trim().split('\n')[0] ?? '';
}

function failed(what: string, cause: string): Failure {
  const denied = /not permitted|permission denied/i.test(cause);
  return {
    code: denied ? 'vip.not-permitted' : 'vip.ip',
    what: `${what} failed`,
    cause,
    now: 'it is tried again every few seconds; nothing else waits for it',
    remedy: denied ? 'run the agent as root, or give it CAP_NET_ADMIN' : 'look whether iproute2 is installed and the interface exists ("ip addr")',
    retryable: true,
  };
}
