/** `npm run bench -- failover`: which systems and faults, in which order, and where the lines go. */
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { cannotRunHere } from '../../lab/network.ts';
import { ROOT } from '../../lab/stage.ts';
import { monoMs } from '../../src/base/clock.ts';
import { type Decoder, bool, decodeJson, formatDecodeError, integer, nullable, object, oneOf, text, withDefault } from '../../src/core/decode.ts';
import { measureOnce } from './arena.ts';
import { PATRONI } from './patroni.ts';
import { PG_AUTO_FAILOVER } from './pg-auto-failover.ts';
import { PGHERD } from './pgherd.ts';
import { REPMGR_SYSTEMS } from './repmgr.ts';
import { renderLine, writePage } from './table.ts';
import { FAULTS, type Fault, PEERS, type Peer, type RunLine, type System } from './types.ts';

export const USAGE = `npm run bench -- failover [--against patroni,repmgr,pg_auto_failover] [--runs 3] [--faults ${FAULTS.join(',')}]
                          [--systems ID,…] [--json] [--write] [--keep] [--continue FILE] [--limit SECONDS]
  --systems    only these of them (--systems list shows all)
  --write      writes docs/measurements-failover.md
  --continue   goes on with the session in FILE: its runs count, and new ones are added to it
  --limit      begins no run after so many seconds
`;

const SYSTEMS: readonly System[] = [...PGHERD, ...PATRONI, ...REPMGR_SYSTEMS, ...PG_AUTO_FAILOVER];

const MOST_RUNS = 100;

interface Wanted {
  readonly systems: readonly System[];
  readonly faults: readonly Fault[];
  readonly runs: number;
  readonly json: boolean;
  readonly write: boolean;
  readonly keep: boolean;
  /** Null: the session begins and ends with this command. */
  readonly file: string | null;
  readonly limitMs: number;
}

const runLine: Decoder<RunLine> = object({
  system: text,
  fault: oneOf(...FAULTS),
  run: integer,
  ok: bool,
  outageMs: nullable(integer),
  clientErrors: nullable(integer),
  lostRows: nullable(integer),
  doubleWritableMs: nullable(integer),
  staleAckRows: nullable(integer),
  rejoinMs: nullable(integer),
  stolenPercent: withDefault(nullable(integer), null),
  detail: text,
});

/** What is wrong with the arguments, in words; `list`; or what is wanted. */
export function parseWanted(argv: readonly string[]): Wanted | string {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      against: { type: 'string', default: PEERS.join(',') },
      systems: { type: 'string' },
      faults: { type: 'string', default: FAULTS.join(',') },
      runs: { type: 'string', default: '3' },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      continue: { type: 'string' },
      limit: { type: 'string' },
    },
  });
  const against = chosen('--against', values.against, PEERS);
  if (typeof against === 'string') return against;
  const faults = chosen('--faults', values.faults, FAULTS);
  if (typeof faults === 'string') return faults;
  const possible = SYSTEMS.filter((system) => system.product === 'pgherd' || against.includes(system.product));
  const ids =
    values.systems === undefined
      ? possible.map(({ id }) => id)
      : chosen(
          '--systems',
          values.systems,
          possible.map(({ id }) => id),
        );
  if (typeof ids === 'string') return ids;
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1 || runs > MOST_RUNS) return `--runs ${values.runs}: expected a whole number from 1 to ${MOST_RUNS}`;
  const limit = Number(values.limit ?? Number.MAX_SAFE_INTEGER);
  if (!(limit >= 1)) return `--limit ${values.limit ?? ''}: expected a number of seconds`;
  const { json, write, keep } = values;
  return {
    systems: possible.filter(({ id }) => ids.includes(id)),
    faults,
    runs,
    json,
    write,
    keep,
    file: values.continue ?? null,
    limitMs: limit * 1000,
  };
}

/** The words of a list that must all be known, each once; else what is wrong. */
function chosen<T extends string>(option: string, given: string, known: readonly T[]): readonly T[] | string {
  const words = [
    ...new Set(
      given
        .split(',')
        .map((word) => word.trim())
        .filter((word) => word !== ''),
    ),
  ];
  const found = known.filter((one) => words.includes(one));
  return found.length === words.length ? found : `${option} ${given}: expected some of ${known.join(', ')}`;
}

/** Exit code 0 when every run could be measured; what a system did wrong is a result, not a failure of the measurement. */
export async function benchFailover(argv: readonly string[], say: (line: string) => void): Promise<number> {
  let wanted: Wanted | string;
  try {
    wanted = parseWanted(argv);
  } catch (error) {
    wanted = error instanceof Error ? error.message : String(error);
  }
  if (typeof wanted === 'string') {
    say(`bench: ${wanted}\n\n${USAGE}`);
    return 2;
  }
  const why = cannotRunHere() ?? install(wanted.systems);
  if (why !== null) {
    say(`bench: ${why}`);
    return 1;
  }
  const ended = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => ended.abort(new Error(`ended by ${name}`)));
  const earlier = wanted.file === null ? [] : readSession(wanted.file);
  const lines = await measureAll(wanted, { earlier, say, signal: ended.signal });
  const all = [...earlier, ...lines];
  if (wanted.write && all.length > 0) writePage({ systems: SYSTEMS, lines: all, versions: versionsOf(all) });
  return ended.signal.aborted || lines.some((line) => line.outageMs === null) ? 1 : 0;
}

/** The systems take turns, so that what else the machine does meets all of them. */
async function measureAll(
  wanted: Wanted,
  options: { readonly earlier: readonly RunLine[]; readonly say: (line: string) => void; readonly signal: AbortSignal },
): Promise<readonly RunLine[]> {
  const { earlier, say, signal } = options;
  const lines: RunLine[] = [];
  const startedMs = monoMs();
  for (let run = 1; run <= wanted.runs; run++) {
    for (const fault of wanted.faults) {
      for (const system of wanted.systems) {
        // A run that never came to its fault is done again.
        if (earlier.some((line) => line.system === system.id && line.fault === fault && line.run === run && line.outageMs !== null)) continue;
        if (signal.aborted || monoMs() - startedMs > wanted.limitMs) return lines;
        say(`${system.id}, ${fault}, run ${run}`);
        try {
          const line = await measureOnce(system, fault, { run, keep: wanted.keep, say, signal });
          lines.push(line);
          if (wanted.file !== null) addToSession(wanted.file, line);
          process.stdout.write(wanted.json ? `${JSON.stringify(line)}\n` : `${renderLine(line)}\n`);
        } catch (error) {
          if (!signal.aborted) throw error;
          say('bench: ended; everything of the run under way is removed');
          return lines;
        }
      }
    }
  }
  return lines;
}

/** Lines of an earlier command; none when the file is not there yet. Throws at a line that is none. */
function readSession(file: string): readonly RunLine[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      const decoded = decodeJson(runLine, line);
      if (!decoded.ok) throw new Error(`${file}, line ${index + 1}: ${formatDecodeError(decoded.error)}`);
      return decoded.value;
    });
}

function addToSession(file: string, line: RunLine): void {
  mkdirSync(dirname(file), { recursive: true });
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Null when everything is there; else what is missing, in words. The script says by itself what it installs. */
function install(systems: readonly System[]): string | null {
  const peers = PEERS.filter((peer) => systems.some((system) => system.product === peer));
  const done = spawnSync('bash', [join(ROOT, 'scripts', 'setup'), 'failover', ...peers], { stdio: ['ignore', 'inherit', 'inherit'] });
  return done.status === 0 ? null : `what is measured could not be installed (scripts/setup failover ${peers.join(' ')})`;
}

function versionsOf(lines: readonly RunLine[]): ReadonlyMap<Peer | 'pgherd', string> {
  const measured = SYSTEMS.filter((system) => lines.some((line) => line.system === system.id));
  return new Map(
    measured.map((system) => {
      try {
        return [system.product, system.version()] as const;
      } catch (error) {
        return [system.product, error instanceof Error ? error.message : String(error)] as const;
      }
    }),
  );
}
