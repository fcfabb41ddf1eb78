/** Editing the desired state, or a part of it, in $EDITOR: checked, shown as a difference, and written only onto the revision that was read. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Api } from './api.ts';
import { confirm, shellQuote } from './confirm.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from './exit.ts';
import { renderDiff } from './render/diff.ts';
import { type Session, printFailure } from './session.ts';
import { readInput } from './yaml-file.ts';

/** A spec as people wrote it, without defaults. */
export type Raw = Record<string, unknown>;

export interface EditFlags {
  readonly file?: string;
  readonly yes?: boolean;
  readonly dryRun?: boolean;
}

/** What is edited of the spec. */
export interface EditedPart {
  /** The verb, for remedies: `['meta', 'edit']`. */
  readonly command: readonly string[];
  /** The YAML that the editor opens. */
  readonly render: (spec: Raw) => string;
  /** The whole new spec from the edited text and the spec that was read; a failure names the line. */
  readonly parse: (file: string, text: string, spec: Raw) => CliResult<Raw>;
}

/** The revision that was read guards the write: a change of somebody else in between is refused, and the edited text is kept. */
export async function editSpec(session: Session, part: EditedPart, flags: EditFlags): Promise<Outcome> {
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const before = await api.value.call('getSpec', { params: { cluster: cluster.value } });
  if (!before.ok) return before;
  const { spec, revision } = before.value;
  const original = part.render(spec);
  const parse = (file: string, text: string): CliResult<Raw> => part.parse(file, text, spec);
  const change = { cluster: cluster.value, revision, part, parse, flags };
  if (flags.file !== undefined) {
    const text = readInput(flags.file);
    if (!text.ok) return text;
    return write(session, api.value, { ...change, file: flags.file, text: text.value });
  }
  if (!session.io.stdinIsTTY)
    return usageError('cli.needs-terminal', {
      what: 'an editor needs a terminal',
      remedy: `run: pgherd ${part.command.join(' ')} -c ${shellQuote(cluster.value)} -f FILE --yes`,
    });
  const directory = mkdtempSync(join(tmpdir(), 'pgherd-edit-'));
  const file = join(directory, `${cluster.value}.yaml`);
  let keep = false;
  try {
    const edited = await editUntilValid(session, { file, original, parse });
    if (!edited.ok) return edited;
    if (edited.value === null) {
      session.note('no change');
      return { ok: true, value: EXIT.done };
    }
    const outcome = await write(session, api.value, { ...change, file, text: edited.value });
    keep = !outcome.ok;
    if (keep) session.note(`your text is kept in ${file}`);
    return outcome;
  } finally {
    if (!keep) rmSync(directory, { recursive: true, force: true });
  }
}

interface Editing {
  readonly file: string;
  readonly original: string;
  readonly parse: (file: string, text: string) => CliResult<Raw>;
}

/** Opens the editor until the text is valid or unchanged; null: unchanged. A person who gives up closes it without saving. */
async function editUntilValid(session: Session, { file, original, parse }: Editing): Promise<CliResult<string | null>> {
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
    const checked = parse(file, text);
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
  readonly part: EditedPart;
  readonly parse: (file: string, text: string) => CliResult<Raw>;
  readonly file: string;
  readonly text: string;
  readonly flags: EditFlags;
}

async function write(session: Session, api: Api, change: Change): Promise<Outcome> {
  const spec = change.parse(change.file, change.text);
  if (!spec.ok) return spec;
  const call = (dryRun: boolean): ReturnType<typeof put> => put(api, change, spec.value, dryRun);
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
    command: `pgherd ${change.part.command.join(' ')} -c ${shellQuote(change.cluster)} -f ${shellQuote(change.file)} --yes`,
    yes: change.flags.yes === true,
  });
  if (!agreed.ok) return agreed;
  const done = await call(false);
  if (!done.ok) return done;
  session.show(done.value, () => `written at revision ${done.value.revision}`);
  return { ok: true, value: EXIT.done };
}

function put(api: Api, change: Change, raw: Raw, dryRun: boolean) {
  return api.call('putSpec', { params: { cluster: change.cluster }, query: { dryRun }, body: raw, ifMatch: change.revision });
}
