/** What a scenario is, and when its result is good. */
import type { Verdict } from '../src/demo/check.ts';
import type { DiskKind } from './disks.ts';
import type { Stage } from './stage.ts';

export interface Expectation {
  /** Longest outage that is good; null: it is only measured. */
  readonly outageMs: number | null;
  /** Rows without acknowledgement; null: only counted. */
  readonly clientErrors: number | null;
  /** Acknowledged rows that may be missing at the end; null: only counted (asynchronous replication may lose the last ones). */
  readonly lostRows: number | null;
  /** Until the lost or old node streams again; null: only measured. */
  readonly rejoinMs: number | null;
  /**
   * The one exception from "never two writable nodes": with asynchronous replication, a machine of which every clock stood still goes on as primary until its
   * next renewal. So long at most; what it acknowledged meanwhile is counted. Default: never.
   */
  readonly windowMs?: number;
}

export const STORE_KINDS = ['embedded', 'etcd'] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

export interface Scenario {
  readonly name: string;
  /** One line: what is broken, and what is to happen. */
  readonly about: string;
  readonly expect: Expectation;
  /** Further fields of the cluster's spec. */
  readonly spec?: Readonly<Record<string, unknown>>;
  /** Default: 3. A fourth one is `SPARE`; `stage.standbys` are two of the first three all the same. */
  readonly nodes?: 1 | 3 | 4;
  /** The node that holds no data; default: none. */
  readonly witness?: string;
  /** Node → priority; default: all the same. */
  readonly priorities?: Readonly<Record<string, number>>;
  /** Node → location; default: none. */
  readonly locations?: Readonly<Record<string, string>>;
  /** Default: the server's own. `etcd`: three members, one on each node's host. */
  readonly store?: StoreKind;
  /** What the fencing command does: `works` ends everything on the named host and says so; `fails` does nothing and says so. Default: there is none. */
  readonly fencing?: 'works' | 'fails';
  /** Each node's data directory has a file system of its own; default: none has. */
  readonly disks?: DiskKind;
  /** The same for the members of etcd. */
  readonly storeDisks?: DiskKind;
  /** The nodes' clocks can be made to stand still; default: they are the machine's. */
  readonly clocks?: 'own';
  /** Default: as the agents find it. */
  readonly firewall?: 'off';
  /** Three etcd members run on the nodes' hosts, and nobody uses them yet. */
  readonly spareEtcd?: boolean;
  /** Hosts are told that the server may come back on the proxies' host. */
  readonly spareServer?: boolean;
  /** How many proxies stand on the proxies' host, `p1`, `p2`, …; default: none. */
  readonly proxies?: number;
  /** The part `pooling` of their proxy.yaml; default: none. */
  readonly pooling?: Readonly<Record<string, unknown>>;
  readonly run: (stage: Stage) => Promise<Observation>;
}

/** What the scenario itself saw. `wrong`: everything that did not go as it must, in words. */
export interface Observation {
  readonly faultMs: number;
  readonly rejoinMs: number | null;
  /** The primary kept its role, as the rules say for what was done to it: nobody has to come back. */
  readonly stayed?: boolean;
  readonly detail: string;
  readonly wrong: readonly string[];
}

export interface ResultLine {
  readonly scenario: string;
  readonly ok: boolean;
  readonly outageMs: number | null;
  readonly clientErrors: number | null;
  readonly lostRows: number | null;
  readonly doubleWritableMs: number | null;
  readonly staleAckRows: number | null;
  readonly rejoinMs: number | null;
  readonly detail: string;
}

/** Pure. Two writable nodes and stale acknowledgements are never good, except within the window that a scenario names. */
export function judgeRun(scenario: Scenario, verdict: Verdict, seen: Observation): ResultLine {
  const { expect } = scenario;
  const wrong = [...seen.wrong];
  const bound = (what: string, value: number | null, limit: number | null, unit: string): void => {
    if (limit === null) return;
    if (value === null) wrong.push(`${what} could not be measured`);
    else if (value > limit) wrong.push(`${what} ${value}${unit} is more than ${limit}${unit}`);
  };
  bound('outage', verdict.outageMs, expect.outageMs, ' ms');
  bound('client errors', verdict.clientErrors, expect.clientErrors, '');
  bound('lost rows', verdict.lostRows, expect.lostRows, '');
  bound('time with two writable nodes', verdict.doubleWritableMs, expect.windowMs ?? 0, ' ms');
  bound('stale acknowledgements', verdict.staleAckRows, expect.windowMs === undefined ? 0 : null, '');
  if (seen.stayed !== true) bound('rejoin', seen.rejoinMs, expect.rejoinMs, ' ms');
  if (verdict.lostRows === null) wrong.push('the rows of the final primary could not be compared');
  return {
    scenario: scenario.name,
    ok: wrong.length === 0,
    outageMs: verdict.outageMs,
    clientErrors: verdict.clientErrors,
    lostRows: verdict.lostRows,
    doubleWritableMs: verdict.doubleWritableMs,
    staleAckRows: verdict.staleAckRows,
    rejoinMs: seen.rejoinMs,
    detail: [...wrong, seen.detail].filter((text) => text !== '').join('; '),
  };
}

/** The run itself failed before anything could be measured. */
export function brokenRun(scenario: Scenario, why: string): ResultLine {
  return {
    scenario: scenario.name,
    ok: false,
    outageMs: null,
    clientErrors: null,
    lostRows: null,
    doubleWritableMs: null,
    staleAckRows: null,
    rejoinMs: null,
    detail: why,
  };
}
