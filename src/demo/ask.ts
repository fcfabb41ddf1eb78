/** SQL for a server over the folder of its socket, as the demo, the lab and the benchmarks ask it. */
import { Client } from 'pg';

/** One question over a socket folder; rejects after a bounded time. */
export async function ask(place: {
  readonly directory: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly text: string;
}): Promise<readonly Record<string, unknown>[]> {
  const { directory, port, user, database, text } = place;
  const client = new Client({ host: directory, port, database, user, connectionTimeoutMillis: 2000, query_timeout: 30_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const result: unknown = await client.query(text);
    const last: unknown = Array.isArray(result) ? result.at(-1) : result;
    return (last as { rows: readonly Record<string, unknown>[] }).rows;
  } finally {
    await client.end();
  }
}
