import { Command } from 'commander';
import { checkConfigText } from '../../base/config.ts';
import { type Decoder, record, text } from '../../core/decode.ts';
import { refuseParameter } from '../../core/managed-parameters.ts';
import { type EditFlags, type EditedPart, type Raw, editSpec } from '../edit.ts';
import { EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { renderData } from '../output/json.ts';
import { cell, renderTable } from '../output/table.ts';
import { renderDiff } from '../render/diff.ts';
import { type Host, type Session, act } from '../session.ts';

export function settingsCommand(host: Host): Command {
  return new Command('settings')
    .description('PostgreSQL parameters of the cluster')
    .addCommand(showCommand(host))
    .addCommand(setCommand(host))
    .addCommand(editCommand(host));
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

function editCommand(host: Host): Command {
  return new Command('edit')
    .description('edit the parameters in $EDITOR, as YAML; shows the difference and asks before it writes')
    .option('-f, --file <file>', 'take the parameters from a file instead, all of them; "-" reads standard input')
    .option('--yes', 'do not ask')
    .option('--dry-run', 'show the difference, change nothing')
    .action(
      act(host, async (session, self) => {
        const flags = self.opts<EditFlags>();
        const outcome = await editSpec(session, PARAMETERS, flags);
        if (outcome.ok && flags.dryRun !== true) session.note('"pgherd settings show" says which nodes still need a restart');
        return outcome;
      }),
    );
}

const HEAD =
  '# PostgreSQL parameters of the cluster, one a line, like: work_mem: 64MB\n# Nodes apply them within seconds. What is left out goes back to PostgreSQL\u2019s own configuration.\n';

/** A number or a boolean is what PostgreSQL takes as text: `max_connections: 300` needs no quotes. */
const value: Decoder<string> = (input, path) => {
  if (typeof input === 'number' || typeof input === 'boolean')
    return { ok: true, value: input === true ? 'on' : input === false ? 'off' : String(input) };
  return text(input, path);
};

const parameters: Decoder<Readonly<Record<string, string>>> = (input, path) => {
  const decoded = record(value)(input, path);
  if (!decoded.ok) return decoded;
  for (const [name, setting] of Object.entries(decoded.value)) {
    const refused = refuseParameter(name, setting);
    if (refused !== null) return { ok: false, error: { path: name, message: refused } };
  }
  return decoded;
};

const PARAMETERS: EditedPart = {
  command: ['settings', 'edit'],
  render: (spec) => {
    const present = parametersOf(spec);
    return `${HEAD}${Object.keys(present).length === 0 ? '' : renderData(present, 'yaml')}`;
  },
  parse: (file, edited, spec) => {
    const decoded = checkConfigText({ file, text: edited, decoder: parameters });
    if (!decoded.ok) return cliError(EXIT.usage, decoded.error);
    const postgres = typeof spec['postgres'] === 'object' && spec['postgres'] !== null ? spec['postgres'] : {};
    return { ok: true, value: { ...spec, postgres: { ...postgres, parameters: decoded.value } } };
  },
};

function parametersOf(spec: Raw): Record<string, unknown> {
  const { postgres } = spec;
  if (typeof postgres !== 'object' || postgres === null || !('parameters' in postgres)) return {};
  return typeof postgres.parameters === 'object' && postgres.parameters !== null ? { ...postgres.parameters } : {};
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
