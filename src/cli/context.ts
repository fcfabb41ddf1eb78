/** Where the server is, who we are, which cluster is meant: flags > environment > user's file > /etc. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { formatDecodeError, nullable, object, text, withDefault } from '../core/decode.ts';
import type { Io } from './io.ts';
import { type CliResult, usageError } from './exit.ts';
import type { OutputFormat } from './output/json.ts';
import { type Style, isColourWanted, makeStyle } from './output/style.ts';
import { parseDuration } from './output/units.ts';

/** Flags that every verb knows, as commander hands them over. */
export interface GlobalFlags {
  readonly server?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  readonly cluster?: string;
  readonly output?: string;
  readonly json?: boolean;
  readonly color?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

export interface Connection {
  readonly server: string;
  readonly token: string | null;
  /** PEM text; null: the system's authorities. */
  readonly ca: string | null;
  /** Where each of them came from, for error messages. */
  readonly origin: { readonly server: string; readonly token: string; readonly ca: string };
}

export interface Presentation {
  readonly format: OutputFormat;
  readonly style: Style;
  readonly errorStyle: Style;
  /** Null: not a terminal and no COLUMNS: no limit. */
  readonly width: number | null;
  readonly quiet: boolean;
  readonly verbose: boolean;
}

export const DEFAULT_SERVER = 'https://127.0.0.1:8433';

/** ~/.config/pgherd/config.yaml, and the same below /etc. Relative paths count from the file's folder. */
const configFile = object(
  {
    server: withDefault(nullable(text), null),
    tokenFile: withDefault(nullable(text), null),
    caFile: withDefault(nullable(text), null),
    cluster: withDefault(nullable(text), null),
  },
  'strict',
);

interface FileSettings {
  readonly server: string | null;
  readonly tokenFile: string | null;
  readonly caFile: string | null;
  readonly cluster: string | null;
  readonly path: string;
}

const NO_FILE: FileSettings = { server: null, tokenFile: null, caFile: null, cluster: null, path: '' };

/** Standard output's format; `--json` wins over `-o`. */
export function readPresentation(flags: GlobalFlags, io: Io): CliResult<Presentation> {
  const format = flags.json === true ? 'json' : (flags.output ?? 'table');
  if (format !== 'table' && format !== 'json' && format !== 'yaml') {
    return usageError('cli.output-format', { what: `unknown output format "${format}"`, remedy: 'use -o table, -o json or -o yaml' });
  }
  const noColorFlag = flags.color === false;
  const columns = Number(io.env['COLUMNS']);
  return {
    ok: true,
    value: {
      format,
      style: makeStyle(isColourWanted({ isTTY: io.stdout.isTTY, noColorFlag, env: io.env })),
      errorStyle: makeStyle(isColourWanted({ isTTY: io.stderr.isTTY, noColorFlag, env: io.env })),
      width: io.stdout.columns() ?? (Number.isInteger(columns) && columns >= 20 ? columns : null),
      quiet: flags.quiet === true,
      verbose: flags.verbose === true,
    },
  };
}

/** The cluster that was named by flag, environment or file; null when none was. */
export function readClusterName(flags: GlobalFlags, io: Io): CliResult<string | null> {
  const named = flags.cluster ?? nonEmpty(io.env['PGHERD_CLUSTER']);
  if (named !== null && named !== undefined) return { ok: true, value: named };
  const file = readFileSettings(io);
  return file.ok ? { ok: true, value: file.value.cluster } : file;
}

/** Reads the token and the authority from their files. A missing token is no error here: the server says whether it needs one. */
export function readConnection(flags: GlobalFlags, io: Io): CliResult<Connection> {
  const file = readFileSettings(io);
  if (!file.ok) return file;
  const server = pick([flags.server, '--server'], [io.env['PGHERD_SERVER'], 'PGHERD_SERVER'], [file.value.server, file.value.path]);
  const url = parseServer(server?.value ?? DEFAULT_SERVER, server?.from ?? 'the default');
  if (!url.ok) return url;
  const token = readToken(flags, io, file.value);
  if (!token.ok) return token;
  const ca = pick([flags.caFile, '--ca-file'], [io.env['PGHERD_CA'], 'PGHERD_CA'], [file.value.caFile, file.value.path]);
  const pem = ca === null ? { ok: true as const, value: null } : readTextFile(ca.value, ca.from, 'certificate authority');
  if (!pem.ok) return pem;
  if (ca !== null && pem.value !== null && !pem.value.includes('-----BEGIN CERTIFICATE-----')) {
    return usageError('cli.ca-file', {
      what: `${ca.value} (from ${ca.from}) holds no certificate`,
      remedy: 'name the file with the certificate of the server’s authority (on the server: DATA_DIRECTORY/ca/ca.crt)',
    });
  }
  return {
    ok: true,
    value: {
      server: url.value,
      token: token.value?.token ?? null,
      ca: pem.value,
      origin: {
        server: server?.from ?? 'the default',
        token: token.value?.from ?? 'none was given',
        ca: ca === null ? "the system's authorities" : `${ca.from} (${ca.value})`,
      },
    },
  };
}

function readToken(flags: GlobalFlags, io: Io, file: FileSettings): CliResult<{ token: string; from: string } | null> {
  const fromFlag = nonEmpty(flags.tokenFile);
  const fromEnv = nonEmpty(io.env['PGHERD_TOKEN']);
  if (fromFlag === null && fromEnv !== null) return { ok: true, value: { token: fromEnv.trim(), from: 'PGHERD_TOKEN' } };
  const path = fromFlag ?? file.tokenFile;
  if (path === null) return { ok: true, value: null };
  const from = fromFlag === null ? file.path : '--token-file';
  const content = readTextFile(path, from, 'token');
  if (!content.ok) return content;
  const token = content.value.trim();
  if (token === '' || /\s/.test(token)) {
    return usageError('cli.token-file', {
      what: `the token file ${path} holds no token`,
      cause: token === '' ? 'it is empty' : 'it has more than one word',
      remedy: 'write the token alone into the file',
    });
  }
  return { ok: true, value: { token, from: `${from} (${path})` } };
}

function readFileSettings(io: Io): CliResult<FileSettings> {
  const home = nonEmpty(io.env['HOME']);
  const xdg = nonEmpty(io.env['XDG_CONFIG_HOME']) ?? (home === null ? null : join(home, '.config'));
  const paths = [...(xdg === null ? [] : [join(xdg, 'pgherd', 'config.yaml')]), '/etc/pgherd/config.yaml'];
  for (const path of paths) {
    const content = readIfThere(path);
    if (!content.ok) return content;
    if (content.value !== null) return parseFileSettings(path, content.value);
  }
  return { ok: true, value: NO_FILE };
}

function readIfThere(path: string): CliResult<string | null> {
  try {
    return { ok: true, value: readFileSync(path, 'utf8') };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return { ok: true, value: null };
    return usageError('cli.config-file', {
      what: `cannot read ${path}`,
      cause: messageOf(error),
      remedy: 'make the file readable for you, or remove it',
    });
  }
}

function parseFileSettings(path: string, content: string): CliResult<FileSettings> {
  let input: unknown;
  try {
    input = parse(content) ?? {};
  } catch (error) {
    return usageError('cli.config-file', {
      what: `${path} is not YAML`,
      cause: messageOf(error),
      remedy: 'correct the file; it may hold server, tokenFile, caFile and cluster',
    });
  }
  const decoded = configFile(input, '');
  if (!decoded.ok) {
    return usageError('cli.config-file', {
      what: `${path} is wrong`,
      cause: formatDecodeError(decoded.error),
      remedy: 'correct the file; it may hold server, tokenFile, caFile and cluster',
    });
  }
  const besides = (value: string | null): string | null => (value === null || value.startsWith('/') ? value : join(path, '..', value));
  const { server, tokenFile, caFile, cluster } = decoded.value;
  return { ok: true, value: { server, cluster, path, tokenFile: besides(tokenFile), caFile: besides(caFile) } };
}

function parseServer(text: string, from: string): CliResult<string> {
  const withScheme = text.includes('://') ? text : `https://${text}`;
  const url = URL.canParse(withScheme) ? new URL(withScheme) : null;
  if (url?.protocol === 'http:')
    return usageError('cli.server-url', {
      what: `"${text}" (from ${from}) is not encrypted, and the server takes no such connection`,
      remedy: `write it like https://${url.host}`,
    });
  if (url === null || url.protocol !== 'https:' || url.pathname !== '/' || url.username !== '') {
    return usageError('cli.server-url', { what: `"${text}" (from ${from}) is no server address`, remedy: 'write it like https://db-manager:8433' });
  }
  if (url.port === '' && !/:\d+\/?$/.test(withScheme)) url.port = '8433';
  return { ok: true, value: url.origin };
}

export function readTextFile(path: string, from: string, kind: string): CliResult<string> {
  try {
    return { ok: true, value: readFileSync(path, 'utf8') };
  } catch (error) {
    return usageError('cli.file-unreadable', {
      what: `cannot read the ${kind} file ${path} (from ${from})`,
      cause: messageOf(error),
      remedy: 'check the path and its permissions',
    });
  }
}

/** Milliseconds of a duration flag. */
export function readDuration(flag: string, text: string): CliResult<number> {
  const ms = parseDuration(text);
  if (ms === null) return usageError('cli.duration', { what: `${flag} "${text}" is no duration`, remedy: 'write it like 500ms, 60s, 5m, 2h or 1d' });
  return { ok: true, value: ms };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function nonEmpty(value: string | undefined | null): string | null {
  return value === undefined || value === null || value === '' ? null : value;
}

function pick(...sources: readonly (readonly [string | undefined | null, string])[]): { value: string; from: string } | null {
  for (const [value, from] of sources) {
    const found = nonEmpty(value);
    if (found !== null) return { value: found, from };
  }
  return null;
}
