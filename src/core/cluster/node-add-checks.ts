/** Preconditions of `node add`: each one that does not hold is named before anything is touched (S65, S89, H48). */
import type { NodeId } from '../ids.ts';
import { FOREIGN_FILES, type NodeReport } from '../report.ts';
import { type ClusterSpec, type NodeSpec, checkSpec, durabilityOf, findNode, internalHost } from '../spec.ts';
import type { TaskRequest } from '../state.ts';
import { votesNeeded } from '../state.ts';
import { slotName } from '../slot-name.ts';
import type { ClusterView } from '../view.ts';
import { chooseSource, refuseSource } from './copy-source.ts';
import { dataNodes, isForeignSystem, isOpen, live } from './observe.ts';
import { electorateOf } from './quorum.ts';
import type { Problem } from './tasks.ts';

export type AddRequest = Extract<TaskRequest, { kind: 'nodeAdd' }>;

/** A copy needs its size and a little more: WAL that comes meanwhile, and the files that PostgreSQL makes at its start. */
const SPACE_FACTOR = 1.05;
/** The copy's two walsenders (files, WAL) and one more, so that a standby that connects anew in this moment is not turned away. */
const SENDERS_NEEDED = 3;

/** The node as the spec will name it; null while its agent is not registered and the request does not say everything. */
export function nodeToAdd(view: ClusterView, request: AddRequest): NodeSpec | null {
  const member = view.members[request.node];
  const host = request.host ?? member?.host;
  const port = request.port ?? member?.port;
  if (host === undefined || port === undefined) return null;
  return {
    id: request.node,
    host,
    internalHost: request.internalHost ?? member?.internalHost ?? null,
    port,
    priority: request.priority,
    location: request.location,
    kind: request.role,
    maintenance: false,
    upstream: null,
    delayMs: 0,
    tags: request.tags,
    membership: 'joining',
  };
}

/** Every precondition that does not hold, each named; empty when the node may be added. */
export function checkAdd(view: ClusterView, request: AddRequest): readonly Problem[] {
  const { state, spec } = view;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `node-add.${code}`, text, remedy });
  const { primary } = state;
  if (state.phase !== 'running' || primary === null) add('not-running', `The cluster is ${state.phase}.`, 'Create or start the cluster first.');
  if (state.attempt !== null) add('attempt', `Term ${state.attempt.term} is being opened.`, 'Wait until it is; see "pgherd show".');
  if (state.switchover !== null) add('switchover', `The switchover to ${state.switchover.to} is running.`, 'Wait for it.');
  if (primary !== null && state.attempt === null && !isOpen(live(view, primary), state.primaryTerm))
    add('primary-not-open', `${primary} is not open for writes.`, 'See "pgherd explain".');
  const present = findNode(spec, request.node);
  if (present !== null) {
    const what = { full: 'is a node of this cluster already', joining: 'is being added already', leaving: 'is being removed' }[present.membership];
    add('exists', `${request.node} ${what}.`, present.membership === 'full' ? 'Choose another name.' : 'See "pgherd task list".');
    return problems;
  }
  problems.push(...checkAgent(view, request));
  const node = nodeToAdd(view, request);
  if (node === null) return problems;
  for (const problem of checkSpec({ ...spec, nodes: [...spec.nodes, { ...node, membership: 'full' }] }))
    add('spec', `${problem.path}: ${problem.message}.`, 'Choose another name or address; "pgherd meta get" prints what the others have.');
  if (node.kind === 'witness') return problems;
  const report = live(view, request.node);
  if (report !== null) problems.push(...checkData(view, report));
  problems.push(...checkRoom(view, node, report), ...checkSource(view, node, request));
  return problems;
}

function checkAgent(view: ClusterView, request: AddRequest): readonly Problem[] {
  const { node } = request;
  const problems: Problem[] = [];
  const add = (code: string, text: string, remedy: string): void => void problems.push({ code: `node-add.${code}`, text, remedy });
  const member = view.members[node];
  const report = live(view, node);
  if (member === undefined) {
    add(
      'not-joined',
      `No agent has joined as ${node}.`,
      `"pgherd token join" prints a token; on the new host: "pgherd agent join --server URL --token-file FILE --node ${node}", then start its agent.`,
    );
    return problems;
  }
  if (report === null) add('silent', `The agent of ${node} (${member.host}) does not report.`, `Start it on ${member.host}.`);
  if (request.port !== null && request.port !== member.port)
    add(
      'port',
      `The agent of ${node} runs PostgreSQL on port ${member.port}, not ${request.port}.`,
      'Leave --port out, or change `port` in its agent.yaml.',
    );
  if (request.role === 'witness') return problems;
  const version = majorOf(view.state.primary === null ? null : (live(view, view.state.primary)?.postgres.version ?? null));
  const own = majorOf(member.postgresVersion);
  if (own === null)
    add('no-postgres', `${node} has no PostgreSQL that its agent can use.`, `Install PostgreSQL ${version ?? ''} there, then restart the agent.`);
  else if (version !== null && own !== version)
    add(
      'version',
      `${node} has PostgreSQL ${own}, the primary ${version}.`,
      `Install PostgreSQL ${version} there, or set \`binDirectory\` in its agent.yaml; then restart the agent.`,
    );
  return problems;
}

function majorOf(version: number | null): number | null {
  return version === null ? null : Math.floor(version / 10_000);
}

/** What lies on the new host already. Data of this cluster is taken back by the ladder; anything else is for a person to move away (I9, Q9). */
function checkData(view: ClusterView, report: NodeReport): readonly Problem[] {
  const { postgres, node } = report;
  const alien = report.problems.find((problem) => problem.code === FOREIGN_FILES);
  if (alien !== undefined) return [{ code: 'node-add.not-empty', text: `${node}: ${alien.text}.`, remedy: `On that host ${alien.remedy}.` }];
  const away = `Move the data directory of ${node} aside by hand; nothing of it is deleted by pgherd.`;
  if (isForeignSystem(view, report))
    return [
      {
        code: 'node-add.foreign-data',
        text: `${node} holds a data directory of another cluster (system identifier ${postgres.systemIdentifier}, expected ${view.state.systemIdentifier}).`,
        remedy: away,
      },
    ];
  if (postgres.role === 'primary' && ['running', 'starting', 'hung', 'stopping'].includes(postgres.state))
    return [{ code: 'node-add.is-primary', text: `A server that accepts writes runs on ${node}.`, remedy: `Stop it. ${away}` }];
  return [];
}

/** Space there, walsenders and slots here. */
function checkRoom(view: ClusterView, node: NodeSpec, report: NodeReport | null): readonly Problem[] {
  const problems: Problem[] = [];
  const bytes = bytesToCopy(view);
  const free = report?.host?.freeBytes ?? null;
  if (bytes !== null && free !== null && free < bytes * SPACE_FACTOR && report?.postgres.state !== 'running')
    problems.push({
      code: 'node-add.space',
      text: `${node.id} has ${mebibytes(free)} free, and the copy takes ${mebibytes(Math.ceil(bytes * SPACE_FACTOR))}.`,
      remedy: 'Free space there, or give its agent a data directory on a larger disk.',
    });
  for (const member of dataNodes(view.spec)) {
    const counts = live(view, member.id)?.postgres.replication ?? null;
    if (counts === null) continue;
    if (member.id === view.state.primary && counts.walSenders + SENDERS_NEEDED > counts.maxWalSenders)
      problems.push(tooFew(member.id, 'max_wal_senders', counts.walSenders, counts.maxWalSenders, counts.walSenders + SENDERS_NEEDED));
    if (counts.slots + 1 > counts.maxSlots)
      problems.push(tooFew(member.id, 'max_replication_slots', counts.slots, counts.maxSlots, counts.slots + 1));
  }
  return problems;
}

function tooFew(node: NodeId, name: string, used: number, max: number, needed: number): Problem {
  return {
    code: `node-add.${name.replaceAll('_', '-')}`,
    text: `${name} is ${max} on ${node}, of which ${used} are in use; ${needed} are needed.`,
    remedy: `"pgherd settings set ${name}=${Math.max(needed, max * 2)}", then "pgherd cluster restart --rolling": standbys first, writes go on.`,
  };
}

function checkSource(view: ClusterView, node: NodeSpec, request: AddRequest): readonly Problem[] {
  if (request.source !== null) {
    const refused = refuseSource(view, request.source);
    return refused === null
      ? []
      : [
          {
            code: 'node-add.source',
            text: `${request.source} cannot be copied: it ${refused}.`,
            remedy: 'Leave --source out, or name another member.',
          },
        ];
  }
  if (view.state.attempt !== null || chooseSource(view, node) !== null) return [];
  return [{ code: 'node-add.no-source', text: 'No member can be copied now.', remedy: 'See "pgherd show".' }];
}

/** Of the primary: what a copy takes. Null when it did not say yet. */
export function bytesToCopy(view: ClusterView): number | null {
  const { primary } = view.state;
  return primary === null ? null : (live(view, primary)?.host?.dataBytes ?? null);
}

export function mebibytes(bytes: number): string {
  return bytes >= 10 * 1_073_741_824 ? `${Math.round(bytes / 1_073_741_824)} GiB` : `${Math.ceil(bytes / 1_048_576)} MiB`;
}

/** The whole way in words, for the dry run. Only for a request without problems. */
export function planAdd(view: ClusterView, request: AddRequest): readonly string[] {
  const node = nodeToAdd(view, request);
  const { primary } = view.state;
  if (node === null || primary === null) return [];
  const joined: ClusterSpec = { ...view.spec, nodes: [...view.spec.nodes, { ...node, membership: 'full' }] };
  const votes = electorateOf({ ...view, spec: joined });
  const voting = `${votes.length} members vote, ${votesNeeded(votes.length).promotion} votes are needed for a promotion`;
  const where = `${node.id} at ${node.host}:${node.port}${internalHost(node) === node.host ? '' : ` (inside ${internalHost(node)})`}`;
  const reach = `reach: ${where} is made known to every member, and each way between it and them is tried`;
  if (node.kind === 'witness') return [reach, `take in: ${voting}`];
  const source = request.source === null ? chooseSource(view, node) : { node: request.source, why: 'as asked' };
  const bytes = bytesToCopy(view);
  const rate = request.rateKb === null ? '' : `, at most ${request.rateKb} KiB a second`;
  return [
    reach,
    `slot: ${slotName(node.id)} is made on ${primary} before the copy, so that no WAL is missing after it`,
    `copy: ${bytes === null ? 'a base backup' : `a base backup of ${mebibytes(bytes)}`} from ${source?.node ?? primary} (${source?.why ?? ''})${rate}`,
    `catch up: ${node.id} streams from ${primary} until it is close`,
    `take in: it serves reads; ${voting}; ${describeDurability(view.spec, joined)}`,
  ];
}

/** What the number of nodes changes in what is promised. */
export function describeDurability(before: ClusterSpec, after: ClusterSpec): string {
  const words = (spec: ClusterSpec): string => {
    const { mode, k } = durabilityOf(spec);
    return mode === 'async' ? 'asynchronous' : `${mode}, ${k} standby${k === 1 ? '' : 's'} for each commit`;
  };
  const [old, next] = [words(before), words(after)];
  return old === next ? `durability stays ${old}` : `durability becomes ${next} (it is ${old}; set \`durability\` to keep it)`;
}
