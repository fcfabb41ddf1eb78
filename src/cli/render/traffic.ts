/** `pgherd lb`: nodes and proxies. */
import type { TrafficAnswer } from '../../api/schema.ts';
import type { Style } from '../output/style.ts';
import { type Column, cell, renderTable } from '../output/table.ts';
import { formatBytes, formatTime } from '../output/units.ts';

const BACKENDS: readonly Column[] = [
  { head: 'NODE', min: 6 },
  { head: 'ADDRESS', rank: 1, min: 10 },
  { head: 'WEIGHT', align: 'right' },
  { head: 'SERVES' },
  { head: 'LAG', align: 'right' },
];
const PROXIES: readonly Column[] = [
  { head: 'PROXY', min: 8 },
  { head: 'HOST', rank: 1, min: 8 },
  { head: 'ROUTE', align: 'right' },
  { head: 'STATE' },
];

/** Ends without a line break. */
export function renderTraffic(traffic: TrafficAnswer, options: { readonly style: Style; readonly width: number | null }): string {
  const backends = traffic.backends.map(({ node, host, port, weight, writes, reads, lagBytes }) => [
    cell(node),
    cell(host === null ? null : `${host}:${port}`),
    cell(weight === 0 ? 'drained' : weight, weight === 0 ? 'warn' : 'plain'),
    cell([writes ? 'writes' : '', reads ? 'reads' : ''].filter((word) => word !== '').join(', ') || '-'),
    cell(writes ? '-' : formatBytes(lagBytes)),
  ]);
  const proxies = traffic.proxies.map(({ id, host, epoch, paused }) => [
    cell(id),
    cell(host),
    cell(epoch, epoch < traffic.epoch ? 'warn' : 'plain'),
    cell(epoch < traffic.epoch ? `behind route ${traffic.epoch}` : paused ? 'paused' : 'follows', epoch < traffic.epoch || paused ? 'warn' : 'plain'),
  ]);
  const sections = [
    renderTable(BACKENDS, backends, options),
    proxies.length === 0 ? 'no proxy is connected' : renderTable(PROXIES, proxies, options),
  ];
  if (traffic.paused) sections.unshift(options.style.paint('warn', `paused by ${traffic.by ?? '?'} since ${formatTime(traffic.since ?? '?')}`));
  return sections.join('\n\n');
}
