import { Command } from 'commander';
import { EXIT } from '../exit.ts';
import { cell, renderTable } from '../output/table.ts';
import { type Host, act } from '../session.ts';

const COLUMNS = [{ head: 'NODE', min: 6 }, { head: 'ROLE' }, { head: 'TIMELINE', align: 'right' }, { head: 'LSN', align: 'right' }] as const;

export function lsnCommand(host: Host): Command {
  return new Command('lsn').description('last LSN and timeline of each node').action(
    act(host, async (session) => {
      const api = session.api();
      if (!api.ok) return api;
      const cluster = await session.cluster();
      if (!cluster.ok) return cluster;
      const rows = await api.value.call('lsn', { params: { cluster: cluster.value } });
      if (!rows.ok) return rows;
      session.show(rows.value, () =>
        renderTable(
          COLUMNS,
          rows.value.map((row) => [cell(row.node, row.role === 'primary' ? 'bold' : 'plain'), cell(row.role), cell(row.timeline), cell(row.lsn)]),
          session.view,
        ),
      );
      return { ok: true, value: EXIT.done };
    }),
  );
}
