/** agent.yaml: what this host's agent is, where its files are, how it reaches the store. */
import { type Decoded, bool, nullable, number, object, oneOf, refine, text, withDefault } from './decode.ts';
import { fencingConfig } from './fencing-config.ts';
import { clusterId, nodeId } from './spec.ts';
import { storeAccess } from './store-access.ts';
import { isInterfaceName } from './vips.ts';

const port = number({ integer: true, min: 1, max: 65535 });

export const agentConfig = object(
  {
    cluster: clusterId,
    node: nodeId,
    /** A witness has no PostgreSQL: it votes and probes. */
    kind: withDefault(oneOf('data', 'witness'), 'data'),
    /** Where clients reach this node. */
    host: text,
    /** Replication, probes and agents; null means `host`. */
    internalHost: withDefault(nullable(text), null),
    port: withDefault(port, 5432),
    dataDirectory: text,
    /** The agent's own files: certificates, cluster secret, promises, guard socket, saved directories, logs. */
    stateDirectory: text,
    /** Null: the newest of /usr/lib/postgresql/<version>/bin. */
    binDirectory: withDefault(nullable(text), null),
    /** Runs PostgreSQL when the agent is root. */
    osUser: withDefault(text, 'postgres'),
    listen: withDefault(object({ host: withDefault(text, '127.0.0.1'), port: withDefault(port, 8432) }, 'strict'), { host: '127.0.0.1', port: 8432 }),
    store: storeAccess,
    /** This agent is a candidate for the controller, so that losing every server loses no failover. `auto`: with etcd, whose state outlives the servers. */
    controller: withDefault(oneOf('auto', 'on', 'off'), 'auto'),
    /** For that controller: the command that turns hosts off; null: there is none. */
    fencing: withDefault(nullable(fencingConfig), null),
    /** `auto`: fail-closed nftables rules when root; `off`: fencing is weaker, and `show` says so. */
    firewall: withDefault(oneOf('auto', 'off'), 'auto'),
    /** Where this host has the virtual addresses, when its interface has another name than on the others; null: `vips` of the spec says it. */
    vipInterface: withDefault(nullable(refine(text, (name) => (isInterfaceName(name) ? name : null), 'the name of a network interface')), null),
    /** False only for tests of single parts: without a guard nothing fences when the agent is frozen. */
    guard: withDefault(bool, true),
    /** `required`: no write lease without the device. `off` is the default, since a wrong device or driver resets hosts. */
    watchdog: withDefault(
      object(
        {
          mode: withDefault(oneOf('off', 'automatic', 'required'), 'off'),
          device: withDefault(text, '/dev/watchdog'),
          /** Until a fence that does not end, or a host that hangs, is reset; less where the write lease is shorter (guard/watchdog.ts). */
          timeoutSeconds: withDefault(number({ integer: true, min: 1, max: 60 }), 5),
        },
        'strict',
      ),
      { mode: 'off' as const, device: '/dev/watchdog', timeoutSeconds: 5 },
    ),
    log: withDefault(object({ level: withDefault(oneOf('debug', 'info', 'warn', 'error'), 'info') }, 'strict'), { level: 'info' as const }),
  },
  'strict',
);
export type AgentConfig = Decoded<typeof agentConfig>;
