import { Argument, Command } from 'commander';
import { EXIT } from '../exit.ts';
import { type Host, act } from '../session.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export function completionCommand(host: Host): Command {
  return new Command('completion')
    .description('completion for your shell, for example: source <(pgherd completion bash)')
    .addArgument(new Argument('<shell>', 'shell').choices(SHELLS))
    .action(
      act(host, async (_session, self) => {
        // Loaded here: no other verb pays for it.
        const { script } = await import('@bomb.sh/tab');
        script(self.processedArgs[0] as string, 'pgherd', 'pgherd');
        return { ok: true, value: EXIT.done };
      }),
    );
}

/** What the shell's script asks at each Tab: `pgherd complete -- WORDS`. Hidden from help. */
export function completeCommand(host: Host, buildAnew: () => Command): Command {
  return new Command('complete')
    .description('answers the completion script')
    .argument('[words...]', 'the words typed so far')
    .action(
      act(host, async (_session, self) => {
        const { default: tab } = await import('@bomb.sh/tab/commander');
        tab(buildAnew(), { completionCommandName: 'completion-of-tab' }).parse([...(self.processedArgs[0] as readonly string[])]);
        return { ok: true, value: EXIT.done };
      }),
    );
}
