/** What people want of the traffic, beside the route that the controller decides; and what proxies say of themselves. */
import { type Decoded, bool, integer, number, object, record, text, withDefault } from './decode.ts';
import type { NodeId } from './ids.ts';
import { term, wallMs } from './report.ts';

/** More than this ratio between two nodes is a drained node that nobody meant to drain. */
export const MAX_WEIGHT = 100;

/** Every proxy of the cluster follows it. */
export const trafficWishes = object({
  version: integer,
  /** Share of reads by node, where it is not 1; 0: drained, its sessions leave when they are idle. */
  weights: record(number({ min: 0, max: MAX_WEIGHT })),
  /** Running transactions end, new ones wait. */
  paused: bool,
  /** Who changed it last, and when. */
  by: text,
  sinceWallMs: wallMs,
});
export type TrafficWishes = Decoded<typeof trafficWishes>;

/** The route that a proxy has applied. */
export const proxyAck = object({
  id: text,
  host: withDefault(text, ''),
  epoch: integer,
  term: withDefault(term, 0 as Decoded<typeof term>),
  /** No transaction is under way and new ones wait, because people paused the traffic. */
  paused: withDefault(bool, false),
});
export type ProxyAck = Decoded<typeof proxyAck>;

export function weightOf(wishes: TrafficWishes | null, node: NodeId): number {
  return wishes?.weights[node] ?? 1;
}
