import { Command } from 'commander';
import { formatWall } from '../../base/clock.ts';
import { DEFAULT_PORTS, type HostCheck, checkHost } from '../doctor/host.ts';
import { EXIT, type Outcome } from '../exit.ts';
import { oneLine } from '../output/table.ts';
import { count } from '../output/units.ts';
import { hanging } from '../output/width.ts';
import { type Host, type Session, act, printFailure } from '../session.ts';

interface Check extends HostCheck {
  readonly cluster: string | null;
  readonly node: string | null;
}

const MARKS = { ok: ['✓', 'good'], warn: ['!', 'warn'], error: ['✗', 'bad'] } as const;

export function doctorCommand(host: Host): Command {
  return new Command('doctor')
    .description('checks this host and the clusters for everything that would break a failover; changes nothing')
    .option('--local', 'only this host, without a server')
    .option('--remote', 'only what the server sees')
    .option('--data-directory <dir>', 'where data would lie on this host', '/var/lib/pgherd')
    .action(act(host, (session, self) => doctor(session, self.opts<{ local?: boolean; remote?: boolean; dataDirectory: string }>())));
}

/** Exit 0: no error was found (warnings may be); 3: at least one error; 4: the server could not be asked. */
async function doctor(session: Session, flags: { local?: boolean; remote?: boolean; dataDirectory: string }): Promise<Outcome> {
  const local: readonly Check[] =
    flags.remote === true ? [] : (await checkHost(hostView(session, flags.dataDirectory))).map((check) => ({ ...check, cluster: null, node: null }));
  let remote: readonly Check[] = [];
  let unreachable: Outcome | null = null;
  if (flags.local !== true) {
    const api = session.api();
    if (!api.ok) return api;
    const answer = await api.value.call('doctor', {});
    if (answer.ok)
      remote = answer.value.checks.filter(
        (check) => session.flags.cluster === undefined || check.cluster === null || check.cluster === session.flags.cluster,
      );
    else unreachable = answer;
  }
  if (unreachable !== null && local.length === 0) return unreachable;
  const checks = [...local, ...remote];
  const ok = !checks.some((check) => check.level === 'error') && unreachable === null;
  session.show({ ok, local, remote }, () => render(session, { local, remote }));
  // What this host told is worth showing although the server is silent.
  if (unreachable !== null && !unreachable.ok) {
    printFailure(session.io, session.view, unreachable.error);
    return { ok: true, value: unreachable.error.exit };
  }
  return { ok: true, value: ok ? EXIT.done : EXIT.refused };
}

function hostView(session: Session, dataDirectory: string): Parameters<typeof checkHost>[0] {
  return {
    root: '/',
    path: session.io.env['PATH'] ?? '',
    isRoot: process.getuid?.() === 0,
    ports: DEFAULT_PORTS,
    dataDirectory,
    wallYear: Number(formatWall(session.io.clock.now().wall).slice(0, 4)),
  };
}

function render(session: Session, { local, remote }: { local: readonly Check[]; remote: readonly Check[] }): string {
  const { style } = session.view;
  const sections: string[] = [];
  if (local.length > 0) sections.push([style.paint('bold', 'This host'), ...local.flatMap((check) => lines(session, check))].join('\n'));
  if (remote.length > 0) sections.push([style.paint('bold', 'Seen by the server'), ...remote.flatMap((check) => lines(session, check))].join('\n'));
  const all = [...local, ...remote];
  const errors = all.filter((check) => check.level === 'error').length;
  const warnings = all.filter((check) => check.level === 'warn').length;
  const verdict = errors + warnings === 0 ? style.paint('good', 'nothing found') : `${count(errors, 'error')}, ${count(warnings, 'warning')}`;
  return [...sections, verdict].join('\n\n');
}

function lines(session: Session, check: Check): readonly string[] {
  const [mark, tone] = MARKS[check.level];
  const width = Math.min(session.view.width ?? 100, 100);
  const where = [check.cluster, check.node].filter((part) => part !== null).join('/');
  const [first = '', ...more] = hanging(`  ${mark} `, `${where === '' ? '' : `${where}: `}${oneLine(check.text)}`, width);
  return [
    first.replace(mark, session.view.style.paint(tone, mark)),
    ...more,
    ...(check.remedy === '' || check.level === 'ok' ? [] : hanging('    → ', check.remedy, width)),
  ];
}
