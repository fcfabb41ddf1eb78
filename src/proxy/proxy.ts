/** `pgherd proxy`: client traffic of one cluster, put together. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { createSecureContext } from 'node:tls';
import { monoMs, realClock } from '../base/clock.ts';
import { loadConfig } from '../base/config.ts';
import { type Logger, createLogger } from '../base/log.ts';
import { handleShutdown } from '../base/shutdown.ts';
import { notifySystemd } from '../base/systemd.ts';
import { MIN_TLS_VERSION } from '../base/tls.ts';
import { VERSION } from '../base/version.ts';
import { type NodeId, makeNodeId } from '../core/ids.ts';
import { type ProxyConfig, proxyConfig } from '../core/proxy-config.ts';
import { type Failure, type Result, describeFailure, err, ok } from '../core/result.ts';
import type { Route } from '../core/route/decide.ts';
import type { TrafficWishes } from '../core/traffic.ts';
import { identityOf } from '../store/access.ts';
import { openHostAccess } from '../store/host-access.ts';
import { clusterKeys } from '../store/keys.ts';
import { keepSession } from '../store/session.ts';
import { createAsker } from './agent-asker.ts';
import { openControls } from './control.ts';
import { type Overview, serveAdmin } from './admin.ts';
import { type Doorman, openAdminDoor, openDoorman } from './doorman.ts';
import { watchHealth } from './health.ts';
import type { Io } from './io/door.ts';
import { chooseIo } from './io/self-test.ts';
import type { ByteStream } from './io/stream.ts';
import { watchKnowledge } from './knowledge.ts';
import { type ClientTls, endPointHash } from './login/client-login.ts';
import { type Secrets, openSecrets } from './login/secrets.ts';
import { Port, type PortKind } from './port.ts';
import { openPositions } from './positions.ts';
import { ACK_TTL_MS, STALE_MS, TICK_MS, createRouteFollower } from './route-follower.ts';
import { openRules } from './rules.ts';

/** At the end, statements and transactions that are under way get this long. */
const DRAIN_MS = 3000;
/** PAUSE gives up like a switchover does, so that a long transaction does not stop everybody. */
const PAUSE_LIMIT_MS = 2000;
const PAUSE_LOOK_MS = 10;
const PORTS = ['write', 'read', 'split'] as const satisfies readonly PortKind[];

/** Runs until SIGTERM or SIGINT. Resolves with the exit code: 0 stopped, 1 failed, 2 wrong configuration. */
export async function runProxy(configFile: string): Promise<number> {
  const loaded = loadConfig({ file: configFile, decoder: proxyConfig, env: process.env, envPrefix: 'PGHERD_PROXY_' });
  if (!loaded.ok) {
    process.stderr.write(`pgherd proxy: ${describeFailure(loaded.error)}\n`);
    return 2;
  }
  const config = loaded.value;
  const log = createLogger({ role: 'proxy', level: config.log.level, fields: { cluster: config.cluster, proxy: config.id } });
  log.info({ version: VERSION, config: configFile }, 'proxy starts');
  const started = await startProxy(config, log);
  if (!started.ok) {
    log.error({ code: started.error.code }, describeFailure(started.error));
    log.flush();
    return 1;
  }
  const shutdown = handleShutdown({
    log,
    stop: async () => {
      await notifySystemd('stopping');
      await started.value.stop();
    },
    reload: async () => {
      const again = loadConfig({ file: configFile, decoder: proxyConfig, env: process.env, envPrefix: 'PGHERD_PROXY_' });
      if (!again.ok) throw new Error(describeFailure(again.error));
      log.setLevel(again.value.log.level);
    },
  });
  await notifySystemd('ready');
  return shutdown.done;
}

interface RunningProxy {
  stop(): Promise<void>;
}

interface Material {
  readonly password: string;
  readonly ca: string | null;
  readonly clientTls: ClientTls | null;
}

function readMaterial(config: ProxyConfig): Result<Material, Failure> {
  const { mode, cert, key } = config.clientTls;
  try {
    const pem = mode === 'off' ? '' : readFileSync(cert, 'utf8');
    return ok({
      password: readFileSync(config.secretFile, 'utf8').trim(),
      ca: config.store.ca === null ? null : readFileSync(config.store.ca, 'utf8'),
      clientTls:
        mode === 'off'
          ? null
          : {
              mode,
              context: createSecureContext({ cert: pem, key: readFileSync(key, 'utf8'), minVersion: MIN_TLS_VERSION }),
              endPoint: endPointHash(pem),
            },
    });
  } catch (cause) {
    return err({
      code: 'proxy.files',
      what: 'a file that proxy.yaml names cannot be used',
      cause: cause instanceof Error ? cause.message : String(cause),
      now: 'the proxy does not start',
      remedy: 'join this host: "pgherd token join" on the server’s side, then "pgherd proxy join" here',
      retryable: false,
    });
  }
}

/** Errors: `proxy.files`, `proxy.port`. */
export async function startProxy(config: ProxyConfig, log: Logger): Promise<Result<RunningProxy, Failure>> {
  const material = readMaterial(config);
  if (!material.ok) return material;
  const { password, ca, clientTls } = material.value;
  const { io, why } = await chooseIo();
  log.info({}, why);
  const keys = clusterKeys(config.cluster);
  const files = identityOf(config.store);
  const hostAccess = openHostAccess({
    access: config.store,
    kind: 'proxy',
    name: `${config.cluster}/${config.id}`,
    near: [config.listen.host],
    clock: realClock,
    log,
    onMoved: () => undefined,
  });
  const { store } = hostAccess;
  const controls = openControls({ id: config.id, password, ca, connectMs: config.limits.connectMs });
  const session = keepSession(store, keys.proxyAck(config.id), {
    ttlMs: ACK_TTL_MS,
    onProblem: (error) =>
      error === null
        ? log.info({}, 'the store takes acknowledgements again')
        : log.warn({ error: error.kind }, `the store does not take acknowledgements: ${error.message}`),
  });
  const rules = openRules({ log });
  const positions = openPositions({ controls, route: () => follower.route() });
  const portOf = (kind: PortKind): Port =>
    new Port({
      kind,
      io,
      ca: config.serverTls === 'verify' ? ca : null,
      log: log.child({ port: kind }),
      connectMs: config.limits.connectMs,
      waitMs: config.limits.waitMs,
      rules,
      positions: kind === 'split' ? positions : null,
      onHeld: (epoch) => follower.held(kind, epoch),
      pooling: kind === 'split' ? null : config.pooling,
    });
  const ports = {
    write: config.listen.write === null ? null : portOf('write'),
    read: config.listen.read === null ? null : portOf('read'),
    split: config.listen.split === null ? null : portOf('split'),
  };
  let paused = false;
  const follower = createRouteFollower<PortKind>({
    ports: new Map(PORTS.flatMap((kind): [PortKind, Port][] => (ports[kind] === null ? [] : [[kind, ports[kind]]]))),
    facts: () => ({ ...knowledge.facts(), weights: weightsOf(knowledge.wishes()), down: health.down() }),
    limits: { staleMs: STALE_MS, maxReadLagBytes: config.read.maxLagBytes, primaryReads: config.read.primary },
    paused: () => paused || knowledge.wishes()?.paused === true,
    acknowledge: (epoch, { term }, isHeld) => {
      const stands = isHeld && knowledge.wishes()?.paused === true;
      session.put(JSON.stringify({ version: 1, id: config.id, host: hostname(), epoch, term, paused: stands }));
    },
    onChange: (before, route) => logChange(log, before, route),
    onHeld: ({ epoch, term }) => log.info({ epoch, term }, 'new transactions wait; none is under way'),
  });
  const { apply } = follower;
  const knowledge = watchKnowledge({
    store,
    keys,
    clock: realClock,
    log,
    asker: files === null ? null : createAsker(config.cluster, files),
    onChange: apply,
  });
  const health = watchHealth({ controls, clock: realClock, log, targets: () => knowledge.readers(), onChange: () => apply() });
  const ticker = setInterval(apply, TICK_MS);

  const secrets = openSecrets({ controls, route: follower.route });
  const doormen: Doorman[] = [];
  const closers: (() => void)[] = [];
  const stop = async (): Promise<void> => {
    clearInterval(ticker);
    for (const doorman of doormen) doorman.close();
    for (const close of closers) close();
    await Promise.all(PORTS.map((kind) => ports[kind]?.drain(DRAIN_MS)));
    knowledge.close();
    health.close();
    controls.close();
    await session.close();
    await hostAccess.close();
  };
  for (const kind of PORTS) {
    const port = ports[kind];
    const number = config.listen[kind];
    if (port === null || number === null) continue;
    const opened = await openDoorman({
      port,
      number,
      host: config.listen.host,
      io,
      tls: clientTls,
      secrets,
      rules,
      limits: config.limits,
      ca: config.serverTls === 'verify' ? ca : null,
      log,
      everybody: () => doormen.flatMap((one) => one.sessions()),
    });
    if (!opened.ok) {
      await stop();
      return opened;
    }
    doormen.push(opened.value);
    log.info({ host: config.listen.host, port: number }, `the ${kind} port is open`);
  }
  const overview: Overview = {
    route: follower.route,
    facts: knowledge.facts,
    ports: PORTS.flatMap((kind) => ports[kind] ?? []),
    ...pausing(
      PORTS.flatMap((kind) => ports[kind] ?? []),
      (on) => {
        paused = on;
        apply();
      },
    ),
  };
  const admin = await openAdmin({ config, io, tls: clientTls, secrets, log, overview });
  if (!admin.ok) {
    await stop();
    return admin;
  }
  closers.push(admin.value);
  log.debug({ atMs: monoMs() }, 'started');
  return ok({ stop });
}

/** PAUSE holds every port until RESUME; it gives up when transactions do not end in time. */
function pausing(ports: readonly Port[], setPaused: (on: boolean) => void): Pick<Overview, 'pause' | 'resume'> {
  return {
    resume: () => setPaused(false),
    pause: async () => {
      setPaused(true);
      const endMs = monoMs() + PAUSE_LIMIT_MS;
      while (ports.some((port) => port.busy > 0) && monoMs() < endMs) await realClock.sleep(PAUSE_LOOK_MS);
      const good = ports.every((port) => port.busy === 0);
      if (!good) setPaused(false);
      return good;
    },
  };
}

interface AdminParts {
  readonly config: ProxyConfig;
  readonly io: Io;
  readonly tls: ClientTls | null;
  readonly secrets: Secrets;
  readonly log: Logger;
  readonly overview: Overview;
}

/** How to close it; it is not opened when nobody may use it. Error `proxy.port`. */
async function openAdmin({ config, io, tls, secrets, log, overview }: AdminParts): Promise<Result<() => void, Failure>> {
  const { host, admin: number } = config.listen;
  const users = config.adminUsers;
  if (number === null || users.length === 0) return ok(() => undefined);
  const serve = (stream: ByteStream, user: string): void => serveAdmin(stream, { overview, log, user });
  const opened = await openAdminDoor({ host, number, io, tls, secrets, limits: config.limits, log, users, serve });
  if (!opened.ok) return opened;
  log.info({ host, port: number }, 'the admin port is open');
  return ok(opened.value.close);
}

function weightsOf(wishes: TrafficWishes | null): ReadonlyMap<NodeId, number> {
  return new Map(Object.entries(wishes?.weights ?? {}).map(([node, weight]) => [makeNodeId(node), weight]));
}

function logChange(log: Logger, before: Route, route: Route): void {
  const fields = {
    epoch: route.epoch,
    term: route.term,
    writer: route.writer?.node ?? null,
    readers: route.readers.map((reader) => reader.node),
    hold: route.hold,
  };
  if (route.closed !== null && before.closed !== route.closed) log.warn({ ...fields }, `writes wait: ${route.closed}`);
  else log.info(fields, 'the route changed');
}
