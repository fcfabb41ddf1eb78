import { monoMs } from '../../src/base/clock.ts';
import { sendSignal } from '../../src/demo/children.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectServing, waitShowHealthy } from '../steps.ts';

export const controllerLoss: Scenario = {
  name: 'controller-loss',
  about: 'the controller is killed and started again, then the primary crashes: clients see only the crash, and it is handled',
  expect: { outageMs: 2000, clientErrors: null, lostRows: 0, rejoinMs: null },
  run: async (stage) => {
    const server = stage.herd.server();
    if (server === null) throw new Error('there is no server');
    const killedMs = monoMs();
    sendSignal(server.pid, 'SIGKILL');
    await server.gone;
    await calm(5000);
    const wrong = [...(await expectServing(stage, { afterMs: monoMs(), limitMs: 5000 }))];
    const quiet = stage.recording.events.filter(
      (event) => event.atMs > killedMs && (event.kind === 'failed' || event.kind === 'unknown') && event.client === 'recorder',
    );
    if (quiet.length > 0) wrong.push(`${quiet.length} rows failed while only the controller was gone`);
    stage.herd.startServer();
    if (!(await waitShowHealthy(stage, 20_000))) wrong.push('the cluster was not healthy 20 s after the controller came back');
    const postmaster = stage.herd.postmaster(stage.primary);
    const faultMs = monoMs();
    if (postmaster !== null) sendSignal(postmaster, 'SIGKILL');
    wrong.push(...(await expectServing(stage, { afterMs: faultMs })));
    await calm();
    return { faultMs, rejoinMs: null, wrong, detail: 'the outage is that of the crash after the return' };
  },
};
