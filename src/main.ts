#!/usr/bin/env node
/** argv → role or verb; nothing else. Each role loads only its own code. */
import { keepCodeReady } from './base/ready-code.ts';

const ROLES = {
  server: { config: '/etc/pgherd/server.yaml', does: 'HTTP API, controller and, unless etcd is used, the store' },
  agent: { config: '/etc/pgherd/agent.yaml', does: 'runs on each database host: PostgreSQL operations, write lease, fencing' },
  proxy: { config: '/etc/pgherd/proxy.yaml', does: 'client traffic: writes to the primary, reads to the standbys, through switchover and failover' },
} as const;
type RoleName = keyof typeof ROLES;

/** Exit code of the process; a role resolves when it has stopped. */
async function main(argv: readonly string[]): Promise<number> {
  const [first, second] = argv;
  if (first === 'guard') {
    const { runGuard } = await import('./agent/guard/guard-main.ts');
    return (await runGuard(argv.slice(1))) ?? 0;
  }
  // `agent join` and `proxy join` are a person's commands; `agent` alone is the role.
  const isRole = first === 'server' || ((first === 'agent' || first === 'proxy') && (second === undefined || second.startsWith('-')));
  if (isRole) return runRole(first, argv.slice(1));
  if (first === 'help' && argv.length === 2 && second !== undefined && Object.hasOwn(ROLES, second)) return runRole(second as RoleName, ['--help']);
  const [{ runCli }, { processIo }] = await Promise.all([import('./cli/program.ts'), import('./cli/io.ts')]);
  return runCli(argv, processIo());
}

async function runRole(role: RoleName, args: readonly string[]): Promise<number> {
  const parsed = parseRoleArguments(role, args);
  if (parsed.kind === 'help') {
    process.stdout.write(parsed.text);
    return 0;
  }
  if (parsed.kind === 'wrong') {
    process.stderr.write(parsed.text);
    return 2;
  }
  keepCodeReady();
  switch (role) {
    case 'server': {
      const { runServer } = await import('./server/server.ts');
      return (await runServer(parsed.file)) ?? 0;
    }
    case 'agent': {
      const { runAgent } = await import('./agent/agent.ts');
      return (await runAgent(parsed.file)) ?? 0;
    }
    case 'proxy': {
      const { runProxy } = await import('./proxy/proxy.ts');
      return runProxy(parsed.file);
    }
  }
}

type RoleArguments =
  | { readonly kind: 'run'; readonly file: string }
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'wrong'; readonly text: string };

function parseRoleArguments(role: RoleName, args: readonly string[]): RoleArguments {
  const usage = `Usage: pgherd ${role} [--config FILE]\n\n${ROLES[role].does}.\nRuns in the foreground. FILE is ${ROLES[role].config} unless told.\n`;
  let file: string = ROLES[role].config;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? '';
    if (arg === '--help' || arg === '-h') return { kind: 'help', text: usage };
    const [name, inline] = arg.split(/=(.*)/s, 2);
    const value = inline ?? args[++i];
    if (name !== '--config' || value === undefined || value === '') {
      const what = name === '--config' ? '--config needs a file name' : `unknown argument ${JSON.stringify(arg)}`;
      return { kind: 'wrong', text: `pgherd ${role}: ${what}\n\n${usage}` };
    }
    file = value;
  }
  return { kind: 'run', file };
}

process.exitCode = await main(process.argv.slice(2));
