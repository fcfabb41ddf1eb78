/** The way from another manager to pgherd, step by step, each with the way back. PostgreSQL is not restarted by it. */
import type { Imported, ImportedNode, Manager } from './imported.ts';

export interface TakeoverStep {
  readonly text: string;
  readonly commands: readonly string[];
  /** What brings things back from here; null: nothing was changed yet. */
  readonly back: string | null;
}

interface OldManager {
  readonly name: string;
  /** So that it does nothing on its own while both are there. */
  readonly pause: readonly string[];
  readonly stop: readonly string[];
  readonly unpause: string;
  readonly start: string;
  /** After the databases were its own again. */
  readonly resume: string;
}

const OLD: Readonly<Record<Manager, (imported: Imported) => OldManager>> = {
  clup: ({ name }) => ({
    name: 'CLup',
    pause: [`clupadm froze -c ${name}`],
    stop: ['clupserver stop'],
    unpause: `clupadm unfroze -c ${name}`,
    start: 'clupserver start',
    resume: `clupserver start; clupadm unfroze -c ${name}; clupadm show -c ${name}`,
  }),
  repmgr: () => ({
    name: 'repmgr',
    pause: ['repmgr -f /etc/repmgr.conf service pause'],
    stop: ['on every host: systemctl disable --now repmgrd        # and whatever restarts it, such as kbha'],
    unpause: 'repmgr -f /etc/repmgr.conf service unpause',
    start: 'systemctl enable --now repmgrd, on every host',
    resume: 'repmgr primary register --force; repmgr standby register --force on each standby; systemctl enable --now repmgrd',
  }),
  patroni: ({ name }) => ({
    name: 'Patroni',
    pause: [`patronictl pause --wait ${name}`],
    stop: ['on every host: systemctl disable --now patroni        # in maintenance mode PostgreSQL goes on'],
    unpause: `patronictl resume --wait ${name}`,
    start: 'systemctl enable --now patroni, on every host',
    resume: `systemctl enable --now patroni on the primary's host, then on the others; patronictl resume --wait ${name}`,
  }),
};

/** In order. Commands hold no secret. */
export function planTakeover(imported: Imported): readonly TakeoverStep[] {
  const old = OLD[imported.manager](imported);
  const { name } = imported;
  return [
    {
      text: 'Read the file, above all what is commented in it, and check it. Take a backup. Every standby must stream.',
      commands: ['pgherd config check cluster.yaml', 'pgherd doctor        # on every database host'],
      back: null,
    },
    {
      text: 'Join every database host. The agents only watch: without a cluster they touch nothing.',
      commands: [
        `pgherd token join -c ${name} > token        # once a host, on the server's side`,
        ...imported.nodes.map((node) => joinCommand(imported, node)),
        'systemctl start pgherd-agent        # on every host',
      ],
      back: 'systemctl disable --now pgherd-agent, on every host',
    },
    {
      text: `Let ${old.name} do nothing on its own, then stop it. PostgreSQL goes on; from here until step 5 nobody fails over.`,
      commands: [...old.pause, ...old.stop],
      back: `${old.start}; ${old.unpause}`,
    },
    {
      text: 'Keep everything else from starting PostgreSQL: a primary that comes up by itself is what two primaries are made of.',
      commands: ['on every host: systemctl disable postgresql        # or the unit that starts it; do not stop it'],
      back: 'enable the unit again',
    },
    {
      text: 'Look at what the adoption would do, then adopt. Nothing is restarted: agents write their settings, roles and slots, and take the write lease.',
      commands: ['pgherd init -f cluster.yaml --dry-run', 'pgherd init -f cluster.yaml', ...addressCommands(imported), 'pgherd show; pgherd doctor'],
      back: `see "The way back after step 5"; it costs an outage of the length of a restart`,
    },
    {
      text: 'Point clients at a proxy, or at all hosts with target_session_attrs=read-write. Move the role once, as the proof.',
      commands: [
        `pgherd token join -c ${name} > token; pgherd proxy join --token-file token --id p1 --listen ADDRESS`,
        'pgherd switchover --dry-run; pgherd switchover',
      ],
      back: 'point clients where they went before; pgherd switchover --to the former primary',
    },
    {
      text: 'The way back after step 5',
      commands: [
        `pgherd cluster stop -c ${name} --yes        # the primary first: every standby has all of its WAL`,
        `on every host: systemctl disable --now pgherd-agent; then pgherd cluster remove -c ${name} --yes`,
        "on every host: take the line include_if_exists = 'pgherd.conf' out of postgresql.conf, and the block between the pgherd markers out of pg_hba.conf and pg_ident.conf",
        'on every host: take restart_after_crash and synchronous_standby_names out of postgresql.auto.conf, on standbys also primary_conninfo and primary_slot_name, unless they are the old ones',
        'on the former primary only: remove standby.signal from the data directory; start it first, then the standbys',
        old.resume,
      ],
      back: null,
    },
  ];
}

/** An address with a prefix is left alone as one that people made: the old manager's must go before ours, which comes back within seconds, can be found. */
function addressCommands({ settings }: Imported): readonly string[] {
  const { write = null, read = null } = settings.vips ?? {};
  return [write, read].flatMap((vip) =>
    vip === null
      ? []
      : [
          `on the host that has ${vip.address} ("ip -br addr"): ip addr del ${shellWord(vip.address)}/PREFIX dev INTERFACE        # it is added anew within 3 s`,
        ],
  );
}

/** A witness keeps no data, and the directory that it names stays empty. */
function joinCommand({ name }: Imported, node: ImportedNode): string {
  const directory = node.kind === 'witness' ? '/var/lib/pgherd/none' : node.dataDirectory === null ? 'DIRECTORY' : shellWord(node.dataDirectory);
  const user = node.osUser === null || node.osUser === 'postgres' ? '' : ` --os-user ${shellWord(node.osUser)}`;
  const place = `--node ${node.id} --host ${shellWord(node.host)} --port ${node.port} --data-directory ${directory}${user}`;
  return `on ${node.host}: pgherd agent join --server https://SERVER:8433 --token-file token --cluster ${name} ${place}`;
}

/** Values are from a file that others wrote, and people copy these lines into a root shell. */
function shellWord(text: string): string {
  return /^[\w./:@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
