import { Command } from 'commander';
import { EXIT } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { formatTime } from '../output/units.ts';
import { type Host, act } from '../session.ts';

/** Agents renew by themselves long before; a month leaves time to find out why one did not. */
const SOON_DAYS = 30;

const COLUMNS = [
  { head: 'KIND' },
  { head: 'SUBJECT', min: 12 },
  { head: 'DAYS LEFT', align: 'right' },
  { head: 'EXPIRES', rank: 1 },
  { head: 'NAMES', min: 12, rank: 2 },
  { head: 'SHA-256 FINGERPRINT', min: 16, rank: 3 },
] as const;

export function certCommand(host: Host): Command {
  return new Command('cert').description('certificates of authority, server and agents').addCommand(listCommand(host)).addCommand(renewCommand(host));
}

function listCommand(host: Host): Command {
  return new Command('list').description('certificates and when they expire').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const certs = await api.value.call('certs', {});
      if (!certs.ok) return certs;
      const rows = certs.value.map((cert) => [
        cell(cert.kind),
        cell(cert.subject),
        cell(Math.floor(cert.daysLeft), cert.daysLeft < 0 ? 'bad' : cert.daysLeft < SOON_DAYS ? 'warn' : 'plain'),
        cell(formatTime(cert.notAfter)),
        cell(cert.hosts.join(', ')),
        cell(cert.fingerprint),
      ]);
      session.show(certs.value, () => renderTable(COLUMNS, rows, session.view));
      return { ok: true, value: EXIT.done };
    }),
  );
}

function renewCommand(host: Host): Command {
  return new Command('renew').description("renew the server's certificate now (agents renew their own by themselves)").action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const renewed = await api.value.call('renewCert', { body: { kind: 'server' } });
      if (!renewed.ok) return renewed;
      session.show(renewed.value, () => `renewed; valid until ${formatTime(renewed.value.expiresAt)}`);
      return { ok: true, value: EXIT.done };
    }),
  );
}
