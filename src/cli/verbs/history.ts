import { Command } from 'commander';
import { EXIT } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { formatBytes, formatDuration, formatTime } from '../output/units.ts';
import { type Host, act } from '../session.ts';

const COLUMNS = [
  { head: 'TERM', align: 'right' },
  { head: 'TL', align: 'right', rank: 3 },
  { head: 'PRIMARY', min: 6 },
  { head: 'SINCE' },
  { head: 'OUTAGE', align: 'right' },
  { head: 'LOST', align: 'right', rank: 1 },
  { head: 'FORK LSN', align: 'right', rank: 4 },
  { head: 'RULE', min: 12, rank: 2 },
  { head: 'REASON', min: 16, rank: 5 },
] as const;

export function historyCommand(host: Host): Command {
  return new Command('history').description('terms with timeline, fork LSN, rule, reason, outage and lost bytes, oldest first').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const rows = await api.value.call('history', { params: { cluster: cluster.value } });
      if (!rows.ok) return rows;
      const cells = rows.value.map((row) => [
        cell(row.term),
        cell(row.timeline),
        cell(row.primary, 'bold'),
        cell(formatTime(row.startedAt)),
        cell(formatDuration(row.outageMs)),
        cell(formatBytes(row.lostBytes), (row.lostBytes ?? 0) > 0 ? 'warn' : 'plain'),
        cell(row.forkLsn),
        cell(row.rule),
        cell(row.reason),
      ]);
      session.show(rows.value, () => (cells.length === 0 ? 'no term has been opened yet' : renderTable(COLUMNS, cells, session.view)));
      return { ok: true, value: EXIT.done };
    }),
  );
}
