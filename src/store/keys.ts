/** Where everything lies in the store. */
import type { ClusterId, NodeId, Term } from '../core/ids.ts';

export const ROOT = '/pgherd/v1/';
/** Sorts before every cluster: no cluster can have this name (isName forbids the leading dot). */
export const SERVER_ROOT = '/pgherd/v1/.server/';

export interface ClusterKeys {
  readonly prefix: string;
  readonly spec: string;
  readonly state: string;
  /** A prefix of `spec` and `state` and of nothing else: what agents follow, without everybody's reports. */
  readonly orders: string;
  readonly writeLease: string;
  readonly controller: string;
  readonly nodes: string;
  readonly tasks: string;
  readonly events: string;
  readonly history: string;
  readonly proxies: string;
  /** What people want of the traffic. */
  readonly traffic: string;
  proxyAck(proxy: string): string;
  member(node: NodeId): string;
  report(node: NodeId): string;
  task(id: string): string;
  /** Sorted by revision of the state that produced them and index. */
  event(sequence: number, index: number): string;
  term(term: Term): string;
}

const pad = (value: number): string => String(value).padStart(16, '0');

export function clusterKeys(cluster: ClusterId): ClusterKeys {
  const prefix = `${ROOT}${cluster}/`;
  return {
    prefix,
    spec: `${prefix}spec`,
    state: `${prefix}state`,
    orders: `${prefix}s`,
    writeLease: `${prefix}write-lease`,
    controller: `${prefix}controller`,
    nodes: `${prefix}nodes/`,
    tasks: `${prefix}tasks/`,
    events: `${prefix}events/`,
    history: `${prefix}history/`,
    proxies: `${prefix}proxies/`,
    traffic: `${prefix}traffic`,
    proxyAck: (proxy) => `${prefix}proxies/${proxy}/ack`,
    member: (node) => `${prefix}nodes/${node}/member`,
    report: (node) => `${prefix}nodes/${node}/report`,
    task: (id) => `${prefix}tasks/${id}`,
    event: (sequence, index) => `${prefix}events/${pad(sequence)}-${String(index).padStart(3, '0')}`,
    term: (term) => `${prefix}history/${pad(term)}`,
  };
}
