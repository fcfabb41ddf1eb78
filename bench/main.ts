/** `npm run bench -- proxy …`, `-- sim`, `-- failover …`: measurements, never part of the tests. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { USAGE as FAILOVER_USAGE, benchFailover } from './failover/command.ts';
import { MODES, type Mode, type ProxyBench, joinBenches, renderProxyBench, writeProxyBench } from './proxy-table.ts';
import { benchProxy } from './proxy.ts';

const USAGE = `npm run bench -- sim
npm run bench -- proxy [--json] [--seconds 3] [--runs 3] [--clients 1,8,32] [--modes simple,prepared,connect] [--write]
npm run bench -- proxy --from FILE,FILE… [--write]     pieces that --json has printed, as one
${FAILOVER_USAGE}`;

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const [command, ...rest] = process.argv.slice(2);

if (command === 'proxy') await proxy(rest);
else if (command === 'sim') await import('./sim.ts');
else if (command === 'failover')
  // A run that was interrupted may still wait for servers that are gone: nothing of it is worth waiting for.
  process.exit(await benchFailover(rest, say));
else {
  say(USAGE);
  process.exitCode = 2;
}

async function proxy(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      json: { type: 'boolean', default: false },
      seconds: { type: 'string', default: '3' },
      runs: { type: 'string', default: '3' },
      clients: { type: 'string', default: '1,8,32' },
      modes: { type: 'string', default: MODES.join(',') },
      from: { type: 'string' },
      write: { type: 'boolean', default: false },
    },
  });
  const ended = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => ended.abort(new Error(`ended by ${name}`)));
  const result =
    values.from === undefined
      ? await benchProxy({
          signal: ended.signal,
          seconds: Number(values.seconds),
          runs: Number(values.runs),
          clients: values.clients.split(',').map(Number),
          modes: values.modes.split(',').filter((mode): mode is Mode => (MODES as readonly string[]).includes(mode)),
          say,
        })
      : joinBenches(values.from.split(',').map((file) => JSON.parse(readFileSync(file, 'utf8')) as ProxyBench));
  if (values.write) writeProxyBench(result, values);
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${renderProxyBench(result)}\n`);
}
