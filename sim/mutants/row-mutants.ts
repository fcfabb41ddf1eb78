/** Deliberate defects that lose rows, take a wrong node, or send a client to one: elections, facts and votes, data directories, proxies. See mutants.ts. */
import type { Mutant } from './mutant.ts';

const ATTEMPT = 'src/core/cluster/rules/attempt.ts';
const SYNC_SET = 'src/core/cluster/sync-set.ts';
const ROUTE = 'src/core/route/decide.ts';

export const rowMutants: readonly Mutant[] = [
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
    profile: 'two-witness+hunt.returned',
    patches: [
      {
        file: 'src/core/cluster/election.ts',
        from: 'if (verdict !== null && !isContained(verdict) && !(options.descendants === true && isDescendant(view, report)))',
        to: 'if (verdict !== null && reasons.length > 99)',
      },
    ],
  },
  {
    name: 'number-is-the-timeline',
    breaks: 'of two timelines with one number, the one that came another way is not the cluster’s (Z53)',
    patches: [
      {
        file: 'src/core/timeline.ts',
        from: 'if (step?.timeline !== mine.timeline) break;',
        to: "if (step?.timeline !== mine.timeline) { if (own.timeline === other.timeline) return { kind: 'same' }; break; }",
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
    profile: 'quorum+hunt.voter',
    // Alone it shows nowhere: the rules of an attempt speak first, and whoever is promoted without a quorum must have the position at which protection was
    // lowered. All three are switched off.
    patches: [
      {
        file: 'src/core/cluster/rules.ts',
        from: '  ...switchoverRules,\n  ...attemptRules,',
        to: '  ...switchoverRules,\n  ...syncRules,\n  ...attemptRules,',
      },
      {
        file: 'src/core/cluster/sync-wish.ts',
        from: "return durabilityOf(view.spec).mode !== 'async' && quorum.k === 0 && (quorum.lowered === null",
        to: 'return quorum.k < 0 && (quorum.lowered === null',
      },
      {
        file: 'src/core/cluster/sync-wish.ts',
        from: "return durabilityOf(view.spec).mode !== 'async' && k === 0 && floor !== null",
        to: 'return k < 0 && floor !== null',
      },
      {
        file: 'src/core/cluster/rules/sync.ts',
        from: "return isOfThisStore(view) && state.phase === 'running' && state.attempt === null && state.switchover === null && state.frozen === null;",
        to: "return state.phase === 'running' && state.frozen === null;",
      },
    ],
  },
  {
    name: 'overtaken-set-is-in-force',
    breaks: 'a set is in force when nothing else was written since it was looked at (architecture 4.4, I7)',
    profile: 'quorum+restore',
    patches: [
      {
        file: 'src/agent/postgres/sync-keeper.ts',
        from: 'if (inForce !== null && !sameSet(inForce, asked.set)) {',
        to: 'if (inForce !== null && asked.term < 0) {',
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
      { file: 'src/core/cluster/rules/primary-lost.ts', from: 'if (!isOfThisStore(view)) {', to: 'if (state.term < 0) {' },
      { file: ATTEMPT, from: 'if (!isOfThisStore(view))', to: 'if (view.state.term < 0)' },
    ],
  },
  {
    name: 'position-before-the-detach',
    breaks: 'the position is read when the walreceiver is gone (architecture 4.5); the model does it where the agent has detach.ts',
    profile: 'quorum+hunt.deaf',
    patches: [
      {
        file: 'sim/model/postgres/port-life.ts',
        from: '  const cleared = await clearUpstream(context, signal);\n  if (!cleared.ok) return cleared;\n  const { core } = context;',
        to: '  const early = await withSession(context, signal, (session) => readPosition(context, session, signal));\n  const cleared = await clearUpstream(context, signal);\n  if (!cleared.ok) return cleared;\n  const { core } = context;',
      },
      {
        file: 'sim/model/postgres/port-life.ts',
        from: 'return refusal === null ? ok(await readPosition(context, session, signal)) : err(refusal);',
        to: 'return refusal === null ? ok(early.ok ? early.value : await readPosition(context, session, signal)) : err(refusal);',
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
    profile: 'two-witness+hunt.returned',
    // A promotion asks for the checkpoint too, so that a rewind seldom comes before it: both are switched off.
    patches: [
      { file: 'sim/model/postgres/port-life.ts', from: '  await takeCheckpoint(context, null);\n', to: '' },
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
  {
    name: 'readers-outlive-their-primary',
    breaks: 'after a loss a standby serves reads only when its vote proves that its WAL is the new primary’s (I17)',
    profile: 'five+reads+hunt.opening',
    patches: [
      {
        file: ROUTE,
        from: 'if (opened === null ? hasLeft(facts, node) : !hasHistoryOf(facts, node, opened)) continue;',
        to: 'if (opened === null && hasLeft(facts, node)) continue;',
      },
    ],
  },
  {
    name: 'reads-before-the-token',
    breaks: 'a read goes to a standby only when it has replayed all that the session wrote or saw (I17)',
    profile: 'three+reads',
    patches: [
      {
        file: 'src/proxy/positions.ts',
        from: 'if (replay.lsn !== null && replay.lsn >= token.lsn) return true;',
        to: 'if (replay.lsn !== token.lsn) return true;',
      },
    ],
  },
  {
    name: 'a-rebuilt-voter-is-the-old-one',
    breaks: 'a voter is a node with its data directory (architecture 4.4, Z58); the model names directories where the agent has incarnation.ts',
    profile: 'quorum',
    patches: [{ file: 'sim/model/postgres/port.ts', from: 'return (drawn % NAMES).toString(16)', to: 'return (drawn * 0).toString(16)' }],
  },
  {
    name: 'a-smaller-k-counts',
    breaks: 'after k has grown, walsenders that were there before are started anew (architecture 4.4, I7)',
    profile: 'quorum-two+hunt.raised',
    patches: [
      {
        file: 'src/agent/postgres/sync-set.ts',
        from: '} else if (inside && largerK && older) {',
        to: '} else if (inside && largerK && older && set.k < 0) {',
      },
    ],
  },
  {
    name: 'silent-is-empty',
    breaks: 'a node that does not report is never taken for one without data (architecture 4.9, I10)',
    profile: 'three+founding',
    patches: [
      {
        file: 'src/core/cluster/rules/bootstrap.ts',
        from: '.filter((node) => live(view, node.id) === null)',
        to: '.filter((node) => node.id === undefined)',
      },
    ],
  },
  {
    name: 'nothing-is-set-aside',
    breaks: 'a directory that is replaced is set aside first (architecture 4.9, I9); the model does it where the agent has clone.ts',
    patches: [{ file: 'sim/model/postgres/port-copy.ts', from: '    disk.saved.push(disk.directory);\n', to: '' }],
  },
  {
    name: 'what-a-rewind-cuts-off-is-lost',
    breaks: 'WAL past the fork is kept before a rewind (architecture 4.9, I9); the model does it where the agent has rewind.ts',
    patches: [{ file: 'sim/model/postgres/port-copy.ts', from: 'if (started.ok && !contained) core.disk.kept.push(directory.end);', to: '' }],
  },
];
