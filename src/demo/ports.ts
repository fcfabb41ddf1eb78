/** Ports of this machine that nobody listens on. */
import { createServer } from 'node:net';

/** How many ports above the preferred one are looked at. */
const TRIES = 200;

/** The first `count` ports from `preferred` on that are free on the address; fewer when there are not enough. */
export async function findFreePorts(address: string, options: { readonly preferred: number; readonly count: number }): Promise<readonly number[]> {
  const found: number[] = [];
  for (let port = options.preferred; port < options.preferred + TRIES && found.length < options.count; port++) {
    if (await isFree(address, port)) found.push(port);
  }
  return found;
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
