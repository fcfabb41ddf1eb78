import { Command } from 'commander';
import { EXIT, type Outcome, usageError } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { renderDiff } from '../render/diff.ts';
import { type Host, type Session, act } from '../session.ts';

export function settingsCommand(host: Host): Command {
  return new Command('settings').description('PostgreSQL parameters of the cluster').addCommand(showCommand(host)).addCommand(setCommand(host));
}

function showCommand(host: Host): Command {
  return new Command('show').description('the parameters, and which nodes still need a restart for them').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const answer = await api.value.call('getSettings', { params: { cluster: cluster.value } });
      if (!answer.ok) return answer;
      const { parameters, pendingRestart } = answer.value;
      const names = [...new Set([...Object.keys(parameters), ...Object.values(pendingRestart).flat()])].sort();
      const rows = names.map((name) => {
        const waiting = Object.keys(pendingRestart).filter((node) => pendingRestart[node]?.includes(name));
        return [cell(name), cell(parameters[name]), cell(waiting.join(', '), 'warn')];
      });
      const columns = [
        { head: 'PARAMETER', min: 20 },
        { head: 'VALUE', min: 10 },
        { head: 'NEEDS RESTART ON', min: 10 },
      ] as const;
      session.show(answer.value, () =>
        rows.length === 0 ? "no parameter is set for the cluster: PostgreSQL's own configuration holds" : renderTable(columns, rows, session.view),
      );
      return { ok: true, value: EXIT.done };
    }),
  );
}

interface SetFlags {
  readonly unset?: readonly string[];
  readonly reason?: string;
  readonly dryRun?: boolean;
}

function setCommand(host: Host): Command {
  return new Command('set')
    .description('change parameters on every node, for example: pgherd settings set work_mem=64MB')
    .argument('[name=value...]', 'parameters')
    .option('--unset <name...>', "take a parameter back: PostgreSQL's own configuration holds again")
    .option('--reason <text>', 'why, kept in the audit log')
    .option('--dry-run', 'show the difference, change nothing')
    .action(act(host, (session, self) => set(session, self.processedArgs[0] as readonly string[], self.opts<SetFlags>())));
}

async function set(session: Session, assignments: readonly string[], flags: SetFlags): Promise<Outcome> {
  const wanted: Record<string, string> = {};
  for (const assignment of assignments) {
    const at = assignment.indexOf('=');
    if (at < 1) return usageError('cli.usage', { what: `"${assignment}" is no parameter with a value`, remedy: 'write it like work_mem=64MB' });
    wanted[assignment.slice(0, at).trim()] = assignment.slice(at + 1).trim();
  }
  const unset = [...(flags.unset ?? [])];
  if (assignments.length === 0 && unset.length === 0)
    return usageError('cli.usage', { what: 'nothing to set', remedy: 'name at least one NAME=VALUE, or --unset NAME' });
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const answer = await api.value.call('postSettings', {
    params: { cluster: cluster.value },
    query: { dryRun: flags.dryRun === true },
    body: { set: wanted, unset, reason: flags.reason ?? '' },
  });
  if (!answer.ok) return answer;
  session.show(
    answer.value,
    () => `${renderDiff(answer.value.diff, session.view.style)}${answer.value.dryRun ? '\n(dry run: nothing was changed)' : ''}`,
  );
  if (!answer.value.dryRun && answer.value.diff.length > 0)
    session.note('nodes apply it within seconds; "pgherd settings show" says which ones need a restart');
  return { ok: true, value: EXIT.done };
}
