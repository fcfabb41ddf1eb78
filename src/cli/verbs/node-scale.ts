/** `node add` and `node remove`: a cluster grows and shrinks while everything goes on. */
import { Command, InvalidArgumentError } from 'commander';
import { type Outcome, usageError } from '../exit.ts';
import { type Host, type Session, act } from '../session.ts';
import { LONG_TIMEOUT, type TaskFlags, type TaskRequestIn, runOperation, taskOptions } from '../task.ts';

interface AddFlags extends TaskFlags {
  readonly host?: string;
  readonly internalHost?: string;
  readonly port?: number;
  readonly witness?: boolean;
  readonly priority: number;
  readonly location?: string;
  readonly tag: readonly string[];
  readonly source?: string;
  readonly rate?: number;
}

interface RemoveFlags extends TaskFlags {
  readonly dropData?: boolean;
}

const ADD_EXAMPLE = `
The new host joins first:
  pgherd token join -c main > token           # here
  pgherd agent join --server https://db-manager:8433 --token-file token --node n4 --host 10.0.0.4 --data-directory /var/lib/postgresql/15/main
  systemctl start pgherd-agent                # there
Then, here:
  pgherd node add n4 --dry-run
  pgherd node add n4 --rate 50M
`;

export function nodeAddCommand(host: Host): Command {
  const command = new Command('add')
    .description(
      'make a host whose agent joined a standby (or a witness): checks, base backup of the least busy standby, reads and votes when it is close',
    )
    .argument('<node>', 'name under which its agent joined')
    .option('--host <address>', 'where clients reach it (default: as its agent registered)')
    .option('--internal-host <address>', 'for replication, probes and agents (default: as its agent registered)')
    .option('--port <port>', 'port of PostgreSQL (default: as its agent registered)', integer('a port', 1, 65_535))
    .option('--witness', 'it only votes; no PostgreSQL is needed there')
    .option('--priority <number>', 'higher is preferred at a failover; 0: never promoted', integer('a priority', 0, 1000), 100)
    .option('--location <name>', 'site or rack')
    .option('--tag <name=value>', 'for your scripts, shown in JSON; may be given more than once', collectTags, [])
    .option('--source <node>', 'copy this member (default: the least busy standby that is fit, else the primary)')
    .option('--rate <bytes>', 'copy at most so many bytes a second: 32K to 1024M', readRate)
    .addHelpText('after', ADD_EXAMPLE);
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(
    act(host, (session, self) => add(session, self.processedArgs[0] as string, self.opts())),
  );
}

function integer(what: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) throw new InvalidArgumentError(`Expected ${what} from ${min} to ${max}.`);
    return value;
  };
}

function collectTags(text: string, before: readonly string[]): readonly string[] {
  if (!/^[A-Za-z0-9_.-]{1,63}=.{0,200}$/.test(text)) throw new InvalidArgumentError('Expected NAME=VALUE.');
  return [...before, text];
}

/** KiB a second, in the bounds of pg_basebackup. *Source:* PostgreSQL manual, pg_basebackup, --max-rate: 32 kB to 1024 MB. */
export function readRate(text: string): number {
  const match = /^(\d+)([KM])?$/i.exec(text);
  const unit = match?.[2]?.toUpperCase();
  const kilobytes = match === null ? Number.NaN : unit === 'M' ? Number(match[1]) * 1024 : unit === 'K' ? Number(match[1]) : Number(match[1]) / 1024;
  if (!(kilobytes >= 32 && kilobytes <= 1_048_576)) throw new InvalidArgumentError('Expected bytes a second from 32K to 1024M, like 50M.');
  return Math.floor(kilobytes);
}

async function add(session: Session, node: string, flags: AddFlags): Promise<Outcome> {
  if (flags.witness === true && (flags.source !== undefined || flags.rate !== undefined))
    return usageError('cli.usage', { what: 'a witness copies nothing', remedy: 'leave --source and --rate out' });
  const tags = Object.fromEntries(flags.tag.map((tag) => [tag.slice(0, tag.indexOf('=')), tag.slice(tag.indexOf('=') + 1)]));
  const request: TaskRequestIn = {
    kind: 'nodeAdd',
    node,
    host: flags.host ?? null,
    internalHost: flags.internalHost ?? null,
    port: flags.port ?? null,
    role: flags.witness === true ? 'witness' : 'data',
    priority: flags.priority,
    location: flags.location ?? null,
    tags,
    source: flags.source ?? null,
    rateKb: flags.rate ?? null,
  };
  return runOperation(session, flags, { request });
}

export function nodeRemoveCommand(host: Host): Command {
  const command = new Command('remove')
    .description('take a standby or a witness out: reads and votes first, then stop, then its slot; it may come back with "node add"')
    .argument('<node>', 'node')
    .option('--drop-data', 'delete its data directory too (copies that were set aside stay)');
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(
    act(host, (session, self) => remove(session, self.processedArgs[0] as string, self.opts<RemoveFlags>())),
  );
}

function remove(session: Session, node: string, flags: RemoveFlags): Promise<Outcome> {
  const drop = flags.dropData === true;
  return runOperation(session, flags, {
    request: { kind: 'nodeRemove', node, dropData: drop },
    question: {
      consequences: [
        `${node} serves no reads any more, does not vote, and its PostgreSQL is stopped`,
        drop ? 'its data directory is DELETED' : 'its data directory stays where it is',
      ],
      word: node,
      command: ['node', 'remove', node, ...(drop ? ['--drop-data'] : [])],
    },
  });
}
