import { Command } from 'commander';
import { readDuration } from '../context.ts';
import { EXIT } from '../exit.ts';
import { renderPlan } from '../render/plan.ts';
import { type Host, act } from '../session.ts';
import { LONG_TIMEOUT, type TaskFlags, followTask, taskWords } from '../task.ts';
import { parseSpec, readInput } from '../yaml-file.ts';

export function initCommand(host: Host): Command {
  return new Command('init')
    .description('create a cluster, or adopt running servers without restarting them')
    .requiredOption('-f, --file <file>', 'cluster.yaml; "-" reads standard input')
    .option('--yes', 'accepted as everywhere; nothing is asked, since no data is overwritten')
    .option('--dry-run', 'show what would be done and what would refuse it, change nothing')
    .option('--no-wait', 'return as soon as the task is accepted')
    .option('--timeout <duration>', 'stop waiting after this long; the task goes on (exit 5)', LONG_TIMEOUT)
    .action(
      act(host, async (session, self) => {
        const flags = self.opts<TaskFlags & { file: string }>();
        const timeout = readDuration('--timeout', flags.timeout ?? LONG_TIMEOUT);
        if (!timeout.ok) return timeout;
        const text = readInput(flags.file);
        if (!text.ok) return text;
        const spec = parseSpec(flags.file, text.value);
        if (!spec.ok) return spec;
        const api = session.api();
        if (!api.ok) return api;
        const answer = await api.value.call('createCluster', { query: { dryRun: flags.dryRun === true }, body: spec.value.raw });
        if (!answer.ok) return answer;
        const { task } = answer.value;
        if (task === null) {
          session.show(answer.value, () => renderPlan(answer.value, { style: session.view.style, width: Math.min(session.view.width ?? 100, 100) }));
          return { ok: true, value: answer.value.problems.length > 0 ? EXIT.refused : EXIT.done };
        }
        if (flags.wait === false) {
          session.show(task, () => `task ${task.id} (${taskWords(task)}) accepted; watch it with: pgherd task log ${task.id}`);
          return { ok: true, value: EXIT.done };
        }
        return followTask(session, api.value, { task, timeoutMs: timeout.value });
      }),
    );
}
