/** `pgherd demo`: a whole herd on this machine's loopback, alive until Ctrl+C, or once through the guided tour. */
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Failure, describeFailure } from '../core/result.ts';
import { monoMs } from '../base/clock.ts';
import { type Herd, type HerdPlan, openHerd, serverUrl } from './herd.ts';
import { type Screen, runLiveView } from './live.ts';
import { findFreePorts } from './ports.ts';
import { problem, startHerd, stopHerd } from './processes.ts';
import { recordHere } from './recording.ts';
import { type Step, runTour } from './tour.ts';

export interface DemoOptions {
  readonly nodes: number;
  readonly once: boolean;
  readonly json: boolean;
  readonly keep: boolean;
  /** Data: only the JSON line with `json`. */
  readonly out: Screen;
  /** Everything else with `json`. */
  readonly err: Screen;
  /** Calls back at Ctrl+C and SIGTERM; returns how to stop listening. */
  readonly onInterrupt: (callback: () => void) => () => void;
  /** How pgherd is started; default: as this process was. */
  readonly program?: readonly string[];
}

const ADDRESS = '127.0.0.1';
/** Away from the real ports, so that the demo runs beside real servers. */
const PREFERRED = { api: 18_433, store: 12_379, postgres: 15_432, agent: 18_441, proxy: 16_433 } as const;

/** Exit code: 0 when everything held, 1 when not, 130 when it was interrupted during the tour. */
export async function runDemo(options: DemoOptions): Promise<number> {
  const screen = options.json ? options.err : options.out;
  const say = (line: string): void => screen.write(`${line}\n`);
  const interrupted = new AbortController();
  const release = options.onInterrupt(() => interrupted.abort());
  const startedMs = monoMs();
  const plan = await makePlan(options);
  if ('code' in plan) return report(options, [], plan);
  const herd = openHerd(plan);
  const bringUp = startHerd(herd, { say, signal: interrupted.signal });
  const aborted = new Promise<'interrupted'>((resolve) => interrupted.signal.addEventListener('abort', () => resolve('interrupted'), { once: true }));
  try {
    const failure = await Promise.race([bringUp, aborted]);
    if (failure === 'interrupted') return 130;
    const create: Step = {
      name: 'create',
      ok: failure === null,
      outageMs: null,
      clientErrors: 0,
      lostRows: 0,
      detail: `${options.nodes} nodes in ${Math.round(monoMs() - startedMs)} ms`,
    };
    if (failure !== null) return report(options, [{ ...create, detail: describeFailure(failure) }], failure);
    sayStep(say, create);
    if (options.once) return await tour(herd, { options, say, create, aborted });
    const footer = guide(herd, writeEnvironment(herd));
    if (screen.isTTY) screen.write('\u001b[2J');
    await runLiveView(herd, { screen, footer, signal: interrupted.signal });
    return 0;
  } finally {
    say('stopping everything');
    // The files stay until the start has noticed that its verbs and roles are gone; only then nothing makes new ones.
    interrupted.abort();
    await stopHerd(herd, { keep: true });
    await bringUp;
    const left = await stopHerd(herd, { keep: options.keep });
    release();
    if (left.length > 0) say(`these processes could not be ended: ${left.join(', ')}; their files stay in ${plan.directory}`);
    else if (options.keep) say(`kept: ${plan.directory}`);
  }
}

interface TourParts {
  readonly options: DemoOptions;
  readonly say: (line: string) => void;
  readonly create: Step;
  readonly aborted: Promise<'interrupted'>;
}

async function tour(herd: Herd, { options, say, create, aborted }: TourParts): Promise<number> {
  const recording = recordHere(herd, 'tour');
  try {
    if (!(await recording.waitServing({ afterMs: 0, limitMs: 15_000, rows: 100 })))
      return report(options, [{ ...create, ok: false, detail: 'no write was acknowledged by the new cluster' }], null);
    const steps = await Promise.race([runTour(herd, recording, (step) => sayStep(say, step)), aborted]);
    if (steps === 'interrupted') return 130;
    return report(options, [create, ...steps], null);
  } finally {
    await recording.stop();
  }
}

const TOUR_STEPS = 7;

function report(options: DemoOptions, steps: readonly Step[], failure: Failure | null): number {
  const ok = steps.length === TOUR_STEPS && steps.every((step) => step.ok);
  if (failure !== null) options.err.write(`pgherd demo: ${describeFailure(failure)}\n`);
  if (options.json) options.out.write(`${JSON.stringify({ ok, steps })}\n`);
  else if (failure === null) options.out.write(ok ? 'everything held\n' : 'not everything held\n');
  return ok ? 0 : 1;
}

function sayStep(say: (line: string) => void, step: Step): void {
  const figures =
    step.name === 'create'
      ? []
      : [
          `outage ${step.outageMs ?? '–'} ms`,
          `${step.clientErrors} client error${step.clientErrors === 1 ? '' : 's'}`,
          `${step.lostRows ?? '–'} acknowledged rows lost`,
        ];
  say(`${step.ok ? 'held  ' : 'BROKEN'} ${step.name.padEnd(11)} ${[...figures, step.detail].join(' · ')}`);
}

async function makePlan(options: DemoOptions): Promise<HerdPlan | Failure> {
  const [[apiPort], [storePort], ports, agents, [writePort, readPort, splitPort]] = await Promise.all([
    findFreePorts(ADDRESS, { preferred: PREFERRED.api, count: 1 }),
    findFreePorts(ADDRESS, { preferred: PREFERRED.store, count: 1 }),
    findFreePorts(ADDRESS, { preferred: PREFERRED.postgres, count: options.nodes + 1 }),
    findFreePorts(ADDRESS, { preferred: PREFERRED.agent, count: options.nodes + 1 }),
    findFreePorts(ADDRESS, { preferred: PREFERRED.proxy, count: 3 }),
  ]);
  const single = apiPort === undefined || storePort === undefined || writePort === undefined || readPort === undefined || splitPort === undefined;
  if (single || ports.length <= options.nodes || agents.length <= options.nodes) {
    return problem('demo.ports', {
      what: 'there are not enough free ports on 127.0.0.1',
      cause: `looked from ${PREFERRED.postgres}, ${PREFERRED.api} and ${PREFERRED.store} on`,
      remedy: 'end other demos',
    });
  }
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'pgherd-demo-')));
  chmodSync(directory, 0o755);
  const hosts = ports.map((port, index) => ({ node: `n${index + 1}`, address: ADDRESS, port, agentPort: agents[index] ?? 0, inside: [] }));
  return {
    directory,
    program: options.program ?? [process.execPath, realpathSync(process.argv[1] ?? '')],
    cluster: 'demo',
    server: { address: ADDRESS, apiPort, storePort, inside: [] },
    nodes: hosts.slice(0, options.nodes),
    // The tour adds one more.
    spares: hosts.slice(options.nodes),
    proxies: [{ id: 'p1', address: ADDRESS, writePort, readPort, splitPort, inside: [] }],
    firewall: 'off',
    clientNetwork: '127.0.0.1/32',
    // People break one thing after the other here; a minute of waiting between two failovers would only look broken.
    spec: { antiFlappingMs: 3000, durability: { mode: 'async' } },
  };
}

/** A file to source, so that the verbs reach the demo's server; returns its path. */
function writeEnvironment(herd: Herd): string {
  const { plan, places, login } = herd;
  const bin = join(plan.directory, 'bin');
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, 'pgherd'), `#!/bin/sh\nexec ${plan.program.map(shellQuote).join(' ')} "$@"\n`, { mode: 0o755 });
  const passfile = join(plan.directory, 'pgpass');
  writeFileSync(passfile, `${ADDRESS}:*:${login.database}:${login.user}:${login.password}\n`, { mode: 0o600 });
  const file = join(plan.directory, 'env');
  const lines = [
    `export PATH=${shellQuote(bin)}:"$PATH"`,
    `export XDG_CONFIG_HOME=${shellQuote(places.cli)}`,
    `export PGHERD_SERVER=${serverUrl(plan)} PGHERD_CLUSTER=${plan.cluster} PGHERD_CA=${shellQuote(places.ca)}`,
    `export PGUSER=${shellQuote(login.user)} PGDATABASE=${shellQuote(login.database)} PGPASSFILE=${shellQuote(passfile)}`,
  ];
  writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 });
  return file;
}

export function connectionString(herd: Herd): string {
  const hosts = herd.targets.map((target) => `${target.host}:${target.port}`).join(',');
  return `postgresql://${herd.login.user}@${hosts}/${herd.login.database}?target_session_attrs=read-write`;
}

function guide(herd: Herd, environment: string): readonly string[] {
  const first = herd.plan.nodes[0]?.node ?? 'n1';
  const pidFile = `${herd.places.data(first)}/postmaster.pid`;
  return [
    'In another terminal:',
    `  . ${environment}`,
    '  pgherd psql                      # on the primary, as the user and in the database of the demo',
    `  psql '${connectionString(herd)}'`,
    ...proxyLines(herd),
    'Break something and watch what happens:',
    `  kill -9 $(head -1 ${pidFile})                    # PostgreSQL of ${first} crashes`,
    `  kill -9 $(pgrep -f '[a]gent --config ${herd.places.agentConfig(first)}')   # its agent dies: the guard fences`,
    '  pgherd switchover                # move the primary',
    '  pgherd explain                   # why it did what it did, and what would happen next',
    '  pgherd show; pgherd events; pgherd history',
    'Ctrl+C stops and removes all of it.',
  ];
}

function proxyLines({ plan, login }: Herd): readonly string[] {
  return (plan.proxies ?? []).flatMap(({ address, writePort, splitPort }) => [
    `  psql 'postgresql://${login.user}@${address}:${writePort}/${login.database}'    # through the proxy: outlives a switchover`,
    `  psql 'postgresql://${login.user}@${address}:${splitPort}/${login.database}'    # the same, and reads go to standbys`,
  ]);
}

function shellQuote(text: string): string {
  return /^[\w./:=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
