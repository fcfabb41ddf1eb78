/**
 * The admin database: what `psql` on the admin port is told. Only SHOW, PAUSE and RESUME; simple queries only.
 * The columns of SHOW POOL_NODES are those of pgpool-II, so that people and scripts find what they know.
 * Source: pgpool-II manual, SHOW POOL_NODES; PgBouncer manual, "Admin console".
 */
import type { Logger } from '../base/log.ts';
import { formatWall, wallMs } from '../base/clock.ts';
import type { RouteFacts } from '../core/route/decide.ts';
import type { Route } from '../core/route/decide.ts';
import {
  buildBackendKey,
  buildCommandComplete,
  buildDataRow,
  buildError,
  buildParameterStatus,
  buildReady,
  buildRowDescription,
  textColumn,
} from '../wire/backend.ts';
import { decodeText, joinBytes } from '../wire/bytes.ts';
import { FRAME, beginChunk, createFrameWalker, stepFrame } from '../wire/frames.ts';
import { FRONTEND, FRONTEND_LIMITS } from '../wire/protocol.ts';
import { type Gather, appendGather, clearGather, createGather } from '../wire/gather.ts';
import { VERSION } from '../base/version.ts';
import type { ByteStream } from './io/stream.ts';
import type { Port } from './port.ts';

export interface Overview {
  readonly route: () => Route;
  readonly facts: () => Omit<RouteFacts, 'weights' | 'down'>;
  readonly ports: readonly Port[];
  /** True when every transaction has ended and new ones wait; false when some did not end in time, and everything goes on. */
  readonly pause: () => Promise<boolean>;
  readonly resume: () => void;
}

interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number | null)[])[];
}

/** What a command answers: a table, a tag, or what is wrong with it. */
export type AdminAnswer =
  | { readonly kind: 'table'; readonly table: Table }
  | { readonly kind: 'done'; readonly tag: string }
  | { readonly kind: 'wrong'; readonly sqlState: string; readonly message: string; readonly hint: string };

const COMMANDS = 'SHOW POOL_NODES, SHOW CLIENTS, SHOW SERVERS, SHOW POOLS, SHOW STATS, SHOW VERSION, PAUSE, RESUME';

export async function answerAdmin(text: string, overview: Overview): Promise<AdminAnswer> {
  const words = text.replace(/;\s*$/, '').trim().toLowerCase().replaceAll(/\s+/g, ' ');
  const show = SHOWS[words.replace(/^show /, '')];
  if (words.startsWith('show ') && show !== undefined) return { kind: 'table', table: show(overview) };
  if (words === 'resume') {
    overview.resume();
    return { kind: 'done', tag: 'RESUME' };
  }
  if (words === 'pause') {
    if (await overview.pause()) return { kind: 'done', tag: 'PAUSE' };
    return {
      kind: 'wrong',
      sqlState: '55006',
      message: 'transactions did not end in time; nothing is paused',
      hint: 'SHOW CLIENTS tells who is in one.',
    };
  }
  return { kind: 'wrong', sqlState: '42601', message: 'this is no command of the proxy', hint: `There are: ${COMMANDS}.` };
}

const SHOWS: Readonly<Record<string, (overview: Overview) => Table>> = {
  pool_nodes: showPoolNodes,
  clients: showClients,
  servers: showServers,
  pools: showPools,
  stats: showStats,
  version: () => ({ columns: ['version'], rows: [[VERSION]] }),
};

function showPoolNodes({ route, facts, ports }: Overview): Table {
  const now = route();
  const { members, reports, state } = facts();
  const primary = state?.primary ?? null;
  const senders = primary === null ? [] : (reports.get(primary)?.postgres.walsenders ?? []);
  const total = now.readers.reduce((sum, reader) => sum + reader.weight, 0);
  const rows = [...members.values()]
    .sort((a, b) => (a.node < b.node ? -1 : 1))
    .map((member) => {
      const { node } = member;
      const reader = now.readers.find((one) => one.node === node);
      const report = reports.get(node);
      const sender = senders.find((one) => one.node === node);
      const isWriter = now.writer?.node === node;
      const up = report?.postgres.state === 'running';
      const selects = ports.reduce((sum, port) => sum + (port.served.get(node)?.count ?? 0), 0);
      return [
        node,
        member.host,
        member.port,
        isWriter || reader !== undefined ? 'up' : 'down',
        up ? 'up' : report === undefined ? 'unknown' : 'down',
        total === 0 || reader === undefined ? '0.000000' : (reader.weight / total).toFixed(6),
        isWriter ? 'primary' : 'standby',
        report?.postgres.role ?? 'unknown',
        selects,
        reader === undefined ? 'false' : 'true',
        reader?.lagBytes ?? null,
        sender?.state ?? null,
        sender?.syncState ?? null,
        report === undefined ? null : formatWall(report.atWallMs),
      ];
    });
  return {
    columns: [
      'node_id',
      'hostname',
      'port',
      'status',
      'pg_status',
      'lb_weight',
      'role',
      'pg_role',
      'select_cnt',
      'load_balance_node',
      'replication_delay',
      'replication_state',
      'replication_sync_state',
      'last_report',
    ],
    rows,
  };
}

function showClients({ ports }: Overview): Table {
  const rows = ports.flatMap((port) =>
    [...port.sessions].map((session) => [
      port.kind,
      session.login.user,
      session.login.database,
      session.remote,
      session.state,
      session.backend?.target.node ?? null,
      session.statements,
      session.login.encrypted ? 'on' : 'off',
      session.memory.pinned(),
    ]),
  );
  return { columns: ['port', 'user', 'database', 'addr', 'state', 'node', 'statements', 'tls', 'pinned_by'], rows };
}

function showServers({ ports }: Overview): Table {
  const rows = ports.flatMap((port) =>
    [...port.sessions].flatMap((session) => {
      const backend = session.backend;
      if (backend === null) return [];
      return [
        [
          backend.target.node,
          backend.target.host,
          backend.target.port,
          session.login.user,
          session.login.database,
          port.kind,
          backend.key?.processId ?? null,
        ],
      ];
    }),
  );
  return { columns: ['node', 'host', 'port', 'user', 'database', 'proxy_port', 'pid'], rows };
}

/** Columns of PgBouncer, as far as they mean something here. Source: PgBouncer manual, SHOW POOLS. */
function showPools({ ports }: Overview): Table {
  const rows = ports.flatMap((port) =>
    port.pools.facts().map((pool) => {
      const clients = [...port.sessions].filter(({ login }) => login.user === pool.user && login.database === pool.database);
      const active = clients.filter((session) => session.backend?.target.node === pool.node && !session.idle).length;
      return [
        pool.database,
        pool.user,
        pool.node,
        port.kind,
        active,
        pool.waiting,
        active,
        Math.max(0, pool.lent - active),
        pool.spare,
        pool.opening,
        pool.size,
        Math.floor(pool.waitedMs / 1000),
        Math.round(pool.waitedMs * 1000) % 1_000_000,
        pool.mode,
      ];
    }),
  );
  const columns = 'database,user,node,proxy_port,cl_active,cl_waiting,sv_active,sv_idle,sv_spare,sv_login,pool_size,maxwait,maxwait_us,pool_mode';
  return { columns: columns.split(','), rows };
}

function showStats({ ports }: Overview): Table {
  const rows = ports.map((port) => [port.kind, port.sessions.size, port.waiting, port.busy, port.reads.standby, port.reads.primary]);
  return { columns: ['port', 'clients', 'waiting', 'kept_hold_open', 'split_reads_on_standbys', 'split_reads_on_primary'], rows };
}

/** One connection to the admin database, logged in. Ends with its client. */
export function serveAdmin(stream: ByteStream, options: { readonly overview: Overview; readonly log: Logger; readonly user: string }): void {
  const walker = createFrameWalker();
  const gather: Gather = createGather(MAX_COMMAND);
  let queue: Promise<void> = Promise.resolve();
  const answer = async (text: string): Promise<void> => {
    options.log.info({ user: options.user, command: text.slice(0, 200) }, 'a command on the admin port');
    const said = await answerAdmin(text, options.overview);
    stream.write(joinBytes([...render(said), buildReady('idle')]));
  };
  const take = (type: number, body: Uint8Array): void => {
    if (type === FRONTEND.terminate) stream.end();
    else if (type === FRONTEND.query)
      queue = queue.then(() => answer(decodeText(body, 0, Math.max(0, body.length - 1)))).catch((cause: unknown) => fail(cause));
    else if (type === FRONTEND.sync)
      stream.write(
        joinBytes([
          buildError({ severity: 'ERROR', sqlState: '0A000', message: 'the admin database takes simple queries only' }),
          buildReady('idle'),
        ]),
      );
  };
  const fail = (cause: unknown): void => {
    options.log.error({ error: cause }, 'a command on the admin port broke');
    stream.destroy();
  };
  stream.listen({
    onData: (bytes, length) => {
      beginChunk(walker, 0);
      for (;;) {
        const step = stepFrame(walker, bytes, length, FRONTEND_LIMITS);
        if (step === FRAME.bad) return stream.destroy();
        if (step === FRAME.more) {
          if (walker.have === 5) appendGather(gather, bytes, Math.max(0, walker.bodyAt), length);
          return;
        }
        if (walker.bodyAt < 0) appendGather(gather, bytes, 0, walker.at);
        take(walker.type, walker.bodyAt >= 0 ? bytes.slice(walker.bodyAt, walker.at) : gather.bytes.slice(0, gather.length));
        clearGather(gather);
      }
    },
    onDrain: () => undefined,
    onEnd: () => undefined,
  });
  stream.write(
    joinBytes([
      buildParameterStatus('server_version', `15.0 (pgherd ${VERSION})`),
      buildParameterStatus('client_encoding', 'UTF8'),
      buildParameterStatus('standard_conforming_strings', 'on'),
      buildParameterStatus('session_started', formatWall(wallMs())),
      buildBackendKey({ processId: 0, secret: new Uint8Array(4) }),
      buildReady('idle'),
    ]),
  );
  stream.resume();
}

const MAX_COMMAND = 10_000;

function render(answer: AdminAnswer): readonly Uint8Array[] {
  switch (answer.kind) {
    case 'table': {
      const { columns, rows } = answer.table;
      const data = rows.map((row) => buildDataRow(row.map((value) => (value === null ? null : String(value)))));
      return [buildRowDescription(columns.map(textColumn)), ...data, buildCommandComplete(`SHOW ${rows.length}`)];
    }
    case 'done':
      return [buildCommandComplete(answer.tag)];
    case 'wrong':
      return [buildError({ severity: 'ERROR', sqlState: answer.sqlState, message: answer.message, hint: answer.hint })];
  }
}
