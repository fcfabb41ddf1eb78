/** What a verb's action is handed: connection, cluster, output. */
import type { Command } from 'commander';
import { newRequestId } from '../api/client.ts';
import { type Api, makeApi } from './api.ts';
import { type GlobalFlags, type Presentation, readClusterName, readConnection, readPresentation } from './context.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from './exit.ts';
import type { Io } from './io.ts';
import { renderFailure, renderFailureJson } from './output/errors.ts';
import { renderData } from './output/json.ts';

export interface Session {
  readonly io: Io;
  readonly view: Presentation;
  readonly flags: GlobalFlags;
  /** Connects lazily: verbs without a server never read tokens. The same client at each call. */
  api(): CliResult<Api>;
  /** The cluster that is meant: named, or the only one there is. */
  cluster(): Promise<CliResult<string>>;
  /** Data to standard output: the table text, or the same data as JSON or YAML. */
  show(data: unknown, table: () => string): void;
  /** Makes a request that is sent again after a lost answer harmless. */
  newRequestId(): string;
  /** A line for people on standard error; silent with -q. */
  note(text: string): void;
}

export type Action = (session: Session, command: Command) => Promise<Outcome>;

/** Where the exit code of the verb that ran is kept for runCli. */
export interface Run {
  exit: number;
}

export interface Host {
  readonly io: Io;
  readonly run: Run;
}

/** A commander action that runs `action`, prints its failure in four parts, and keeps its exit code. */
export function act(host: Host, action: Action): (this: Command) => Promise<void> {
  return async function (this: Command) {
    const flags = this.optsWithGlobals() as GlobalFlags;
    const view = readPresentation(flags, host.io);
    if (!view.ok) {
      host.io.stderr.write(renderFailure(view.error, { style: plainView(host.io).errorStyle, width: errorWidth(host.io) }));
      host.run.exit = view.error.exit;
      return;
    }
    const session = openSession(host.io, flags, view.value);
    const outcome = await action(session, this);
    host.run.exit = outcome.ok ? outcome.value : outcome.error.exit;
    if (!outcome.ok) printFailure(host.io, view.value, outcome.error);
  };
}

export function errorWidth(io: Io): number {
  return Math.min(io.stderr.columns() ?? 100, 120);
}

function plainView(io: Io): Presentation {
  const view = readPresentation({}, io);
  if (!view.ok) throw new Error('invariant: the default presentation is valid');
  return view.value;
}

export function printFailure(io: Io, view: Presentation, error: Parameters<typeof renderFailure>[0]): void {
  io.stderr.write(view.format === 'table' ? renderFailure(error, { style: view.errorStyle, width: errorWidth(io) }) : renderFailureJson(error));
}

function openSession(io: Io, flags: GlobalFlags, view: Presentation): Session {
  let connected: Api | null = null;
  const api = (): CliResult<Api> => {
    if (connected !== null) return { ok: true, value: connected };
    const connection = readConnection(flags, io);
    if (!connection.ok) return connection;
    connected = makeApi(
      connection.value,
      view.verbose ? (text) => io.stderr.write(`${view.errorStyle.paint('dim', text)}\n`) : () => undefined,
      io.clock,
    );
    return { ok: true, value: connected };
  };
  return {
    io,
    view,
    flags,
    api,
    cluster: () => chooseCluster(flags, io, api),
    show: (data, table) => {
      const text = view.format === 'table' ? table() : renderData(data, view.format);
      if (text !== '') io.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
    },
    newRequestId,
    note: (text) => {
      if (!view.quiet) io.stderr.write(`${text}\n`);
    },
  };
}

async function chooseCluster(flags: GlobalFlags, io: Io, api: () => CliResult<Api>): Promise<CliResult<string>> {
  const named = readClusterName(flags, io);
  if (!named.ok) return named;
  if (named.value !== null) return { ok: true, value: named.value };
  const client = api();
  if (!client.ok) return client;
  const clusters = await client.value.call('clusters', {});
  if (!clusters.ok) return clusters;
  const names = clusters.value.map((cluster) => cluster.cluster);
  const [only, ...others] = names;
  if (only !== undefined && others.length === 0) return { ok: true, value: only };
  if (only === undefined) {
    return cliError(EXIT.refused, {
      code: 'cli.no-cluster',
      what: 'this server manages no cluster yet',
      cause: '',
      now: 'nothing was changed',
      remedy: 'create or adopt one with "pgherd init -f cluster.yaml"',
      retryable: false,
    });
  }
  return usageError('cli.which-cluster', {
    what: `this server manages ${names.length} clusters: which one?`,
    cause: names.slice(0, 20).join(', '),
    remedy: `name it, for example -c ${only}, or set PGHERD_CLUSTER`,
  });
}
