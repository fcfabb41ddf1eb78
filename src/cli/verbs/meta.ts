import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { Api } from '../api.ts';
import { confirm, shellQuote } from '../confirm.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { renderData } from '../output/json.ts';
import { renderDiff } from '../render/diff.ts';
import { type Host, type Session, act, printFailure } from '../session.ts';
import { parseSpec, readInput } from '../yaml-file.ts';

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

interface EditFlags {
  readonly file?: string;
  readonly yes?: boolean;
  readonly dryRun?: boolean;
}

function editCommand(host: Host): Command {
  return new Command('edit')
    .description('edit the desired state in $EDITOR; shows the difference and asks before it writes')
    .option('-f, --file <file>', 'take the new state from a file instead; "-" reads standard input')
    .option('--yes', 'do not ask')
    .option('--dry-run', 'show the difference, change nothing')
    .action(act(host, (session, self) => edit(session, self.opts<EditFlags>())));
}

/** The revision that was read guards the write: a change of somebody else in between is refused, and the edited text is kept. */
async function edit(session: Session, flags: EditFlags): Promise<Outcome> {
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const before = await api.value.call('getSpec', { params: { cluster: cluster.value } });
  if (!before.ok) return before;
  const original = renderData(before.value.spec, 'yaml');
  if (flags.file !== undefined) {
    const text = readInput(flags.file);
    if (!text.ok) return text;
    return write(session, api.value, { cluster: cluster.value, revision: before.value.revision, file: flags.file, text: text.value, flags });
  }
  if (!session.io.stdinIsTTY)
    return usageError('cli.needs-terminal', {
      what: 'an editor needs a terminal',
      remedy: `run: pgherd meta edit -c ${shellQuote(cluster.value)} -f FILE --yes`,
    });
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-edit-'));
  const file = join(directory, `${cluster.value}.yaml`);
  let keep = false;
  try {
    const edited = await editUntilValid(session, file, original);
    if (!edited.ok) return edited;
    if (edited.value === null) {
      session.note('no change');
      return { ok: true, value: EXIT.done };
    }
    const outcome = await write(session, api.value, { cluster: cluster.value, revision: before.value.revision, file, text: edited.value, flags });
    keep = !outcome.ok;
    if (keep) session.note(`your text is kept in ${file}`);
    return outcome;
  } finally {
    if (!keep) rmSync(directory, { recursive: true, force: true });
  }
}

/** Opens the editor until the text is valid or unchanged; null: unchanged. A person who gives up closes it without saving. */
async function editUntilValid(session: Session, file: string, original: string): Promise<CliResult<string | null>> {
  writeFileSync(file, original, { mode: 0o600 });
  const editor = session.io.env['VISUAL'] ?? session.io.env['EDITOR'] ?? 'vi';
  for (let last = original; ; ) {
    // An EDITOR may carry arguments ("code --wait"); the file is handed over as $1, never pasted into the command.
    const code = await session.io.runInForeground(['/bin/sh', '-c', `${editor} "$1"`, 'pgherd', file], session.io.env);
    if (code !== 0)
      return cliError(EXIT.failed, {
        code: 'cli.editor',
        what: `the editor ended with exit code ${code}`,
        cause: editor,
        now: 'nothing was changed',
        remedy: 'set EDITOR to an editor that is installed',
        retryable: false,
      });
    const text = readFileSync(file, 'utf8');
    if (text === original) return { ok: true, value: null };
    const checked = parseSpec(file, text);
    if (checked.ok) return { ok: true, value: text };
    printFailure(session.io, session.view, checked.error);
    if (text === last) return checked;
    last = text;
    if ((await session.io.ask('Press Enter to edit it again: ')) === null) return checked;
  }
}

interface Change {
  readonly cluster: string;
  readonly revision: number;
  readonly file: string;
  readonly text: string;
  readonly flags: EditFlags;
}

async function write(session: Session, api: Api, change: Change): Promise<Outcome> {
  const spec = parseSpec(change.file, change.text);
  if (!spec.ok) return spec;
  const call = (dryRun: boolean): ReturnType<typeof put> => put(api, change, spec.value.raw, dryRun);
  const plan = await call(true);
  if (!plan.ok) return plan;
  const { diff } = plan.value;
  if (change.flags.dryRun === true || diff.length === 0) {
    session.show(plan.value, () => renderDiff(diff, session.view.style));
    return { ok: true, value: EXIT.done };
  }
  session.note(renderDiff(diff, session.view.errorStyle));
  const agreed = await confirm(session, {
    consequences: [`the desired state of ${change.cluster} changes as shown above`],
    word: change.cluster,
    command: `pgherd meta edit -c ${shellQuote(change.cluster)} -f ${shellQuote(change.file)} --yes`,
    yes: change.flags.yes === true,
  });
  if (!agreed.ok) return agreed;
  const done = await call(false);
  if (!done.ok) return done;
  session.show(done.value, () => `written at revision ${done.value.revision}`);
  return { ok: true, value: EXIT.done };
}

function put(api: Api, change: Change, raw: Record<string, unknown>, dryRun: boolean) {
  return api.call('putSpec', { params: { cluster: change.cluster }, query: { dryRun }, body: raw, ifMatch: change.revision });
}
