/** What agent and guard cost on an idle cluster: proportional set size and processor time, from /proc. */
import { readFileSync } from 'node:fs';
import { monoMs, realClock } from '../src/base/clock.ts';
import { openStage } from './stage.ts';

/**
 * Idle first: what was compiled and collected for the start of a cluster is not what an idle agent costs. What runs once a second is compiled for minutes: in the
 * second minute an agent takes a third more than in the sixth.
 */
const SETTLE_MS = 300_000;
const WATCH_MS = 60_000;
/** USER_HZ on Linux, for all architectures that Node runs on. Source: proc(5), sysconf(_SC_CLK_TCK). */
const TICKS_PER_SECOND = 100;
const LIMITS = { agentMb: 110, guardMb: 45, corePercent: 2 } as const;

export interface AgentMeasurement {
  readonly ok: boolean;
  readonly nodes: readonly {
    readonly node: string;
    readonly agentMb: number | null;
    readonly guardMb: number | null;
    readonly corePercent: number | null;
  }[];
  readonly detail: string;
}

export async function measureAgent(options: { readonly keep: boolean; readonly say: (line: string) => void }): Promise<AgentMeasurement> {
  const stage = await openStage({
    spec: {},
    priorities: {},
    locations: {},
    witness: null,
    proxies: 0,
    pooling: {},
    store: 'embedded',
    spareEtcd: false,
    spareServer: false,
    fencing: null,
    disks: null,
    nodes: 3,
    storeDisks: null,
    clocks: null,
    firewall: 'auto',
    lengthMs: null,
    ...options,
  });
  try {
    await stage.recording.stop();
    await realClock.sleep(SETTLE_MS);
    const who = [stage.primary, ...stage.standbys].map((node) => ({
      node,
      agent: stage.herd.agent(node)?.pid ?? null,
      guard: stage.herd.guard(node),
    }));
    const before = who.map(({ agent, guard }) => [cpuSeconds(agent), cpuSeconds(guard)]);
    const startedMs = monoMs();
    await realClock.sleep(WATCH_MS);
    const seconds = (monoMs() - startedMs) / 1000;
    const nodes = who.map(({ node, agent, guard }, index) => {
      const used = [cpuSeconds(agent), cpuSeconds(guard)].map((now, part) => (now === null ? 0 : now - (before[index]?.[part] ?? 0)));
      return { node, agentMb: pssMb(agent), guardMb: pssMb(guard), corePercent: round(((used[0] ?? 0) + (used[1] ?? 0)) * (100 / seconds)) };
    });
    const within = (value: number | null, limit: number): boolean => value !== null && value <= limit;
    const ok = nodes.every(
      (node) => within(node.agentMb, LIMITS.agentMb) && within(node.guardMb, LIMITS.guardMb) && within(node.corePercent, LIMITS.corePercent),
    );
    const texts = nodes.map(
      (node) =>
        `${node.node}${node.node === stage.primary ? ' (primary)' : ''}: agent ${node.agentMb ?? '–'} MB, guard ${node.guardMb ?? '–'} MB, together ${node.corePercent} % of a core`,
    );
    return { ok, nodes, detail: `${texts.join('; ')} (limits ${LIMITS.agentMb} MB, ${LIMITS.guardMb} MB, ${LIMITS.corePercent} %).` };
  } finally {
    await stage.close();
  }
}

/** Null when the process is gone. Source: proc(5), fields 14 and 15 of /proc/PID/stat. */
function cpuSeconds(pid: number | null): number | null {
  if (pid === null) return null;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    // Gone: reported as not measured.
    return null;
  }
}

function pssMb(pid: number | null): number | null {
  if (pid === null) return null;
  try {
    const kb = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1];
    return kb === undefined ? null : round(Number(kb) / 1024);
  } catch {
    // Gone: reported as not measured.
    return null;
  }
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
