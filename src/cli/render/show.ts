/** `pgherd show`: what a person needs at 3 am, in the order in which it is needed. */
import type { LagRow, ShowAnswer } from '../../api/schema.ts';
import type { Problem } from '../exit.ts';
import type { Style, Tone } from '../output/style.ts';
import { type Cell, type Column, cell, oneLine, renderTable } from '../output/table.ts';
import { count, formatAge, formatBytes, formatDuration, formatTime } from '../output/units.ts';
import { hanging } from '../output/width.ts';
import { renderProblems } from './plan.ts';

type ShowNode = ShowAnswer['nodes'][number];

interface Options {
  readonly style: Style;
  readonly width: number | null;
}

const STATE_TONES: Readonly<Record<ShowAnswer['state'], Tone>> = {
  healthy: 'good',
  degraded: 'warn',
  'no-primary': 'bad',
  switching: 'accent',
  frozen: 'warn',
  stopped: 'dim',
  unknown: 'warn',
};

/** Prose is easiest to read at this width, however wide the terminal is. */
const PROSE_WIDTH = 100;

/** Ends without a line break. */
export function renderShow(show: ShowAnswer, options: Options): string {
  const prose = { style: options.style, width: Math.min(options.width ?? PROSE_WIDTH, PROSE_WIDTH) };
  const sections = [renderHeader(show, prose), renderNodes(show, options)];
  const traffic = renderTraffic(show, options);
  if (traffic !== '') sections.push(traffic);
  sections.push(renderTrouble(show, prose));
  return sections.join('\n\n');
}

/** `demo · healthy · primary n1 · term 3 · timeline 2`, and the durability in words below it. */
function renderHeader(show: ShowAnswer, { style, width }: { style: Style; width: number }): string {
  const facts = [
    `${style.paint('bold', show.cluster)}  ${style.paint(STATE_TONES[show.state], show.state)}`,
    show.primary === null ? style.paint('bad', 'no primary') : `primary ${style.paint('bold', show.primary)}`,
    `term ${show.term}`,
    `timeline ${show.timeline ?? '–'}`,
  ];
  const lines = [facts.join('  ·  '), ...hanging('durability: ', durabilityWords(show.sync), width)];
  if (show.frozen) lines.push(...hanging('frozen: ', freezeWords(show.freeze ?? null), width).map((line) => style.paint('warn', line)));
  return lines.join('\n');
}

/** Who, since when, why, until when: at 3 am the first question of whoever finds a cluster that does nothing. */
function freezeWords(freeze: NonNullable<ShowAnswer['freeze']> | null): string {
  const until = freeze?.until == null ? 'until "pgherd unfreeze"' : `until ${formatTime(freeze.until)}, or "pgherd unfreeze"`;
  const who = freeze === null ? '' : `by ${freeze.by} since ${formatTime(freeze.since)} (${oneLine(freeze.reason)}); `;
  return `${who}no automatic action ${until}; leases and fencing go on`;
}

/** What an acknowledged commit is worth, in words. */
export function durabilityWords(sync: ShowAnswer['sync']): string {
  if (sync.mode === 'async') return 'asynchronous (a failover may lose the last commits)';
  const strict = sync.strict ? 'strict: writes wait when too few are there' : 'adaptive: asks for less when too few are there';
  const lowered = sync.lowered ?? null;
  if (lowered !== null) {
    const since = formatTime(lowered.since);
    return `${sync.mode}, lowered since ${since}: commits wait for ${count(sync.wanted ?? sync.k, 'standby', 'standbys')} (${lowered.reason}); ${strict}`;
  }
  if (sync.k === 0) return `${sync.mode}, but no standby has to confirm a commit now (${strict})`;
  return `${sync.mode}: a commit is on the primary and ${sync.k} of ${count(sync.voters.length, 'standby', 'standbys')} (${sync.voters.join(', ')}); ${strict}`;
}

const NODE_COLUMNS: readonly Column[] = [
  { head: 'NODE', min: 6 },
  { head: 'ROLE' },
  { head: 'STATE' },
  { head: 'TL', align: 'right', rank: 2 },
  { head: 'LSN', align: 'right', rank: 3 },
  { head: 'LAG', align: 'right', rank: 1 },
  { head: 'UPSTREAM', rank: 5, min: 6 },
  { head: 'ADDRESS', rank: 6, min: 14 },
  { head: 'PRIO', align: 'right', rank: 8 },
  { head: 'LOCATION', rank: 7, min: 6 },
  { head: 'AGENT', rank: 4 },
];

function renderNodes({ nodes, primary }: ShowAnswer, options: Options): string {
  if (nodes.length === 0) return 'no node belongs to this cluster yet';
  const someLocation = nodes.some((node) => node.location !== null);
  const columns = NODE_COLUMNS.filter((column) => column.head !== 'LOCATION' || someLocation);
  const rows = nodes.map((node) => nodeCells(node, primary).filter((_, index) => NODE_COLUMNS[index]?.head !== 'LOCATION' || someLocation));
  return renderTable(columns, rows, options);
}

function nodeCells(node: ShowNode, primary: string | null): readonly Cell[] {
  const seen = node.agent.seenMs;
  return [
    cell(node.id, node.id === primary ? 'bold' : 'plain'),
    roleCell(node, primary),
    cell(node.state, stateTone(node)),
    cell(node.timeline),
    cell(node.lsn),
    lagCell(node),
    upstreamCell(node),
    cell(`${node.host}:${node.port}`),
    cell(node.priority),
    cell(node.location),
    cell(seen === null ? (node.agent.version === null ? 'never' : 'silent') : formatAge(seen), seen === null || seen > 5000 ? 'bad' : 'plain'),
  ];
}

/** No server of the node runs: its role is that of its files. */
const NOT_SERVING: ReadonlySet<ShowNode['state']> = new Set(['stopped', 'crashed', 'cloning', 'rewinding', 'recovering']);

/**
 * `* primary` for the primary of the newest open term while its server runs, and for no other; `standby`. What else has a primary's files or role
 * is shown as what it is: `former primary`, `primary, opening`, `! second primary`; `! standby, not primary` (never cut) where the
 * actual role is not the wanted one.
 */
export function roleCell(node: ShowNode, primary: string | null): Cell {
  const { role, wantedRole } = node;
  // A witness, and a node that never had a role.
  if (role === null) return wantedRole === null ? cell(null, 'dim') : cell(`- (wanted ${wantedRole})`, 'warn');
  const serves = !NOT_SERVING.has(node.state);
  if (role === 'primary' && !serves && node.id !== primary) return cell('former primary', 'warn');
  if (wantedRole !== null && wantedRole !== role) return cell(`! ${role}, not ${wantedRole}`, 'bad');
  if (role === 'standby') return cell('standby');
  if (node.id === primary) return serves ? cell('* primary', 'good') : cell('primary, down', 'bad');
  return wantedRole === 'primary' ? cell('primary, opening', 'accent') : cell('! second primary', 'bad');
}

function stateTone(node: ShowNode): Tone {
  switch (node.state) {
    case 'running':
      return node.role === 'standby' && !node.streaming ? 'warn' : 'good';
    case 'starting':
    case 'stopping':
    case 'cloning':
    case 'rewinding':
    case 'recovering':
      return 'accent';
    case 'stopped':
    case 'maintenance':
      return 'dim';
    default:
      return 'bad';
  }
}

/** With `(1 h late)` behind it: so late on purpose. */
function lagCell(node: ShowNode): Cell {
  if (node.role === 'primary') return cell('–', 'dim');
  const delayMs = node.delayMs ?? 0;
  return cell(`${formatBytes(node.replayLagBytes)}${delayMs === 0 ? '' : ` (${formatDuration(delayMs)} late)`}`);
}

/** `! n1`: registered as upstream, but not attached to it. `n1, not n2`: meanwhile, since n2 is not in order. */
function upstreamCell(node: ShowNode): Cell {
  if (node.role === 'primary' || node.upstream === null) return cell('–', 'dim');
  const wanted = node.wantedUpstream ?? null;
  if (node.streaming && wanted !== null && wanted !== node.upstream) return cell(`${node.upstream}, not ${wanted}`, 'warn');
  return node.streaming ? cell(node.upstream) : cell(`! ${node.upstream}`, 'warn');
}

function renderTraffic(show: ShowAnswer, options: Options): string {
  const lines: string[] = [];
  for (const kind of ['write', 'read'] as const) {
    const vip = show.vips[kind];
    if (vip !== null) lines.push(`${kind} VIP ${vip.address}  ${vip.node === null ? options.style.paint('bad', 'on no node') : `on ${vip.node}`}`);
  }
  if (show.proxies.length === 0) return lines.join('\n');
  const columns: readonly Column[] = [
    { head: 'PROXY', min: 8 },
    { head: 'HOST', rank: 1, min: 8 },
    { head: 'TERM', align: 'right' },
    { head: 'SEEN' },
  ];
  const rows = show.proxies.map((proxy) => [
    cell(proxy.id),
    cell(proxy.host),
    cell(proxy.term, proxy.term < show.term ? 'warn' : 'plain'),
    cell(formatAge(proxy.seenMs)),
  ]);
  return [...lines, renderTable(columns, rows, options)].join('\n');
}

/** Problems of the cluster, then those of each node that are not among them. */
function renderTrouble(show: ShowAnswer, options: { style: Style; width: number }): string {
  const problems = allProblems(show);
  if (problems.length === 0) return options.style.paint('good', 'no problems');
  const head = options.style.paint('bold', `${count(problems.length, 'problem')}:`);
  return [head, ...renderProblems(problems, options)].join('\n');
}

/** Each problem once: a node's is left out where the cluster's list has it already, alone or for several nodes (`n1, n2: …`). */
export function allProblems(show: ShowAnswer): readonly Problem[] {
  const found: Problem[] = [];
  const add = ({ code, text, remedy }: Problem): void => {
    const line = oneLine(text);
    if (!found.some((other) => other.code === code && other.text === line)) found.push({ code, text: line, remedy: oneLine(remedy) });
  };
  for (const problem of show.problems) add(problem);
  for (const node of show.nodes) {
    for (const problem of node.problems) {
      const bare = oneLine(problem.text).replace(`${node.id}: `, '');
      const listed = found.some((other) => other.code === problem.code && namesNode(other.text, node.id, bare));
      if (!listed) add(bare.includes(node.id) ? problem : { ...problem, text: `${node.id}: ${bare}` });
    }
  }
  return found;
}

/** `text` is `bare`, or `bare` behind a list of nodes with this one. */
function namesNode(text: string, node: string, bare: string): boolean {
  return text === bare || (text.endsWith(`: ${bare}`) && text.slice(0, -`: ${bare}`.length).split(', ').includes(node));
}

const LAG_COLUMNS: readonly Column[] = [
  { head: 'NODE', min: 6 },
  { head: 'ROLE' },
  { head: 'STATE', min: 7 },
  { head: 'SYNC', rank: 2 },
  { head: 'CURRENT LSN', align: 'right', rank: 4 },
  { head: 'SENT', align: 'right', rank: 3 },
  { head: 'WRITE', align: 'right', rank: 3 },
  { head: 'FLUSH', align: 'right', rank: 1 },
  { head: 'REPLAY', align: 'right' },
  { head: 'DELAY', align: 'right' },
  { head: 'SLOT', rank: 5, min: 8 },
];

/** Bytes that each standby is behind, by stage; the primary has none of them. */
export function renderLag(rows: readonly LagRow[], options: Options): string {
  const cells = rows.map((row) => {
    const bytes = (value: number | null): Cell => (row.role === 'primary' ? cell('–', 'dim') : cell(formatBytes(value)));
    const fine = row.role === 'primary' || row.state === 'streaming';
    return [
      cell(row.node, row.role === 'primary' ? 'bold' : 'plain'),
      cell(row.role),
      row.role === 'primary' ? cell('–', 'dim') : cell(row.state ?? 'not attached', fine ? 'good' : 'warn'),
      cell(row.sync),
      cell(row.currentLsn),
      bytes(row.sentLagBytes),
      bytes(row.writeLagBytes),
      bytes(row.flushLagBytes),
      bytes(row.replayLagBytes),
      cell(row.replayLagMs === null ? null : `${Math.round(row.replayLagMs)} ms`, row.replayLagMs === null ? 'dim' : 'plain'),
      cell(row.slot),
    ];
  });
  return renderTable(LAG_COLUMNS, cells, options);
}
