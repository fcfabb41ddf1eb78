/** PostgreSQL's own word on parameters, before they are written: asked of the agents, whose PostgreSQL has to take them. */
import { sendHttp } from '../base/http.ts';
import { decodeJson, list, object, text } from '../core/decode.ts';
import type { Member } from '../core/report.ts';
import { type ApiFailure, type Problem, makeApiFailure } from '../api/errors.ts';
import { formatUrl } from './addresses.ts';
import { type ServerContext, viewOf } from './context.ts';
import { isStale } from './freshness.ts';

/** An agent runs a program for it; a person waits for the answer. */
const LIMIT_MS = 5000;
const MAX_BYTES = 1024 * 1024;

const answerOf = object({ refused: list(object({ name: text, why: text })) });

/**
 * `settings.refused`, with each parameter once and the nodes that refuse it; null: nobody who could be asked refuses any. Where no agent answers nothing is
 * known, and nothing is refused: an agent leaves out what its PostgreSQL does not take, and reports that.
 */
export async function refusedByPostgres(
  context: ServerContext,
  cluster: string,
  parameters: Readonly<Record<string, string>>,
): Promise<ApiFailure | null> {
  if (Object.keys(parameters).length === 0) return null;
  const found = await viewOf(context, cluster);
  if (!found.ok) return null;
  const { view, members } = found.value;
  const asked = view.spec.nodes.filter((node) => {
    const seen = view.reports[node.id];
    return node.kind === 'data' && seen !== undefined && seen.alive && !isStale(view, seen) && members[node.id] !== undefined;
  });
  const answers = await Promise.all(asked.map(async ({ id }) => ({ id, refused: await ask(context, members[id], parameters) })));
  const whys = new Map<string, { readonly nodes: string[]; readonly why: string }>();
  for (const { id, refused } of answers) {
    for (const { name, why } of refused) {
      const known = whys.get(name);
      if (known === undefined) whys.set(name, { nodes: [id], why });
      else known.nodes.push(id);
    }
  }
  if (whys.size === 0) return null;
  const problems = [...whys].map(
    ([name, { nodes, why }]): Problem => ({
      code: 'settings.refused',
      text: `${name}: ${why}${nodes.length === asked.length ? '' : ` (on ${nodes.join(', ')})`}`,
      remedy: 'Correct the name or the value, or leave it out.',
    }),
  );
  return makeApiFailure('settings.refused', {
    what: 'PostgreSQL refuses these parameters',
    cause: problems.map((problem) => problem.text).join('; '),
    now: 'Nothing was changed.',
    remedy: 'Correct them; the names and values are those of PostgreSQL’s manual.',
    problems,
  });
}

/** Empty when it does not answer, or is of a version that cannot be asked. */
async function ask(
  context: ServerContext,
  member: Member | undefined,
  parameters: Readonly<Record<string, string>>,
): Promise<readonly { readonly name: string; readonly why: string }[]> {
  if (member === undefined) return [];
  const answer = await sendHttp({
    url: `${formatUrl(member.internalHost ?? member.host, member.agentPort)}/v1/check-parameters`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ parameters }),
    tls: { ...context.authority.server(), expect: 'agent' },
    timeoutMs: LIMIT_MS,
    maxBytes: MAX_BYTES,
  });
  if (!answer.ok || answer.value.status !== 200) return [];
  const decoded = decodeJson(answerOf, answer.value.body.toString('utf8'));
  return decoded.ok ? decoded.value.refused : [];
}
