import { Argument, Command } from 'commander';
import { EXIT } from '../exit.ts';
import { type Host, act } from '../session.ts';

const SHELLS = ['bash', 'zsh', 'fish'] as const;

export function completionCommand(host: Host): Command {
  return new Command('completion')
    .description('completion for your shell, for example: source <(pgherd completion bash)')
    .addArgument(new Argument('<shell>', 'shell').choices(SHELLS))
    .action(
      act(host, async (session, self) => {
        // Loaded here: no other verb pays for it.
        const { script } = await import('@bomb.sh/tab');
        const text = printedBy(() => script(self.processedArgs[0] as string, 'pgherd', 'pgherd'));
        // A shell that reads its start files twice would complain about each constant.
        session.io.stdout.write(text.replaceAll(/^readonly (?=ShellCompDirective)/gm, ''));
        return { ok: true, value: EXIT.done };
      }),
    );
}

/** The package prints its script itself, and offers no other way to it. */
function printedBy(run: () => void): string {
  const lines: unknown[] = [];
  const { log } = console;
  console.log = (...words: unknown[]) => void lines.push(words.join(' '));
  try {
    run();
  } finally {
    console.log = log;
  }
  return `${lines.join('\n')}\n`;
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
