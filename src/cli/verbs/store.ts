import { Command } from 'commander';
import { confirm, shellQuote } from '../confirm.ts';
import { EXIT } from '../exit.ts';
import { formatAge, formatBytes } from '../output/units.ts';
import { type Host, act } from '../session.ts';

export function storeCommand(host: Host): Command {
  return new Command('store')
    .description('the state itself: status, backup, restore')
    .addCommand(statusCommand(host))
    .addCommand(backupCommand(host))
    .addCommand(restoreCommand(host));
}

function statusCommand(host: Host): Command {
  return new Command('status').description('engine, revision, size, and whether the server follows it').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const status = await api.value.call('storeStatus', {});
      if (!status.ok) return status;
      const store = status.value;
      const facts: readonly (readonly [string, string])[] = [
        ['engine', `${store.engine} ${store.version}`],
        ['endpoint', store.endpoint],
        ['members', String(store.members)],
        ['incarnation', store.incarnation],
        ['revision', String(store.revision)],
        ['size', formatBytes(store.dbSizeBytes)],
        ['clusters', String(store.clusters)],
        ['watch', store.watchAgeMs === null ? 'never confirmed' : `confirmed ${formatAge(store.watchAgeMs)}`],
      ];
      session.show(store, () => facts.map(([label, value]) => `${session.view.style.paint('dim', label.padEnd(12))} ${value}`).join('\n'));
      return { ok: true, value: EXIT.done };
    }),
  );
}

function backupCommand(host: Host): Command {
  return new Command('backup')
    .description('a consistent copy of the store into a file (0600, written atomically)')
    .argument('<file>', 'where to; an existing file is replaced')
    .action(
      act(host, async (session, self) => {
        const api = session.api();
        if (!api.ok) return api;
        const file = self.processedArgs[0] as string;
        const saved = await api.value.download('storeBackup', file);
        if (!saved.ok) return saved;
        session.show({ file, bytes: saved.value.bytes }, () => `saved ${formatBytes(saved.value.bytes)} to ${file}`);
        return { ok: true, value: EXIT.done };
      }),
    );
}

function restoreCommand(host: Host): Command {
  return new Command('restore')
    .description('put a backup into the store; refused unless it is empty, or --replace is given')
    .argument('<file>', 'a file of "store backup"')
    .option('--replace', 'replace what the store holds')
    .option('--yes', 'do not ask')
    .action(
      act(host, async (session, self) => {
        const api = session.api();
        if (!api.ok) return api;
        const file = self.processedArgs[0] as string;
        const flags = self.opts<{ replace?: boolean; yes?: boolean }>();
        const agreed = await confirm(session, {
          consequences: [
            flags.replace === true ? 'everything in the store is replaced by the backup' : 'the backup is put into the empty store',
            'automatic failover stays off in each cluster until its primary has joined again',
          ],
          word: 'restore',
          command: `pgherd store restore ${shellQuote(file)}${flags.replace === true ? ' --replace' : ''} --yes`,
          yes: flags.yes === true,
        });
        if (!agreed.ok) return agreed;
        const answer = await api.value.upload('storeRestore', file, { replace: flags.replace === true });
        if (!answer.ok) return answer;
        session.show(answer.value, () => `restored ${answer.value.keys} keys. ${answer.value.text}`);
        return { ok: true, value: EXIT.done };
      }),
    );
}
