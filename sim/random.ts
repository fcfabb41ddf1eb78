/** Randomness of a run: one 64-bit seed, and a stream of its own for each part, so that a part that asks more often changes no other part. */

export interface Random {
  /** At least 0, less than 1. */
  next(): number;
  /** A whole number of 0 … bound − 1. */
  int(bound: number): number;
  /** At least `from`, less than `to`. */
  between(from: number, to: number): number;
  chance(probability: number): boolean;
  /** Throws for an empty list. */
  pick<T>(list: readonly T[]): T;
  /** A new list in random order. */
  shuffle<T>(list: readonly T[]): T[];
  /** The stream of that name; it depends on the seed and the name only, not on what was drawn before. */
  stream(name: string): Random;
}

/** SplitMix64: spreads a seed over all bits. *Source:* Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
function splitMix(state: bigint): { readonly state: bigint; readonly value: bigint } {
  const mask = 0xffff_ffff_ffff_ffffn;
  const next = (state + 0x9e37_79b9_7f4a_7c15n) & mask;
  let z = next;
  z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & mask;
  z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & mask;
  return { state: next, value: z ^ (z >> 31n) };
}

/** FNV-1a over the UTF-16 units, 64 bits. */
function hash(text: string): bigint {
  let h = 0xcbf2_9ce4_8422_2325n;
  for (let i = 0; i < text.length; i++) h = ((h ^ BigInt(text.charCodeAt(i))) * 0x100_0000_01b3n) & 0xffff_ffff_ffff_ffffn;
  return h;
}

/** sfc32: small, fast, passes PractRand. */
export function createRandom(seed: bigint): Random {
  const first = splitMix(seed & 0xffff_ffff_ffff_ffffn);
  const second = splitMix(first.state);
  let a = Number(first.value & 0xffff_ffffn) | 0;
  let b = Number(first.value >> 32n) | 0;
  let c = Number(second.value & 0xffff_ffffn) | 0;
  let d = Number(second.value >> 32n) | 0;

  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4_294_967_296;
  };
  for (let i = 0; i < 12; i++) next();
  const int = (bound: number): number => Math.floor(next() * bound);
  return {
    next,
    int,
    between: (from, to) => from + next() * (to - from),
    chance: (probability) => next() < probability,
    pick: (list) => {
      if (list.length === 0) throw new Error('nothing to pick from');
      return list[int(list.length)] as (typeof list)[number];
    },
    shuffle: (list) => {
      const all = [...list];
      for (let i = all.length - 1; i > 0; i--) {
        const j = int(i + 1);
        [all[i], all[j]] = [all[j] as (typeof all)[number], all[i] as (typeof all)[number]];
      }
      return all;
    },
    stream: (name) => createRandom(seed ^ hash(name)),
  };
}
