import { Command } from 'commander';
import { confirm, shellQuote } from '../confirm.ts';
import { EXIT, type Outcome } from '../exit.ts';
import { type Host, type Session, act } from '../session.ts';
import { LONG_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

export function clusterCommand(host: Host): Command {
  return new Command('cluster')
    .description('the whole cluster: start, stop, restart, remove')
    .addCommand(startCommand(host))
    .addCommand(stopCommand(host))
    .addCommand(restartCommand(host))
    .addCommand(removeCommand(host));
}

function startCommand(host: Host): Command {
  const command = new Command('start').description('start every PostgreSQL, the primary first');
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(
    act(host, async (session, self) => runOperation(session, self.opts<TaskFlags>(), { request: { kind: 'clusterStart' } })),
  );
}

function stopCommand(host: Host): Command {
  const command = new Command('stop').description('stop every PostgreSQL, the primary first, so that every standby has all of its WAL');
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(
    act(host, async (session, self) => {
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      return runOperation(session, self.opts<TaskFlags>(), {
        request: { kind: 'clusterStop' },
        question: {
          consequences: [`every PostgreSQL of ${cluster.value} is stopped: no reads, no writes`],
          word: cluster.value,
          command: ['cluster', 'stop'],
        },
      });
    }),
  );
}

function restartCommand(host: Host): Command {
  const command = new Command('restart')
    .description('restart every PostgreSQL')
    .option('--rolling', 'one after the other, with a switchover, so that writes stay available');
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(
    act(host, async (session, self) => {
      const flags = self.opts<TaskFlags & { rolling?: boolean }>();
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const rolling = flags.rolling === true;
      const question = {
        consequences: [`every PostgreSQL of ${cluster.value} is restarted at once: writes and reads stop meanwhile (--rolling avoids that)`],
        word: cluster.value,
        command: ['cluster', 'restart'],
      };
      return runOperation(session, flags, { request: { kind: 'clusterRestart', rolling }, ...(rolling ? {} : { question }) });
    }),
  );
}

interface RemoveFlags {
  readonly yes?: boolean;
  readonly evenIfLive?: boolean;
}

function removeCommand(host: Host): Command {
  return new Command('remove')
    .description('forget the cluster: its spec, state and history go, its databases stay untouched')
    .option('--yes', 'do not ask')
    .option('--even-if-live', 'also while agents of its nodes still report')
    .action(act(host, (session, self) => remove(session, self.opts<RemoveFlags>())));
}

async function remove(session: Session, flags: RemoveFlags): Promise<Outcome> {
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const evenIfLive = flags.evenIfLive === true;
  const agreed = await confirm(session, {
    consequences: [`${cluster.value} is no longer managed: no failover, no recovery`, 'its databases and data directories stay as they are'],
    word: cluster.value,
    command: `pgherd cluster remove -c ${shellQuote(cluster.value)}${evenIfLive ? ' --even-if-live' : ''} --yes`,
    yes: flags.yes === true,
  });
  if (!agreed.ok) return agreed;
  const answer = await api.value.call('removeCluster', { params: { cluster: cluster.value }, query: { confirm: cluster.value, evenIfLive } });
  if (!answer.ok) return answer;
  session.show(answer.value, () => `removed ${answer.value.cluster}; what was known of it is kept on the server: ${answer.value.kept}`);
  return { ok: true, value: EXIT.done };
}
