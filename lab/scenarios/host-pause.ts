/**
 * A host whose processes all stand still and go on later. In `host-pause` only they do: the kernel's clocks and the time-outs of the firewall go on. In
 * `vm-pause` the clocks of the host stand still with them, as those of a paused virtual machine: nothing there tells that time was lost. The time-outs of
 * nftables would stand still too, and cannot be made to here, so there is no firewall.
 */
import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import type { Stage } from '../stage.ts';

/** Ten times a lease. */
const PAUSE_MS = 30_000;

async function pause(stage: Stage, afterwards: (pausedMs: number) => void): ReturnType<Scenario['run']> {
  const faultMs = monoMs();
  const frozen = stage.network.pids(stage.primary).filter((pid) => sendSignal(pid, 'SIGSTOP'));
  const wrong = await expectTakeover(stage, { faultMs, victim: stage.primary });
  await calm(Math.max(0, faultMs + PAUSE_MS - monoMs()));
  const wokenMs = monoMs();
  afterwards(wokenMs - faultMs);
  for (const pid of frozen) sendSignal(pid, 'SIGCONT');
  const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: wokenMs });
  const late = stage.recording.events.filter((event) => event.kind === 'ack' && event.node === stage.primary && event.atMs > wokenMs);
  const last = Math.round((late.at(-1)?.atMs ?? wokenMs) - wokenMs);
  const window = late.length === 0 ? 'nothing after it woke' : `${late.length} rows after it woke, the last after ${last} ms`;
  return {
    faultMs,
    rejoinMs: rejoin.rejoinMs,
    wrong: [...wrong, ...rejoin.wrong],
    detail: `${frozen.length} processes stood still; the old primary acknowledged ${window}`,
  };
}

export const hostPause: Scenario = {
  name: 'host-pause',
  about: "every process of the primary's host stands still for 30 s and goes on: what wakes up acknowledges nothing beside the new primary",
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 15_000 },
  run: (stage) => pause(stage, () => undefined),
};

export const vmPause: Scenario = {
  name: 'vm-pause',
  about:
    "every process of the primary's host and every clock there stands still for 30 s: it goes on as primary until its next renewal, and no longer",
  // A renewal interval (0.5 s), the answer of the store, and the fence; a connection that its other end has given up meanwhile is made anew.
  expect: { outageMs: 5000, clientErrors: null, lostRows: null, rejoinMs: 20_000, windowMs: 2500 },
  clocks: 'own',
  firewall: 'off',
  run: (stage) => pause(stage, (pausedMs) => stage.clocks?.skip(stage.primary, pausedMs)),
};
