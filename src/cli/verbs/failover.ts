import { Command } from 'commander';
import { type Host, act } from '../session.ts';
import { QUICK_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

export function failoverCommand(host: Host): Command {
  const command = new Command('failover')
    .description('promote another node now, unplanned; a primary that still lives is fenced first')
    .option('--to <node>', 'the new primary (default: the best candidate)')
    .option('--accept-loss', 'promote even where acknowledged commits are lost; missing votes are not waived by it')
    .option('--accept-two-primaries', 'promote without the missing votes: if the old primary still runs out of sight, there are two primaries then');
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => {
      const flags = self.opts<TaskFlags & { to?: string; acceptLoss?: boolean; acceptTwoPrimaries?: boolean }>();
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const acceptLoss = flags.acceptLoss === true;
      const acceptTwoPrimaries = flags.acceptTwoPrimaries === true;
      return runOperation(session, flags, {
        request: { kind: 'failover', to: flags.to ?? null, acceptLoss, acceptTwoPrimaries },
        question: {
          consequences: [
            `${flags.to ?? 'the best candidate'} becomes the primary of ${cluster.value}, unplanned`,
            'a primary that still lives is fenced: its sessions end',
            ...(acceptTwoPrimaries
              ? [
                  'TWO PRIMARIES: votes that are missing are not waited for; if the old primary still runs where nobody here sees it, both accept writes, and the rows of one of them are lost',
                  'go on only when the old primary is surely powered off, or cut off from every client',
                ]
              : []),
            ...(acceptLoss ? ['commits that only the old primary has are lost (they are saved when it comes back)'] : []),
          ],
          word: acceptTwoPrimaries ? `${cluster.value} two primaries` : cluster.value,
          command: [
            'failover',
            ...(flags.to === undefined ? [] : ['--to', flags.to]),
            ...(acceptLoss ? ['--accept-loss'] : []),
            ...(acceptTwoPrimaries ? ['--accept-two-primaries'] : []),
          ],
        },
      });
    }),
  );
}
