/** The cluster's secret as this host keeps it. */
import { readFileSync } from 'node:fs';
import { type Failure, type Result, err, ok } from '../core/result.ts';

/** Error `agent.no-secret` when the file is missing or empty. */
export function readClusterSecret(file: string): Result<string, Failure> {
  let cause = 'it is empty';
  try {
    const secret = readFileSync(file, 'utf8').trim();
    if (secret !== '') return ok(secret);
  } catch (thrown) {
    cause = thrown instanceof Error ? thrown.message : String(thrown);
  }
  return err({
    code: 'agent.no-secret',
    what: `cannot read the cluster secret ${file}`,
    cause,
    now: 'the agent does not start',
    remedy: 'join this host: "pgherd token join" on the server’s side, then "pgherd agent join" here',
    retryable: false,
  });
}
