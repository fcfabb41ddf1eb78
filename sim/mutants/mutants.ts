/**
 * Deliberate defects, each one that a person could make, and each of which loses rows, opens two primaries, or leaves a cluster without one.
 * The simulator has to catch every one of them; one that it does not catch is a hole in the simulator, not in the product.
 */
import type { Patch } from './apply.ts';

export interface Mutant {
  readonly name: string;
  /** The rule of docs/architecture.md, or the hazard, that it breaks. */
  readonly breaks: string;
  /** Where it can show: seeds are run in this profile, with its extras. Absent: in the one that each seed draws. */
  readonly profile?: string;
  readonly patches: readonly Patch[];
}

const KEEPER = 'src/agent/lease/lease-keeper.ts';
const LEASE_STORE = 'src/agent/lease/lease-store.ts';
const LEASE_RULES = 'src/agent/lease/lease-rules.ts';
const EXECUTE = 'src/agent/execute.ts';
const DECIDE = 'src/core/node/decide.ts';
const ATTEMPT = 'src/core/cluster/rules/attempt.ts';
const ATTEMPTS = 'src/core/cluster/attempts.ts';
const SYNC_SET = 'src/core/cluster/sync-set.ts';
const PROMISES = 'src/core/node/promises.ts';
const ROUTE = 'src/core/route/decide.ts';

export const mutants: readonly Mutant[] = [
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
    patches: [
      {
        file: KEEPER,
        from: 'const deadline = addMono(ownDeadline({ sentAt: sent.mono, grantedMs, settings: options.settings() }), -lostSince(sent, before));',
        to: 'const deadline = ownDeadline({ sentAt: before.mono, grantedMs, settings: options.settings() });',
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
    patches: [{ file: 'src/agent/lease/pause.ts', from: 'return Math.max(byBoot, byWall);', to: 'return Math.min(0, byBoot, byWall);' }],
  },
  {
    name: 'claim-over-another',
    breaks: 'the write lease is taken only when it is free or our own (I1)',
    patches: [
      {
        file: LEASE_STORE,
        from: "if (judged?.kind === 'taken' && !replaceable && (judged.by !== at.node || judged.term === null || judged.term > term)) {",
        to: "if (judged?.kind === 'gone') {",
      },
    ],
  },
  {
    name: 'claim-without-the-state',
    breaks: 'a claim compares the revision of the state that ordered it (architecture 4.5)',
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
    breaks: 'a node opens only after one more renewal since it became writable (architecture 4.5)',
    patches: [
      { file: DECIDE, from: "if (!facts.confirmed) return nothing('waiting for one more renewal of the write lease');", to: '' },
      {
        file: EXECUTE,
        from: '() => holds(context, action.term), context.signal);\n  if (promoted.ok)',
        to: '() => true, context.signal);\n  if (promoted.ok)',
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
    name: 'least-advanced-wins',
    breaks: 'the most advanced final position is promoted (H31, Q20)',
    patches: [
      {
        file: 'src/core/cluster/election.ts',
        from: 'const position = comparePositions(b.position, a.position);',
        to: 'const position = comparePositions(a.position, b.position);',
      },
    ],
  },
  {
    name: 'loss-is-called-none',
    breaks: 'what was lost is reported, and what is not known is not called nothing (I5)',
    patches: [
      {
        file: 'src/core/cluster/loss.ts',
        from: "return { bytes: null, text: '; what the old primary acknowledged after its last report, if anything, is not known' };",
        to: "return { bytes: 0, text: '' };",
      },
    ],
  },
  {
    name: 'diverged-is-a-candidate',
    breaks: 'a node whose timeline is no ancestor is never a candidate (I12)',
    patches: [
      {
        file: 'src/core/cluster/election.ts',
        from: 'if (verdict !== null && !isContained(verdict) && !(options.descendants === true && isDescendant(view, report)))',
        to: 'if (verdict !== null && reasons.length > 99)',
      },
    ],
  },
  {
    name: 'maintenance-is-promoted',
    breaks: 'a node in maintenance is never promoted (I14)',
    patches: [
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
    patches: [
      {
        file: PROMISES,
        from: "if (open !== null && open.until > now && open.term < term) {\n    return { kind: 'wait'",
        to: "if (open !== null && open.until > now && open.term < 0) {\n    return { kind: 'wait'",
      },
    ],
  },
  {
    name: 'promise-in-spite-of-a-vote',
    breaks: 'a vote ends the promises to lower terms for good (architecture 4.7)',
    patches: [
      {
        file: PROMISES,
        from: "if (ballot.votedTerm > request.term) return 'voted';\n  if (facts.knownTerm > request.term) return 'newer-term';",
        to: '',
      },
    ],
  },
  {
    name: 'forget-promises-at-a-restart',
    breaks: 'promises are persisted, or waited out after a restart (Z12)',
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
    name: 'follow-without-a-rewind',
    breaks: 'a diverged node is rewound or cloned before it streams (I12)',
    patches: [
      {
        file: 'src/core/cluster/recovery.ts',
        from: "give a directory up (Z44).\n  return verdict === null || isContained(verdict) ? 'stream' : 'rewind';",
        to: "give a directory up (Z44).\n  return 'stream';",
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
    breaks: 'a candidate that durably refused is replaced (Q12, L3)',
    patches: [{ file: ATTEMPT, from: 'if (refused || gaveUp(report, goal)) {', to: 'if (refused && gaveUp(report, goal) && attempt.term < 0) {' }],
  },
  {
    name: 'never-follow-again',
    breaks: 'a standby that lost its upstream is taken back (L1)',
    patches: [{ file: DECIDE, from: 'export const FOLLOW_RETRY_MS = 5000;', to: 'export const FOLLOW_RETRY_MS = 1e12;' }],
  },
  {
    name: 'prepared-lease-is-new',
    breaks: 'a lease that was granted ahead runs since it was granted (architecture 4.2)',
    patches: [{ file: KEEPER, from: 'const sent = claimed.value.fresh || prepared === null ? asked : prepared.sent;', to: 'const sent = asked;' }],
  },
  {
    name: 'facts-before-they-are-true',
    breaks: 'stronger facts are published only when the set is in force and its members hold everything (architecture 4.4, Q33)',
    profile: 'quorum',
    patches: [
      {
        file: SYNC_SET,
        from: 'const facts = implies(mixtureOf(mayStand), now.facts) ? now.facts : coveringFacts(now.facts, mayStand);',
        to: 'const facts: Facts = next.k === 0 ? NO_FACTS : { k: next.k, voters: next.members };',
      },
    ],
  },
  {
    name: 'weaker-facts-late',
    breaks: 'weaker facts are published before PostgreSQL may acknowledge with less (architecture 4.4, I7)',
    profile: 'quorum',
    patches: [
      {
        file: SYNC_SET,
        from: 'const facts = implies(mixtureOf(mayStand), now.facts) ? now.facts : coveringFacts(now.facts, mayStand);',
        to: 'const { facts } = now;',
      },
    ],
  },
  {
    name: 'lowering-answers-a-detach',
    breaks: 'the facts of a term are frozen while another one is attempted (architecture 4.4)',
    profile: 'quorum',
    patches: [
      {
        file: 'src/core/cluster/rules/sync.ts',
        from: "return state.phase === 'running' && state.attempt === null && state.switchover === null && state.frozen === null;",
        to: "return state.phase === 'running' && state.frozen === null;",
      },
    ],
  },
  {
    name: 'one-voter-too-few',
    breaks: 'a promotion needs final positions of more than |voters| - k voters (architecture 4.5, I6)',
    profile: 'quorum',
    patches: [{ file: SYNC_SET, from: 'facts.voters.length - facts.k + 1', to: 'facts.voters.length - facts.k' }],
  },
  {
    name: 'open-with-uncovered-rows',
    breaks: 'after a crash clients stay out until enough voters hold what was recovered (architecture 4.4, Q27, I8)',
    profile: 'quorum',
    patches: [
      {
        file: 'src/agent/postgres/sync-keeper.ts',
        from: 'if (recovered === null || wanted.set.k === 0) return true;',
        to: 'if (recovered !== undefined) return true;',
      },
    ],
  },
  {
    name: 'accept-an-old-store',
    breaks: 'after a restore nothing is decided from the backup until its term is confirmed (architecture 4.10, Z14)',
    profile: 'three+restore',
    patches: [
      { file: 'src/core/cluster/rules/primary-lost.ts', from: 'if (state.incarnation !== view.incarnation) {', to: 'if (state.term < 0) {' },
      { file: ATTEMPT, from: 'if (view.state.incarnation !== view.incarnation)', to: 'if (view.state.term < 0)' },
    ],
  },
  {
    name: 'position-before-the-detach',
    breaks: 'the position is read when the walreceiver is gone (architecture 4.5); the model does it where the agent has detach.ts',
    profile: 'quorum',
    patches: [
      {
        file: 'sim/model/postgres/port-life.ts',
        from: 'const refusal = await endWalreceiver(context, session, signal);\n    return refusal === null ? ok(await readPosition(context, session, signal)) : err(refusal);',
        to: 'const early = await readPosition(context, session, signal);\n    const refusal = await endWalreceiver(context, session, signal);\n    return refusal === null ? ok({ ...early, final: true }) : err(refusal);',
      },
    ],
  },
  {
    name: 'a-cloning-voter',
    breaks: 'an incomplete clone is never waited for (architecture 4.4, I13)',
    profile: 'quorum',
    patches: [
      {
        file: 'src/core/cluster/sync-wish.ts',
        from: "if (own === null || incarnation === null || goal.via !== 'stream' || !isStreaming(own, view.state.primary)) return null;",
        to: "if (goal.via === 'clone') return voterName(node.id, incarnation ?? '0');\n  if (own === null || incarnation === null || !isStreaming(own, view.state.primary)) return null;",
      },
    ],
  },
  {
    name: 'rewind-before-the-checkpoint',
    breaks: 'the source has a checkpoint on its timeline before pg_rewind reads it (Z42, Z50); the model does it where the agent has rewind.ts',
    patches: [
      {
        file: 'sim/model/postgres/port-copy.ts',
        from: 'if (theirs.checkpointTli >= first.tli) return',
        to: 'if (theirs.checkpointTli >= 0) return',
      },
    ],
  },
  {
    name: 'no-term-check-in-the-proxy',
    breaks: "an agent's word for another term says nothing of the one that the proxy knows (architecture 4.8, I16)",
    profile: 'three+proxy',
    patches: [
      {
        file: ROUTE,
        from: 'if (confirmed !== null && confirmed.term > term)',
        to: 'if (confirmed !== null && confirmed.term < 0)',
      },
      {
        file: ROUTE,
        from: 'confirmed.node === named && confirmed.term === term && confirmed.forMs > 0',
        to: 'confirmed.node === named && confirmed.forMs > 0',
      },
    ],
  },
  {
    name: 'resume-before-the-opening',
    breaks: 'proxies resume on the next primary when it says that it is open in its term, not when it was promoted (architecture 6, Q28)',
    profile: 'three+proxy',
    patches: [
      { file: ROUTE, from: 'const open = report?.open === true && report.leaseTerm === attempt.term;', to: 'const open = report !== undefined;' },
    ],
  },
  {
    name: 'stale-knowledge-stays-open',
    breaks: 'a proxy that hears neither the store nor the primary closes (architecture 4.8, I16)',
    profile: 'three+proxy',
    patches: [{ file: ROUTE, from: 'if (ageMs > limits.staleMs && !vouched)', to: 'if (ageMs > limits.staleMs * 1000 && !vouched)' }],
  },
];

/** Null when there is none of that name. */
export function findMutant(name: string): Mutant | null {
  return mutants.find((mutant) => mutant.name === name) ?? null;
}
