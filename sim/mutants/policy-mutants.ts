/** Deliberate defects that act when nothing may be done, or with less than the settings ask for: viewpoints, freeze, bounds, protection. See mutants.ts. */
import type { Mutant } from './mutant.ts';

const LOST = 'src/core/cluster/rules/primary-lost.ts';
const ELECTION = 'src/core/cluster/election.ts';
const WISH = 'src/core/cluster/sync-wish.ts';

export const policyMutants: readonly Mutant[] = [
  {
    name: 'one-viewpoint-suffices',
    breaks: 'one viewpoint alone never causes a failover while others still see the primary work (architecture 4.6, I23)',
    profile: 'three+hunt.alone',
    patches: [
      { file: LOST, from: 'const needed = Math.min(spec.probeViewpoints, Math.max(1, seen.asked.length + (own ? 1 : 0)));', to: 'const needed = 1;' },
      {
        file: LOST,
        from: "if (seen.writable.length > 0)\n    return blocked(view, 'viewpoints', `${seen.writable.join",
        to: "if (agreeing < 0)\n    return blocked(view, 'viewpoints', `${seen.writable.join",
      },
    ],
  },
  {
    name: 'a-changed-set-stays',
    breaks: 'settings that win are verified by effect: a synchronous set of somebody else is set back (architecture 4.12, I29)',
    profile: 'quorum+altered',
    patches: [
      {
        file: 'src/agent/postgres/sync-keeper.ts',
        from: 'if (wanted !== asked || names === renderSyncNames(asked.set)) return;',
        to: 'if (wanted === asked || names === renderSyncNames(asked.set)) return;',
      },
    ],
  },
  {
    name: 'renew-without-a-guard',
    breaks: 'the agent does not renew without a living guard (architecture 4.3, I2)',
    profile: 'three+hunt.unguarded',
    patches: [{ file: 'src/agent/lease/lease-keeper.ts', from: 'if (!acknowledged) {', to: 'if (!acknowledged && until < 0) {' }],
  },
  {
    name: 'freeze-is-ignored',
    breaks: 'while the cluster is frozen no failover is begun (architecture 4.11, I24)',
    profile: 'three+hunt.frozen',
    patches: [
      {
        file: LOST,
        from: "if (state.frozen !== null)\n    return blocked(\n      view,\n      'frozen',",
        to: "if (state.frozen !== null && state.term < 0)\n    return blocked(\n      view,\n      'frozen',",
      },
      {
        file: LOST,
        from: "if (state.frozen !== null)\n    return blocked(view, 'frozen', `PostgreSQL of",
        to: "if (state.frozen !== null && state.term < 0)\n    return blocked(view, 'frozen', `PostgreSQL of",
      },
    ],
  },
  {
    name: 'freeze-takes-nodes-back',
    breaks: 'while the cluster is frozen no node is rewound or cloned (architecture 4.11, I24)',
    profile: 'three+hunt.frozen',
    patches: [{ file: 'src/core/cluster/recovery.ts', from: 'if (one.view.state.frozen !== null) return NOTHING;', to: '' }],
  },
  {
    name: 'freeze-changes-the-set',
    breaks: 'while the cluster is frozen the synchronous set stays as it is (architecture 4.11, I24)',
    profile: 'quorum+hunt.frozen',
    patches: [
      {
        file: 'src/core/cluster/rules/sync.ts',
        from: 'state.switchover === null && state.frozen === null;',
        to: 'state.switchover === null;',
      },
    ],
  },
  {
    name: 'freeze-stops-the-guard',
    breaks: 'freeze stops no lease, no guard and no fence (architecture 4.11, I2)',
    patches: [
      {
        file: 'src/agent/write-lease.ts',
        from: 'dataDirectory: instance.dataDirectory,',
        to: '...(options.state()?.frozen != null ? { deadline: 1e12 } : {}), dataDirectory: instance.dataDirectory,',
      },
    ],
  },
  {
    name: 'strict-is-lowered',
    breaks: 'strict protection is never lowered: writes wait (architecture 4.4, I25)',
    profile: 'strict+hunt.lonely',
    patches: [{ file: WISH, from: "mode === 'async' ? 0 : strict ? k : minSync;", to: "mode === 'async' ? 0 : strict ? 0 : minSync;" }],
  },
  {
    name: 'lowered-below-the-least',
    breaks: 'adaptive protection is never lowered below minSync (architecture 4.4, I25)',
    profile: 'quorum+hunt.lonely',
    patches: [{ file: WISH, from: "mode === 'async' ? 0 : strict ? k : minSync;", to: "mode === 'async' ? 0 : strict ? k : 0;" }],
  },
  {
    name: 'no-bound-on-the-loss',
    breaks: 'nobody who lacks more than maxLagOnFailoverBytes is promoted by itself (architecture 4.5, I26)',
    profile: 'three+hunt.behind',
    // It is compared before an attempt, with what nodes report, and again with the final positions.
    patches: [
      {
        file: LOST,
        from: 'if (missing === null || missing <= view.spec.maxLagOnFailoverBytes) return null;',
        to: 'if (missing !== -1) return null;',
      },
      {
        file: 'src/core/cluster/rules/attempt.ts',
        from: 'missing !== null && missing > view.spec.maxLagOnFailoverBytes',
        to: 'missing !== null && missing < 0',
      },
    ],
  },
  {
    name: 'manual-is-automatic',
    breaks: 'with failover manual only a person promotes (architecture 4.5, I28)',
    profile: 'three+operations',
    patches: [{ file: LOST, from: "if (spec.failover === 'manual') return", to: "if (spec.failover === 'manual' && state.term < 0) return" }],
  },
  {
    name: 'one-failover-after-another',
    breaks: 'between two failovers that nobody asked for lies antiFlappingMs (architecture 4.5, I28)',
    patches: [
      {
        file: LOST,
        from: 'if (last !== null && !isDue(now, makeWallMs(last + spec.antiFlappingMs), spec.antiFlappingMs)) {',
        to: 'if (last !== null && last < 0) {',
      },
    ],
  },
  {
    name: 'trust-is-not-asked',
    breaks: 'where trusted addresses are configured, a member that reaches none does not count (H17, I28)',
    profile: 'three+operations',
    patches: [
      {
        file: 'src/core/cluster/observe.ts',
        from: 'if (view.spec.trustedAddresses.length > 0 && report.trustedReachable !== true) untrusted',
        to: 'if (view.spec.trustedAddresses.length < 0 && report.trustedReachable !== true) untrusted',
      },
    ],
  },
  {
    name: 'any-location',
    breaks: 'with crossLocation manual only a person moves the primary to another location (I27)',
    profile: 'two-sites-manual+hunt.voter',
    patches: [
      { file: ELECTION, from: 'const far = !isNear(view.spec, node, home) && options.target !== node.id;', to: 'const far = home === node.id;' },
    ],
  },
  {
    name: 'reads-on-the-primary',
    breaks: 'the read address is never on the primary while a standby can serve reads (H40)',
    profile: 'three+operations',
    patches: [
      {
        file: 'src/core/cluster/vips.ts',
        from: 'const wanted = best?.id ?? openPrimary(view);',
        to: 'const wanted = openPrimary(view) ?? best?.id ?? null;',
      },
    ],
  },
];
