/** Checks of this host: everything that would break a failover, seen from here. Nothing is changed. */
import { refusePostgres } from '../../core/postgres-versions.ts';
import { accessSync, constants, existsSync, readFileSync, readdirSync, readlinkSync, statfsSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { formatBytes } from '../output/units.ts';

export interface HostCheck {
  readonly code: string;
  readonly level: 'ok' | 'warn' | 'error';
  readonly text: string;
  /** Empty when there is nothing to do. */
  readonly remedy: string;
}

/** What the checks look at; a test gives its own root. */
export interface HostView {
  /** `/`, or a folder that stands for it. */
  readonly root: string;
  readonly path: string;
  readonly isRoot: boolean;
  /** Ports that pgherd's roles would use here. */
  readonly ports: readonly { readonly port: number; readonly use: string }[];
  /** Where data directories would lie. */
  readonly dataDirectory: string;
  readonly wallYear: number;
}

export const DEFAULT_PORTS = [
  { port: 5432, use: 'PostgreSQL' },
  { port: 8432, use: 'agent' },
] as const;

/** In the order in which they are shown. */
export async function checkHost(view: HostView): Promise<readonly HostCheck[]> {
  return [
    checkPostgres(view),
    checkOsUser(view),
    checkSpace(view),
    checkFirewall(view),
    checkIp(view),
    checkArping(view),
    checkUnit(view),
    checkWatchdog(view),
    checkClock(view),
    checkSynchronisation(view),
    ...(await Promise.all(view.ports.map(checkPort))),
  ];
}

function checkPostgres({ root, path }: HostView): HostCheck {
  const base = join(root, 'usr/lib/postgresql');
  const versions = existsSync(base) ? readdirSync(base).filter((name) => /^\d+$/.test(name) && existsSync(join(base, name, 'bin/postgres'))) : [];
  const installed = versions.map(Number).sort((a, b) => b - a);
  // The agent takes the newest that it supports.
  const newest = installed.find((major) => refusePostgres(major) === null) ?? installed[0];
  if (newest === undefined) {
    return {
      code: 'host.postgres-missing',
      level: 'error',
      text: 'PostgreSQL is not installed (no /usr/lib/postgresql/VERSION/bin/postgres)',
      remedy: 'install the server package, for example: apt-get install postgresql; or set binDirectory in agent.yaml',
    };
  }
  const bin = join(base, String(newest), 'bin');
  const missing = ['initdb', 'pg_ctl', 'pg_controldata', 'pg_basebackup', 'pg_rewind', 'pg_waldump'].filter(
    (tool) => !existsSync(join(bin, tool)) && findProgram(root, path, tool) === null,
  );
  if (missing.length > 0)
    return {
      code: 'host.postgres-tools',
      level: 'error',
      text: `PostgreSQL ${newest} lacks ${missing.join(', ')}`,
      remedy: `install postgresql-${newest} and postgresql-client-${newest}`,
    };
  const refused = refusePostgres(newest);
  if (refused !== null)
    return { code: 'host.postgres-version', level: 'error', text: `PostgreSQL ${newest} is not supported: ${refused.cause}`, remedy: refused.remedy };
  return { code: 'host.postgres', level: 'ok', text: `PostgreSQL ${versions.sort().join(', ')} with its tools`, remedy: '' };
}

function checkOsUser({ root, isRoot }: HostView): HostCheck {
  const users = readText(join(root, 'etc/passwd')) ?? '';
  if (!isRoot)
    return {
      code: 'host.not-root',
      level: 'warn',
      text: 'this is not root: an agent started like this cannot close ports or add addresses, so fencing is weaker',
      remedy: 'run the agent as root; PostgreSQL itself runs as an unprivileged user',
    };
  if (!/^postgres:/m.test(users))
    return {
      code: 'host.os-user',
      level: 'error',
      text: 'there is no OS user "postgres"',
      remedy: 'install the PostgreSQL package, or set osUser in agent.yaml',
    };
  return { code: 'host.os-user', level: 'ok', text: 'OS user "postgres" exists', remedy: '' };
}

/** Below this a base backup of even a small database, or a day's WAL, does not fit. */
const LOW_SPACE_BYTES = 5 * 1024 ** 3;

function checkSpace({ dataDirectory }: HostView): HostCheck {
  let place = dataDirectory;
  while (!existsSync(place) && dirname(place) !== place) place = dirname(place);
  const { bavail, bsize, blocks } = statfsSync(place);
  const free = bavail * bsize;
  const text = `${formatBytes(free)} free of ${formatBytes(blocks * bsize)} where ${dataDirectory} is`;
  return free < LOW_SPACE_BYTES
    ? {
        code: 'host.space',
        level: 'warn',
        text,
        remedy: 'a rebuild keeps the old data directory aside until the new one streams: leave room for two',
      }
    : { code: 'host.space', level: 'ok', text, remedy: '' };
}

function checkFirewall({ root, path, isRoot }: HostView): HostCheck {
  if (findProgram(root, path, 'nft') === null)
    return { code: 'host.nft-missing', level: 'warn', text: 'nft is not installed: a fence cannot close the port', remedy: 'install nftables' };
  return { code: 'host.nft', level: 'ok', text: isRoot ? 'nft is installed' : 'nft is installed, but only root may use it', remedy: '' };
}

function checkIp({ root, path }: HostView): HostCheck {
  return findProgram(root, path, 'ip') === null
    ? {
        code: 'host.ip-missing',
        level: 'warn',
        text: 'ip is not installed: virtual addresses cannot be moved',
        remedy: 'install iproute2 (only for virtual addresses)',
      }
    : { code: 'host.ip', level: 'ok', text: 'ip is installed', remedy: '' };
}

function checkArping({ root, path }: HostView): HostCheck {
  return findProgram(root, path, 'arping') === null
    ? {
        code: 'host.arping-missing',
        level: 'warn',
        text: 'arping of iputils is not installed: a foreign host that takes a virtual address later is not noticed',
        remedy: 'install iputils-arping (only for virtual addresses; taking and announcing them works without it)',
      }
    : { code: 'host.arping', level: 'ok', text: 'arping is installed', remedy: '' };
}

/** A masked unit is a link to /dev/null. Source: systemd.unit(5), systemctl(1) "mask". */
function checkUnit({ root }: HostView): HostCheck {
  const units = ['lib/systemd/system', 'usr/lib/systemd/system'].map((folder) => join(root, folder, 'postgresql.service'));
  if (!units.some((unit) => existsSync(unit)))
    return {
      code: 'host.unit',
      level: 'ok',
      text: "no postgresql.service of the distribution that could start PostgreSQL behind pgherd's back",
      remedy: '',
    };
  const masked = ['etc/systemd/system', 'run/systemd/system'].some((folder) => linkOf(join(root, folder, 'postgresql.service')) === '/dev/null');
  return masked
    ? { code: 'host.unit', level: 'ok', text: "the distribution's postgresql.service is masked", remedy: '' }
    : {
        code: 'host.unit-active',
        level: 'warn',
        text: "the distribution's postgresql.service is not masked: it could start a second PostgreSQL at boot",
        remedy: 'systemctl mask postgresql.service (after its clusters have moved under pgherd)',
      };
}

function checkWatchdog({ root }: HostView): HostCheck {
  const device = join(root, 'dev/watchdog');
  if (!existsSync(device))
    return {
      code: 'host.watchdog-missing',
      level: 'warn',
      text: 'no /dev/watchdog: a frozen kernel cannot be reset by itself (guard and port rules still fence)',
      remedy: 'load a watchdog driver, for example: modprobe softdog',
    };
  try {
    accessSync(device, constants.W_OK);
    return { code: 'host.watchdog', level: 'ok', text: '/dev/watchdog is usable', remedy: '' };
  } catch {
    // Any error means the same for the person: the agent could not open it either.
    return {
      code: 'host.watchdog-denied',
      level: 'warn',
      text: '/dev/watchdog is there, but not writable for this user',
      remedy: 'run the agent as root, or give its user the right to write',
    };
  }
}

function checkClock({ wallYear }: HostView): HostCheck {
  return wallYear < 2025 || wallYear > 2100
    ? {
        code: 'host.clock',
        level: 'error',
        text: `the clock says the year ${wallYear}: certificates will not be accepted`,
        remedy: 'set the clock; run chrony or systemd-timesyncd',
      }
    : { code: 'host.clock', level: 'ok', text: 'the clock is plausible', remedy: '' };
}

/** systemd-timesyncd keeps this file while it is synchronised; chrony and ntpd have a pid file. Leases use monotonic time and do not need it. */
function checkSynchronisation({ root }: HostView): HostCheck {
  const signs = ['run/systemd/timesync/synchronized', 'run/chrony/chronyd.pid', 'run/chronyd.pid', 'run/ntpd.pid', 'var/run/ntpd.pid'];
  return signs.some((sign) => existsSync(join(root, sign)))
    ? { code: 'host.time-sync', level: 'ok', text: 'a time service runs', remedy: '' }
    : {
        code: 'host.time-sync-missing',
        level: 'warn',
        text: 'no time service was found: times in logs of different hosts will not match',
        remedy: 'install chrony (leases and fencing do not depend on it)',
      };
}

/** In use is fine when it is pgherd itself; a person must judge. */
function checkPort({ port, use }: { port: number; use: string }): Promise<HostCheck> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      const inUse = error.code === 'EADDRINUSE';
      resolve({
        code: 'host.port',
        level: 'warn',
        text: `port ${port} (${use}) ${inUse ? 'is in use' : `cannot be opened: ${error.code ?? error.message}`}`,
        remedy: `if that is not pgherd's own ${use}, choose another port or stop the other program: ss -ltnp "sport = :${port}"`,
      });
    });
    server.listen({ host: '0.0.0.0', port, exclusive: true }, () => {
      server.close(() => resolve({ code: 'host.port', level: 'ok', text: `port ${port} (${use}) is free`, remedy: '' }));
    });
  });
}

function findProgram(root: string, path: string, name: string): string | null {
  const folders = [...path.split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'].filter((folder) => folder.startsWith('/'));
  return folders.map((folder) => join(root, folder, name)).find((file) => existsSync(file)) ?? null;
}

function readText(file: string): string | null {
  return existsSync(file) ? readFileSync(file, 'utf8') : null;
}

function linkOf(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'EINVAL' || code === 'ENOTDIR') return null;
    throw error;
  }
}
