/** Virtual addresses: where the read one is to be, and what is seen of both. All go on with the rules below. */
import type { NodeId } from '../../ids.ts';
import type { ClusterState } from '../../state.ts';
import { VIP_ROLES, type VipRole } from '../../vips.ts';
import type { ClusterView, Outcome, Rule } from '../../view.ts';
import { fresh } from '../observe.ts';
import { chooseReadHolder } from '../vips.ts';

/**
 * Invariant: these rules write nothing while a promotion is under way. Because: a candidate takes its lease against the revision of the state that
 * ordered it; a write between the two would cost another round. The write address does not wait for it: its holder decides by its lease.
 */
function isQuiet(view: ClusterView): boolean {
  const { phase, attempt, switchover } = view.state;
  return phase === 'running' && attempt === null && (switchover === null || switchover.phase === 'checkpoint');
}

type Seen = ClusterState['vips']['seen']['write'];

/** Stands for the hardware address where the kernel found another host, which names none. */
const UNNAMED = 'one without a known hardware address';

/** The newest word of the nodes: who has it, and the hardware address of a foreign host that answers for it. */
function seenOf(view: ClusterView, role: VipRole): Seen {
  let node: NodeId | null = null;
  let otherMac: string | null = null;
  for (const { id } of view.spec.nodes) {
    const vip = fresh(view, id)?.vips.find((one) => one.vip === role);
    if (vip === undefined) continue;
    // Two may report it for a moment while it moves; the one that is to have it counts.
    if (vip.state === 'held' && (node === null || id === wantedHolder(view, role))) node = id;
    otherMac = vip.otherMac ?? otherMac ?? (vip.state === 'conflict' ? UNNAMED : null);
  }
  return { node, otherMac };
}

function wantedHolder(view: ClusterView, role: VipRole): NodeId | null {
  return role === 'write' ? view.state.primary : (view.state.vips.read?.node ?? null);
}

function withSeen(state: ClusterState, role: VipRole, seen: Seen): ClusterState {
  return { ...state, vips: { ...state.vips, seen: { ...state.vips.seen, [role]: seen } } };
}

/** Compares what is remembered with what is seen, one role after the other; null when nothing is new. */
function note(view: ClusterView, describe: (role: VipRole, before: Seen, now: Seen) => (Seen & Notice) | null): Outcome | null {
  if (!isQuiet(view)) return null;
  let { state } = view;
  const events: NonNullable<Outcome['events']>[number][] = [];
  for (const role of VIP_ROLES) {
    const address = view.spec.vips[role]?.address;
    const before = state.vips.seen[role];
    const found = address === undefined ? null : describe(role, before, seenOf(view, role));
    if (found === null) continue;
    const { level, text, on, ...seen } = found;
    state = withSeen(state, role, seen);
    events.push({ level, node: on, text: `${role} address ${address} ${text}`, detail: {} });
  }
  return events.length === 0 ? null : { why: events.map((event) => event.text).join('; '), state, events, then: 'continue' };
}

interface Notice {
  readonly level: 'info' | 'warn' | 'error';
  readonly text: string;
  readonly on: NodeId | null;
}

export const vipRules: readonly Rule[] = [
  {
    id: 'vip.read-moved',
    when: 'a read address is configured, its node cannot serve reads, or is the primary while a healthy standby lives, and the cluster is not frozen',
    why: 'Reads go to a standby that streams and is not far behind (H41), never to the primary beside a healthy one (H40); the address stays where it is as long as that holds.',
    decide: (view, now) => {
      const { state, spec } = view;
      if (!isQuiet(view)) return null;
      if (spec.vips.read === null) {
        if (state.vips.read === null) return null;
        return { why: 'no read address is configured any more', state: { ...state, vips: { ...state.vips, read: null } }, then: 'continue' };
      }
      if (state.frozen !== null) return null;
      const choice = chooseReadHolder(view, now);
      // A wait needs no wake-up: the next reports bring the next look.
      if (choice.kind !== 'move') return null;
      const read = { node: choice.to, sinceWallMs: now.wall, why: choice.why };
      const text = `the read address ${spec.vips.read.address} goes to ${choice.to}: ${choice.why}`;
      return {
        why: text,
        state: { ...state, vips: { ...state.vips, read } },
        events: [{ level: choice.to === state.primary ? 'warn' : 'info', node: choice.to, text, detail: {} }],
        then: 'continue',
      };
    },
  },
  {
    id: 'vip.held',
    when: 'a node reports that it has taken a virtual address, or that it has it no more',
    why: 'Where an address is, is what its holder says, not what it was told (H15, H57).',
    decide: (view) =>
      note(view, (_role, before, now) => {
        if (now.node === before.node) return null;
        const text = now.node === null ? `is on no node (it was on ${before.node ?? 'none'})` : `is on ${now.node}`;
        return { node: now.node, otherMac: before.otherMac, level: now.node === null ? 'warn' : 'info', text, on: now.node };
      }),
  },
  {
    id: 'vip.conflict',
    when: 'a node reports that another host answers for a virtual address',
    why: 'An address of somebody else is not taken from him: that would be a fight that no client survives. The hardware address names the machine (H14, H19).',
    decide: (view) =>
      note(view, (_role, before, now) => {
        if (now.otherMac === null || now.otherMac === before.otherMac) return null;
        return { ...before, otherMac: now.otherMac, level: 'error', text: `is used by another host, ${now.otherMac}`, on: now.node };
      }),
  },
  {
    id: 'vip.conflict-over',
    when: 'no node reports any more that another host answers for a virtual address',
    why: 'It is taken by itself then.',
    decide: (view) =>
      note(view, (_role, before, now) =>
        now.otherMac !== null || before.otherMac === null
          ? null
          : { ...before, otherMac: null, level: 'info', text: `is no longer used by ${before.otherMac}`, on: now.node },
      ),
  },
];
