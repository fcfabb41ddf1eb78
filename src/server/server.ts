/** The role `pgherd server`: store (embedded), controllers, HTTP API. Parts start in the order of their needs, and stop in the other one. */
import { chmod } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type Clock, realClock } from '../base/clock.ts';
import { collectGarbage } from '../base/collect-garbage.ts';
import { loadConfig } from '../base/config.ts';
import { makeDirectory } from '../base/files.ts';
import { type Logger, createLogger } from '../base/log.ts';
import { raisePriority, stepBack } from '../base/priority.ts';
import { type RecentLines, keepRecentLines } from '../base/recent-lines.ts';
import { handleShutdown } from '../base/shutdown.ts';
import { notifySystemd } from '../base/systemd.ts';
import { MIN_TLS_VERSION } from '../base/tls.ts';
import { type Failure, type Result, describeFailure, err, ok } from '../core/result.ts';
import { runControllers } from '../controller/controllers.ts';
import { type Fencer, createFencer } from '../controller/fencing.ts';
import { type EmbeddedStore, startEmbeddedStore } from '../store/embedded/server.ts';
import type { Store } from '../store/store.ts';
import { type App, buildApp } from './app.ts';
import { openAudit } from './audit.ts';
import { type Authority, openAuthority } from './authority.ts';
import { openCache } from './cache.ts';
import { type ServerConfig, serverConfig } from '../core/server-config.ts';
import { formatUrl, reachableHost } from './addresses.ts';
import type { ServerContext } from './context.ts';
import { ensureAdmin } from './first-start.ts';
import { openJoinTokens } from './join.ts';
import { openSecrets } from './secrets.ts';
import { type StorePlace, openStorePlace } from './store-place.ts';
import { startStatusLine } from './status-line.ts';
import { openUsers } from './users.ts';
import { VERSION } from '../base/version.ts';

/** The embedded store answers at once; etcd may have no leader for a moment. The server starts anyhow: `show` then says what is missing. */
const STORE_WAIT_MS = 5000;
/** How often the server looks whether its own certificate nears its end. */
const CERTIFICATE_CHECK_MS = 12 * 3_600_000;

export interface ServerOptions {
  readonly config: ServerConfig;
  readonly log: Logger;
  /** The lines that `log` wrote last, for `pgherd log`. */
  readonly recent?: RecentLines;
  readonly clock?: Clock;
  /** Where the first token is shown; standard output unless told. */
  readonly print?: (text: string) => void;
}

export interface RunningServer {
  /** `https://host:port`, with the port that was really taken. */
  readonly url: string;
  readonly context: ServerContext;
  /** Takes over names and log level of a new configuration, and key material that was replaced on disk. */
  reload(config: ServerConfig): Promise<void>;
  stop(): Promise<void>;
}

/** The role. Resolves with the exit code when it has stopped: 2 for a wrong configuration, 1 when it could not start or stop. */
export async function runServer(file: string): Promise<number> {
  const load = (): Result<ServerConfig, Failure> => loadConfig({ file, decoder: serverConfig, envPrefix: 'PGHERD_SERVER_' });
  const config = load();
  if (!config.ok) {
    process.stderr.write(`${describeFailure(config.error)}\n`);
    return 2;
  }
  const recent = keepRecentLines();
  const log = createLogger({ role: 'server', level: config.value.log.level, recent });
  log.info({ version: VERSION, config: file }, `pgherd server ${VERSION} with ${file}`);
  raisePriority();
  const started = await startServer({ config: config.value, log, recent });
  if (!started.ok) {
    log.error({ code: started.error.code }, describeFailure(started.error));
    log.flush();
    return 1;
  }
  const server = started.value;
  const shutdown = handleShutdown({
    log,
    stop: async (reason) => {
      log.info({ reason }, 'stopping');
      await notifySystemd('stopping');
      await server.stop();
    },
    reload: async () => {
      const changed = load();
      if (!changed.ok) throw new Error(describeFailure(changed.error));
      await server.reload(changed.value);
    },
  });
  await notifySystemd('ready', { status: `listening on ${server.url}` });
  const code = await shutdown.done;
  shutdown.dispose();
  return code;
}

/** Starts everything; a part that fails takes down what was started before it. */
export async function startServer(options: ServerOptions): Promise<Result<RunningServer, Failure>> {
  const undo: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  let started: Result<RunningServer, Failure>;
  try {
    started = await startParts(options, undo, stop);
  } catch (cause) {
    started = err(startFailure('the server cannot start', cause));
  }
  if (!started.ok) await stop();
  return started;
}

async function startParts(options: ServerOptions, undo: (() => Promise<void>)[], stop: () => Promise<void>): Promise<Result<RunningServer, Failure>> {
  const { config, log } = options;
  const clock = options.clock ?? realClock;
  await makeDirectory(config.dataDirectory);
  // Keys, secrets and hashes lie here. A directory that was made by hand is often readable by everybody.
  await chmod(config.dataDirectory, 0o700);
  const authority = await openAuthority(config.dataDirectory, certificateHosts(config));
  if (!authority.ok) return authority;
  const usersFile = join(config.dataDirectory, 'users.json');
  const users = openUsers(usersFile);
  if (!users.ok) return users;
  const joinTokens = openJoinTokens(join(config.dataDirectory, 'join-tokens.json'));
  if (!joinTokens.ok) return joinTokens;
  const admin = await ensureAdmin({
    users: users.value,
    usersFile,
    tokenFile: config.firstTokenFile,
    print: options.print ?? ((text) => process.stdout.write(text)),
  });
  if (!admin.ok) return admin;

  const opened = await openStoreOf(config, authority.value, { clock, log });
  if (!opened.ok) return opened;
  const { place, embedded } = opened.value;
  const { store } = place.movable;
  if (embedded !== null) undo.push(() => embedded.close());
  undo.push(async () => store.close());
  const cache = openCache({ store, clock, log });
  undo.push(() => cache.close());
  if (!(await cache.ready(STORE_WAIT_MS)))
    log.warn({ endpoints: place.present()?.endpoints ?? null }, 'the store does not answer yet; the server starts without it');

  const listening = { url: '', app: null as App | null };
  const controllers = createControllers({
    store,
    clock,
    log,
    wanted: config.controller,
    // Its lock on the embedded store keeps every other server out of this directory.
    home: config.store.engine === 'embedded' ? `${hostname()}:${config.dataDirectory}` : null,
    fencer: config.fencing === null ? null : createFencer(config.fencing),
  });
  const context: ServerContext = {
    config,
    store,
    cache,
    users: users.value,
    authority: authority.value,
    joinTokens: joinTokens.value,
    secrets: await openSecrets(config.dataDirectory),
    audit: openAudit(join(config.dataDirectory, 'audit.log'), log),
    log,
    recentLog: options.recent ?? keepRecentLines(),
    clock,
    version: VERSION,
    place,
    controllers,
    url: () => listening.url,
    reloadTls: () => applyTls(listening.app, authority.value, embedded),
  };
  const app = await buildApp(context);
  listening.app = app;
  undo.push(() => app.close());
  try {
    await app.fastify.listen({ host: config.listen.host, port: config.listen.port });
  } catch (cause) {
    return err(startFailure(`the API cannot listen on ${config.listen.host}:${config.listen.port}`, cause));
  }
  const address = app.fastify.server.address();
  const port = typeof address === 'object' && address !== null ? address.port : config.listen.port;
  listening.url = formatUrl(reachableHost(config.listen.host, config.names), port);
  log.info({ url: listening.url, fingerprint: authority.value.fingerprint, firstStart: admin.value }, `listening on ${listening.url}`);

  startBackground(context, undo);
  return ok({ url: listening.url, context, reload: (changed) => reload(context, changed), stop });
}

/** Controllers, the periodic line, and the look at the own certificate. */
function startBackground(context: ServerContext, undo: (() => Promise<void>)[]): void {
  const line = startStatusLine(context);
  undo.push(() => line.stop());
  const ended = new AbortController();
  const watching = watchCertificate(context, ended.signal);
  context.controllers.start();
  undo.push(async () => {
    ended.abort();
    await Promise.all([watching, context.controllers.stop()]);
  });
}

/** The controllers of all clusters, stopped and started again around a move of the store. */
function createControllers(options: {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  readonly wanted: boolean;
  /** Null: other servers may have controllers from the same place. */
  readonly home: string | null;
  readonly fencer: Fencer | null;
}): ServerContext['controllers'] {
  const { store, clock, log, home, fencer } = options;
  let running: { readonly ended: AbortController; readonly done: Promise<void> } | null = null;
  return {
    start: () => {
      if (running !== null || !options.wanted) return;
      const ended = new AbortController();
      const name = `server/${hostname()}/${process.pid}`;
      const done = runControllers({
        store,
        clock,
        log,
        signal: ended.signal,
        name,
        fencer,
        onSwitchover: collectGarbage,
        onOpened: stepBack,
        ...(home === null ? {} : { home }),
      }).catch((cause: unknown) => {
        // Clusters must not stay without a controller while the API looks healthy: the supervisor starts the role again.
        log.error({ error: cause }, 'the controllers ended');
        log.flush();
        process.exitCode = 1;
        process.kill(process.pid, 'SIGTERM');
      });
      running = { ended, done };
    },
    stop: async () => {
      const former = running;
      running = null;
      former?.ended.abort();
      await former?.done;
    },
  };
}

async function watchCertificate(context: ServerContext, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      if (await context.authority.reload(certificateHosts(context.config))) context.reloadTls();
    } catch (cause) {
      context.log.error({ error: cause }, 'the server’s certificate cannot be looked after');
    }
    await context.clock.sleep(CERTIFICATE_CHECK_MS, signal);
  }
}

async function reload(context: ServerContext, changed: ServerConfig): Promise<void> {
  context.log.setLevel(changed.log.level);
  await context.authority.reload(certificateHosts(changed));
  context.reloadTls();
  const fixed = ['listen', 'dataDirectory', 'store', 'controller', 'statusLineMs'] as const;
  const ignored = fixed.filter((name) => JSON.stringify(changed[name]) !== JSON.stringify(context.config[name]));
  if (ignored.length > 0) context.log.warn({ settings: ignored }, `these settings take effect at the next start: ${ignored.join(', ')}`);
}

/** The API and the embedded store show the new certificate to whoever connects from now on; nobody is disconnected. */
function applyTls(app: App | null, authority: Authority, embedded: EmbeddedStore | null): void {
  const { ca, cert, key } = authority.server();
  const server = app?.fastify.server as { setSecureContext?: (options: object) => void } | undefined;
  server?.setSecureContext?.({ ca, cert: `${cert}${ca}`, key, minVersion: MIN_TLS_VERSION });
  embedded?.reloadTls();
}

/** Names and addresses under which this server may be reached; loopback always, for the tools on its own host. */
function certificateHosts(config: ServerConfig): readonly string[] {
  const listens = [config.listen.host, ...(config.store.engine === 'embedded' ? [config.store.listen.host] : [])];
  const real = listens.filter((host) => host !== '0.0.0.0' && host !== '::' && host !== '');
  return [...new Set(['localhost', '127.0.0.1', '::1', hostname(), ...real, ...config.names])];
}

interface OpenedStore {
  readonly place: StorePlace;
  readonly embedded: EmbeddedStore | null;
}

/** The own store is served also when it was left: hosts that come late learn there where the new one is. */
async function openStoreOf(
  config: ServerConfig,
  authority: Authority,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Promise<Result<OpenedStore, Failure>> {
  const { store } = config;
  const common = { config, authority, clock, log };
  if (store.engine === 'etcd')
    return ok({ place: await openStorePlace({ ...common, embedded: null, own: { here: '', hosts: '', spares: [] } }), embedded: null });
  const started = await startEmbeddedStore({
    file: join(config.dataDirectory, 'store.db'),
    listen: store.listen,
    tls: { ...authority.files, requireClientCert: true },
    clock,
  });
  if (!started.ok) return started;
  const embedded = started.value;
  const host = ['0.0.0.0', '::', ''].includes(store.listen.host) ? '127.0.0.1' : store.listen.host;
  const own = {
    here: formatUrl(host, embedded.port),
    hosts: formatUrl(reachableHost(store.listen.host, config.names), embedded.port),
    spares: store.spares,
  };
  return ok({ place: await openStorePlace({ ...common, embedded, own }), embedded });
}

function startFailure(what: string, cause: unknown): Failure {
  return {
    code: 'server.start',
    what,
    cause: cause instanceof Error ? cause.message : String(cause),
    now: 'The server does not run. Clusters go on, and nothing fails over by this server.',
    remedy: 'Remove the cause (a port in use, a directory without rights), then start again.',
    retryable: true,
  };
}
