/** Looks after the agent's certificate for as long as the agent runs: renews it in time, and says so when that does not work. */
import type { Clock } from '../../base/clock.ts';
import { readTextIfThere } from '../../base/files.ts';
import type { Logger } from '../../base/log.ts';
import { readCertificate } from '../../base/pki.ts';
import type { NodeProblem } from '../../core/report.ts';
import { describeFailure } from '../../core/result.ts';
import { isJoined, renewAgentCertificate } from './renew.ts';

/** A quarter of a year is left when it begins: a look a few times a day is often enough, and an hour after a failure too. */
const LOOK_MS = 6 * 3_600_000;
const RETRY_MS = 3_600_000;
/** From here on a person has to look: renewal has failed for weeks, or nobody renews this certificate. */
const ALARM_DAYS = 30;
const DAY_MS = 86_400_000;

export interface CertificateKeeperOptions {
  readonly stateDirectory: string;
  /** Null without TLS: nothing is looked after. */
  readonly cert: string | null;
  readonly clock: Clock;
  readonly log: Logger;
  /** The files hold a new pair: everything that shows it loads it again. */
  readonly onRenewed: () => Promise<void>;
}

export interface CertificateKeeper {
  /** For the report; empty while there is time. */
  problems(): readonly NodeProblem[];
  /** Ends the looking; the last look is waited for. */
  stop(): Promise<void>;
}

export function keepCertificate(options: CertificateKeeperOptions): CertificateKeeper {
  const { clock, log, cert } = options;
  const ended = new AbortController();
  let problems: readonly NodeProblem[] = [];
  const look = async (path: string): Promise<number> => {
    let waitMs = LOOK_MS;
    if (isJoined(options.stateDirectory, path)) {
      const renewed = await renewAgentCertificate({ stateDirectory: options.stateDirectory, atMs: clock.now().wall });
      if (!renewed.ok) {
        log.warn({ code: renewed.error.code }, describeFailure(renewed.error));
        waitMs = RETRY_MS;
      } else if (renewed.value) {
        await options.onRenewed();
        log.info({ cert: path }, 'the certificate of this agent was renewed and is in use; no connection was cut');
      }
    }
    problems = expiryProblems(path, clock.now().wall);
    return waitMs;
  };
  const run = async (): Promise<void> => {
    if (cert === null) return;
    while (!ended.signal.aborted) {
      let waitMs = RETRY_MS;
      try {
        waitMs = await look(cert);
      } catch (cause) {
        log.error({ error: cause }, 'looking after the certificate of this agent broke; it is tried again in an hour');
      }
      await clock.sleep(waitMs, ended.signal);
    }
  };
  const running = run();
  return {
    problems: () => problems,
    stop: async () => {
      ended.abort();
      await running;
    },
  };
}

function expiryProblems(path: string, atMs: number): readonly NodeProblem[] {
  const facts = readCertificate(readTextIfThere(path) ?? '');
  const days = facts === null ? 0 : Math.floor((facts.notAfterMs - atMs) / DAY_MS);
  if (days >= ALARM_DAYS) return [];
  return [
    {
      code: 'certificate.expires',
      text:
        facts === null
          ? `${path} is no certificate`
          : days < 0
            ? `the certificate ${path} has expired: no new connection to store and members is possible`
            : `the certificate ${path} ends in ${days} days`,
      remedy:
        'See the agent’s log for why it was not renewed; join the host again ("pgherd token join", "pgherd agent join"), then reload the agent.',
    },
  ];
}
