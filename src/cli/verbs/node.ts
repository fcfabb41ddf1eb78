import { Argument, Command } from 'commander';
import { type Outcome, usageError } from '../exit.ts';
import { type Host, type Session, act } from '../session.ts';
import { nodeAddCommand, nodeRemoveCommand, readRate } from './node-scale.ts';
import { LONG_TIMEOUT, type Operation, QUICK_TIMEOUT, type TaskFlags, runOperation, taskOptions } from '../task.ts';

interface NodeVerb<F extends TaskFlags = TaskFlags> {
  readonly name: string;
  readonly alias?: string;
  readonly description: string;
  readonly timeout: string;
  readonly options?: (command: Command) => Command;
  readonly operation: (node: string, flags: F) => Operation;
}

type CopyFlags = TaskFlags & { readonly from?: string; readonly rate?: number };
type FollowFlags = TaskFlags & { readonly upstream?: string };
type ViaFlags = TaskFlags & { readonly via?: 'stream' | 'rewind' | 'clone' };

const FOLLOW_EXAMPLE = `
While the upstream is not in order, the standby streams from the primary by itself, and goes back afterwards. A standby
behind another one serves reads, but no commit waits for it, and it is promoted only when no direct one is as far.

Example: n3 stands in the site of n2, so that WAL crosses the line between the sites once.

  $ pgherd node follow n3 --upstream n2
  $ pgherd node follow n3 --upstream primary
`;

const NODE_VERBS: readonly NodeVerb[] = [
  {
    name: 'start',
    description: "start the node's PostgreSQL in its role and let the rules care for it again",
    timeout: LONG_TIMEOUT,
    operation: (node) => ({ request: { kind: 'nodeStart', node } }),
  },
  {
    name: 'stop',
    description: 'stop the node\'s PostgreSQL; it stays stopped until "node start"',
    timeout: QUICK_TIMEOUT,
    operation: (node) => ({ request: { kind: 'nodeStop', node } }),
  },
  {
    name: 'restart',
    description: "restart the node's PostgreSQL",
    timeout: LONG_TIMEOUT,
    operation: (node) => ({ request: { kind: 'nodeRestart', node } }),
  },
  {
    name: 'promote',
    description: 'make it the primary by a planned switchover (unplanned: "pgherd failover --to NODE")',
    timeout: QUICK_TIMEOUT,
    operation: (node) => ({ request: { kind: 'switchover', to: node } }),
  },
  {
    name: 'follow',
    description: 'let it stream again; nothing is rewound or copied. With --upstream: from another standby (cascading), or from the primary again',
    timeout: QUICK_TIMEOUT,
    options: (command) =>
      command
        .option('--upstream <node>', 'a standby, or "primary"; kept until it is changed, online and without a restart')
        .addHelpText('after', FOLLOW_EXAMPLE),
    operation: (node, { upstream }: FollowFlags) => ({
      request:
        upstream === undefined
          ? { kind: 'nodeRejoin', node, via: 'stream' }
          : { kind: 'nodeFollow', node, upstream: upstream === 'primary' ? null : upstream },
    }),
  },
  {
    name: 'rebuild',
    description: 'copy it anew from the primary, or from another member; the old data directory is set aside',
    timeout: LONG_TIMEOUT,
    options: (command) =>
      command
        .option('--from <node>', 'copy this member (default: the primary)')
        .option('--rate <bytes>', 'copy at most so many bytes a second: 32K to 1024M', readRate),
    operation: (node, flags: CopyFlags) => ({
      request: { kind: 'nodeRejoin', node, via: 'clone', source: flags.from ?? null, rateKb: flags.rate ?? null },
      question: {
        consequences: [
          `${node} is copied anew from ${flags.from ?? 'the primary'}, and serves nothing until that is done`,
          'its present data directory is set aside, not deleted',
        ],
        word: node,
        command: ['node', 'rebuild', node, ...(flags.from === undefined ? [] : ['--from', flags.from])],
      },
    }),
  },
];

export function nodeCommand(host: Host): Command {
  const command = new Command('node').description('one node: add, remove, start, stop, promote, take back');
  command.addCommand(nodeAddCommand(host));
  command.addCommand(nodeRemoveCommand(host));
  for (const verb of NODE_VERBS) command.addCommand(nodeVerb(host, verb));
  command.addCommand(rejoinCommand(host));
  command.addCommand(maintenanceCommand(host));
  return command;
}

function nodeVerb(host: Host, verb: NodeVerb): Command {
  const plain = new Command(verb.name).description(verb.description).argument('<node>', 'node');
  const command = verb.options?.(plain) ?? plain;
  return taskOptions(command, { timeout: verb.timeout }).action(
    act(host, async (session, self) => runOperation(session, self.opts<TaskFlags>(), verb.operation(nodeArgument(self), self.opts<TaskFlags>()))),
  );
}

function nodeArgument(command: Command): string {
  return command.processedArgs[0] as string;
}

function rejoinCommand(host: Host): Command {
  const command = new Command('rejoin')
    .alias('repair')
    .description('take a failed node back: by streaming, else pg_rewind, else a copy; what it alone has is saved first')
    .argument('<node>', 'node')
    .option('--via <way>', 'only this way: stream, rewind or clone (default: the first that works)');
  return taskOptions(command, { timeout: LONG_TIMEOUT }).action(act(host, (session, self) => rejoin(session, nodeArgument(self), self.opts())));
}

async function rejoin(session: Session, node: string, flags: ViaFlags): Promise<Outcome> {
  const via = flags.via ?? null;
  if (via !== null && !['stream', 'rewind', 'clone'].includes(via)) {
    return usageError('cli.usage', { what: `unknown way "${via}"`, remedy: 'use --via stream, --via rewind or --via clone' });
  }
  const question = {
    consequences: [`${node} is copied anew from the primary`, 'its present data directory is set aside, not deleted'],
    word: node,
    command: ['node', 'rejoin', node, '--via', 'clone'],
  };
  return runOperation(session, flags, { request: { kind: 'nodeRejoin', node, via }, ...(via === 'clone' ? { question } : {}) });
}

function maintenanceCommand(host: Host): Command {
  const command = new Command('maintenance')
    .description('"on": watched, but never promoted, started or stopped by the rules; "off": normal again')
    .argument('<node>', 'node')
    .addArgument(new Argument('<switch>', 'on or off').choices(['on', 'off']));
  return taskOptions(command, { timeout: QUICK_TIMEOUT }).action(
    act(host, async (session, self) => {
      const on = self.processedArgs[1] === 'on';
      return runOperation(session, self.opts<TaskFlags>(), { request: { kind: 'nodeMaintenance', node: nodeArgument(self), on } });
    }),
  );
}
