import { Command } from 'commander';
import type { TrafficAnswer } from '../../api/schema.ts';
import type { Api } from '../api.ts';
import { addMono } from '../../core/ids.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { renderTraffic } from '../render/traffic.ts';
import { type Host, type Session, act } from '../session.ts';

/** Transactions of the proxies' clients may take this long to end; after it the traffic goes on, as a long one must not stop everybody. */
const PAUSE_LIMIT_MS = 3000;
const LOOK_MS = 50;
const MAX_WEIGHT = 100;

export function lbCommand(host: Host): Command {
  return new Command('lb')
    .description('the traffic layer: which nodes the proxies lead clients to')
    .addCommand(
      new Command('list')
        .description('nodes with their weights, what they serve, and the proxies')
        .action(act(host, (session) => withTraffic(session, (api, cluster) => api.call('traffic', { params: { cluster } })))),
    )
    .addCommand(
      new Command('pause')
        .description('let running transactions on the write and split ports end, and keep new ones waiting')
        .action(act(host, pause)),
    )
    .addCommand(
      new Command('resume')
        .description('end a pause: what waits goes on')
        .action(
          act(host, (session) => withTraffic(session, (api, cluster) => api.call('putTraffic', { params: { cluster }, body: { paused: false } }))),
        ),
    )
    .addCommand(
      new Command('drain')
        .description('no more reads for this node; its sessions leave when they are idle. "lb backend NODE --weight 1" takes it back')
        .argument('<node>')
        .action(act(host, (session, self) => weigh(session, self.args[0] ?? '', 0))),
    )
    .addCommand(
      new Command('backend')
        .description('the share of reads that a node gets')
        .argument('<node>')
        .requiredOption('--weight <number>', `0 (drained) to ${MAX_WEIGHT}; every node has 1 unless it was changed`)
        .action(
          act(host, async (session, self) => {
            const text = self.opts<{ weight: string }>().weight;
            const weight = Number(text);
            if (text.trim() === '' || !Number.isFinite(weight) || weight < 0 || weight > MAX_WEIGHT)
              return usageError('cli.weight', {
                what: `--weight ${text}: expected a number from 0 to ${MAX_WEIGHT}`,
                remedy: 'for example --weight 2',
              });
            return weigh(session, self.args[0] ?? '', weight);
          }),
        ),
    );
}

function weigh(session: Session, node: string, weight: number): Promise<Outcome> {
  return withTraffic(session, (api, cluster) => api.call('putTraffic', { params: { cluster }, body: { weights: { [node]: weight } } }));
}

/** Calls, and shows the traffic as it is then. */
async function withTraffic(session: Session, call: (api: Api, cluster: string) => Promise<CliResult<TrafficAnswer>>): Promise<Outcome> {
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const answer = await call(api.value, cluster.value);
  if (!answer.ok) return answer;
  session.show(answer.value, () => renderTraffic(answer.value, session.view));
  if (!answer.value.backends.some((backend) => backend.reads))
    session.note('no standby serves reads now; proxies lead them to the primary unless "read.primary" of their proxy.yaml says never');
  return { ok: true, value: EXIT.done };
}

/** Done when every proxy says that nothing is under way; else the traffic goes on, and the proxies that were late are named. */
function pause(session: Session): Promise<Outcome> {
  return withTraffic(session, async (api, cluster) => {
    const params = { cluster };
    const asked = await api.call('putTraffic', { params, body: { paused: true } });
    if (!asked.ok) return asked;
    const { clock } = session.io;
    const deadline = addMono(clock.now().mono, PAUSE_LIMIT_MS);
    for (;;) {
      const seen = await api.call('traffic', { params });
      const late = seen.ok ? seen.value.proxies.filter((proxy) => !proxy.paused) : [];
      if (seen.ok && late.length === 0) return seen;
      if (clock.now().mono < deadline) {
        await clock.sleep(LOOK_MS);
        continue;
      }
      const undone = await api.call('putTraffic', { params, body: { paused: false } });
      return cliError(EXIT.refused, {
        code: 'cli.pause-not-acknowledged',
        what: `the traffic could not be paused within ${PAUSE_LIMIT_MS} ms`,
        cause: seen.ok ? `transactions did not end on ${late.map((proxy) => proxy.id).join(', ')}` : seen.error.failure.what,
        now: undone.ok ? 'it goes on as before' : 'the pause may still stand: end it with "pgherd lb resume"',
        remedy: 'end long transactions first; SHOW CLIENTS on the admin port of a proxy tells who is in one',
        retryable: true,
      });
    }
  });
}
