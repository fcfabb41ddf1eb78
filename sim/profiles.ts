/** Shapes of clusters. A run takes one by its seed, or the one that was asked for; what a shape leaves open is drawn from the seed too. */
import { huntStories, rareStories } from './hunt-faults.ts';
import type { Random } from './random.ts';

export interface NodeShape {
  readonly name: string;
  readonly kind: 'data' | 'witness';
  readonly location: string | null;
  readonly priority: number;
  /** The standby that it streams from; absent: the primary. */
  readonly upstream?: string;
  /** Replays so much later; absent: at once. */
  readonly delayMs?: number;
}

/** A host that is no member in the beginning. */
export const SPARE_NODE = 'x1';
export const WRITE_ADDRESS = '192.0.2.100';
export const READ_ADDRESS = '192.0.2.101';

export interface Shape {
  readonly profile: string;
  readonly nodes: readonly NodeShape[];
  /** Hosts with an agent that are no members in the beginning. */
  readonly spare: readonly NodeShape[];
  /** Hosts that run `pgherd server`, and with it a controller. */
  readonly servers: readonly string[];
  /** Hosts of the store's members: one is the embedded engine, three are etcd. */
  readonly store: readonly string[];
  /** Hosts of clients. */
  readonly clients: readonly string[];
  /** Parts of the spec beside the nodes. */
  readonly spec: Readonly<Record<string, unknown>>;
  readonly firewall: 'fail-closed' | 'off';
  /** Host → site; a way between two sites is longer. */
  readonly sites: Readonly<Record<string, string>>;
}

export interface Profile {
  readonly name: string;
  readonly what: string;
  readonly build: (random: Random) => Built;
}

type Built = Omit<Shape, 'profile' | 'spare'>;

/** Said, because three data nodes have a quorum when nothing is. */
const ASYNCHRONOUS = { mode: 'async' };

const data = (count: number): NodeShape[] =>
  Array.from({ length: count }, (_, index) => ({ name: `n${index + 1}`, kind: 'data', location: null, priority: 100 }));

/** What people change about failover, recovery and detection. */
function drawSpec(random: Random): Record<string, unknown> {
  return {
    onCrash: random.chance(0.7) ? 'failover' : 'restart',
    recovery: random.chance(0.9) ? 'automatic' : random.pick(['standby', 'manual']),
    recoveryDelayMs: random.pick([0, 1000, 5000]),
    antiFlappingMs: random.pick([0, 10_000, 60_000]),
    maxLagOnFailoverBytes: random.pick([0, 65_536, 1_048_576, 16_777_216]),
    leaseTtlMs: random.pick([2000, 3000, 3000, 5000]),
    reportIntervalMs: random.pick([300, 500, 1000]),
    switchoverTimeoutMs: random.pick([5000, 30_000]),
    stopFastMs: random.pick([2000, 10_000]),
  };
}

/** One server with the embedded store, or etcd on hosts of its own or beside the nodes, with one or two servers. */
function drawControl(random: Random, nodes: readonly NodeShape[]): Pick<Shape, 'servers' | 'store'> {
  if (random.chance(0.4)) return { servers: ['s1'], store: ['s1'] };
  const servers = random.chance(0.5) ? ['s1'] : ['s1', 's2'];
  const beside = nodes.length >= 3 && random.chance(0.5);
  return { servers, store: beside ? nodes.slice(0, 3).map((node) => node.name) : ['e1', 'e2', 'e3'] };
}

function plain(
  nodes: (random: Random) => readonly NodeShape[],
  durability: (random: Random, dataNodes: number) => Record<string, unknown> = () => ASYNCHRONOUS,
): Profile['build'] {
  return (random) => {
    const shape = nodes(random);
    return {
      nodes: shape,
      ...drawControl(random, shape),
      clients: ['c1'],
      spec: { ...drawSpec(random), durability: durability(random, shape.filter((node) => node.kind === 'data').length) },
      firewall: random.chance(0.75) ? 'fail-closed' : 'off',
      sites: {},
    };
  };
}

function twoSites(random: Random): Built {
  const nodes: NodeShape[] = [
    { name: 'n1', kind: 'data', location: 'east', priority: 100 },
    { name: 'n2', kind: 'data', location: 'east', priority: 100 },
    { name: 'n3', kind: 'data', location: 'west', priority: random.pick([0, 50, 100]) },
    { name: 'w1', kind: 'witness', location: 'middle', priority: 0 },
  ];
  return {
    nodes,
    servers: ['s1', 's2'],
    store: ['e1', 'e2', 'e3'],
    clients: ['c1'],
    spec: { ...drawSpec(random), durability: ASYNCHRONOUS },
    firewall: random.chance(0.75) ? 'fail-closed' : 'off',
    sites: { n1: 'east', n2: 'east', s1: 'east', e1: 'east', c1: 'east', n3: 'west', s2: 'west', e2: 'west', w1: 'middle', e3: 'middle' },
  };
}

export const profiles: readonly Profile[] = [
  { name: 'three', what: 'three data nodes, asynchronous', build: plain(() => data(3)) },
  {
    name: 'two-witness',
    what: 'two data nodes and a witness, asynchronous',
    build: plain(() => [...data(2), { name: 'w1', kind: 'witness', location: null, priority: 0 }]),
  },
  { name: 'five', what: 'five data nodes, one of them never to be promoted, asynchronous', build: plain(five) },
  { name: 'quorum', what: 'three to five data nodes, k of them acknowledge, adaptive', build: plain(threeToFive, quorum) },
  {
    name: 'quorum-two',
    what: 'four data nodes or five, two of them acknowledge, adaptive',
    build: plain(
      (random) => data(random.pick([4, 5])),
      () => ({ mode: 'quorum', k: 2, minSync: 0 }),
    ),
  },
  {
    name: 'sync',
    what: 'two data nodes and a witness, or three: the first ones acknowledge, adaptive',
    build: plain(
      (random) => (random.chance(0.3) ? [...data(2), { name: 'w1', kind: 'witness', location: null, priority: 0 }] : data(3)),
      (_random) => ({ mode: 'sync' }),
    ),
  },
  {
    name: 'strict',
    what: 'three data nodes or five, writes wait rather than be protected by fewer',
    build: plain(
      (random) => data(random.chance(0.8) ? 3 : 5),
      (random, count) => ({ mode: random.pick(['sync', 'quorum']), strict: true, k: count > 3 ? random.pick([1, 2]) : 1 }),
    ),
  },
  {
    name: 'cascading',
    what: 'four data nodes, one or two of them behind another standby, one delayed in half of the runs; asynchronous, or one of them acknowledges',
    build: plain(cascading, (random) => (random.chance(0.5) ? ASYNCHRONOUS : { mode: 'quorum', k: 1, minSync: 0 })),
  },
  { name: 'two-sites', what: 'two sites, a witness and the third store member at another place', build: twoSites },
  {
    name: 'two-sites-manual',
    what: 'the same, and only a person moves the primary to the other site',
    build: (random) => {
      const built = twoSites(random);
      return { ...built, spec: { ...built.spec, crossLocation: 'manual' } };
    },
  },
];

function five(random: Random): readonly NodeShape[] {
  const spare = random.int(5);
  return data(5).map((node, index) => (index === spare ? { ...node, priority: 0 } : node));
}

/** n1 and n2 are direct; n3 is behind n2, n4 behind n3 or delayed. */
function cascading(random: Random): readonly NodeShape[] {
  const isDelayed = random.chance(0.5);
  return data(4).map((node, index): NodeShape => {
    if (index === 2) return { ...node, upstream: 'n2' };
    if (index !== 3) return node;
    return isDelayed ? { ...node, delayMs: random.pick([2000, 15_000]) } : { ...node, upstream: random.pick(['n2', 'n3']) };
  });
}

function threeToFive(random: Random): readonly NodeShape[] {
  return data(random.pick([3, 3, 3, 4, 5]));
}

function quorum(random: Random, count: number): Record<string, unknown> {
  const k = count > 3 ? random.pick([1, 2]) : 1;
  return { mode: 'quorum', k, minSync: random.chance(0.25) ? 1 : 0 };
}

/** What a run has beside its shape: asked for by `PROFILE+EXTRA`, or drawn. Each comes with draws of its own, so that a run without it is the same as ever. */
const EXTRAS = ['restore', 'setback', 'proxy', 'reads', 'hunt', 'operations', 'founding', 'altered'] as const;
export type Extra = (typeof EXTRAS)[number];

/** So many of a hundred seeds have it when no profile is asked for. */
const SHARES: Readonly<Record<Extra, number>> = { restore: 6, setback: 0, proxy: 20, reads: 12, hunt: 12, operations: 15, founding: 3, altered: 5 };

export interface Chosen {
  /** As it can be asked for again: `three`, `quorum+restore`. */
  readonly name: string;
  readonly profile: Profile;
  readonly extras: ReadonlySet<Extra>;
  /** Asked for by `+hunt.STORY`: no other story is told. */
  readonly story: string | null;
}

/** As the profile draws it, with what the extras bring. */
export function buildShape({ name, profile, extras }: Chosen, random: Random): Shape {
  const spare: readonly NodeShape[] = extras.has('operations') ? [{ name: SPARE_NODE, kind: 'data', location: null, priority: 100 }] : [];
  return { profile: name, ...profile.build(random), spare };
}

/** `asked`: a profile with its extras, and nothing else is drawn. Null: drawn. Throws for a name that there is not. */
export function chooseProfile(random: Random, asked: string | null): Chosen {
  const found = asked === null ? drawChoice(random) : parseChoice(asked);
  if (found === null) throw new Error(`no profile "${asked ?? ''}"`);
  return found;
}

/** Null when there is no such profile or extra. */
export function parseChoice(text: string): Chosen | null {
  const [base = '', ...asked] = text.split('+');
  const profile = findProfile(base);
  const story = asked.find((one) => one.startsWith(STORY))?.slice(STORY.length) ?? null;
  const more = asked.map((one) => (one.startsWith(STORY) ? 'hunt' : one));
  const extras = EXTRAS.filter((extra) => more.includes(extra));
  if (profile === null || extras.length !== more.length || (story !== null && !huntStories.includes(story))) return null;
  return choice(profile, extras, story);
}

function drawChoice(random: Random): Chosen {
  const extras = EXTRAS.filter((extra) => random.stream(`with ${extra}`).chance(SHARES[extra] / 100));
  const cascades = random.stream('with cascades').chance(CASCADING_SHARE) ? findProfile('cascading') : null;
  const isApart = random.stream('with sites apart').chance(APART_SHARE);
  const rare = random.stream('with a rare story');
  const story = rare.chance(RARE_SHARE) ? rare.pick(rareStories) : null;
  const profile = cascades ?? (isApart ? findProfile('two-sites-manual') : null) ?? drawProfile(random.stream('profile'));
  return choice(profile, extras, extras.includes('hunt') ? story : null);
}

const STORY = 'hunt.';

const choice = (profile: Profile, extras: readonly Extra[], story: string | null = null): Chosen => ({
  name: [profile.name, ...extras.map((extra) => (extra === 'hunt' && story !== null ? `${STORY}${story}` : extra))].join('+'),
  profile,
  extras: new Set(extras),
  story,
});

/** Null when no profile has that name. */
function findProfile(name: string): Profile | null {
  return profiles.find((profile) => profile.name === name) ?? null;
}

/** How often each profile is drawn when none is asked for. */
const WEIGHTS: Readonly<Record<string, number>> = {
  three: 5,
  'two-witness': 3,
  five: 1,
  'two-sites': 1,
  quorum: 4,
  sync: 2,
  strict: 2,
  cascading: 0,
  'quorum-two': 0,
  'two-sites-manual': 0,
};
/** Beside the others, so that seeds that do not draw it are the same runs as ever. */
const CASCADING_SHARE = 0.06;
const APART_SHARE = 0.02;
/** Of the runs with stories. */
const RARE_SHARE = 0.3;

function drawProfile(random: Random): Profile {
  const total = profiles.reduce((sum, profile) => sum + (WEIGHTS[profile.name] ?? 1), 0);
  let left = random.next() * total;
  for (const profile of profiles) {
    left -= WEIGHTS[profile.name] ?? 1;
    if (left < 0) return profile;
  }
  return profiles[0] as Profile;
}
