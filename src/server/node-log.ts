/** Logs of a cluster: a node's, fetched from its agent over mutual TLS, and the server's own. */
import { formatWall, localZoneMinutes, wallMs } from '../base/clock.ts';
import { sendHttp } from '../base/http.ts';
import { type LogEntry, mergeLogs, parseLog } from '../base/log-line.ts';
import { maskSecrets } from '../base/log.ts';
import { decodeJson, formatDecodeError, integer, list, object, text, withDefault } from '../core/decode.ts';
import { makeNodeId, makeWallMs } from '../core/ids.ts';
import type { Member } from '../core/report.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type Problem, makeApiFailure } from '../api/errors.ts';
import type { LogEntry as LogRow } from '../api/schema.ts';
import { formatUrl } from './addresses.ts';
import { type Handler, type ServerContext, viewOf } from './context.ts';

/** A log's tail is read from disk there; a host that swaps still answers in this time. */
const LIMIT_MS = 5000;
const MAX_BYTES = 8 * 1024 * 1024;
const NODE_SOURCES = ['agent', 'postgres', 'guard'] as const;
type NodeSource = (typeof NODE_SOURCES)[number];

/** What an agent answers; one of an older version does not tell its time zone. */
const agentAnswer = object({ source: text, zoneMinutes: withDefault(integer, 0), lines: list(text) });

/** `node.not-found`; `node.unreachable` when no source could be read. One that could not is a problem beside the others. */
export const nodeLog: Handler<'nodeLog'> = async (context, { params, query }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const node = makeNodeId(params.node);
  if (!found.value.view.spec.nodes.some((one) => one.id === node)) {
    return err(makeApiFailure('node.not-found', { what: `cluster "${params.cluster}" has no node "${node}"`, remedy: 'See `pgherd show`.' }));
  }
  const member = found.value.members[node];
  const remedy = 'Look on that host (journalctl -u pgherd-agent, the log files below stateDirectory), and see that its agent runs.';
  const unreachable = (cause: string): ReturnType<typeof makeApiFailure> =>
    makeApiFailure('node.unreachable', { what: `the log of ${node} cannot be read`, cause, now: 'Nothing was changed.', remedy });
  if (member === undefined) return err(unreachable('its agent has never registered'));
  const sources = query.source === 'all' ? NODE_SOURCES : [query.source];
  const read = await Promise.all(sources.map((source) => readSource(context, member, { source, lines: query.lines })));
  const logs = read.flatMap((one) => (one.ok ? [one.value] : []));
  const causes = read.flatMap((one, index) => (one.ok ? [] : [`${sources[index]}: ${one.error}`]));
  if (logs.length === 0) return err(unreachable([...new Set(causes.map((cause) => cause.replace(/^\w+: /, '')))].join('; ')));
  const problems: Problem[] = causes.map((cause) => ({ code: 'log.unreadable', text: `${node}, ${cause}`, remedy }));
  return ok({ node, entries: mergeLogs(logs).map(logRow), problems });
};

async function readSource(
  context: ServerContext,
  member: Member,
  { source, lines }: { readonly source: NodeSource; readonly lines: number },
): Promise<Result<readonly LogEntry[], string>> {
  const answer = await sendHttp({
    url: `${formatUrl(member.internalHost ?? member.host, member.agentPort)}/v1/log?source=${source}&lines=${lines}`,
    tls: { ...context.authority.server(), expect: 'agent' },
    timeoutMs: LIMIT_MS,
    maxBytes: MAX_BYTES,
  });
  if (!answer.ok) return err(answer.error.message);
  if (answer.value.status !== 200) return err(`its agent answered with HTTP status ${answer.value.status}`);
  const decoded = decodeJson(agentAnswer, answer.value.body.toString('utf8'));
  if (!decoded.ok) return err(`its agent's answer is not understood: ${formatDecodeError(decoded.error)}`);
  return ok(parseLog(source, decoded.value.lines, decoded.value.zoneMinutes));
}

/** Lines that name another cluster are left out: whoever may see one cluster need not see all. */
export const serverLog: Handler<'serverLog'> = async (context, { params, query }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const entries = parseLog('server', context.recentLog.tail(Number.MAX_SAFE_INTEGER), localZoneMinutes(wallMs()))
    .filter((entry) => entry.detail['cluster'] === undefined || entry.detail['cluster'] === params.cluster)
    .slice(-query.lines);
  return ok({ node: null, entries: entries.map(logRow), problems: [] });
};

function logRow({ atMs, source, level, text: message, detail }: LogEntry): LogRow {
  return { at: atMs === null ? null : formatWall(makeWallMs(atMs)), source, level, text: maskSecrets(message), detail: { ...detail } };
}
