/** Writes docs/operations/errors.md from the sources. `--check` writes nothing and fails when the page is out of date. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, findErrorCodes } from './error-codes.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const page = join(root, 'docs/operations/errors.md');

/** Words for codes whose sentence is put together from parts, so that none stands whole in the sources. */
const WORDS: Readonly<Record<string, { readonly what?: string; readonly remedy?: string }>> = {
  'adopt.not-a-standby': { what: 'A running server is no standby of the primary that is to be adopted.' },
  'agent.listen': { what: 'the agent cannot listen on its port', remedy: 'another program has this port: stop it, or change `listen` in agent.yaml' },
  'certificate.expires': { remedy: 'renew it: `pgherd cert renew`, or join the host again' },
  'cli.agent-config-exists': { what: 'agent.yaml is there already', remedy: 'move it away, or name another file with --config' },
  'cluster-stop.failed': { what: 'the cluster was not stopped completely' },
  'config.invalid': { what: 'FILE:LINE:COLUMN: a key is unknown or missing, or a value is not allowed' },
  'create.failed': { what: 'the cluster could not be created' },
  'detach.not-standby': { remedy: 'nothing: only a standby votes; see `pgherd show`' },
  'follow.not-standby': { remedy: 'see `pgherd show`; `pgherd node rejoin` takes a former primary back' },
  'host.space': { what: 'the file system of the data directory has little room' },
  'join.csr': {
    what: 'the signing request of the new host is damaged, or its signature is not that of its key',
    remedy: 'the token is used up: make a new one and join again',
  },
  'lease.held': { remedy: 'nothing: the older term is released first' },
  'lease.not-released': { remedy: 'nothing: it runs out with its TTL' },
  'lease.store': { remedy: 'nothing: it is asked for again; see `pgherd store status`' },
  'node.diverged': {
    what: 'the node has WAL that the primary does not have',
    remedy: 'it is taken back by the recovery policy, or with `pgherd node rejoin`; what it alone has is saved first',
  },
  'postgres.cancelled': { what: 'an operation was cancelled, because its goal changed', remedy: 'nothing' },
  'postgres.not-primary': { remedy: 'nothing: it is done when the server is the primary' },
  'promote.not-in-recovery': { remedy: 'see `pgherd show`' },
  'promote.refused': { remedy: 'nothing: the write lease of the new term is not held; see `pgherd explain`' },
  'rewind.source-in-recovery': { remedy: 'nothing: it is tried again when the new primary is open' },
  'rewind.source-unreachable': { remedy: 'look at the network and `pg_hba` between the two hosts' },
  'server.start': { what: 'the server could not be started' },
  'start.refused': { remedy: 'nothing: without the lease no server starts writable; see `pgherd explain`' },
  'store.answers': { remedy: 'see `pgherd store status`' },
  'store.backup': { remedy: 'see the cause, then run the command again' },
  'store.restore': { remedy: 'see the cause, then restore again with --replace' },
  'switchover.no-candidate': { what: 'no standby can be promoted without loss' },
  'switchover.overtaken': { what: 'the switchover did not end as planned: something else happened meanwhile' },
  'task.busy': { what: 'another command is being carried out' },
  'tls.invalid': { remedy: 'restore the file from a backup, or join again' },
  'tls.unreadable': { remedy: 'see that the file exists and that this user may read it' },
};

const text = render(findErrorCodes(root));
if (!process.argv.includes('--check')) writeFileSync(page, text);
else if (!existsSync(page) || readFileSync(page, 'utf8') !== text) {
  console.error('docs/operations/errors.md is out of date: run `npm run errors`');
  process.exitCode = 1;
}

function render(codes: readonly ErrorCode[]): string {
  const families = Map.groupBy(codes, (entry) => entry.code.split('.')[0] ?? '');
  const lines = [
    '# Error codes',
    '',
    'Generated from the sources by `npm run errors`; do not edit.',
    '',
    'Each error says what failed, why, what the system does now, and what a person can do. In JSON mode it is an object',
    '`{"error": {code, what, cause, now, remedy}}` on standard error; the code is stable. `…` stands for a value.',
    '',
  ];
  for (const [family, entries] of families) {
    lines.push(`## ${family}`, '', '| code | what | what to do |', '|---|---|---|');
    for (const entry of entries) {
      const { what, remedy } = { ...entry, ...WORDS[entry.code] };
      lines.push(`| \`${entry.code}\` | ${what} | ${remedy} |`);
    }
    lines.push('');
  }
  return lines.join('\n');
}
