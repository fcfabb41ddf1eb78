import { Command, Option } from 'commander';
import { writeFileAtomic } from '../../base/files.ts';
import type { RoleName } from '../../api/schema.ts';
import { confirm, shellQuote } from '../confirm.ts';
import { messageOf } from '../context.ts';
import { EXIT, cliError } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { formatTime } from '../output/units.ts';
import { type Host, act } from '../session.ts';

const COLUMNS = [{ head: 'USER', min: 8 }, { head: 'ROLE' }, { head: 'CREATED', rank: 1 }, { head: 'BY', rank: 2 }] as const;

export function userCommand(host: Host): Command {
  return new Command('user')
    .description('who may do what: viewer, operator, admin')
    .addCommand(listCommand(host))
    .addCommand(addCommand(host))
    .addCommand(removeCommand(host));
}

function listCommand(host: Host): Command {
  return new Command('list').description('users and their roles').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const users = await api.value.call('users', {});
      if (!users.ok) return users;
      const rows = users.value.map((user) => [cell(user.name, 'bold'), cell(user.role), cell(formatTime(user.createdAt)), cell(user.by)]);
      session.show(users.value, () => renderTable(COLUMNS, rows, session.view));
      return { ok: true, value: EXIT.done };
    }),
  );
}

function addCommand(host: Host): Command {
  return new Command('add')
    .description('add a user; its token is shown once')
    .argument('<name>', 'user')
    .addOption(new Option('--role <role>', 'what the user may do').choices(['viewer', 'operator', 'admin']).default('viewer'))
    .option('--token-out <file>', 'write the token into this file (0600) instead of showing it')
    .action(
      act(host, async (session, self) => {
        const { role, tokenOut } = self.opts<{ role: RoleName; tokenOut?: string }>();
        const api = session.api();
        if (!api.ok) return api;
        const user = await api.value.call('addUser', { body: { name: self.processedArgs[0] as string, role } });
        if (!user.ok) return user;
        const { name, token } = user.value;
        if (tokenOut === undefined) {
          session.note(`the token of ${name} (${role}) is shown once; keep it in a file that only its owner can read:`);
          session.show(user.value, () => token);
          return { ok: true, value: EXIT.done };
        }
        try {
          await writeFileAtomic(tokenOut, `${token}\n`, { mode: 0o600 });
        } catch (error) {
          return cliError(EXIT.failed, {
            code: 'cli.file-unwritable',
            what: `cannot write the token into ${tokenOut}`,
            cause: messageOf(error),
            now: `the user ${name} exists, but nobody has its token`,
            remedy: `run: pgherd user remove ${shellQuote(name)} --yes, then add it again`,
            retryable: false,
          });
        }
        session.show({ name, role, tokenFile: tokenOut }, () => `added ${name} (${role}); its token is in ${tokenOut}`);
        return { ok: true, value: EXIT.done };
      }),
    );
}

function removeCommand(host: Host): Command {
  return new Command('remove')
    .description('remove a user; the token stops working at once')
    .argument('<name>', 'user')
    .option('--yes', 'do not ask')
    .action(
      act(host, async (session, self) => {
        const name = self.processedArgs[0] as string;
        const agreed = await confirm(session, {
          consequences: [`${name}'s token stops working at once`],
          word: name,
          command: `pgherd user remove ${shellQuote(name)} --yes`,
          yes: self.opts<{ yes?: boolean }>().yes === true,
        });
        if (!agreed.ok) return agreed;
        const api = session.api();
        if (!api.ok) return api;
        const user = await api.value.call('removeUser', { params: { name } });
        if (!user.ok) return user;
        session.show(user.value, () => `removed ${user.value.name}`);
        return { ok: true, value: EXIT.done };
      }),
    );
}
