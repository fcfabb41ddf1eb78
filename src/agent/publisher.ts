/** When a report is written: what is urgent at once, the rest once an interval. */
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import { VERSION } from '../base/version.ts';
import { encodeJson } from '../core/decode.ts';
import type { NodeId } from '../core/ids.ts';
import type { NodeReport } from '../core/report.ts';
import type { ClusterSpec } from '../core/spec.ts';
import type { HandoverPart } from '../core/state.ts';
import { type DiskLooks, diskProblems } from './probe/disk.ts';
import type { ClusterKnowledge } from './cluster-watch.ts';
import type { HostFacts } from './host-facts.ts';
import type { LoopStatus } from './loop.ts';
import type { OverrideWatch } from './overridden-settings.ts';
import type { MemoryPort, PostgresPort, SyncPort, ViewpointPort } from './ports.ts';
import { NOTHING_TOLD, type UrgentParts, buildReport, isUrgent, urgentParts } from './publish.ts';
import type { VipKeeper } from './vip/keeper.ts';
import type { WeakCommits } from './weak-commits.ts';
import type { WriteLeaseParts } from './write-lease.ts';

export interface PublisherOptions {
  readonly node: NodeId;
  readonly bootId: string;
  /** New at every start of the agent. */
  readonly agentRun: string;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Logger;
  readonly memory: MemoryPort;
  readonly lease: Pick<WriteLeaseParts, 'gate' | 'guard' | 'problems' | 'watchdog'>;
  readonly viewpoints: ViewpointPort;
  readonly postgres: PostgresPort;
  readonly sync: Pick<SyncPort, 'report'>;
  readonly overrides: OverrideWatch;
  readonly vips: Pick<VipKeeper, 'report' | 'problems'>;
  readonly host: HostFacts;
  readonly weakCommits: WeakCommits;
  /** Of the data directory's disk; absent: not looked at. */
  readonly disk?: DiskLooks;
  /** What people want; a change of it is why slots are looked at again at once. */
  readonly spec: () => ClusterSpec | null;
  readonly put: (value: string) => void;
  readonly certificateProblems: () => NodeReport['problems'];
  /** Of the store that the agent acts on; null before it is known. */
  readonly knowledge: () => Pick<ClusterKnowledge, 'incarnation' | 'newestRevision'>;
  readonly reportIntervalMs: () => number;
  /** This node's part while a switchover is between the order to stop and the opening. */
  readonly handover: () => HandoverPart;
}

export interface Publisher {
  readonly publish: (status: LoopStatus) => void;
  /** Null before the first look at PostgreSQL. */
  latest(): NodeReport | null;
}

/** Between two looks at the slots and at overridden settings. */
const SLOTS_EVERY_MS = 5000;

export function createPublisher(options: PublisherOptions): Publisher {
  let latest: NodeReport | null = null;
  let slots: NodeReport['slots'] = [];
  let last: UrgentParts = NOTHING_TOLD;
  let lastPut = -Infinity;
  let lastSlots = -Infinity;
  let slotsFor: ClusterSpec | null = null;
  return {
    latest: () => latest,
    publish: (status) => {
      const at = options.clock.now();
      const { disk } = options;
      disk?.writes.look(status.open);
      // A server that is stopped on request is no reason to look; a look starts a process.
      if (status.postgres.state === 'running' || options.handover() === 'none')
        disk?.watch.look(status.postgres.state === 'running' ? 'running' : 'not-running');
      latest = buildReport({
        node: options.node,
        agentVersion: VERSION,
        agentRun: options.agentRun,
        bootId: options.bootId,
        at: at.wall,
        status,
        knowledge: options.knowledge(),
        memory: options.memory,
        viewpoints: options.viewpoints,
        firewall: options.lease.gate.kind,
        guard: options.lease.guard === null ? 'off' : options.lease.guard.isConnected() ? 'alive' : 'missing',
        watchdog: options.lease.watchdog().state === 'armed' ? 'armed' : 'off',
        slots,
        sync: options.sync.report(),
        vips: options.vips.report(),
        writes: disk?.writes.current() ?? null,
        diskKnown: disk !== undefined && disk.watch.lookedAt() !== null,
        weakCommits: options.weakCommits.current(status.open && options.handover() === 'none' ? 'open' : 'out'),
        host: options.host.current(status.postgres.state === 'running' ? 'running' : 'not-running'),
        problems: [
          ...options.overrides.merge(options.postgres.problems()),
          ...options.lease.problems(),
          ...options.certificateProblems(),
          ...options.vips.problems(),
          ...diskProblems(disk),
        ],
      });
      // The loop makes and drops slots in the step that reads a new spec: a node that waits for its slot need not wait for the next look.
      if (options.spec() !== slotsFor) {
        slotsFor = options.spec();
        lastSlots = -Infinity;
        lastPut = -Infinity;
      }
      const parts = urgentParts(latest);
      if (!isUrgent(parts, last, options.handover()) && at.mono - lastPut < options.reportIntervalMs() - 20) return;
      last = parts;
      lastPut = at.mono;
      options.put(encodeJson(latest));
      if (at.mono - lastSlots < SLOTS_EVERY_MS || status.postgres.state !== 'running') return;
      lastSlots = at.mono;
      options.overrides.look();
      options.postgres.listSlots().then(
        (found) => {
          slots = found;
        },
        (cause: unknown) => options.log.debug({ cause: String(cause) }, 'listing slots failed'),
      );
    },
  };
}
