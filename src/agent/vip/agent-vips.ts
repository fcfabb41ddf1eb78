/** The keeper of virtual addresses bound to the agent: its facts, and whose hardware addresses are members'. */
import { networkInterfaces } from 'node:os';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { AgentConfig } from '../../core/agent-config.ts';
import type { VipFacts } from '../../core/node/vips.ts';
import type { ClusterWatch } from '../cluster-watch.ts';
import type { LoopStatus } from '../loop.ts';
import type { LeasePort, ViewpointPort } from '../ports.ts';
import { type VipKeeper, createVipKeeper } from './keeper.ts';
import { type VipKernel, createVipKernel } from './kernel.ts';

export interface AgentVips {
  readonly keeper: VipKeeper;
  /** What the loop found true. */
  note(status: LoopStatus): void;
}

/** As long as a primary's lease: a store that was silent for longer may have moved the read address. */
const FRESH_MS = 3000;

export function createAgentVips(options: {
  readonly config: Pick<AgentConfig, 'node' | 'kind' | 'vipInterface'>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly watch: ClusterWatch;
  readonly lease: Pick<LeasePort, 'heldTerm'>;
  readonly viewpoints: Pick<ViewpointPort, 'probes'>;
  readonly onChange: () => void;
  /** In the place of this host's own. */
  readonly kernel?: VipKernel;
  readonly macs?: () => readonly string[];
}): AgentVips {
  const { config, clock, log, watch } = options;
  let status: LoopStatus | null = null;

  const facts = (): VipFacts | null => {
    if (status === null) return null;
    const { state, freshAt } = watch.current();
    const primary = state?.primary ?? null;
    const goal = state?.goals[config.node];
    // Behind another standby it hears the primary by way of that one, which the controller watches.
    const upstream = goal?.kind === 'standby' ? goal.upstream : primary;
    const probe = primary === null ? undefined : options.viewpoints.probes()[primary];
    const leaseTerm = options.lease.heldTerm();
    return {
      leaseTerm,
      open: status.open && leaseTerm !== null,
      running: status.postgres.state === 'running',
      storeFresh: freshAt !== null && clock.now().mono - freshAt <= FRESH_MS,
      // The own look is newer than what PostgreSQL says of a connection whose other end vanished.
      hearsPrimary:
        probe === undefined
          ? primary !== null && status.postgres.streamingFrom !== null && status.postgres.streamingFrom === upstream
          : probe.agentAlive || (probe.verdict !== 'down' && probe.verdict !== 'unknown'),
    };
  };

  const keeper = createVipKeeper({
    node: config.node,
    witness: config.kind === 'witness',
    kernel: options.kernel ?? createVipKernel({ clock }),
    clock,
    log,
    spec: () => watch.current().spec,
    state: () => watch.current().state,
    memberMacs: () => {
      const own = new Set((options.macs ?? ownMacs)());
      const others = [...watch.current().members.values()].filter((member) => member.node !== config.node);
      return new Set(others.flatMap((member) => member.macs.filter((mac) => !own.has(mac))));
    },
    ownInterface: config.vipInterface,
    facts,
    onChange: options.onChange,
  });
  return {
    keeper,
    note: (next) => {
      status = next;
      keeper.note();
    },
  };
}

/** Hardware addresses of this host's interfaces that are up, without loopback. */
export function ownMacs(): readonly string[] {
  const macs = Object.values(networkInterfaces()).flatMap((entries) => (entries ?? []).filter((entry) => !entry.internal).map((entry) => entry.mac));
  return [...new Set(macs)].filter((mac) => mac !== '00:00:00:00:00:00');
}
