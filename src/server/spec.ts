/** The desired state: read, replaced under the revision it was read at, and never written unchecked (H43). */
import { decodeJson, encodeJson, formatDecodeError } from '../core/decode.ts';
import { type ClusterId, type Revision, makeClusterId } from '../core/ids.ts';
import { refuseParameter } from '../core/managed-parameters.ts';
import { type Result, err, ok } from '../core/result.ts';
import { type ClusterSpec, checkSpec, clusterSpec } from '../core/spec.ts';
import { clusterKeys } from '../store/keys.ts';
import { type ApiFailure, type Problem, makeApiFailure } from '../api/errors.ts';
import type { DiffLine } from '../api/schema.ts';
import { type ApiResult, type Handler, type ServerContext, storeFailure, unknownCluster, viewOf } from './context.ts';
import { diffJson } from './diff.ts';
import { isStale } from './freshness.ts';
import { refusedByPostgres } from './parameters.ts';

/** Decodes and checks. `spec.invalid` with one problem a field; `code` of each is its path. */
export function decodeSpec(input: unknown): Result<ClusterSpec, ApiFailure> {
  const decoded = clusterSpec(input, '');
  if (!decoded.ok) return err(invalidSpec([{ path: decoded.error.path, message: decoded.error.message }]));
  const problems = [...checkSpec(decoded.value)];
  for (const [name, value] of Object.entries(decoded.value.postgres.parameters)) {
    const refused = refuseParameter(name, value);
    if (refused !== null) problems.push({ path: `postgres.parameters.${name}`, message: refused });
  }
  return problems.length === 0 ? decoded : err(invalidSpec(problems));
}

function invalidSpec(problems: readonly { readonly path: string; readonly message: string }[]): ApiFailure {
  const listed: Problem[] = problems.map(({ path, message }) => ({
    code: path === '' ? 'spec' : path,
    text: path === '' ? message : `${path}: ${message}`,
    remedy: 'Correct the value.',
  }));
  return makeApiFailure('spec.invalid', {
    what: 'the specification of the cluster is not valid',
    cause: listed.map((one) => one.text).join('; '),
    remedy: 'Correct it; `pgherd config defaults` prints every setting with its default.',
    problems: listed,
  });
}

export interface StoredSpec {
  readonly spec: ClusterSpec;
  readonly revision: Revision;
}

/** Linearizable. `cluster.not-found`, `spec.invalid` (the stored one is damaged: only `putSpec` can repair it). */
export async function readSpec(context: ServerContext, cluster: ClusterId): Promise<ApiResult<StoredSpec>> {
  const read = await context.store.get(clusterKeys(cluster).spec);
  if (!read.ok) return err(storeFailure(read.error, 'reading the specification'));
  if (read.value === null) return err(unknownCluster(context, cluster));
  const decoded = decodeJson(clusterSpec, read.value.value);
  if (!decoded.ok) return err(invalidSpec([{ path: decoded.error.path, message: `stored value: ${formatDecodeError(decoded.error)}` }]));
  return ok({ spec: decoded.value, revision: read.value.modRevision });
}

/** Writes only if nobody wrote since `revision`. `spec.conflict`. Answers the new revision. */
async function writeSpec(context: ServerContext, cluster: ClusterId, spec: ClusterSpec, revision: Revision): Promise<ApiResult<Revision>> {
  const key = clusterKeys(cluster).spec;
  const written = await context.store.txn([{ target: 'mod', key, op: '=', revision }], [{ kind: 'put', key, value: encodeJson(spec) }]);
  if (!written.ok) return err(storeFailure(written.error, 'writing the specification'));
  return written.value.succeeded ? ok(written.value.revision) : err(conflict(cluster));
}

function conflict(cluster: string): ApiFailure {
  return makeApiFailure('spec.conflict', {
    what: `the specification of "${cluster}" was changed by somebody else meanwhile`,
    remedy: 'Read it again, and apply your change to what it is now.',
  });
}

export const getSpec: Handler<'getSpec'> = async (context, { params }) => {
  const read = await readSpec(context, makeClusterId(params.cluster));
  return read.ok ? ok({ spec: { ...read.value.spec }, revision: read.value.revision }) : read;
};

export const putSpec: Handler<'putSpec'> = async (context, { params, query, body, ifMatch }) => {
  const cluster = makeClusterId(params.cluster);
  if (ifMatch === null) {
    return err(
      makeApiFailure('request.invalid', {
        what: 'the header If-Match is missing',
        remedy: 'Send the revision that GET answered, so that nobody’s change is overwritten unseen.',
      }),
    );
  }
  const decoded = decodeSpec(body);
  if (!decoded.ok) return decoded;
  const wanted = decoded.value;
  const raw = await context.store.get(clusterKeys(cluster).spec);
  if (!raw.ok) return err(storeFailure(raw.error, 'reading the specification'));
  if (raw.value === null) return err(unknownCluster(context, cluster));
  if (raw.value.modRevision !== ifMatch) return err(conflict(cluster));
  const before = decodeJson(clusterSpec, raw.value.value);
  const refused = unchangeable(context, wanted, before.ok ? before.value : null, cluster);
  if (refused !== null) return err(refused);
  const mistaken = await refusedByPostgres(context, cluster, changedParameters(before.ok ? before.value : null, wanted));
  if (mistaken !== null) return err(mistaken);
  const diff: readonly DiffLine[] = diffJson(before.ok ? before.value : raw.value.value, wanted);
  if (query.dryRun || diff.length === 0) return ok({ revision: raw.value.modRevision, dryRun: query.dryRun, diff: [...diff] });
  const written = await writeSpec(context, cluster, wanted, raw.value.modRevision);
  return written.ok ? ok({ revision: written.value, dryRun: false, diff: [...diff] }) : written;
};

/** What stood there before is left alone: another change must not fail because of it. */
function changedParameters(before: ClusterSpec | null, wanted: ClusterSpec): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(wanted.postgres.parameters).filter(([name, value]) => before?.postgres.parameters[name] !== value));
}

/** A spec decides what the cluster shall be; it is no way to rename it, or to drop a node that lives. */
function unchangeable(context: ServerContext, wanted: ClusterSpec, before: ClusterSpec | null, cluster: ClusterId): ApiFailure | null {
  if (wanted.name !== cluster) {
    return makeApiFailure('spec.unchangeable', {
      what: `the cluster is named "${cluster}", not "${wanted.name}"`,
      remedy: 'A cluster keeps its name; create another one under the new name.',
    });
  }
  const moved = wanted.nodes.filter((node) => node.membership !== (before?.nodes.find((one) => one.id === node.id)?.membership ?? 'full'));
  if (moved.length > 0) {
    return makeApiFailure('spec.unchangeable', {
      what: `\`membership\` is not changed by hand: ${moved.map((node) => node.id).join(', ')}`,
      remedy: 'Use `pgherd node add` and `pgherd node remove`; `pgherd task cancel` takes a running one back.',
    });
  }
  const left = (before?.nodes ?? []).filter((node) => !wanted.nodes.some((one) => one.id === node.id));
  const live = left.filter((node) => context.cache.get(clusterKeys(cluster).report(node.id)) !== null);
  if (live.length === 0) return null;
  const names = live.map((node) => node.id).join(', ');
  return makeApiFailure('spec.unchangeable', {
    what: `nodes that are alive cannot be left out: ${names}`,
    remedy: 'Use `pgherd node remove NODE`; if it is the primary, do a switchover before that.',
    problems: live.map((node) => ({ code: 'node.live', text: `the agent of ${node.id} is alive`, remedy: 'Stop it first.' })),
  });
}

export const getSettings: Handler<'getSettings'> = async (context, { params }) => {
  const cluster = makeClusterId(params.cluster);
  const read = await readSpec(context, cluster);
  if (!read.ok) return read;
  const found = await viewOf(context, cluster);
  const pendingRestart: Record<string, string[]> = {};
  for (const [node, seen] of found.ok ? Object.entries(found.value.view.reports) : []) {
    if (seen.report.postgres.pendingRestart.length > 0 && found.ok && !isStale(found.value.view, seen))
      pendingRestart[node] = [...seen.report.postgres.pendingRestart];
  }
  return ok({ revision: read.value.revision, parameters: { ...read.value.spec.postgres.parameters }, pendingRestart });
};

export const postSettings: Handler<'postSettings'> = async (context, { params, query, body }) => {
  const cluster = makeClusterId(params.cluster);
  // Taking one back is always allowed: it can only mend a spec that holds what it should not.
  const refused = Object.entries(body.set).flatMap(([name, value]) => {
    const text = refuseParameter(name, value);
    return text === null ? [] : [{ code: 'settings.managed', text, remedy: 'Leave it out.' }];
  });
  if (refused.length > 0) {
    return err(
      makeApiFailure('settings.managed', {
        what: 'these parameters are not to be set by people',
        cause: `${refused.map((problem) => problem.text).join('; ')}; pgherd relies on their values`,
        remedy: 'Leave them out.',
        problems: refused,
      }),
    );
  }
  const mistaken = await refusedByPostgres(context, cluster, body.set);
  if (mistaken !== null) return err(mistaken);
  // The change names single parameters, so that a lost race is simply done again on the newer spec.
  for (let race = 0; race < 8; race++) {
    const read = await readSpec(context, cluster);
    if (!read.ok) return read;
    const { spec, revision } = read.value;
    const parameters: Record<string, string> = { ...spec.postgres.parameters, ...body.set };
    for (const name of body.unset) delete parameters[name];
    const wanted: ClusterSpec = { ...spec, postgres: { ...spec.postgres, parameters } };
    const diff = [...diffJson(spec.postgres.parameters, parameters)];
    if (query.dryRun || diff.length === 0) return ok({ revision, dryRun: query.dryRun, diff, parameters });
    const written = await writeSpec(context, cluster, wanted, revision);
    if (written.ok) return ok({ revision: written.value, dryRun: false, diff, parameters });
    if (written.error.code !== 'spec.conflict') return written;
  }
  return err(conflict(cluster));
};

export const meta: Handler<'meta'> = async (context, { params }) => {
  const keys = clusterKeys(makeClusterId(params.cluster));
  const listing = await context.store.list(keys.prefix);
  if (!listing.ok) return err(storeFailure(listing.error, 'reading the cluster'));
  const find = (key: string): { value: unknown; revision: Revision } | null => {
    const kv = listing.value.kvs.find((one) => one.key === key);
    return kv === undefined ? null : { value: parseRaw(kv.value), revision: kv.modRevision };
  };
  const spec = find(keys.spec);
  if (spec === null) return err(unknownCluster(context, params.cluster));
  const state = find(keys.state);
  const members: Record<string, unknown> = {};
  const reports: Record<string, unknown> = {};
  for (const kv of listing.value.kvs) {
    if (!kv.key.startsWith(keys.nodes)) continue;
    const [node = '', what = ''] = kv.key.slice(keys.nodes.length).split('/', 2);
    if (what === 'member') members[node] = parseRaw(kv.value);
    if (what === 'report') reports[node] = parseRaw(kv.value);
  }
  return ok({
    spec: spec.value,
    specRevision: spec.revision,
    state: state?.value ?? null,
    stateRevision: state?.revision ?? null,
    members,
    reports,
    writeLease: find(keys.writeLease)?.value ?? null,
  });
};

/** What stands there, also when it is damaged: then as text. */
function parseRaw(value: string): unknown {
  try {
    return JSON.parse(value) as unknown;
  } catch {
    // `meta` shows what is there; the view names it as unreadable.
    return value;
  }
}
