import { Command, Option } from 'commander';
import { parse } from 'yaml';
import { checkConfigText } from '../../base/config.ts';
import { type ConfigKind, FILE_DECODERS, guessKind } from '../config-kinds.ts';
import { everyDefault } from '../defaults.ts';
import { EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { type Host, type Session, act } from '../session.ts';
import { parseSpec, readInput } from '../yaml-file.ts';

export function configCommand(host: Host): Command {
  return new Command('config').description('configuration files and defaults').addCommand(checkCommand(host)).addCommand(defaultsCommand(host));
}

function checkCommand(host: Host): Command {
  return new Command('check')
    .description('check a server.yaml, agent.yaml, proxy.yaml or cluster.yaml: syntax, keys and values, with line numbers')
    .argument('<file>', 'file; "-" reads standard input')
    .addOption(new Option('--kind <kind>', 'what the file is (default: judged by its keys)').choices(['server', 'agent', 'proxy', 'cluster']))
    .action(act(host, async (session, self) => check(session, self.processedArgs[0] as string, self.opts<{ kind?: ConfigKind }>().kind ?? null)));
}

function check(session: Session, file: string, named: ConfigKind | null): Outcome {
  const text = readInput(file);
  if (!text.ok) return text;
  const kind = named ?? guessText(text.value);
  if (kind === null) {
    // Syntax errors are reported with their line whatever the file was to be.
    const syntax = checkConfigText({ file, text: text.value, decoder: (input) => ({ ok: true, value: input }) });
    return syntax.ok
      ? usageError('config.kind', {
          what: `${file} is neither a server.yaml, nor an agent.yaml, a proxy.yaml or a cluster.yaml`,
          remedy: 'say what it is with --kind server, agent, proxy or cluster',
        })
      : cliError(EXIT.usage, syntax.error);
  }
  const result = kind === 'cluster' ? parseSpec(file, text.value) : checkConfigText({ file, text: text.value, decoder: FILE_DECODERS[kind] });
  if (!result.ok) return 'exit' in result.error ? { ok: false, error: result.error } : cliError(EXIT.usage, result.error);
  session.show({ ok: true, file, kind }, () => `${file}: a valid ${kind}.yaml`);
  return { ok: true, value: EXIT.done };
}

function guessText(text: string): ConfigKind | null {
  try {
    return guessKind(parse(text));
  } catch {
    // Not YAML: the check that follows says so with the line.
    return null;
  }
}

function defaultsCommand(host: Host): Command {
  return new Command('defaults')
    .description('every default of cluster.yaml, server.yaml, agent.yaml and proxy.yaml: settings, limits and ports')
    .action(
      act(host, async (session) => {
        const defaults = everyDefault();
        const rows = Object.entries(defaults).flatMap(([file, settings]) =>
          Object.entries(settings).map(([name, value]) => [cell(file === 'fixed' ? 'fixed' : `${file}.yaml`, 'dim'), cell(name), cell(shown(value))]),
        );
        session.show(defaults, () => renderTable([{ head: 'FILE' }, { head: 'SETTING' }, { head: 'DEFAULT' }], rows, session.view));
        return { ok: true, value: EXIT.done };
      }),
    );
}

function shown(value: unknown): string {
  const isEmpty = value === null || value === '' || (typeof value === 'object' && Object.keys(value).length === 0);
  return isEmpty ? 'none' : String(value);
}
