import { monoMs } from '../../src/base/clock.ts';
import type { SplitOptions, SplitReport } from '../../src/demo/read-write-split.ts';
import { findProxy } from '../../src/demo/herd.ts';
import type { Scenario } from '../scenario.ts';
import { calm, expectRejoin, expectTakeover } from '../steps.ts';
import { runOnClient } from '../through-proxy.ts';

const DURATION_MS = 12_000;
/** The second half runs on the next primary. */
const HALF_MS = 5000;
/** Of the reads at four reads a write. */
const SHARE_ON_STANDBYS = 0.6;

export const readYourWrites: Scenario = {
  name: 'read-your-writes',
  about: 'clients of the split port write and read back, before and after a switchover: no read may be older than what the client wrote',
  expect: { outageMs: null, clientErrors: null, lostRows: 0, rejoinMs: 10_000 },
  proxies: 1,
  run: async (stage) => {
    const proxy = findProxy(stage.herd.plan, 'p1');
    const options: SplitOptions = {
      host: proxy.address,
      port: proxy.splitPort,
      login: stage.herd.login,
      clients: 8,
      readsPerWrite: 4,
      durationMs: DURATION_MS,
    };
    const running = runOnClient<SplitReport>(stage, 'split-clients.ts', options);
    await calm(HALF_MS);
    const [to] = stage.standbys;
    const faultMs = monoMs();
    const verb = await stage.herd.verb(['switchover', '--to', to, '--yes'], 60_000);
    const wrong = verb.code === 0 ? [] : [`switchover ended with ${verb.code}: ${verb.stderr.trim().slice(-500)}`];
    wrong.push(...(await expectTakeover(stage, { faultMs, victim: stage.primary })));
    const rejoin = await expectRejoin(stage, { node: stage.primary, fromMs: faultMs });
    const report = await running;
    if (report === null) return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, 'the clients ended without a report'], detail: '' };
    const portOf = (node: string): number => stage.herd.targets.find((target) => target.node === node)?.port ?? 0;
    // Both were primary for a while; the third never was.
    const [, third] = stage.standbys;
    const share = (report.readsByPort[portOf(third)] ?? 0) / Math.max(1, report.reads);
    if (report.errorCount > 0) wrong.push(`${report.errorCount} clients got an error: ${report.errors[0] ?? ''}`);
    if (report.stale > 0) wrong.push(`${report.stale} reads were older than the client's own writes`);
    const detail = `${report.writes} writes, ${report.reads} reads, ${report.stale} stale; reads by port ${JSON.stringify(report.readsByPort)}; longest wait ${report.longestMs} ms`;
    if (share * 2 < SHARE_ON_STANDBYS)
      wrong.push(`${Math.round(share * 100)} % of the reads were served by the node that was a standby all the time`);
    return { faultMs, rejoinMs: rejoin.rejoinMs, wrong: [...wrong, ...rejoin.wrong], detail };
  },
};
