import { Command } from 'commander';
import { type Host, act } from '../session.ts';
import { QUICK_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

export function switchoverCommand(host: Host): Command {
  const command = new Command('switchover')
    .description('move the primary, planned and without loss; undone when it cannot be finished')
    .option('--to <node>', 'the new primary (default: the best candidate)');
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => {
      const flags = self.opts<TaskFlags & { to?: string }>();
      return runOperation(session, flags, { request: { kind: 'switchover', to: flags.to ?? null } });
    }),
  );
}
