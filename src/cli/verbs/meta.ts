import { Command } from 'commander';
import { type EditFlags, type EditedPart, editSpec } from '../edit.ts';
import { EXIT } from '../exit.ts';
import { renderData } from '../output/json.ts';
import { type Host, act } from '../session.ts';
import { parseSpec } from '../yaml-file.ts';

export function metaCommand(host: Host): Command {
  return new Command('meta')
    .description('the raw desired state: for special cases; it is checked before it is written')
    .addCommand(getCommand(host))
    .addCommand(editCommand(host));
}

function getCommand(host: Host): Command {
  return new Command('get')
    .description('the desired state as YAML (what "meta edit" opens)')
    .option('--all', 'also the state that was decided, registrations, reports and the write lease')
    .action(
      act(host, async (session, self) => {
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const params = { cluster: cluster.value };
        const answer =
          self.opts<{ all?: boolean }>().all === true ? await api.value.call('meta', { params }) : await api.value.call('getSpec', { params });
        if (!answer.ok) return answer;
        const data: unknown = 'reports' in answer.value ? answer.value : answer.value.spec;
        session.show(session.view.format === 'table' ? data : answer.value, () => renderData(data, 'yaml'));
        return { ok: true, value: EXIT.done };
      }),
    );
}

function editCommand(host: Host): Command {
  return new Command('edit')
    .description('edit the desired state in $EDITOR; shows the difference and asks before it writes')
    .option('-f, --file <file>', 'take the new state from a file instead; "-" reads standard input')
    .option('--yes', 'do not ask')
    .option('--dry-run', 'show the difference, change nothing')
    .action(act(host, (session, self) => editSpec(session, WHOLE_SPEC, self.opts<EditFlags>())));
}

const WHOLE_SPEC: EditedPart = {
  command: ['meta', 'edit'],
  render: (spec) => renderData(spec, 'yaml'),
  parse: (file, text) => {
    const spec = parseSpec(file, text);
    return spec.ok ? { ok: true, value: spec.value.raw } : spec;
  },
};
