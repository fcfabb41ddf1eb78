import { Command, Option } from 'commander';
import type { ShowAnswer } from '../../api/schema.ts';
import { EXIT, type Outcome, cliError } from '../exit.ts';
import { type Host, type Session, act } from '../session.ts';

type PsqlRole = 'primary' | 'standby' | 'any';

export function psqlCommand(host: Host): Command {
  return new Command('psql')
    .description('open psql on the primary, or where --role says; what follows "--" goes to psql, for example: pgherd psql -- -U app app')
    .addOption(new Option('--role <role>', 'where').choices(['primary', 'standby', 'any']).default('primary'))
    .option('--node <node>', 'exactly this node')
    .argument('[arguments...]', 'for psql, after "--"')
    .action(
      act(host, async (session, self) => {
        const flags = self.opts<{ role: PsqlRole; node?: string }>();
        return openPsql(session, { role: flags.role, node: flags.node ?? null, rest: self.processedArgs[0] as readonly string[] });
      }),
    );
}

async function openPsql(session: Session, wanted: { role: PsqlRole; node: string | null; rest: readonly string[] }): Promise<Outcome> {
  const api = session.api();
  if (!api.ok) return api;
  const cluster = await session.cluster();
  if (!cluster.ok) return cluster;
  const show = await api.value.call('show', { params: { cluster: cluster.value } });
  if (!show.ok) return show;
  const node = chooseNode(show.value, wanted);
  if (node === null) {
    return cliError(EXIT.refused, {
      code: 'cli.psql-no-node',
      what:
        wanted.node === null
          ? `${cluster.value} has no running ${wanted.role === 'any' ? 'node' : wanted.role} now`
          : `${cluster.value} has no running node "${wanted.node}"`,
      cause: show.value.nodes.map((item) => `${item.id}: ${item.role ?? 'no role'}, ${item.state}`).join('; '),
      now: 'psql was not started',
      remedy: `see: pgherd show -c ${cluster.value}`,
      retryable: true,
    });
  }
  session.note(`psql on ${node.id} (${node.role ?? 'no role'}) at ${node.host}:${node.port}`);
  const code = await session.io.runInForeground(['psql', '-h', node.host, '-p', String(node.port), ...wanted.rest], session.io.env);
  if (code === 127) {
    return cliError(EXIT.failed, {
      code: 'cli.psql-missing',
      what: 'psql cannot be started',
      cause: '',
      now: 'nothing was changed',
      remedy: `install postgresql-client, or connect yourself: host=${node.host} port=${node.port}`,
      retryable: false,
    });
  }
  return code === 0 ? { ok: true, value: EXIT.done } : { ok: true, value: EXIT.failed };
}

/** The streaming standby with the least lag for `standby`; a standby before the primary for `any`, to leave the primary alone. */
export function chooseNode(show: ShowAnswer, wanted: { role: PsqlRole; node: string | null }): ShowAnswer['nodes'][number] | null {
  const running = show.nodes.filter((node) => node.state === 'running');
  if (wanted.node !== null) return running.find((node) => node.id === wanted.node) ?? null;
  // Not just any server that runs as one: somebody may have promoted another by hand.
  const primary = running.find((node) => node.role === 'primary' && node.id === show.primary) ?? null;
  if (wanted.role === 'primary') return primary;
  const lag = (bytes: number | null): number => bytes ?? Number.MAX_SAFE_INTEGER;
  const [standby] = running.filter((node) => node.role === 'standby' && node.streaming).sort((a, b) => lag(a.replayLagBytes) - lag(b.replayLagBytes));
  return standby ?? (wanted.role === 'any' ? primary : null);
}
