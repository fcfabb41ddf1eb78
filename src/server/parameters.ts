/** PostgreSQL's own word on parameters, before they are written: asked of the agents, whose PostgreSQL has to take them. */
import { list, object, text } from '../core/decode.ts';
import { type ApiFailure, type Problem, makeApiFailure } from '../api/errors.ts';
import { askAgent } from './agent-call.ts';
import { type ServerContext, viewOf } from './context.ts';
import { isStale } from './freshness.ts';

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
  const answers = await Promise.all(
    asked.map(async ({ id }) => ({
      id,
      refused: (await askAgent(context, members[id], { path: '/v1/check-parameters', body: { parameters }, answer: answerOf }))?.refused ?? [],
    })),
  );
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
