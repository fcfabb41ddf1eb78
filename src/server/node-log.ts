/** A node's logs, fetched from its agent over mutual TLS. */
import { sendHttp } from '../base/http.ts';
import { makeNodeId } from '../core/ids.ts';
import { err, ok } from '../core/result.ts';
import { makeApiFailure } from '../api/errors.ts';
import { formatUrl } from './addresses.ts';
import { type Handler, viewOf } from './context.ts';

/** A log's tail is read from disk there; a host that swaps still answers in this time. */
const LIMIT_MS = 5000;

export const nodeLog: Handler<'nodeLog'> = async (context, { params, query }) => {
  const found = await viewOf(context, params.cluster);
  if (!found.ok) return found;
  const node = makeNodeId(params.node);
  if (!found.value.view.spec.nodes.some((one) => one.id === node)) {
    return err(makeApiFailure('node.not-found', { what: `cluster "${params.cluster}" has no node "${node}"`, remedy: 'See `pgherd show`.' }));
  }
  const member = found.value.members[node];
  const unreachable = (cause: string): ReturnType<typeof makeApiFailure> =>
    makeApiFailure('node.unreachable', {
      what: `the log of ${node} cannot be read`,
      cause,
      now: 'Nothing was changed.',
      remedy: 'Look on that host (journalctl, the log files below stateDirectory), and see that its agent runs.',
    });
  if (member === undefined) return err(unreachable('its agent has never registered'));
  const tls = context.authority.server();
  const answer = await sendHttp({
    url: `${formatUrl(member.internalHost ?? member.host, member.agentPort)}/v1/log?source=${query.source}&lines=${query.lines}`,
    tls: { ...tls, expect: 'agent' },
    timeoutMs: LIMIT_MS,
    maxBytes: 8 * 1024 * 1024,
  });
  if (!answer.ok) return err(unreachable(answer.error.message));
  if (answer.value.status !== 200) return err(unreachable(`its agent answered with HTTP status ${answer.value.status}`));
  const body = answer.value.body.toString('utf8');
  return ok({ node, lines: body.replace(/\n$/, '').split('\n').slice(-query.lines) });
};
