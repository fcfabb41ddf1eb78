/** `synchronous_standby_names`: parsed as PostgreSQL does, and judged as a walsender does. *Source:* PostgreSQL, replication/syncrep.c and syncrep_gram.y. */

export interface SyncConfig {
  readonly method: 'first' | 'any';
  readonly count: number;
  /** Lower case; `*` stands for every name. */
  readonly names: readonly string[];
}

/** Null: empty, no synchronous replication. Throws for text that PostgreSQL would refuse. */
export function parseSyncNames(text: string): SyncConfig | null {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const form = /^(?:(FIRST|ANY)\s+)?(\d+)\s*\((.*)\)$/is.exec(trimmed);
  const body = form === null ? trimmed : (form[3] ?? '');
  const names = splitNames(body);
  const count = form === null ? 1 : Number(form[2]);
  if (names === null || count < 1) throw new Error(`invalid synchronous_standby_names: ${text}`);
  return { method: form?.[1]?.toUpperCase() === 'ANY' ? 'any' : 'first', count, names };
}

function splitNames(body: string): readonly string[] | null {
  const names: string[] = [];
  const pattern = /\s*(?:"((?:[^"]|"")+)"|(\*|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|\d+))\s*(,|$)/gy;
  while (pattern.lastIndex < body.length) {
    const match = pattern.exec(body);
    if (match === null) return null;
    names.push((match[1]?.replaceAll('""', '"') ?? match[2] ?? '').toLowerCase());
    if (match[3] === '') break;
  }
  return names.length > 0 ? names : null;
}

/** 0: not synchronous. Else the place in the list; in an ANY list everybody has 1. Names are compared without regard to case. */
export function syncPriority(config: SyncConfig | null, applicationName: string): number {
  if (config === null) return 0;
  const name = applicationName.toLowerCase();
  const place = config.names.findIndex((listed) => listed === '*' || listed === name);
  return place < 0 ? 0 : config.method === 'any' ? 1 : place + 1;
}

export interface SyncCandidate {
  /** As the walsender itself set it, from the configuration that it has loaded. */
  readonly priority: number;
  readonly write: number;
  readonly flush: number;
  readonly apply: number;
}

export type SyncPositions = { readonly write: number; readonly flush: number; readonly apply: number };

/**
 * How far commits are confirmed, as the walsender `own` sees it with its own configuration; null: it may release nothing.
 * `candidates`: walsenders that stream, with a valid flush position and a priority above 0, `own` among them.
 */
export function confirmedPositions<T extends SyncCandidate>(config: SyncConfig | null, own: T, candidates: readonly T[]): SyncPositions | null {
  if (config === null) return null;
  if (config.method === 'first') {
    const chosen = [...candidates].sort((a, b) => a.priority - b.priority).slice(0, config.count);
    if (chosen.length < config.count || !chosen.includes(own)) return null;
    const oldest = (of: (one: SyncCandidate) => number): number => Math.min(...chosen.map(of));
    return { write: oldest((one) => one.write), flush: oldest((one) => one.flush), apply: oldest((one) => one.apply) };
  }
  if (candidates.length < config.count || !candidates.includes(own)) return null;
  const nth = (of: (one: SyncCandidate) => number): number => [...candidates].map(of).sort((a, b) => b - a)[config.count - 1] ?? 0;
  return { write: nth((one) => one.write), flush: nth((one) => one.flush), apply: nth((one) => one.apply) };
}
