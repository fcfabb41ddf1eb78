/**
 * Deliberate defects, each one that a person could make, and each of which loses rows, opens two primaries, or leaves a cluster without one.
 * The simulator has to catch every one of them; one that it does not catch is a hole in the simulator, not in the product.
 */
import type { Mutant } from './mutant.ts';
import { policyMutants } from './policy-mutants.ts';
import { rowMutants } from './row-mutants.ts';

export type { Mutant } from './mutant.ts';

const KEEPER = 'src/agent/lease/lease-keeper.ts';
const LEASE_STORE = 'src/agent/lease/lease-store.ts';
const LEASE_RULES = 'src/agent/lease/lease-rules.ts';
const EXECUTE = 'src/agent/execute.ts';
const DECIDE = 'src/core/node/decide.ts';
const ATTEMPT = 'src/core/cluster/rules/attempt.ts';
const ATTEMPTS = 'src/core/cluster/attempts.ts';
const PROMISES = 'src/core/node/promises.ts';

const writerMutants: readonly Mutant[] = [
  {
    name: 'skip-the-fence',
    breaks: 'a lost lease is followed by a complete kill, by agent and guard (architecture 4.2, 4.3)',
    patches: [
      { file: 'src/agent/write-lease.ts', from: 'const killed = await options.kill();', to: "const killed = { ok: true, value: '' } as const;" },
      {
        file: 'src/agent/guard/guard-state.ts',
        from: "return state.phase === 'armed' && state.armed !== null && state.armed.deadline <= now;",
        to: 'return now < 0;',
      },
      {
        file: DECIDE,
        from: 'if (!mayAcceptWrites(facts.postgres) || facts.leaseTerm !== null) return null;',
        to: 'if (facts.postgres !== null) return null;',
      },
    ],
  },
  {
    name: 'keep-alive-proves-the-lease',
    breaks: 'a renewal counts only with a comparison of the key (Z5)',
    profile: 'three+restore',
    patches: [
      {
        file: LEASE_STORE,
        from: 'if (!compared.ok) return { confirmation: {',
        to: "if (kept.ok) return { confirmation: { kind: 'confirmed' }, grantedMs: kept.value.ttlMs };\n  if (!compared.ok) return { confirmation: {",
      },
    ],
  },
  {
    name: 'deadline-from-the-reply',
    breaks: 'a lease runs from before the request was sent (architecture 4.2)',
    profile: 'two-sites',
    patches: [
      {
        file: KEEPER,
        from: 'const deadline = addMono(until, -lostSince(sent, before));',
        to: 'const deadline = addMono(until, before.mono - sent.mono);',
      },
    ],
  },
  {
    name: 'no-margin',
    breaks: 'the margin covers the time that a fence takes (architecture 4.2)',
    patches: [{ file: LEASE_RULES, from: '- options.settings.marginMs);', to: '+ options.settings.marginMs);' }],
  },
  {
    name: 'ignore-a-pause',
    breaks: 'time that a suspended machine did not count is taken off the deadline (architecture 4.2)',
    profile: 'three+hunt.pause',
    patches: [{ file: 'src/agent/lease/pause.ts', from: 'return Math.max(byBoot, byWall);', to: 'return Math.min(0, byBoot, byWall);' }],
  },
  {
    name: 'claim-over-another',
    // The comparison with the state alone makes up for a lease that is not looked at: a holder is replaced by no order but that of a new state.
    breaks: 'the write lease is taken only when it is free or our own, and in the state that ordered it (I1)',
    profile: 'three+hunt.stale',
    patches: [
      {
        file: LEASE_STORE,
        from: "if (judged?.kind === 'taken' && !replaceable && (judged.by !== at.node || judged.term === null || judged.term > term)) {",
        to: "if (judged?.kind === 'gone') {",
      },
      {
        file: LEASE_STORE,
        from: 'const guards = [stateIs, unchanged(at.keys.writeLease, held)]',
        to: 'const guards: Compare[] = stateIs.key === at.keys.writeLease ? [stateIs] : []',
      },
    ],
  },
  {
    name: 'claim-without-the-state',
    breaks: 'a claim compares the revision of the state that ordered it (architecture 4.5)',
    profile: 'three+hunt.stale',
    patches: [
      {
        file: LEASE_STORE,
        from: 'const guards = [stateIs, unchanged(at.keys.writeLease, held)]',
        to: 'const guards = [unchanged(at.keys.writeLease, held)]',
      },
      {
        file: LEASE_STORE,
        from: 'guards: [stateIs, unchanged(at.keys.writeLease, null)], granted: prepared',
        to: 'guards: [unchanged(at.keys.writeLease, null)], granted: prepared',
      },
      {
        file: LEASE_STORE,
        from: 'put(at, { term, deadline, guards: [stateIs, unchanged(at.keys.writeLease, null)] })',
        to: 'put(at, { term, deadline, guards: [unchanged(at.keys.writeLease, null)] })',
      },
    ],
  },
  {
    name: 'claim-again-whatever-the-state',
    breaks: 'a vanished lease is taken again only while the state still wants us in this term (Z18)',
    patches: [
      {
        file: LEASE_RULES,
        from: 'return state.term === own.term && goal !== undefined && goal.term === own.term && HOLDER_GOALS.includes(goal.kind);',
        to: "return goal !== undefined || HOLDER_GOALS.includes('none') || own.term > 0;",
      },
    ],
  },
  {
    name: 'open-without-a-renewal',
    breaks: 'a node promotes under the lease of the new term, and opens only after one more renewal (architecture 4.5)',
    // Without the renewal alone the lease itself still fences a promotion that outlasts it: here nobody asks for it at all.
    patches: [
      {
        file: DECIDE,
        from: "if (facts.leaseTerm !== goal.term) return { kind: 'acquire-lease', why: `promotion for term",
        to: "if (goal.term < 0) return { kind: 'acquire-lease', why: `promotion for term",
      },
      {
        file: DECIDE,
        from: "if (facts.leaseTerm !== term) return { kind: 'acquire-lease', why: `to open term",
        to: "if (facts.leaseTerm !== term && postgres.role !== 'primary') return { kind: 'acquire-lease', why: `to open term",
      },
      {
        file: DECIDE,
        from: 'if (!mayAcceptWrites(facts.postgres) || facts.leaseTerm !== null) return null;',
        to: 'if (facts.postgres !== null) return null;',
      },
      { file: DECIDE, from: "if (!facts.confirmed) return nothing('waiting for one more renewal of the write lease');", to: '' },
      {
        file: EXECUTE,
        from: 'mayPromote: () => isReady && holds(context, action.term),',
        to: 'mayPromote: () => isReady,',
      },
      {
        file: EXECUTE,
        from: "if (!holds(context, action.term)) return err(refused('lease.lost'",
        to: "if (action.term < 0) return err(refused('lease.lost'",
      },
    ],
  },
  {
    name: 'promote-while-the-lease-stands',
    breaks: 'in asynchronous mode nothing is promoted before the old lease is gone (H14, H16)',
    profile: 'three+hunt.returned',
    patches: [
      {
        file: ATTEMPT,
        from: 'return view.writeLease === null;\n}',
        to: 'return view.writeLease === null || view.state.term > 0;\n}',
      },
      {
        file: LEASE_STORE,
        from: "if (judged?.kind === 'taken' && !replaceable && (judged.by !== at.node || judged.term === null || judged.term > term)) {",
        to: "if (judged?.kind === 'gone') {",
      },
      {
        file: 'src/core/cluster/rules/primary-lost.ts',
        from: 'const leaseHeld = lease !== null && lease.term === state.primaryTerm;',
        to: 'const leaseHeld = lease !== null && lease.term < 0;',
      },
    ],
  },
  {
    name: 'abandon-after-the-order',
    breaks: 'after the promote order only a durable refusal or the loss of its lease frees the term (architecture 4.5, Q12)',
    patches: [
      {
        file: ATTEMPT,
        from: 'if (report === null) {\n    if (justBegun)',
        to: "if (elapsedMs(now, attempt.startedWallMs) > 400) return replace(view, now, attempt, 'attempt.candidate-lost', 'impatient');\n  if (report === null) {\n    if (justBegun)",
      },
    ],
  },
  {
    name: 'maintenance-is-promoted',
    breaks: 'a node in maintenance is never promoted (I14)',
    profile: 'three+hunt.maintenance',
    // It is left alone in three places: it does not vote, it is not elected, and every other order to it is taken back.
    patches: [
      {
        file: 'src/core/cluster/rules/housekeeping.ts',
        from: 'if (node.id === state.primary || node.id === state.attempt?.candidate || !isMaintenance(view, node.id)) continue;',
        to: 'if (node.id === state.primary || state.term >= 0) continue;',
      },
      {
        file: 'src/core/cluster/election.ts',
        from: "if (isMaintenance(view, node.id)) reasons.push('it is in maintenance');\n  else if (view.state.overrides[node.id] !== undefined)",
        to: 'if (view.state.overrides[node.id] !== undefined && reasons.length > 99)',
      },
      {
        file: ATTEMPTS,
        from: 'if (node.id === state.primary || isMaintenance(view, node.id) || !mayCount(view, node.id)) continue;',
        to: 'if (node.id === state.primary) continue;',
      },
    ],
  },
  {
    name: 'too-few-promises',
    breaks: 'promises and votes of two majorities overlap (F + P > M, architecture 4.7)',
    patches: [
      {
        file: 'src/core/state.ts',
        from: 'return { promotion, promises: members - promotion + 1 };',
        to: 'return { promotion, promises: members - promotion };',
      },
    ],
  },
  {
    name: 'vote-in-spite-of-a-promise',
    breaks: 'a promiser does not vote for another until its promise ran out (architecture 4.7)',
    profile: 'two-witness+hunt.widening',
    patches: [
      {
        file: PROMISES,
        from: "if (open !== null && open.until > now && open.term < term) {\n    return { kind: 'wait'",
        to: "if (open !== null && open.until > now && open.term < 0) {\n    return { kind: 'wait'",
      },
    ],
  },
  {
    name: 'long-promises-bind-for-a-ttl',
    breaks: 'a promiser does not vote for another until its promise ran out, also one that is longer than a lease (architecture 4.7)',
    profile: 'three+hunt.returning',
    patches: [{ file: PROMISES, from: 'const until = addMono(now, ttlMs);', to: 'const until = addMono(now, request.ttlMs);' }],
  },
  {
    name: 'promise-in-spite-of-a-vote',
    breaks: 'a vote ends the promises to lower terms for good (architecture 4.7)',
    profile: 'quorum+hunt.narrowing',
    patches: [
      {
        file: PROMISES,
        from: "if (ballot.votedTerm > request.term) return 'voted';\n  if (facts.knownTerm > request.term) return 'newer-term';",
        to: '',
      },
      // A member that heard of the opening refuses for that reason too.
      {
        file: PROMISES,
        from: "if (facts.opened === null || facts.opened.term !== request.term || facts.opened.primary !== request.from) return 'not-open';",
        to: '',
      },
    ],
  },
  {
    name: 'forget-promises-at-a-restart',
    breaks: 'promises are persisted, or waited out after a restart (Z12)',
    profile: 'two-witness+hunt.widening',
    patches: [
      { file: PROMISES, from: 'if (record === null) return EMPTY_BALLOT;', to: 'if (record === null || options.startedAt > 0) return EMPTY_BALLOT;' },
    ],
  },
  {
    name: 'release-while-writable',
    breaks: 'a lease is released only when no process can accept writes (architecture 4.3)',
    patches: [
      {
        file: DECIDE,
        from: "return isAlive(postgres) && postgres.role !== 'standby' && !hasShutDown(postgres);",
        to: "return isAlive(postgres) && postgres.role === 'primary' && postgres.state === 'running' && postgres.timeline === 99;",
      },
    ],
  },
  {
    name: 'restart-without-a-lease',
    breaks: 'PostgreSQL never starts writable without a valid lease (architecture 4.3)',
    patches: [
      {
        file: DECIDE,
        from: 'if (facts.leaseTerm === null) {\n    const waited',
        to: "if (facts.leaseTerm === null && postgres.state === 'crashed') return { kind: 'start-primary', why: 'impatient', term: goal.term };\n  if (facts.leaseTerm === null) {\n    const waited",
      },
      {
        file: EXECUTE,
        from: '() => holds(context, action.term), context.signal);\n  if (started.ok)',
        to: '() => true, context.signal);\n  if (started.ok)',
      },
    ],
  },
  {
    name: 'two-leaders-write',
    breaks: "every write of a controller carries the election's guard",
    patches: [
      {
        file: 'src/controller/write.ts',
        from: 'const compares: Compare[] = [...guards(leadership)];\n  for (const key of [keys.state, keys.spec, keys.writeLease, ...decision',
        to: 'const compares: Compare[] = guards(leadership).slice(2);\n  for (const key of [keys.spec, ...decision',
      },
    ],
  },
  {
    name: 'a-goal-of-a-lower-term',
    breaks: 'agents refuse goals of a lower term than they have seen (architecture 4.10)',
    profile: 'three+restore',
    patches: [{ file: DECIDE, from: 'const outdated = goal.term < facts.highestTerm;', to: 'const outdated = goal.term < 0;' }],
  },
  {
    name: 'blocked-without-a-way-out',
    // An order that nothing becomes of ends at a limit of its own, so that a refusal that nobody reads costs a minute only: both are switched off.
    breaks: 'a candidate that durably refused, or does nothing, is replaced (Q12, L3)',
    profile: 'two-witness+hunt.opening',
    patches: [
      { file: ATTEMPT, from: 'if (refused || gaveUp(report, goal)) {', to: 'if (refused && gaveUp(report, goal) && attempt.term < 0) {' },
      { file: ATTEMPT, from: 'export const PROMOTE_LIMIT_MS = 60_000;', to: 'export const PROMOTE_LIMIT_MS = 1e12;' },
      { file: ATTEMPT, from: 'const TAKE_LIMIT_MS = 10_000;', to: 'const TAKE_LIMIT_MS = 1e12;' },
    ],
  },
  {
    name: 'never-follow-again',
    // PostgreSQL's own walreceiver connects again to the same upstream: what counts is another one.
    breaks: 'a standby whose upstream is another one now follows that (L1)',
    patches: [
      { file: DECIDE, from: 'export const FOLLOW_RETRY_MS = 5000;', to: 'export const FOLLOW_RETRY_MS = 1e12;' },
      { file: DECIDE, from: 'if (facts.upstream !== goal.upstream) return', to: 'if (facts.upstream === null) return' },
    ],
  },
  {
    name: 'prepared-lease-is-new',
    breaks: 'a lease that was granted ahead runs since it was granted (architecture 4.2)',
    patches: [{ file: KEEPER, from: 'const sent = claimed.value.fresh || prepared === null ? asked : prepared.sent;', to: 'const sent = asked;' }],
  },
];

export const mutants: readonly Mutant[] = [...writerMutants, ...rowMutants, ...policyMutants];
/** Null when there is none of that name. */
export function findMutant(name: string): Mutant | null {
  return mutants.find((mutant) => mutant.name === name) ?? null;
}
