/** Nobody is left who could fence: the element of the nftables set, which the kernel counts, closes the port with the lease. */
import { monoMs } from '../../src/base/clock.ts';
import { DEFAULTS } from '../../src/core/spec.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { bootHost, calm, expectProtection, expectRejoin, expectTakeover } from '../steps.ts';
import type { Stage } from '../stage.ts';

const PROTECTION_MS = 20_000;

async function killBoth(stage: Stage): ReturnType<Scenario['run']> {
  const { herd, primary } = stage;
  const agent = herd.agent(primary);
  const guard = herd.guard(primary);
  if (agent === null || guard === null) throw new Error(`${primary} has no agent, or no guard`);
  const faultMs = monoMs();
  // The agent first: it would start its guard again.
  sendSignal(agent.pid, 'SIGKILL');
  sendSignal(guard, 'SIGKILL');
  const wrong = [...(await expectTakeover(stage, { faultMs, victim: primary }))];
  await calm(DEFAULTS.leaseTtlMs);
  if (herd.postmaster(primary) === null) wrong.push(`PostgreSQL of ${primary} ended: then this run says nothing of the firewall`);
  const own = stage.recording.events.filter((event) => event.kind === 'ack' && event.node === primary);
  const late = own.filter((event) => event.atMs > faultMs + DEFAULTS.leaseTtlMs).length;
  if (late > 0) wrong.push(`${late} rows were acknowledged by ${primary} after its lease`);
  const lastMs = Math.max(faultMs, ...own.map((event) => event.atMs));
  const rejoin = await expectRejoin(stage, { node: primary, fromMs: bootHost(stage, primary) });
  const detail = `${primary} acknowledged its last row ${Math.round(lastMs - faultMs)} ms after the kill`;
  return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail };
}

export const agentAndGuardKilled: Scenario = {
  name: 'agent-and-guard-killed',
  about: "kill -9 of the primary's agent and of its guard, PostgreSQL lives: the kernel closes its port with the lease, and another node is promoted",
  expect: { outageMs: 8000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: killBoth,
};

export const agentAndGuardKilledQuorum: Scenario = {
  ...agentAndGuardKilled,
  name: 'agent-and-guard-killed-quorum',
  about: `quorum mode: ${agentAndGuardKilled.about}`,
  expect: { ...agentAndGuardKilled.expect, lostRows: 0 },
  spec: { durability: { mode: 'quorum', k: 1 } },
  run: async (stage) => {
    const early = await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS });
    const seen = await killBoth(stage);
    const late = await expectProtection(stage, { voters: 2, limitMs: PROTECTION_MS });
    return { ...seen, wrong: [...early, ...seen.wrong, ...late] };
  },
};
