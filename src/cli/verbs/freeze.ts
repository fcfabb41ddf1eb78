import { Command } from 'commander';
import { readDuration } from '../context.ts';
import { type Host, act } from '../session.ts';
import { QUICK_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

export function freezeCommand(host: Host): Command {
  const command = new Command('freeze')
    .description('stop every automatic action (failover, recovery); leases and fencing go on')
    .option('--for <duration>', 'unfreeze by itself after this long, for example 2h');
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => {
      const flags = self.opts<TaskFlags & { for?: string }>();
      const forMs = flags.for === undefined ? { ok: true as const, value: null } : readDuration('--for', flags.for);
      if (!forMs.ok) return forMs;
      return runOperation(session, flags, { request: { kind: 'freeze', forMs: forMs.value } });
    }),
  );
}

export function unfreezeCommand(host: Host): Command {
  const command = new Command('unfreeze').description('resume automatic actions');
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => runOperation(session, self.opts<TaskFlags>(), { request: { kind: 'unfreeze' } })),
  );
}
