import { Command } from 'commander';
import { stringify } from 'yaml';
import { parseLocated } from '../../base/config.ts';
import { importClup } from '../../core/import/clup.ts';
import type { ImportError, Imported, Manager, SourceText, SourceValue } from '../../core/import/imported.ts';
import { importPatroni } from '../../core/import/patroni.ts';
import { importRepmgr } from '../../core/import/repmgr.ts';
import { type TakeoverStep, planTakeover } from '../../core/import/takeover.ts';
import type { Result } from '../../core/result.ts';
import { type CliResult, EXIT, type Outcome, cliError } from '../exit.ts';
import { oneLine } from '../output/table.ts';
import { type Host, type Session, act } from '../session.ts';
import { parseSpec, readInput } from '../yaml-file.ts';

const AFTER =
  '\nStandard output is a cluster.yaml; the plan of the takeover stands in its comments. Nothing is changed anywhere, and no server is asked.\n';

export function importCommand(host: Host): Command {
  return new Command('import')
    .description("a cluster.yaml from another manager's configuration, and the way from there to here, with the way back")
    .addHelpText('after', AFTER)
    .addCommand(clupCommand(host))
    .addCommand(repmgrCommand(host))
    .addCommand(patroniCommand(host));
}

function clupCommand(host: Host): Command {
  return new Command('clup')
    .description('from init.json of CLup')
    .argument('<file>', 'init.json; "-" reads standard input')
    .option('--conf <file>', 'clup.conf, for what it says of settings without a counterpart')
    .option('--name <name>', 'which cluster of the file, and its name here')
    .action(
      act(host, async (session, self) => {
        const flags = self.opts<{ conf?: string; name?: string }>();
        const init = readValue(self.processedArgs[0] as string);
        if (!init.ok) return init;
        const conf = flags.conf === undefined ? null : readText(flags.conf);
        if (conf !== null && !conf.ok) return conf;
        return show(session, importClup({ init: init.value, conf: conf?.value ?? null, name: flags.name ?? null }));
      }),
    );
}

function repmgrCommand(host: Host): Command {
  return new Command('repmgr')
    .description('from repmgr.conf of each node, or from one of them and the saved output of "repmgr cluster show"')
    .argument('<file...>', 'repmgr.conf, output of "repmgr cluster show"; "-" reads standard input')
    .option('--name <name>', 'name of the cluster')
    .action(
      act(host, async (session, self) => {
        const sources = readAll(self.processedArgs[0] as readonly string[], readText);
        if (!sources.ok) return sources;
        return show(session, importRepmgr(sources.value, self.opts<{ name?: string }>().name ?? null));
      }),
    );
}

function patroniCommand(host: Host): Command {
  return new Command('patroni')
    .description('from patroni.yml of each node, and the saved output of "patronictl show-config" and "patronictl list -f json"')
    .argument('<file...>', 'patroni.yml, show-config, list -f json; "-" reads standard input')
    .option('--name <name>', 'name of the cluster (default: its scope)')
    .action(
      act(host, async (session, self) => {
        const sources = readAll(self.processedArgs[0] as readonly string[], readValue);
        if (!sources.ok) return sources;
        return show(session, importPatroni(sources.value, self.opts<{ name?: string }>().name ?? null));
      }),
    );
}

function readAll<T>(files: readonly string[], read: (file: string) => CliResult<T>): CliResult<readonly T[]> {
  const all: T[] = [];
  for (const file of files) {
    const one = read(file);
    if (!one.ok) return one;
    all.push(one.value);
  }
  return { ok: true, value: all };
}

function readText(file: string): CliResult<SourceText> {
  const text = readInput(file);
  return text.ok ? { ok: true, value: { file, text: text.value } } : text;
}

function readValue(file: string): CliResult<SourceValue> {
  const text = readInput(file);
  if (!text.ok) return text;
  const parsed = parseLocated(file, text.value);
  return parsed.ok ? { ok: true, value: { file, ...parsed.value } } : cliError(EXIT.usage, parsed.error);
}

function show(session: Session, result: Result<Imported, ImportError>): Outcome {
  if (!result.ok) {
    const { file, line, message } = result.error;
    return cliError(EXIT.usage, {
      code: 'import.invalid',
      what: `${file}${line === 0 ? '' : `:${line}`} cannot be imported`,
      cause: message,
      now: 'nothing was changed',
      remedy: 'give the file of the manager that you named, as it is used there',
      retryable: false,
    });
  }
  const imported = result.value;
  const spec = { name: imported.name, ...imported.settings, nodes: imported.nodes.map(specNode) };
  const plan = planTakeover(imported);
  const yaml = stringify(spec, { lineWidth: 0 });
  // What we print must be what `init` takes: a mistake of the mapping is told here, and not on the day of the takeover.
  const checked = parseSpec('the imported cluster.yaml', yaml);
  if (!checked.ok) return checked;
  session.show({ spec, notes: imported.notes, plan }, () => `${comments(imported, plan)}\n${yaml.trimEnd()}`);
  return { ok: true, value: EXIT.done };
}

/** Only what is not the default. */
function specNode({ id, host, port, priority, location, kind }: Imported['nodes'][number]): Readonly<Record<string, unknown>> {
  return {
    id,
    host,
    ...(port === 5432 ? {} : { port }),
    ...(priority === 100 ? {} : { priority }),
    ...(location === null || location === 'default' ? {} : { location }),
    ...(kind === 'data' ? {} : { kind }),
  };
}

const NAMES: Readonly<Record<Manager, string>> = { clup: 'CLup', repmgr: 'repmgr', patroni: 'Patroni' };

function comments(imported: Imported, plan: readonly TakeoverStep[]): string {
  const primary = imported.nodes.find((node) => node.primary);
  const lines = [
    `Cluster ${imported.name}, from the configuration of ${NAMES[imported.manager]}.`,
    ...(primary === undefined ? [] : [`There ${primary.id} (${primary.host}) is the primary.`]),
    '',
    ...(imported.notes.length === 0
      ? []
      : ['Not taken over, or to be looked at:', ...imported.notes.map((note) => `  ${note.setting}: ${note.text}`), '']),
    'The takeover. PostgreSQL is not restarted by it.',
    ...plan.flatMap((step, index) => [
      '',
      index === plan.length - 1 ? `${step.text}:` : `${index + 1}. ${step.text}`,
      ...step.commands.map((command) => `     ${command}`),
      ...(step.back === null ? [] : [`   Way back: ${step.back}`]),
    ]),
    '',
  ];
  // A line break within a value of the file must not end the comment.
  return lines.map((line) => (line === '' ? '#' : `# ${oneLineKeeping(line)}`)).join('\n');
}

function oneLineKeeping(line: string): string {
  const indent = /^ */.exec(line)?.[0] ?? '';
  return `${indent}${oneLine(line.slice(indent.length))}`;
}
