import { Command } from 'commander';
import { confirm, shellQuote } from '../confirm.ts';
import { type CliResult, EXIT, cliError } from '../exit.ts';
import { formatAge, formatBytes } from '../output/units.ts';
import { type Host, act } from '../session.ts';
import { readTextFile } from '../context.ts';

export function storeCommand(host: Host): Command {
  return new Command('store')
    .description('the state itself: status, backup, restore, migrate')
    .addCommand(statusCommand(host))
    .addCommand(backupCommand(host))
    .addCommand(restoreCommand(host))
    .addCommand(migrateCommand(host));
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

interface MigrateFlags {
  readonly endpoints?: string;
  readonly ca?: string;
  readonly loginFile?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
}

/** Hosts get ready (15 s at most), the copy, and until they have arrived (5 s). */
const MIGRATE_MS = 60_000;

function migrateCommand(host: Host): Command {
  return new Command('migrate')
    .description('move the store to etcd, or back into the server, while clusters work; no write waits for it')
    .argument('<engine>', 'etcd or embedded')
    .option('--endpoints <urls>', 'of etcd, with commas: https://10.0.0.11:2379,https://10.0.0.12:2379')
    .option('--ca <file>', "who signed the certificates of etcd's members; default: pgherd's own authority")
    .option('--login-file <file>', 'a user of etcd that may read and write below /pgherd/, as one line USER:PASSWORD')
    .option('--dry-run', 'only say what would stand against it')
    .option('--yes', 'do not ask')
    .action(
      act(host, async (session, self) => {
        const engine = self.processedArgs[0] as string;
        const flags = self.opts<MigrateFlags>();
        if (engine !== 'etcd' && engine !== 'embedded')
          return cliError(EXIT.usage, {
            code: 'cli.usage',
            what: `there is no engine "${engine}"`,
            cause: '',
            now: 'nothing was sent',
            remedy: 'name etcd or embedded',
            retryable: false,
          });
        const authority = readIfNamed(flags.ca, '--ca', 'certificate');
        if (!authority.ok) return authority;
        const login = readLogin(flags.loginFile);
        if (!login.ok) return login;
        const api = session.api();
        if (!api.ok) return api;
        if (flags.dryRun !== true) {
          const agreed = await confirm(session, {
            consequences: [
              `every host uses ${engine === 'etcd' ? (flags.endpoints ?? 'etcd') : "the server's own store"} from then on`,
              'nothing fails over for some seconds while it happens',
            ],
            word: 'migrate',
            command: `pgherd store migrate ${engine}${flags.endpoints === undefined ? '' : ` --endpoints ${shellQuote(flags.endpoints)}`} … --yes`,
            yes: flags.yes === true,
          });
          if (!agreed.ok) return agreed;
        }
        const body = {
          to: engine,
          endpoints: (flags.endpoints ?? '').split(',').filter((url) => url !== ''),
          authority: authority.value,
          ...login.value,
          dryRun: flags.dryRun === true,
        } as const;
        const answer = await api.value.call('storeMigrate', { body: { ...body, endpoints: [...body.endpoints] }, timeoutMs: MIGRATE_MS });
        if (!answer.ok) return answer;
        session.show(answer.value, () => describeMove(answer.value));
        return { ok: true, value: answer.value.moved || answer.value.problems.length === 0 ? EXIT.done : EXIT.refused };
      }),
    );
}

function readIfNamed(file: string | undefined, option: string, what: string): CliResult<string | null> {
  return file === undefined ? { ok: true, value: null } : readTextFile(file, option, what);
}

function readLogin(file: string | undefined): CliResult<{ readonly username: string | null; readonly password: string | null }> {
  if (file === undefined) return { ok: true, value: { username: null, password: null } };
  const content = readTextFile(file, '--login-file', 'login');
  if (!content.ok) return content;
  const [, username, password] = /^([^:\s]+):(\S+)\s*$/.exec(content.value) ?? [];
  if (username !== undefined && password !== undefined) return { ok: true, value: { username, password } };
  return cliError(EXIT.usage, {
    code: 'cli.login-file',
    what: `${file} holds no login`,
    cause: 'expected one line USER:PASSWORD',
    now: 'nothing was sent',
    remedy: 'write the user of etcd and its password into the file, with a colon between',
    retryable: false,
  });
}

function describeMove(answer: {
  readonly moved: boolean;
  readonly to: string;
  readonly hosts: readonly string[];
  readonly problems: readonly string[];
}): string {
  const hosts = `${answer.hosts.length} hosts`;
  if (answer.moved) return `the store was moved: ${hosts} use the store ${answer.to}`;
  if (answer.problems.length === 0) return `nothing stands against it: ${hosts} would move to the store ${answer.to}`;
  return ['the store would not be moved:', ...answer.problems.map((problem) => `  ${problem}`)].join('\n');
}
