/** The local network as far as virtual addresses need it: who has which address, and who answers when somebody asks for one. A stranger may have one too. */
import type { VipKernel } from '../../src/agent/vip/kernel.ts';
import { LIFE_SECONDS } from '../../src/agent/vip/kernel.ts';
import { ok } from '../../src/core/result.ts';
import type { Scheduler, Scope } from '../clock.ts';
import type { Network } from '../network.ts';
import type { Machines } from './machines.ts';

export interface Lan {
  /** The kernel of a host, as one process of it reaches it. */
  kernel(host: string, scope: Scope): VipKernel;
  mac(host: string): string;
  /** A host that is none of the cluster's has that address from now on. */
  intrude(address: string): void;
  withdraw(address: string): void;
  withdrawAll(): void;
  /** Hosts of the cluster that have it now. */
  holders(address: string): readonly string[];
}

const IP_MS = 2;
/** A neighbour on the same network answers within a millisecond. */
const ASK_MS = 1;
const STRANGER_MAC = '02:00:00:00:ff:ff';
/** What each host has for itself, so that there is an interface whose network holds the virtual addresses. */
const OWN_PREFIX = 24;
const INTERFACE = 'eth0';

export function createLan(parts: {
  readonly clock: Scheduler;
  readonly network: Network;
  readonly machines: Machines;
  readonly hosts: readonly string[];
}): Lan {
  const { clock, network, machines, hosts } = parts;
  /** Host → address → end of its life. */
  const addresses = new Map<string, Map<string, number>>(hosts.map((host) => [host, new Map()]));
  const strangers = new Set<string>();
  const mac = (host: string): string => `02:00:00:00:00:${(hosts.indexOf(host) + 1).toString(16).padStart(2, '0')}`;
  const own = (host: string): string => `192.0.2.${10 + hosts.indexOf(host)}`;

  for (const host of hosts)
    machines.of(host).onPower((on) => {
      if (!on) addresses.get(host)?.clear();
    });

  const has = (host: string, address: string): boolean => (addresses.get(host)?.get(address) ?? Number.NEGATIVE_INFINITY) > clock.now();
  const answers = (host: string): boolean => machines.of(host).scope().alive() && !machines.of(host).scope().paused();

  /** Who else answers for it, as seen from `from`. */
  function otherHolder(from: string, address: string): string | null {
    if (strangers.has(address)) return STRANGER_MAC;
    const other = hosts.find((host) => host !== from && has(host, address) && answers(host) && network.isConnected(from, host));
    return other === undefined ? null : mac(other);
  }

  function kernel(host: string, scope: Scope): VipKernel {
    const mine = addresses.get(host) ?? new Map<string, number>();
    return {
      mayChange: () => true,
      list: async () => {
        await scope.sleep(IP_MS);
        const held = [...mine.keys()].filter((address) => has(host, address));
        return ok({
          addresses: [
            { interface: INTERFACE, address: own(host), prefix: OWN_PREFIX, expires: false, duplicate: false },
            ...held.map((address) => ({ interface: INTERFACE, address, prefix: 32, expires: true, duplicate: false })),
          ],
          macs: new Set([mac(host)]),
        });
      },
      add: async ({ address }) => {
        await scope.sleep(IP_MS);
        mine.set(address, clock.now() + LIFE_SECONDS * 1000);
        return ok(null);
      },
      remove: async ({ address }) => {
        await scope.sleep(IP_MS);
        mine.delete(address);
        return ok(null);
      },
      probe: async ({ address }, limitMs) => {
        await scope.sleep(ASK_MS);
        const found = otherHolder(host, address);
        if (found === null) await scope.sleep(Math.max(0, limitMs - ASK_MS));
        return found;
      },
      announce: () => scope.sleep(IP_MS),
      probeHeld: async ({ address }) => {
        await scope.sleep(ASK_MS);
        return otherHolder(host, address);
      },
    };
  }

  return {
    kernel,
    mac,
    intrude: (address) => void strangers.add(address),
    withdraw: (address) => void strangers.delete(address),
    withdrawAll: () => strangers.clear(),
    holders: (address) => hosts.filter((host) => has(host, address) && machines.of(host).scope().alive()),
  };
}
