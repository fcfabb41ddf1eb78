import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { checkConfigText } from '../../base/config.ts';
import { type JoinedHost, joinServer, storePart } from '../../api/join-client.ts';
import { parseJoinToken } from '../../api/join-token.ts';
import { isName } from '../../core/ids.ts';
import { toCli } from '../api.ts';
import { shellQuote } from '../confirm.ts';
import { agentConfig } from '../../core/agent-config.ts';
import { readTextFile } from '../context.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { writeJoinedFile } from '../joined-file.ts';
import { type Host, type Session, act } from '../session.ts';

interface JoinFlags {
  readonly node: string;
  readonly host: string;
  readonly internalHost?: string;
  readonly port: number;
  readonly dataDirectory: string;
  readonly stateDirectory: string;
  readonly config: string;
  readonly agentPort: number;
  readonly listen: string;
  readonly binDirectory?: string;
  readonly osUser: string;
  readonly firewall: string;
  readonly kind: 'data' | 'witness';
}

export function agentCommand(host: Host): Command {
  return new Command('agent')
    .description('runs on each database host ("pgherd agent [--config FILE]"); "agent join" makes a new host a member')
    .addCommand(joinCommand(host));
}

function joinCommand(host: Host): Command {
  return new Command('join')
    .description('make this host a member: keys, certificate, agent.yaml; needs --token-file with what "pgherd token join" printed')
    .requiredOption('--node <name>', 'name of this node')
    .requiredOption('--host <address>', 'where clients reach this host')
    .addOption(new Option('--kind <kind>', 'witness: votes and probes, and holds no data').choices(['data', 'witness']).default('data'))
    .option('--internal-host <address>', 'for replication, probes and agents (default: the same as --host)')
    .option('--port <port>', 'port of PostgreSQL', readPort, 5432)
    .requiredOption('--data-directory <dir>', "PostgreSQL's data directory (of a witness: stays empty)")
    .option('--state-directory <dir>', "the agent's own files", '/var/lib/pgherd/agent')
    .option('--config <file>', 'agent.yaml to write', '/etc/pgherd/agent.yaml')
    .option('--agent-port <port>', 'port of the agent', readPort, 8432)
    .option('--listen <address>', 'where the agent listens', '0.0.0.0')
    .option('--bin-directory <dir>', "PostgreSQL's programs (default: the newest installed)")
    .option('--os-user <user>', 'runs PostgreSQL when the agent is root', 'postgres')
    .addOption(new Option('--firewall <mode>', 'auto: close the port unless the lease lives (root)').choices(['auto', 'off']).default('auto'))
    .action(act(host, (session, self) => join(session, self.opts<JoinFlags>())));
}

function readPort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw new InvalidArgumentError('Expected a port from 1 to 65535.');
  return port;
}

/** Everything that can be wrong on this host is checked first: a join token works once. */
async function join(session: Session, flags: JoinFlags): Promise<Outcome> {
  if (!isName(flags.node))
    return usageError('cli.usage', {
      what: `"${flags.node}" is no name for a node`,
      remedy: 'use 1–63 of a–z, 0–9, "-" and "_", first and last a letter or digit',
    });
  const token = readJoinToken(session);
  if (!token.ok) return token;
  const existing = checkExisting(session, flags);
  if (!existing.ok) return existing;
  const hosts = [...new Set([flags.host, flags.internalHost ?? flags.host])];
  const stateDirectory = resolve(flags.stateDirectory);
  const server = session.flags.server === undefined ? {} : { server: session.flags.server };
  const joined = toCli(await joinServer({ token: token.value, stateDirectory, node: flags.node, hosts, ...server }));
  if (!joined.ok) return joined;
  const { cluster } = session.flags;
  if (cluster !== undefined && cluster !== joined.value.cluster) {
    return cliError(EXIT.refused, {
      code: 'cli.join-cluster',
      what: `the token is for cluster "${joined.value.cluster}", not for "${cluster}"`,
      cause: '',
      now: `the token is used up; ${flags.config} was not written`,
      remedy: `make a token with: pgherd token join -c ${shellQuote(cluster)}`,
      retryable: false,
    });
  }
  if (!existing.value) {
    const written = await writeAgentFile(flags, stateDirectory, joined.value);
    if (!written.ok) return written;
  }
  session.show(
    { ...joined.value, config: flags.config },
    () => `${flags.node} joined ${joined.value.cluster}; start it with: pgherd agent --config ${shellQuote(flags.config)}`,
  );
  if (existing.value) session.note(`${flags.config} was there and is kept as it is`);
  return { ok: true, value: EXIT.done };
}

/** What --token-file names, checked as far as it can be without the server. */
export function readJoinToken(session: Session): CliResult<string> {
  const { tokenFile } = session.flags;
  if (tokenFile === undefined)
    return usageError('cli.usage', {
      what: 'no join token was given',
      remedy: 'put what "pgherd token join" printed into a file and name it with --token-file',
    });
  const content = readTextFile(tokenFile, '--token-file', 'join token');
  if (!content.ok) return content;
  const token = content.value.trim();
  if (parseJoinToken(token) !== null) return { ok: true, value: token };
  return usageError('cli.join-token', {
    what: `${tokenFile} holds no join token`,
    cause: token.startsWith('pgh_') ? 'this looks like the token of a user' : '',
    remedy: 'make one on the server\'s side with "pgherd token join -c CLUSTER", and copy all of it',
  });
}

/** True: an agent.yaml of this node is there and is kept. Refused when it belongs to another node. */
function checkExisting(session: Session, flags: JoinFlags): CliResult<boolean> {
  if (!existsSync(flags.config)) return { ok: true, value: false };
  const text = readFileSync(flags.config, 'utf8');
  const decoded = checkConfigText({ file: flags.config, text, decoder: agentConfig });
  const remedy = `remove ${flags.config}, or name another file with --config`;
  const refuse = (what: string, cause: string): CliResult<boolean> =>
    cliError(EXIT.refused, {
      code: 'cli.agent-config-exists',
      what,
      cause,
      now: 'nothing was sent or written; the token can still be used',
      remedy,
      retryable: false,
    });
  if (!decoded.ok) return refuse(`${flags.config} is there already, and is no valid agent.yaml`, decoded.error.cause);
  const { node, cluster } = decoded.value;
  const sameCluster = session.flags.cluster === undefined || session.flags.cluster === cluster;
  return node === flags.node && sameCluster
    ? { ok: true, value: true }
    : refuse(`${flags.config} is there already, for node "${node}" of cluster "${cluster}"`, '');
}

function writeAgentFile(flags: JoinFlags, stateDirectory: string, joined: JoinedHost): Promise<CliResult<null>> {
  const content = {
    cluster: joined.cluster,
    node: joined.node,
    kind: flags.kind,
    host: flags.host,
    internalHost: flags.internalHost ?? null,
    port: flags.port,
    dataDirectory: resolve(flags.dataDirectory),
    stateDirectory,
    binDirectory: flags.binDirectory ?? null,
    osUser: flags.osUser,
    listen: { host: flags.listen, port: flags.agentPort },
    store: storePart(joined),
    firewall: flags.firewall,
    log: { level: 'info' },
  };
  return writeJoinedFile({ role: 'agent', file: flags.config, stateDirectory, content });
}
