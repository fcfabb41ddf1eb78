/** People's YAML: a cluster spec from a file or standard input, and edited text. */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { checkConfigText } from '../base/config.ts';
import { type ClusterSpec, checkSpec, clusterSpec } from '../core/spec.ts';
import { messageOf } from './context.ts';
import { type CliResult, EXIT, cliError, usageError } from './exit.ts';

/** Text of a file, of standard input for `-`. */
export function readInput(file: string): CliResult<string> {
  try {
    return { ok: true, value: readFileSync(file === '-' ? 0 : file, 'utf8') };
  } catch (error) {
    return usageError('cli.file-unreadable', { what: `cannot read ${file}`, cause: messageOf(error), remedy: 'check the path and its permissions' });
  }
}

export interface SpecText {
  readonly spec: ClusterSpec;
  /** As people wrote it, without defaults: what is sent. */
  readonly raw: Record<string, unknown>;
}

/** Checks a cluster.yaml completely before anything is sent: syntax, keys and values with their line, then its consistency. */
export function parseSpec(file: string, text: string): CliResult<SpecText> {
  const decoded = checkConfigText({ file, text, decoder: clusterSpec });
  if (!decoded.ok) return cliError(EXIT.usage, decoded.error);
  const problems = checkSpec(decoded.value);
  if (problems.length > 0) {
    return cliError(
      EXIT.usage,
      {
        code: 'config.inconsistent',
        what: `${file} contradicts itself`,
        cause: '',
        now: 'nothing was changed',
        remedy: 'correct the file',
        retryable: false,
      },
      problems.map((problem) => ({ code: problem.path, text: problem.message, remedy: '' })),
    );
  }
  return { ok: true, value: { spec: decoded.value, raw: parse(text) as Record<string, unknown> } };
}
