/** The controller as a guest of the agent: with a store that outlives the servers, the cluster's own hosts decide when every server is gone. */
import { runController } from '../controller/controller.ts';
import { createFencer } from '../controller/fencing.ts';
import type { Clock } from '../base/clock.ts';
import { collectGarbage } from '../base/collect-garbage.ts';
import type { Logger } from '../base/log.ts';
import { stepBack } from '../base/priority.ts';
import type { AgentConfig } from '../core/agent-config.ts';
import type { NodeId } from '../core/ids.ts';
import type { Store } from '../store/store.ts';

export interface ControllerHostOptions {
  readonly config: Pick<AgentConfig, 'cluster' | 'node' | 'controller' | 'fencing'>;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** As this agent knows it; null also before the cluster was created: who registers it decides until then. */
  readonly primary: () => NodeId | null;
  /** Default: the real one. */
  readonly control?: typeof runController;
}

/**
 * A server is elected before an agent, for it lives when the primary's host does not; a standby's agent before the primary's, which dies with what it is to
 * judge: then the controller's lease would have to run out first (2 s more). Each step is several times the way of an election through the store.
 */
const STANDBY_BACK_MS = 200;
const PRIMARY_BACK_MS = 600;
const STATUS_RETRY_MS = 1000;
/** A controller that finds itself beside the new primary hands over after this: whatever the change still needs is done by then. */
const YIELD_AFTER_MS = 5000;
/** After the controller broke here: another candidate has its turn, and the log is not filled. */
const AFTER_CRASH_MS = 60_000;

/**
 * Campaigns until `stop`, if the configuration wants it here.
 *
 * *Invariant:* a controller that breaks ends nothing but itself. *Because:* `crash` aborts its own signal only. *Broken if:* it ended the process: one state that the
 * rules cannot bear would then take the agent of every node in turn, and their guards would fence a healthy primary.
 */
export function hostController(options: ControllerHostOptions): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const running = run(options, stopping.signal);
  return {
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
}

async function run(options: ControllerHostOptions, signal: AbortSignal): Promise<void> {
  const { config, store, clock, log, primary } = options;
  if (!(await isWanted(options, signal))) return;
  while (!signal.aborted && primary() === null) await clock.sleep(STATUS_RETRY_MS, signal);
  let besideSince: number | null = null;
  const yields = (): boolean => {
    const now = clock.now().mono;
    besideSince = primary() === config.node ? (besideSince ?? now) : null;
    return besideSince !== null && now - besideSince >= YIELD_AFTER_MS;
  };
  while (!signal.aborted) {
    const broken = new AbortController();
    const crash = (error: Error): void => {
      log.error({ error }, `the controller in this agent broke and resigns; the agent goes on, and campaigns again in ${AFTER_CRASH_MS / 1000} s`);
      broken.abort();
    };
    try {
      await (options.control ?? runController)({
        store,
        clock,
        log,
        cluster: config.cluster,
        name: `agent/${config.node}`,
        signal: AbortSignal.any([signal, broken.signal]),
        standBackMs: () => (primary() === config.node ? PRIMARY_BACK_MS : STANDBY_BACK_MS),
        yields,
        fencer: config.fencing === null ? null : createFencer(config.fencing),
        crash,
        onSwitchover: collectGarbage,
        onOpened: stepBack,
      });
    } catch (cause) {
      crash(cause instanceof Error ? cause : new Error(String(cause)));
    }
    if (!signal.aborted) await clock.sleep(AFTER_CRASH_MS, signal);
  }
}

/** False also when the signal aborted before the store said what it is. */
async function isWanted({ config, store, clock, log }: ControllerHostOptions, signal: AbortSignal): Promise<boolean> {
  if (config.controller !== 'auto') return config.controller === 'on';
  while (!signal.aborted) {
    const status = await store.status();
    if (status.ok) return status.value.engine === 'etcd';
    log.debug({ error: status.error.kind }, `the store does not say what it is: ${status.error.message}`);
    await clock.sleep(STATUS_RETRY_MS, signal);
  }
  return false;
}
