/** The faults, done to every system in the same way, and what has to follow. */
import { monoMs, realClock } from '../../src/base/clock.ts';
import { sendSignal, waitUntil } from '../../src/demo/children.ts';
import type { Recording } from '../../src/demo/recording.ts';
import { streamingFrom, writableNodes } from './servers.ts';
import { type Cluster, type Fault, NODES, type Place, SERVER, type System } from './types.ts';

/** Twice the slowest failover that the peers' defaults promise. */
const TAKEOVER_MS = 120_000;
const REJOIN_MS = 60_000;
/** After everything is well again the clients go on for this long, so that late damage is seen. */
const CALM_MS = 1500;
/** How long the new primary serves alone before the old one can be heard again, and how long both are watched where nobody joins them. */
const APART_MS = 5000;

export interface Scene {
  readonly system: System;
  readonly cluster: Cluster;
  readonly place: Place;
  readonly primary: string;
  readonly recording: Recording;
}

export interface Seen {
  readonly faultMs: number;
  /** Writes were served again, and by whom they had to be. */
  readonly served: boolean;
  readonly rejoinMs: number | null;
  readonly facts: readonly string[];
}

type Steps = (scene: Scene) => Promise<Seen>;

const STEPS: Readonly<Record<Fault, Steps>> = {
  'host-kill': async (scene) => {
    const { cluster, place, primary } = scene;
    const faultMs = monoMs();
    place.network.killAll(primary);
    const taken = await takeover(scene, faultMs);
    await realClock.sleep(CALM_MS);
    const bootMs = monoMs();
    cluster.boot(primary);
    return { faultMs, ...taken, rejoinMs: await rejoin(scene, { node: primary, fromMs: bootMs }) };
  },
  'postgres-crash': async (scene) => {
    const { cluster, primary } = scene;
    const postmaster = cluster.postmaster(primary);
    if (postmaster === null) throw new Error(`${primary} has no postmaster`);
    const faultMs = monoMs();
    sendSignal(postmaster, 'SIGKILL');
    const served = await scene.recording.waitServing({ afterMs: faultMs, limitMs: TAKEOVER_MS });
    if (!served) return { faultMs, served, rejoinMs: null, facts: [`nobody served within ${TAKEOVER_MS} ms`] };
    const [now] = await writableNodes(cluster);
    if (now === primary) {
      await realClock.sleep(CALM_MS);
      return { faultMs, served, rejoinMs: null, facts: ['restarted in place'] };
    }
    return { faultMs, served, rejoinMs: await rejoin(scene, { node: primary, fromMs: faultMs }), facts: ['failed over'] };
  },
  'partition-primary': async (scene) => {
    const { place, primary } = scene;
    const faultMs = monoMs();
    for (const other of [SERVER, ...NODES.filter((node) => node !== primary)]) {
      place.network.block(primary, other);
      place.network.block(other, primary);
    }
    const taken = await takeover(scene, faultMs);
    await realClock.sleep(APART_MS);
    const healMs = monoMs();
    place.network.heal();
    return { faultMs, ...taken, rejoinMs: await rejoin(scene, { node: primary, fromMs: healMs }) };
  },
  switchover: async (scene) => {
    const { cluster, primary } = scene;
    const to = NODES.find((node) => node !== primary) ?? '';
    const faultMs = monoMs();
    const { why, durationMs } = await cluster.switchover(to);
    const facts = [`the command took ${durationMs} ms`, ...(why === null ? [] : [`the command failed: ${why}`])];
    if (why !== null) return { faultMs, served: false, rejoinMs: null, facts };
    const taken = await takeover(scene, faultMs);
    return { faultMs, served: taken.served, facts: [...facts, ...taken.facts], rejoinMs: await rejoin(scene, { node: primary, fromMs: faultMs }) };
  },
};

export function runFault(scene: Scene & { readonly fault: Fault }): Promise<Seen> {
  return STEPS[scene.fault](scene);
}

async function takeover({ recording, primary }: Scene, faultMs: number): Promise<{ readonly served: boolean; readonly facts: readonly string[] }> {
  const served = await recording.waitServing({ afterMs: faultMs, limitMs: TAKEOVER_MS, otherThan: primary });
  return { served, facts: served ? [] : [`no other node than ${primary} served within ${TAKEOVER_MS} ms`] };
}

/** Milliseconds until the present primary sees the node streaming; null when it does not within the limit, or nobody waits for it. Then the clients stay a while. */
async function rejoin(scene: Scene, { node, fromMs }: { readonly node: string; readonly fromMs: number }): Promise<number | null> {
  const { cluster, system } = scene;
  const limitMs = system.rejoin === 'itself' ? REJOIN_MS : APART_MS;
  const streams = await waitUntil(
    async () => {
      const [primary] = await writableNodes(cluster);
      return primary !== undefined && primary !== node && (await streamingFrom(cluster, primary)).nodes.includes(node);
    },
    limitMs - (monoMs() - fromMs),
    50,
  );
  const rejoinMs = streams ? Math.round(monoMs() - fromMs) : null;
  await realClock.sleep(CALM_MS);
  return rejoinMs;
}
