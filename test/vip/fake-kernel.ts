/** A model of a host's interface and of the hosts beside it, for the keeper's tests. */
import { err, ok } from '../../src/core/result.ts';
import type { LocalAddress, Place, VipKernel } from '../../src/agent/vip/kernel.ts';
import { prefixOf } from '../../src/agent/vip/kernel.ts';
import type { Clock } from '../../src/base/clock.ts';

export interface FakeKernel extends VipKernel {
  /** On this host. */
  here: LocalAddress[];
  /** Hosts beside it that answer: address → hardware address. */
  readonly others: Map<string, string>;
  /** What was done, in order: `add A`, `remove A`, `probe A`, `announce A`. */
  readonly done: string[];
  /** When set, an addition waits for it. */
  slowAdd: Promise<void> | null;
  deny: boolean;
}

export function createFakeKernel(clock: Clock, own: readonly LocalAddress[]): FakeKernel {
  const without = (address: string, device: string): LocalAddress[] =>
    kernel.here.filter((one) => one.address !== address || one.interface !== device || one.prefix !== prefixOf(address));
  const answer = async (address: string, limitMs: number): Promise<string | null> => {
    const mac = kernel.others.get(address) ?? null;
    await clock.sleep(mac === null ? limitMs : 1);
    return mac;
  };
  const kernel: FakeKernel = {
    here: [...own],
    others: new Map(),
    done: [],
    slowAdd: null,
    deny: false,
    mayChange: () => !kernel.deny,
    list: async () => ok({ addresses: [...kernel.here], macs: new Set(['02:00:00:00:00:01']) }),
    add: async ({ interface: device, address }: Place) => {
      if (kernel.deny)
        return err({ code: 'vip.not-permitted', what: 'adding failed', cause: 'Operation not permitted', now: '', remedy: '', retryable: true });
      kernel.done.push(`add ${address}`);
      await kernel.slowAdd;
      kernel.here = [...without(address, device), { interface: device, address, prefix: prefixOf(address), expires: true, duplicate: false }];
      return ok(null);
    },
    remove: async ({ interface: device, address }) => {
      kernel.done.push(`remove ${address}`);
      kernel.here = without(address, device);
      return ok(null);
    },
    probe: async ({ address }, limitMs) => {
      kernel.done.push(`probe ${address}`);
      return answer(address, limitMs);
    },
    announce: async ({ address }) => void kernel.done.push(`announce ${address}`),
    probeHeld: async ({ address }, limitMs) => answer(address, limitMs),
  };
  return kernel;
}
