import { Command } from 'commander';
import { readDuration } from '../context.ts';
import { EXIT, usageError } from '../exit.ts';
import { formatTime } from '../output/units.ts';
import { type Host, act } from '../session.ts';

export function tokenCommand(host: Host): Command {
  const join = new Command('join')
    .description('a one-time token with which a new host joins; standard output is the token alone')
    .option('--for <duration>', 'how long it can be used, 1m to 24h', '1h')
    .option('--join-url <url>', 'address under which the new host reaches this server')
    .action(
      act(host, async (session, self) => {
        const flags = self.opts<{ for: string; joinUrl?: string }>();
        const ttl = readDuration('--for', flags.for);
        if (!ttl.ok) return ttl;
        if (ttl.value < 60_000 || ttl.value > 86_400_000)
          return usageError('cli.duration', {
            what: `--for ${flags.for} is too ${ttl.value < 60_000 ? 'short' : 'long'}`,
            remedy: 'a join token lives from 1m to 24h',
          });
        const api = session.api();
        if (!api.ok) return api;
        const cluster = await session.cluster();
        if (!cluster.ok) return cluster;
        const token = await api.value.call('addJoinToken', { body: { cluster: cluster.value, ttlMs: ttl.value, server: flags.joinUrl ?? null } });
        if (!token.ok) return token;
        const { server, expiresAt } = token.value;
        session.show(token.value, () => token.value.token);
        session.note(`one host can join ${cluster.value} with it until ${formatTime(expiresAt)}; put it into a file there, then run:`);
        session.note(
          `  pgherd agent join --server ${server} --token-file FILE --cluster ${cluster.value} --node NODE --host ADDRESS --data-directory DIR`,
        );
        return { ok: true, value: EXIT.done };
      }),
    );
  return new Command('token').description('tokens for hosts that join').addCommand(join);
}
