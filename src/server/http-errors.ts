/** What goes wrong inside the HTTP library, in the form of the API's own errors. */
import type { FastifyReply } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import type { Logger } from '../base/log.ts';
import { API_ERRORS, type ApiFailure, type Problem, makeApiFailure } from '../api/errors.ts';

/** A library's error as one of ours. What we do not know is `server.internal`, with its cause in the log only. */
export function asFailure(error: unknown, log: Logger): ApiFailure {
  if (hasZodFastifySchemaValidationErrors(error)) return invalidRequest(error.validation, error.validationContext ?? 'request');
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  const status = error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  const message = error instanceof Error ? error.message : String(error);
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return makeApiFailure('request.too-large', { what: 'the body is too large', cause: message, remedy: 'Send less.' });
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE')
    return makeApiFailure('request.media-type', {
      what: 'the body’s type is not accepted',
      cause: message,
      remedy: 'Send JSON as application/json.',
    });
  if (status >= 400 && status < 500)
    return makeApiFailure('request.malformed', { what: 'the request cannot be read', cause: message, remedy: 'Send valid JSON.' });
  log.error({ error }, 'a request failed inside the server');
  return makeApiFailure('server.internal', {
    what: 'the server failed while it answered',
    cause: 'the cause stands in the server’s log',
    now: 'What was asked for may have been done.',
    remedy: 'Look at the log, and report it.',
  });
}

interface Issue {
  readonly instancePath: string;
  readonly message?: string | undefined;
}

/** One problem a field; `code` is the path as in the spec's errors: `request.node`, `hosts[0]`. */
function invalidRequest(issues: readonly Issue[], part: string): ApiFailure {
  const problems: Problem[] = issues.map((issue) => {
    const path = issue.instancePath
      .replace(/^\//, '')
      .replaceAll(/\/(\d+)(?=\/|$)/g, '[$1]')
      .replaceAll('/', '.');
    return {
      code: path === '' ? part : path,
      text: path === '' ? (issue.message ?? 'not valid') : `${path}: ${issue.message ?? 'not valid'}`,
      remedy: 'Correct the value.',
    };
  });
  const where = part === 'querystring' ? 'query' : part;
  return makeApiFailure('request.invalid', {
    what: `the ${where} of the request is not valid`,
    cause: problems.map((problem) => problem.text).join('; '),
    remedy: 'See /api/v1/openapi.json.',
    problems,
  });
}

export async function sendFailure(reply: FastifyReply, failure: ApiFailure): Promise<FastifyReply> {
  const { code, what, cause, now, remedy, problems } = failure;
  const known = (API_ERRORS as Readonly<Record<string, { status: number }>>)[code]?.status ?? failure.status ?? 500;
  if (code === 'auth.rate-limited') reply.header('retry-after', '60');
  if (known === 401) reply.header('www-authenticate', 'Bearer');
  return await reply
    .code(known === 0 ? 500 : known)
    .type('application/json; charset=utf-8')
    .send({ error: { code, what, cause, now, remedy, ...(problems.length === 0 ? {} : { problems }) } });
}
