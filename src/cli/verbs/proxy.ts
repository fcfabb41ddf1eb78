import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type JoinedHost, joinServer, storePart } from '../../api/join-client.ts';
import { isName } from '../../core/ids.ts';
import { toCli } from '../api.ts';
import { shellQuote } from '../confirm.ts';
import { type CliResult, EXIT, type Outcome, cliError, usageError } from '../exit.ts';
import { writeJoinedFile } from '../joined-file.ts';
import { type Host, type Session, act } from '../session.ts';
import { readJoinToken } from './agent.ts';

interface JoinFlags {
  readonly id: string;
  readonly listen: string;
  readonly writePort: number;
  readonly readPort: number;
  readonly splitPort: number;
  readonly stateDirectory: string;
  readonly config: string;
  readonly serverTls: string;
}

export function proxyCommand(host: Host): Command {
  return new Command('proxy')
    .description('client traffic ("pgherd proxy [--config FILE]"); "proxy join" makes this host a proxy of a cluster')
    .addCommand(joinCommand(host));
}

function joinCommand(host: Host): Command {
  return new Command('join')
    .description('make this host a proxy: keys, certificate, proxy.yaml; needs --token-file with what "pgherd token join" printed')
    .requiredOption('--id <name>', 'name of this proxy; each one of a cluster has its own')
    .option('--listen <address>', 'where clients reach this proxy', '127.0.0.1')
    .option('--write-port <port>', 'to the primary', readPort, 5433)
    .option('--read-port <port>', 'to the standbys', readPort, 5434)
    .option('--split-port <port>', 'to the primary, and statements that only read to the standbys', readPort, 5435)
    .option('--state-directory <dir>', "the proxy's own files", '/var/lib/pgherd/proxy')
    .option('--config <file>', 'proxy.yaml to write', '/etc/pgherd/proxy.yaml')
    .addOption(
      new Option('--server-tls <mode>', 'TLS to the nodes; off: clear text, for trusted networks').choices(['verify', 'off']).default('verify'),
    )
    .action(act(host, (session, self) => join(session, self.opts<JoinFlags>())));
}

function readPort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw new InvalidArgumentError('Expected a port from 1 to 65535.');
  return port;
}

/** Everything that can be wrong on this host is checked first: a join token works once. */
async function join(session: Session, flags: JoinFlags): Promise<Outcome> {
  if (!isName(flags.id))
    return usageError('cli.usage', {
      what: `"${flags.id}" is no name for a proxy`,
      remedy: 'use 1–63 of a–z, 0–9, "-" and "_", first and last a letter or digit',
    });
  const token = readJoinToken(session);
  if (!token.ok) return token;
  if (existsSync(flags.config)) {
    return cliError(EXIT.refused, {
      code: 'cli.proxy-config-exists',
      what: `${flags.config} is there already`,
      cause: '',
      now: 'nothing was sent or written; the token can still be used',
      remedy: `remove ${flags.config}, or name another file with --config`,
      retryable: false,
    });
  }
  const stateDirectory = resolve(flags.stateDirectory);
  const server = session.flags.server === undefined ? {} : { server: session.flags.server };
  const joined = toCli(await joinServer({ kind: 'proxy', token: token.value, stateDirectory, node: flags.id, hosts: [flags.listen], ...server }));
  if (!joined.ok) return joined;
  const written = await writeProxyFile(flags, stateDirectory, joined.value);
  if (!written.ok) return written;
  session.show(
    { ...joined.value, config: flags.config },
    () => `${flags.id} is a proxy of ${joined.value.cluster}; start it with: pgherd proxy --config ${shellQuote(flags.config)}`,
  );
  return { ok: true, value: EXIT.done };
}

function writeProxyFile(flags: JoinFlags, stateDirectory: string, joined: JoinedHost): Promise<CliResult<null>> {
  const content = {
    cluster: joined.cluster,
    id: flags.id,
    listen: { host: flags.listen, write: flags.writePort, read: flags.readPort, split: flags.splitPort },
    store: storePart(joined),
    secretFile: joined.files.secret,
    serverTls: flags.serverTls,
    log: { level: 'info' },
  };
  return writeJoinedFile({ role: 'proxy', file: flags.config, stateDirectory, content });
}
