/** Destructive verbs ask on a terminal and need --yes elsewhere. */
import { type CliResult, EXIT, cliError, usageError } from './exit.ts';
import type { Session } from './session.ts';
import { hanging } from './output/width.ts';

export interface Question {
  /** What will happen, in words a person can say yes to; one consequence a line. */
  readonly consequences: readonly string[];
  /** What must be typed: the cluster's or node's name, so that a habit of typing "y" is not enough. */
  readonly word: string;
  /** The command that answers it without a terminal, complete. */
  readonly command: string;
  readonly yes: boolean;
}

/** Ok: go on. Not a terminal and no --yes: wrong usage (exit 2) with the exact command. Answered otherwise: refused (exit 3). */
export async function confirm(session: Session, question: Question): Promise<CliResult<null>> {
  if (question.yes) return { ok: true, value: null };
  if (!session.io.stdinIsTTY || !session.io.stderr.isTTY) {
    return usageError('cli.needs-yes', {
      what: 'this needs a confirmation, and there is no terminal to ask on',
      cause: question.consequences.join('; '),
      remedy: `run: ${question.command}`,
    });
  }
  const { errorStyle } = session.view;
  const width = Math.min(session.io.stderr.columns() ?? 80, 100);
  session.io.stderr.write(`${question.consequences.flatMap((line) => hanging('  • ', line, width)).join('\n')}\n`);
  const answer = await session.io.ask(`${errorStyle.paint('bold', `Type "${question.word}" to go on: `)}`);
  if (answer?.trim() === question.word) return { ok: true, value: null };
  return cliError(EXIT.refused, {
    code: 'cli.not-confirmed',
    what: answer === null ? 'not confirmed' : `"${answer.trim()}" is not "${question.word}"`,
    cause: '',
    now: 'nothing was changed',
    remedy: 'run the command again, or answer with --yes',
    retryable: false,
  });
}

/** One argument as a shell takes it; for commands that people copy. */
export function shellQuote(text: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
