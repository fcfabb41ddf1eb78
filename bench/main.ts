/** `npm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--write]`, `-- sim`, `-- failover …`: measurements, never part of the tests. */
import { parseArgs } from 'node:util';
import { USAGE as FAILOVER_USAGE, benchFailover } from './failover/command.ts';
import { benchProxy, renderProxyBench, writeProxyBench } from './proxy.ts';

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const [command, ...rest] = process.argv.slice(2);

if (command === 'proxy') {
  const { values } = parseArgs({
    args: rest,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '3' },
      runs: { type: 'string', default: '3' },
      clients: { type: 'string', default: '1,8,32' },
      write: { type: 'boolean', default: false },
    },
  });
  const ended = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => ended.abort(new Error(`ended by ${name}`)));
  const result = await benchProxy({
    signal: ended.signal,
    seconds: Number(values.seconds),
    runs: Number(values.runs),
    clients: values.clients.split(',').map(Number),
    say,
  });
  if (values.write) writeProxyBench(result, values);
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${renderProxyBench(result)}\n`);
} else if (command === 'sim') {
  await import('./sim.ts');
} else if (command === 'failover') {
  // A run that was interrupted may still wait for servers that are gone: nothing of it is worth waiting for.
  process.exit(await benchFailover(rest, say));
} else {
  say(`npm run bench -- sim\nnpm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--write]\n${FAILOVER_USAGE}`);
  process.exitCode = 2;
}
