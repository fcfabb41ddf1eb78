import { Command } from 'commander';
import { type Host, act } from '../session.ts';
import { QUICK_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

export function failoverCommand(host: Host): Command {
  const command = new Command('failover')
    .description('promote another node now, unplanned; a primary that still lives is fenced first')
    .option('--to <node>', 'the new primary (default: the best candidate)')
    .option('--accept-loss', 'promote even where acknowledged commits may be lost, or too few nodes answer');
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => {
      const flags = self.opts<TaskFlags & { to?: string; acceptLoss?: boolean }>();
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const acceptLoss = flags.acceptLoss === true;
      return runOperation(session, flags, {
        request: { kind: 'failover', to: flags.to ?? null, acceptLoss },
        question: {
          consequences: [
            `${flags.to ?? 'the best candidate'} becomes the primary of ${cluster.value}, unplanned`,
            'a primary that still lives is fenced: its sessions end',
            ...(acceptLoss ? ['commits that only the old primary has are lost (they are saved when it comes back)'] : []),
          ],
          word: cluster.value,
          command: ['failover', ...(flags.to === undefined ? [] : ['--to', flags.to]), ...(acceptLoss ? ['--accept-loss'] : [])],
        },
      });
    }),
  );
}
